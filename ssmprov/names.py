"""Names of contexts, models and workers, and the references that people type.

A context's name is 1 to 128 characters: letters, digits and `._-`, with `/` between its parts. No part begins with a
dot, so a name cannot contain `..` or name a hidden file. Names that begin with `@` are reserved for ssmprov itself
(`@bridge/6502` is the live context of a port).

    MODEL:NAME       a context of one model; NAME alone is enough if it is unambiguous
    NAME~2           the step two before NAME's head
    #HEX             an object by its content hash, at least 8 digits
    MODEL/0          a worker
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ssmprov.errors import BadRequest

MAX_NAME = 128
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_NAME = re.compile(rf"@?{_PART}(?:/{_PART})*\Z")
_MODEL = re.compile(rf"{_PART}\Z")
_WORKER = re.compile(rf"({_PART})/(0|[1-9][0-9]{{0,3}})\Z")
_OBJECT = re.compile(r"#([0-9a-f]{8,64})\Z")
_STEPS_BACK = re.compile(r"(.+)~([0-9]{1,6})\Z")

SPECIALISTS = "specialists"
"""The folder of specialists in the working directory, and the first part of the names of their runs' contexts."""

RULE = "use 1 to 128 letters (A-Z, a-z), digits, '.', '_' or '-', with '/' between parts; no part may begin with a dot"


def check_name(name: str, *, reserved: bool = False, of: str = "a context") -> str:
    """The name itself. Raises BadRequest if it is invalid, or if it is reserved and `reserved` is false.

    `of` is what it names, for the message.
    """
    if len(name) > MAX_NAME or not _NAME.match(name):
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise BadRequest(f"{shown!r} is not a valid name for {of}: {RULE}")
    if name.startswith("@") and not reserved:
        raise BadRequest(f"{name!r} is reserved: names that begin with '@' belong to ssmprov itself")
    return name


def specialist_of(name: str) -> str:
    """The specialist whose run made the context with this name, or '' for any other name."""
    first, _, rest = name.partition("/")
    specialist, _, run = rest.partition("/")
    return specialist if first == SPECIALISTS and run else ""


def check_model(name: str) -> str:
    """The model's name itself. Raises BadRequest if it is invalid."""
    if len(name) > 64 or not _MODEL.match(name):
        raise BadRequest(
            f"{name[:60]!r} is not a valid name for a model: use 1 to 64 letters, digits, '.', '_' or '-', and do not "
            "begin with a dot"
        )
    return name


@dataclass(frozen=True, slots=True)
class Ref:
    """One checkpoint: the head of `name`, the step `back` steps before it, or the object `object`."""

    name: str = ""
    back: int = 0
    object: str = ""

    def __str__(self) -> str:
        if self.object:
            return "#" + self.object
        return f"{self.name}~{self.back}" if self.back else self.name


@lru_cache(maxsize=4096)
def parse_ref(text: str) -> Ref:
    """The checkpoint that `NAME`, `NAME~2` or `#HEX` names. Raises BadRequest for anything else."""
    if found := _OBJECT.match(text):
        return Ref(object=found[1])
    if found := _STEPS_BACK.match(text):
        return Ref(name=check_name(found[1], reserved=True), back=int(found[2]))
    return Ref(name=check_name(text, reserved=True))


def split_model(text: str) -> tuple[str, str]:
    """Split `MODEL:REF` into (model, ref). Without a `MODEL:`, the model is ''."""
    model, colon, rest = text.partition(":")
    if not colon:
        return "", text
    return check_model(model), rest


def worker_name(model: str, index: int) -> str:
    return f"{model}/{index}"


def parse_worker(text: str, model: str = "") -> tuple[str, int]:
    """Split `MODEL/1` into (model, index). `1` and `w1` work if `model` is given. Raises BadRequest."""
    if found := _WORKER.match(text):
        return found[1], int(found[2])
    bare = text.removeprefix("w")
    if model and bare.isascii() and bare.isdigit() and len(bare) <= 4:
        return model, int(bare)
    raise BadRequest(f"{text[:60]!r} is not a worker: write MODEL/0, or just 0 if the model is clear")
