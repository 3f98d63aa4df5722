"""Every message in other words, so that a test fails if any code of ours decides by what a message says.

`pytest --reword SEED` runs tests so. In every process it starts, and in its own, the messages of errors, the reasons of
BYE and the log lines of services are written in another alphabet: their letters, digits and punctuation are shuffled,
by the seed. Codes and details stay. Between two marks the original can be told again (`original`), which only tests do.

A process is reworded by its environment alone: PYTHONPATH leads to `sitecustomize.py` beside this file, and `SEED` has
the seed. The product has no part in it.
"""

from __future__ import annotations

import os
import random
import re
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = "REWORDED"
HERE = str(Path(__file__).parent)
OPEN, CLOSE = "⸨", "⸩"
SERVICES = {"broker", "workers", "bridge_tcp"}

_PART = re.compile(f"({OPEN}[^{OPEN}{CLOSE}]*{CLOSE}?|\n)")


def alphabet(seed: str) -> dict[int, int]:
    """Every letter, digit and punctuation mark to another one of its kind."""
    table: dict[int, int] = {}
    for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits, ".,:;?!'\"`()[]"):
        shuffled = random.Random(seed).sample(kind, len(kind))
        table |= dict(zip(map(ord, shuffled), map(ord, shuffled[1:] + shuffled[:1]), strict=True))
    return table


TABLE = alphabet(os.environ.get(SEED, ""))
BACK = {new: old for old, new in TABLE.items()}


def reword(text: str) -> str:
    """The text in other words, but for line ends and parts that are reworded already."""
    parts = _PART.split(text)
    parts[::2] = [f"{OPEN}{part.translate(TABLE)}{CLOSE}" if part.strip() else part for part in parts[::2]]
    return "".join(parts)


def original(text: str) -> str:
    """What a text was before it was reworded."""

    def back(found: re.Match[str]) -> str:
        part = found[0]
        return part if part == "\n" else part.strip(OPEN + CLOSE).translate(BACK)

    return _PART.sub(back, text)


def environment(given: dict[str, str]) -> dict[str, str]:
    """The environment of a process that is to be reworded."""
    others = [part for part in given.get("PYTHONPATH", "").split(os.pathsep) if part not in ("", HERE)]
    return given | {SEED: os.environ.get(SEED, ""), "PYTHONPATH": os.pathsep.join([HERE, *others])}


def install() -> None:
    """Reword this process and those that it starts."""
    from ssmprov import errors, wire

    make, encode, start = errors.SsmprovError.__init__, wire.encode, subprocess.Popen.__init__

    def made(self: errors.SsmprovError, message: str, **rest: Any) -> None:
        make(self, reword(message), **rest)

    def encoded(message: wire.Message, payloads: wire.Payloads = ()) -> list[bytes]:
        if isinstance(message, wire.Bye):
            message.reason = reword(message.reason)
        if isinstance(message, (wire.Bye, wire.Final)) and message.error is not None:
            message.error.message = reword(message.error.message)
        return encode(message, payloads)

    def started(self: Any, *args: Any, env: Any = None, **rest: Any) -> None:  # whatever was taken out of it
        start(self, *args, env=environment(dict(os.environ if env is None else env)), **rest)

    errors.SsmprovError.__init__ = made  # type: ignore[method-assign]
    wire.encode = encoded
    subprocess.Popen.__init__ = started  # type: ignore[method-assign]
    if SERVICES & set(sys.orig_argv):
        write: Callable[[str], int] = sys.stderr.write
        sys.stderr.write = lambda text: write(reword(text))  # type: ignore[method-assign]


def install_for_tests(seed: int) -> None:
    """Reword this process too, but let what tests read of errors and of processes be the original."""
    from ssmprov import errors

    os.environ[SEED] = str(seed)
    TABLE.update(alphabet(str(seed)))
    BACK.update({new: old for old, new in TABLE.items()})
    install()
    run = subprocess.run

    def ran(*args: Any, **options: Any) -> Any:
        done = run(*args, **options)
        for name in ("stdout", "stderr"):
            if isinstance(text := getattr(done, name), str):
                setattr(done, name, original(text))
        return done

    errors.SsmprovError.__str__ = lambda error: original(error.message)  # type: ignore[method-assign]
    subprocess.run = ran
