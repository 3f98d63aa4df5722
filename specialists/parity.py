"""The parity gate: before a long run with gradients, checks that training, serving and checkpoints agree.

P1  the model step by step against its scan               P5  the fp32 reference against the runtime
P2  saved, restored and continued, against uninterrupted  P6  the gradient against finite differences
P3  the same answer at temperature 0                      P7  overfits a few rows
P4  forks do not affect each other

`parity.json` in the specialist's folder has the last result. If the gate passed and nothing has changed since then, it
does not run again.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

import models
import ssmprov
import training
from clients.blocking import Client
from specialists.evaluate import Asking
from specialists.ledger import now
from specialists.samples import Asked
from ssmprov import durable
from ssmprov.errors import NotFound, Refused
from training import parity
from training.policy import Policy

SCHEMA = "ssmprov.parity.v1"
FILE = "parity.json"
TOKENS = 32
"""How many tokens of each answer are compared."""

PROMPTS = ("one two three four five", "How are you today?", "[circle][palette:cool]")
MARGINS = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.3, "int8": 1.5}
"""How close two logits of the reference must be, if a runtime of that dtype chooses the other token.

In fp32 only the order of sums differs. The others also round: fp16 to 11 bits and bf16 to 8 bits in each product, and
int8 to its grid.
"""

CANDIDATES = 512
"""How many tokens to search for a second one that spells text."""

TTL_S = 120.0


class Check(msgspec.Struct, frozen=True):
    """One check of the gate."""

    id: str
    status: str
    seconds: float
    metrics: dict[str, float]


class Report(msgspec.Struct, frozen=True):
    """The result of the whole gate. `fingerprint` covers everything that it depends on."""

    fingerprint: str
    at: str
    checks: list[Check]
    schema: str = SCHEMA

    @property
    def passed(self) -> bool:
        return all(check.status == "PASS" for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the gate compares: the policy at the start of a run, and the served context with the same start ('' is the
    empty one)."""

    policy: Policy
    client: Client
    model: str
    reference: str
    asked: Asked
    scratch: str
    """A name for temporary contexts."""

    def fingerprint(self, what: str) -> str:
        """Covers the model and its dtype, the start, the packages and code that compute, and `what` is trained."""
        card = next(card for card in self.client.models() if card.name == self.model)
        told = [what, card.fingerprint, card.dtype, self.reference, torch.__version__, ssmprov.__version__]
        return hashlib.sha256("\n".join([*told, _sources()]).encode()).hexdigest()


def gate(folder: Path, subject: Subject, what: str, said: Callable[[str], None]) -> Report:
    """Run all seven checks, unless they passed before with the same fingerprint. Raises Refused if one fails."""
    fingerprint = subject.fingerprint(what)
    former = read_report(folder)
    if former is not None and former.fingerprint == fingerprint and former.passed:
        said("parity: passed before, and nothing has changed since then")
        return former
    checks = []
    for name, check in _CHECKS.items():
        began = time.monotonic()
        passed, metrics = check(subject)
        checks.append(Check(name, "PASS" if passed else "FAIL", round(time.monotonic() - began, 3), metrics))
        said(f"parity {name} {checks[-1].status}")
    report = Report(fingerprint, now(), checks)
    durable.replace(folder / FILE, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if not report.passed:
        failed = ", ".join(f"{check.id} {check.metrics}" for check in checks if check.status == "FAIL")
        raise Refused(
            f"the parity gate failed, so nothing was trained: {failed}; see {folder / FILE} "
            "(--skip-parity trains anyway and notes that in the ledger)"
        )
    return report


def read_report(folder: Path) -> Report | None:
    """The last report; None if there is none, or if it cannot be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Report)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


Metrics = tuple[bool, dict[str, float]]


def _p1(subject: Subject) -> Metrics:
    return _told(parity.scan_and_steps(subject.policy))


def _p2(subject: Subject) -> Metrics:
    """Reads half of a text, saves it under a name and continues there. The answer must equal that to the whole text."""
    whole = subject.asked.question(PROMPTS[0])
    first, second = whole[: len(whole) // 2], whole[len(whole) // 2 :]
    uninterrupted = _answer(subject, subject.reference, whole)
    with _Scratch(subject) as scratch:
        kept = scratch.read(first)
        resumed = _answer(subject, kept, second)
    return uninterrupted == resumed, {"characters": float(len(uninterrupted)), "equal": _same(uninterrupted, resumed)}


def _p3(subject: Subject) -> Metrics:
    """The seeds differ, because at temperature 0 nothing is random."""
    question = subject.asked.question(PROMPTS[1])
    answers = [_answer(subject, subject.reference, question, seed) for seed in (1, 1, 2)]
    return len(set(answers)) == 1, {"answers": float(len(set(answers)))}


def _p4(subject: Subject) -> Metrics:
    """What one fork reads must not affect the other fork, nor the context that both come from."""
    question = subject.asked.question(PROMPTS[1])
    with _Scratch(subject) as scratch:
        source = scratch.read(subject.asked.question(PROMPTS[0]))
        before = _answer(subject, source, question)
        sister = scratch.fork(source)
        scratch.read("a fork of its own reads on", sister)
        after = _answer(subject, source, question)
    return before == after, {"equal": _same(before, after)}


def _p5(subject: Subject) -> Metrics:
    """Compares token by token at temperature 0. Where they differ, both tokens must have almost the same logit."""
    card = next(card for card in subject.client.models() if card.name == subject.model)
    tolerance = max((margin for dtype, margin in MARGINS.items() if dtype in card.dtype), default=MARGINS["fp32"])
    nearest, equal = 0.0, 0
    for prompt in PROMPTS:
        question = subject.asked.question(prompt)
        served = _answer(subject, subject.reference, question)
        spelt = ""
        for text, margin in _greedy(subject.policy, question):
            spelt += text
            if not served.startswith(spelt[: len(served)]):
                nearest = max(nearest, margin)
                break
        else:
            equal += 1
    return nearest <= tolerance, {"equal": float(equal), "margin": nearest, "tolerance": tolerance}


@torch.no_grad()
def _greedy(policy: Policy, question: str) -> Iterator[tuple[str, float]]:
    """What the most likely tokens after a text spell, and the lead of each over the next most likely one (in logits).

    As in a worker, it skips a token whose bytes do not make valid text, or contain a NUL.
    """
    tokenizer, decoder = policy.base.tokenizer, codecs.getincrementaldecoder("utf-8")("strict")
    read, state = torch.tensor([tokenizer.encode(question)]), policy.begin(1)
    for _ in range(TOKENS):
        logits, state = policy.read(read, None, state)
        row = logits[0, : tokenizer.size].float()
        before, fitting = decoder.getstate(), list[tuple[int, str, Any]]()
        for rank, token in enumerate(row.argsort(descending=True).tolist()):
            if fitting and rank >= CANDIDATES:
                break
            decoder.setstate(before)
            with contextlib.suppress(UnicodeDecodeError):
                text = decoder.decode(tokenizer.piece(token), final=token == tokenizer.end)
                if "\0" not in text and _can_end(decoder.getstate()[0]):
                    fitting.append((token, text, decoder.getstate()))
            if len(fitting) == 2:
                break
        first, text, after = fitting[0]
        decoder.setstate(after)
        yield text, float(row[first] - row[fitting[1][0]]) if len(fitting) > 1 else math.inf
        if first == tokenizer.end:
            return
        read = torch.tensor([[first]])


def _can_end(opened: bytes) -> bool:
    """Whether more bytes can complete an open character. Surrogates show only in the third byte."""
    for filler in (b"", *(byte * count for byte in (b"\x80", b"\xbf") for count in (1, 2, 3))):
        with contextlib.suppress(UnicodeDecodeError):
            (opened + filler).decode()
            return True
    return False


def _p6(subject: Subject) -> Metrics:
    return _told(parity.gradient(subject.policy))


def _p7(subject: Subject) -> Metrics:
    return _told(parity.overfit(subject.policy))


_CHECKS: dict[str, Callable[[Subject], Metrics]] = {
    "P1": _p1, "P2": _p2, "P3": _p3, "P4": _p4, "P5": _p5, "P6": _p6, "P7": _p7,
}  # fmt: skip


def _told(check: parity.Check) -> Metrics:
    return check.passed, {name: float(f"{value:.4g}") for name, value in check.metrics.items()}


def _answer(subject: Subject, reference: str, text: str, seed: int = 1) -> str:
    reply = subject.client.turn(
        text,
        model=subject.model,
        context=reference,
        values=Asking(TOKENS).values,
        seed=seed,
        max_tokens=TOKENS,
        ttl_s=TTL_S,
    )
    return reply.text


def _same(a: str, b: str) -> float:
    return float(a == b)


class _Scratch:
    """Temporary names, which are always removed at the end."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._names: list[str] = []

    def __enter__(self) -> _Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            try:
                self._subject.client.rm([name], model=self._subject.model)
            except NotFound:
                continue

    def read(self, text: str, name: str = "") -> str:
        """Read a text after the start, or after the context with this name. Returns the resulting object."""
        subject = self._subject
        begin = name or subject.reference
        name = name or self._new()
        reply = subject.client.turn(
            text, model=subject.model, context=begin, save=name, create=not begin, max_tokens=0, ttl_s=TTL_S
        )
        return f"#{reply.result.object}"

    def fork(self, reference: str) -> str:
        name = self._new()
        self._subject.client.fork(reference, [name], model=self._subject.model)
        return name

    def _new(self) -> str:
        self._names.append(f"{self._subject.scratch}/{len(self._names)}")
        return self._names[-1]


def _sources() -> str:
    """A digest of the code that computes."""
    digest = hashlib.sha256()
    for package in (models, training):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
