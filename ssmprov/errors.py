"""The error tree. Every error has a stable code, says whether a retry may help, and tells what to do.

    SsmprovError                 internal      exit 1
    ├── Busy                     busy          a queue is full; retry after the hint
    ├── NotFound                 not_found     exit 4: no such context, model, worker, set
    ├── Conflict                 conflict      exit 5: the name moved, or is taken
    ├── WrongModel               wrong_model   the checkpoint was made by another model
    ├── Corrupt                  corrupt       an object or catalogue does not hash to its name
    ├── BadRequest               bad_request   the request cannot be right; nothing was changed
    │   └── Unsupported          unsupported   this runtime or version cannot do it
    ├── WorkerLost               worker_lost   the worker died in mid-turn
    ├── TimedOut                 timeout       the request's time to live ran out
    ├── Cancelled                cancelled     exit 130: cancelled by its client
    ├── Unavailable              unavailable   no worker serves it now
    │   └── Unreachable          unreachable   exit 3: no broker answers
    ├── NoSpace                  no_space      the disk is full
    └── Refused                  refused       a stale epoch, a second worker of one name, a missing right

`Problem` is an error on the wire; `problem_of` and `error_of` translate.
"""

from __future__ import annotations

import difflib
import traceback as tb
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec


class Problem(msgspec.Struct, omit_defaults=True):
    """An error as it travels: its code, its sentence, details for programs, and where it happened."""

    code: str
    message: str
    retry_ms: int = 0
    details: dict[str, Any] = {}
    worker: str = ""
    traceback: str = ""


class SsmprovError(Exception):
    """Base of the tree: something of ours went wrong that no narrower class names."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_ms: int = 0, worker: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.retry_ms = retry_ms
        self.worker = worker
        self.details = details
        self.remote_traceback = ""

    def __str__(self) -> str:
        return self.message


class Busy(SsmprovError):
    """A queue is full."""

    code = "busy"
    retry = True


class NotFound(SsmprovError):
    """No such context, model, worker or sampling set."""

    code = "not_found"
    exit_code = 4


class Conflict(SsmprovError):
    """A compare-and-swap found another head, or a name is taken."""

    code = "conflict"
    exit_code = 5


class WrongModel(SsmprovError):
    """A checkpoint of another model."""

    code = "wrong_model"


class Corrupt(SsmprovError):
    """Bytes that do not hash to their name, or a file cut short."""

    code = "corrupt"


class BadRequest(SsmprovError):
    """A request that cannot be right."""

    code = "bad_request"


class Unsupported(BadRequest):
    """A request that this runtime, version or build cannot serve."""

    code = "unsupported"


class WorkerLost(SsmprovError):
    """The worker died in mid-turn; `details` tell the last seq and the last committed checkpoint."""

    code = "worker_lost"
    retry = True


class TimedOut(SsmprovError):
    """The request's time to live ran out."""

    code = "timeout"
    retry = True


class Cancelled(SsmprovError):
    """Cancelled by its client; the old context stands."""

    code = "cancelled"
    exit_code = 130


class Unavailable(SsmprovError):
    """Nobody serves this at the moment."""

    code = "unavailable"
    retry = True


class Unreachable(Unavailable):
    """No broker answers."""

    code = "unreachable"
    exit_code = 3


class NoSpace(SsmprovError):
    """The disk is full; the old checkpoint stands."""

    code = "no_space"
    retry = True


class Refused(SsmprovError):
    """A stale epoch, a second worker under one name, a store that is not the model's, a missing right."""

    code = "refused"


def _tree(root: type[SsmprovError]) -> Iterable[type[SsmprovError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


BY_CODE: dict[str, type[SsmprovError]] = {cls.code: cls for cls in _tree(SsmprovError)}


MAX_MESSAGE = 4000
"""Characters of an error's sentence on the wire, which has to fit into a header."""


def problem_of(error: BaseException, *, worker: str = "") -> Problem:
    """The wire form of an error; of one outside the tree, `internal` with its traceback."""
    if isinstance(error, SsmprovError):
        return Problem(
            code=error.code,
            message=error.message[:MAX_MESSAGE],
            retry_ms=error.retry_ms,
            details=error.details,
            worker=error.worker or worker,
            traceback=error.remote_traceback,
        )
    if isinstance(error, OSError) and error.errno in (27, 28, 122):  # EFBIG, ENOSPC, EDQUOT
        where = f" while writing {error.filename}" if error.filename else ""
        details = {"file": str(error.filename)} if error.filename else {}
        message = f"the disk is full{where}: free some space and try again"
        return Problem("no_space", message, details=details, worker=worker)
    text = "".join(tb.format_exception(error))[-8192:]
    message = f"{type(error).__name__}: {error}. This is a fault of ssmprov; the log has its traceback."
    return Problem("internal", message[:2000], worker=worker, traceback=text)


def error_of(problem: Problem) -> SsmprovError:
    """The exception of a wire error; of an unknown code, the base class with the code in its details."""
    cls = BY_CODE.get(problem.code, SsmprovError)
    error = cls(problem.message, retry_ms=problem.retry_ms, worker=problem.worker)
    error.details = dict(problem.details)
    if problem.code not in BY_CODE:
        error.details["code"] = problem.code
    error.remote_traceback = problem.traceback
    return error


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of the known words, else a list of a few of them, else ''."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    if not choices:
        return ""
    shown = ", ".join(choices[:8]) + (", ..." if len(choices) > 8 else "")
    return f"; there is {shown}"
