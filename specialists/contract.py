"""Eval contracts: the probes that test a track, the scorer, and what each probe expects. A contract is a TOML file.

schema = "ssmprov.eval_contract.v1"
track = "svg"
scorer = "xml"

[[probe]]
id = "cool-circle"
type = "in"                      # in: like the training rows; ood: not like them; risk: see `specialists.risks`
prompt = "[circle][palette:cool]"
contains = ["circle"]            # and: forbids, starts, exactly, matches
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from specialists.grammars import grammar_of, tags_of
from specialists.scorers import Expected, scorer_of
from ssmprov import encoding
from ssmprov.errors import BadRequest

SCHEMA = "ssmprov.eval_contract.v1"
MAX_BYTES = 4 << 20
LEAST_SAMPLES = 3

MAX_TEXT = 16_384
"""The largest number of characters in a prompt, or in an expectation."""

Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
Texts = Annotated[tuple[Text, ...], Meta(max_length=64)]


class ProbeTable(msgspec.Struct, forbid_unknown_fields=True, rename={"kind": "type"}, kw_only=True):
    """One prompt, and what its answer should contain."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    prompt: Text
    kind: Literal["in", "ood"] = "in"
    about: str = ""
    starts: str = ""
    contains: Texts = ()
    forbids: Texts = ()
    exactly: Text | None = None
    matches: str = ""

    def expecting(self, starts: str = "") -> Expected:
        """What the scorer should look for. `starts` is the contract's default for probes that do not set it."""
        tags, _ = tags_of(self.prompt)
        return Expected(
            tags=tags,
            starts=self.starts or starts,
            contains=self.contains,
            forbids=self.forbids,
            exactly=self.exactly,
            matches=self.matches,
        )


class Contract(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A whole contract. Each probe is sampled `samples` times. At temperature 0, all samples should be equal."""

    track: str
    scorer: str
    probe: Annotated[tuple[ProbeTable, ...], Meta(min_length=1, max_length=10_000)]
    schema: str = SCHEMA
    samples: Annotated[int, Meta(ge=LEAST_SAMPLES, le=100)] = LEAST_SAMPLES
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    starts: str = ""
    max_tokens: Annotated[int, Meta(ge=1, le=65_536)] | None = None


def read_contract(path: Path) -> tuple[Contract, str]:
    """A contract, and the sha256 of its file. Raises BadRequest, which names the wrong key."""
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise BadRequest(f"{path} has {len(data)} bytes; a contract may have at most {MAX_BYTES}")
    try:
        content = tomllib.loads(encoding.text_of(data, str(path)))
        contract = msgspec.convert(content, Contract)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadRequest(f"{path} is not valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise BadRequest(f"{path}: {error}") from None
    if contract.schema != SCHEMA:
        raise BadRequest(f"{path}: its schema is {contract.schema!r}, but this version reads {SCHEMA!r}")
    try:
        grammar_of(contract.track)
        scorer_of(contract.scorer)
    except BadRequest as error:
        raise BadRequest(f"{path}: {error}") from None
    seen = set[str]()
    for probe in contract.probe:
        if probe.id in seen:
            raise BadRequest(f"{path}: two probes have the id {probe.id!r}: rename one")
        seen.add(probe.id)
        try:
            re.compile(probe.matches)
        except re.error as error:
            raise BadRequest(f"{path}: `matches` of {probe.id!r} is not a valid regular expression: {error}") from None
    return contract, hashlib.sha256(data).hexdigest()


def contract_of(track: str, asked: Sequence[tuple[str, str]]) -> str:
    """A contract, as TOML to edit, for prompts with known answers: it expects exactly these answers."""
    lines = [f'schema = "{SCHEMA}"', f'track = "{track}"', 'scorer = "text_rules"']
    for number, (prompt, answer) in enumerate(asked, 1):
        told = f"prompt = {_quoted(prompt)}", f"exactly = {_quoted(answer)}"
        lines += ["", "[[probe]]", f'id = "row-{number}"', *told]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text as a basic TOML string, which has the same escapes as JSON, except for U+007F."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
