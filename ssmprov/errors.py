"""The error tree. Every error has a stable code, says whether a retry may help, and tells the reader what to do.

    SsmprovError                 internal      exit 1
    ├── Busy                     busy          a queue is full; retry after the hint
    ├── NotFound                 not_found     exit 4: no such context, model, worker, set
    ├── Conflict                 conflict      exit 5: the name moved, or is taken
    ├── WrongModel               wrong_model   the checkpoint was made by another model
    ├── Corrupt                  corrupt       an object or catalogue does not hash to its name
    ├── BadRequest               bad_request   the request is not valid; nothing was changed
    │   └── Unsupported          unsupported   this runtime or version cannot do it
    ├── WorkerLost               worker_lost   the worker died during the turn
    ├── TimedOut                 timeout       the request's time to live ran out
    ├── Cancelled                cancelled     exit 130: cancelled by its client
    ├── Unavailable              unavailable   no worker serves it now
    │   └── Unreachable          unreachable   exit 3: no broker answers
    ├── NoSpace                  no_space      the disk is full
    └── Refused                  refused       a stale epoch, a second worker with the same name, a missing role

`Problem` is an error on the wire; `problem_of` and `error_of` translate. The message is for people and may be reworded
at any time: programs look at the class (or its code) and at `details`.
"""

from __future__ import annotations

import difflib
import traceback as tb
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec


class Problem(msgspec.Struct, omit_defaults=True):
    """An error on the wire.

    `code` is that of a class of the tree. `message` is for people, `details` for programs. `retry_ms` says after how
    many milliseconds it may help to try again (0: no hint). `worker` is the worker in which it happened, and
    `traceback` the Python traceback there, both '' if there is none.
    """

    code: str
    message: str
    retry_ms: int = 0
    details: dict[str, Any] = {}
    worker: str = ""
    traceback: str = ""


class SsmprovError(Exception):
    """Base of the tree, and the class of an error that fits no other class. The parameters are as in `Problem`."""

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
    """No such context, model, worker or sampling set.

    For a context, `details` has its `name`, and in `nearest` the names that may be meant. If the context exists but has
    too few steps, `details` has its `name` and in `steps` how many it has.
    """

    code = "not_found"
    exit_code = 4


class Conflict(SsmprovError):
    """A compare-and-swap found another head, or the name is taken."""

    code = "conflict"
    exit_code = 5


class WrongModel(SsmprovError):
    """A checkpoint of another model."""

    code = "wrong_model"


class Corrupt(SsmprovError):
    """Bytes that do not hash to their name, or a truncated file."""

    code = "corrupt"


class BadRequest(SsmprovError):
    """A request that is not valid."""

    code = "bad_request"


class Unsupported(BadRequest):
    """A request that this runtime, version or build cannot serve."""

    code = "unsupported"


class WorkerLost(SsmprovError):
    """The worker died during the turn. `details` has the last `seq` and the last committed checkpoint (`head`)."""

    code = "worker_lost"
    retry = True


class TimedOut(SsmprovError):
    """The request's time to live ran out."""

    code = "timeout"
    retry = True


class Cancelled(SsmprovError):
    """Cancelled by its client; the old context is unchanged."""

    code = "cancelled"
    exit_code = 130


class Unavailable(SsmprovError):
    """No worker serves this at the moment."""

    code = "unavailable"
    retry = True


class Unreachable(Unavailable):
    """No broker answers. `details` may have `fault`, the message without its advice."""

    code = "unreachable"
    exit_code = 3


class NoSpace(SsmprovError):
    """The disk is full; the old checkpoint is unchanged."""

    code = "no_space"
    retry = True


class Refused(SsmprovError):
    """A stale epoch, a second worker with the same name, another model's store, or a missing role."""

    code = "refused"


def _tree(root: type[SsmprovError]) -> Iterable[type[SsmprovError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


BY_CODE: dict[str, type[SsmprovError]] = {cls.code: cls for cls in _tree(SsmprovError)}


MAX_MESSAGE = 4000
"""The most characters of an error's message on the wire, because it must fit into a header."""


def problem_of(error: BaseException, *, worker: str = "") -> Problem:
    """The wire form of an error. One outside the tree becomes `internal`, with its traceback; see `causes.told`."""
    if isinstance(error, SsmprovError):
        return Problem(
            code=error.code,
            message=error.message[:MAX_MESSAGE],
            retry_ms=error.retry_ms,
            details=error.details,
            worker=error.worker or worker,
            traceback=error.remote_traceback,
        )
    text = "".join(tb.format_exception(error))[-8192:]
    message = f"{type(error).__name__}: {error}. This is a bug in ssmprov; the log has the traceback."
    return Problem("internal", message[:2000], worker=worker, traceback=text)


def error_of(problem: Problem) -> SsmprovError:
    """The exception of a wire error. An unknown code becomes the base class, with the code in its details."""
    cls = BY_CODE.get(problem.code, SsmprovError)
    error = cls(problem.message, retry_ms=problem.retry_ms, worker=problem.worker)
    error.details = dict(problem.details)
    if problem.code not in BY_CODE:
        error.details["code"] = problem.code
    error.remote_traceback = problem.traceback
    return error


def close_to(word: str, known: Iterable[str]) -> list[str]:
    """The known words that are most likely meant by `word`, the likeliest first; at most one at present."""
    return difflib.get_close_matches(word, sorted(known), n=1)


def nearest(word: str, known: Iterable[str], *, examples: bool = False) -> str:
    """A hint for the end of a message: `; did you mean X?`, else a few of the known words, else ''.

    With `examples`, `known` is only a part of the words that exist, and the hint says so.
    """
    choices = sorted(known)
    if close := close_to(word, choices):
        return f"; did you mean {close[0]}?"
    if not choices:
        return ""
    shown = ", ".join(choices[:8]) + (", ..." if len(choices) > 8 else "")
    return f"; {'for example' if examples else 'use one of'}: {shown}"
