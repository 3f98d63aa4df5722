"""Errors of the operating system as errors of ours: what has happened, and what to do about it.

`known` translates any error whose cause is known. What it does not know is a fault of ssmprov. `details` of an error
has the `cause` (one of the names below), the `errno` by its name, and the `file`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ssmprov.errors import BadRequest, Conflict, NoSpace, Problem, SsmprovError, Unavailable, Unsupported, problem_of
from ssmprov.rooms import PACKAGE, ROOMS


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something failed: its name for programs, the class of its error, and two sentences for people."""

    name: str
    error: type[SsmprovError]
    says: str
    remedy: str = ""


NO_SPACE = Cause("no_space", NoSpace, "the disk is full", "Free some space and try again")
TOO_LARGE = Cause("no_space", NoSpace, "it has reached the size limit for files", "Raise the limit (`ulimit -f`)")
READ_ONLY = Cause(
    "read_only", Unavailable, "its file system is read-only", "Mount it for writing, or use another directory"
)
PERMISSION = Cause(
    "permission",
    Unavailable,
    "this user does not have the permission",
    "Change the owner or the permissions, or use another directory",
)
NO_LOCKS = Cause(
    "no_locks",
    Unsupported,
    "its file system has no file locks, like some network file systems",
    "Use a directory on a local disk",
)
UNSUPPORTED = Cause(
    "not_supported", Unsupported, "its file system or device does not support this", "Use a directory on a local disk"
)
TOO_LONG = Cause(
    "too_long", BadRequest, "its name is too long", "Use at most 255 bytes for a file name, and 4095 for a path"
)
LINK_LOOP = Cause(
    "link_loop", BadRequest, "it is a symbolic link in a loop, or one that is not followed here", "Use a plain path"
)
TOO_MANY_FILES = Cause(
    "too_many_files", Unavailable, "too many files are open", "Close some programs, or raise the limit (`ulimit -n`)"
)
NO_MEMORY = Cause(
    "no_memory", Unavailable, "there is not enough memory", "Close some programs, or use a smaller model or fewer slots"
)
DISK = Cause("disk", Unavailable, "its disk or network reports an error", "Check the disk and the system's log")
LIBRARY = Cause("library", Unsupported, "", "Install the library again")
NO_DIRECTORY = Cause(
    "no_directory", BadRequest, "the current directory was deleted", "Change to another directory (`cd`) and try again"
)

_BY_NUMBER = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: Cause("no_space", NoSpace, "the disk is full: the quota is used up", NO_SPACE.remedy),
    errno.EFBIG: TOO_LARGE,
    errno.EROFS: READ_ONLY,
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.ENOLCK: NO_LOCKS,
    errno.EINVAL: UNSUPPORTED,
    errno.ENOSYS: UNSUPPORTED,
    errno.EOPNOTSUPP: UNSUPPORTED,
    errno.ENODEV: UNSUPPORTED,
    errno.ENXIO: UNSUPPORTED,
    errno.ENAMETOOLONG: TOO_LONG,
    errno.ELOOP: LINK_LOOP,
    errno.EMFILE: TOO_MANY_FILES,
    errno.ENFILE: TOO_MANY_FILES,
    errno.ENOMEM: NO_MEMORY,
    errno.EAGAIN: Cause("no_processes", Unavailable, "the system is out of processes or memory", NO_MEMORY.remedy),
    errno.EIO: DISK,
    errno.ESTALE: DISK,
    errno.ENOENT: Cause("missing", BadRequest, "it or its directory does not exist"),
    errno.ENOTDIR: Cause("not_a_directory", BadRequest, "a part of its path is not a directory"),
    errno.EISDIR: Cause("directory", BadRequest, "it is a directory", "Name a file"),
    errno.EEXIST: Cause("exists", BadRequest, "it already exists"),
    errno.ENOTEMPTY: Cause("exists", BadRequest, "the directory is not empty"),
}

_TORCH_SAYS = "DefaultCPUAllocator: "
"""What torch says about memory for the processor: it gives no code for it."""

_OF_THIS_PROCESS = (PERMISSION, TOO_MANY_FILES, NO_MEMORY)

OTHER_STORE = "other_store"
"""The cause of an error about a store that belongs to another model."""

LASTING = frozenset({READ_ONLY.name, PERMISSION.name, OTHER_STORE})
"""Causes of errors that may be tried again, but which do not go away by themselves."""

_LISTENING = {
    errno.EADDRINUSE: Cause(
        "in_use", Conflict, "another program uses it", "Stop it (`ss -ltnp sport = :{port}` shows it)"
    ),
    errno.EADDRNOTAVAIL: Cause(
        "no_address", Conflict, "this machine does not have this address", "Use one that it has, such as 127.0.0.1"
    ),
    errno.EACCES: Cause(PERMISSION.name, Unavailable, "this user may not use it", "Use a port from 1024 on"),
}

EXTRAS = {"torch": "rwkv", "llama_cpp": "llama", "gguf": "llama", "PyQt6": "composer", "matplotlib": "bench"}
"""The extra that installs each module that the base installation lacks."""


def cause_of(error: OSError) -> Cause:
    if error.errno is None:  # from the loader of libraries, or made by a library
        return Cause(LIBRARY.name, LIBRARY.error, str(error), LIBRARY.remedy)
    if error.errno == errno.ENOENT and error.filename is None and _is_nowhere():
        return NO_DIRECTORY
    return _BY_NUMBER.get(error.errno) or Cause("other", Unavailable, error.strerror or os.strerror(error.errno))


def explained(error: OSError, what: str = "", path: Path | str | None = None) -> SsmprovError:
    """An error of the system as ours.

    `what` says what failed ("nothing can be recorded here"). `path` is the file, unless it is the one that the error
    names.
    """
    cause = cause_of(error)
    ours = of_cause(cause, what, path or error.filename or "")
    ours.details["errno"] = errno.errorcode.get(error.errno or 0, "")
    return ours


def of_cause(cause: Cause, what: str = "", path: os.PathLike[str] | str | bytes | int = "") -> SsmprovError:
    """The error for a cause: what failed, with which file, why, and what to do."""
    file = shown(path)
    parts = [what, "" if file in what else file, cause.says]
    message = ": ".join(filter(None, parts)) + (f". {cause.remedy}" if cause.remedy else "")
    return cause.error(message, cause=cause.name, **({"file": file} if file else {}))  # type: ignore[arg-type]


def circumstance(error: OSError, path: Path) -> SsmprovError | None:
    """Why a file cannot be read, if that says something about this process and nothing about the file; else None."""
    if cause_of(error) in _OF_THIS_PROCESS:
        return explained(error, f"{shown(path)} cannot be read", path)
    return None


def not_listening(error: OSError, address: str, key: str) -> SsmprovError:
    """The error for an address HOST:PORT on which a program cannot listen. `key` is the key that chooses it."""
    cause = _LISTENING.get(error.errno or 0) or cause_of(error)
    remedy = cause.remedy.format(port=address.rpartition(":")[2])
    choose = f"hoose another address with {key} in ssmprov.toml"
    elsewhere = f"{remedy}, or c{choose}" if remedy else f"C{choose}"
    return of_cause(replace(cause, remedy=elsewhere), f"cannot listen on {address}")


@contextmanager
def explaining(what: str = "", path: Path | str | None = None) -> Iterator[None]:
    """Raise errors of the system as ours: see `explained`."""
    try:
        yield
    except OSError as error:
        raise explained(error, what, path) from error


def known(error: BaseException) -> SsmprovError | None:
    """The error as one of ours; None if its cause is unknown, so that it is a fault of ssmprov."""
    if isinstance(error, SsmprovError):
        return error
    if isinstance(error, OSError):
        return explained(error)
    zmq = sys.modules.get("zmq")
    if zmq is not None and isinstance(error, zmq.ZMQError):  # not an OSError, although it has the system's numbers
        told = OSError(error.errno, error.strerror)
        return explained(told) if cause_of(told) in _OF_THIS_PROCESS else None
    if isinstance(error, MemoryError) or _is_torch_without_memory(error):
        return of_cause(NO_MEMORY)
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] not in (PACKAGE.name, *ROOMS):
        return missing_module(error)
    if isinstance(error, UnicodeEncodeError) and _has_surrogate(error.object[error.start : error.end]):
        return BadRequest(
            f"'{shown(error.object)[:300]}' is not valid UTF-8: write it in UTF-8. If it is the working directory, set "
            "SSMPROV_HOME to another one",
            cause="not_utf8",
        )
    return None


def told(error: BaseException, *, worker: str = "") -> Problem:
    """The wire form of any error: see `known`."""
    return problem_of(known(error) or error, worker=worker)


def missing_module(error: ImportError, what: str = "this") -> SsmprovError:
    """The error for a module that is not installed or cannot be loaded; `what` needs it."""
    package = (error.name or "").partition(".")[0]
    extra = f"Install the extra that brings it: ssmprov[{EXTRAS.get(package, 'all')}]"
    if isinstance(error, ModuleNotFoundError):
        problem = f"{what} needs the Python module {error.name!r}, which is not installed"
    else:
        problem = f"{what} needs the Python module {error.name!r}, which cannot be loaded: {error}"
    return Unsupported(f"{problem}. {extra}", cause=LIBRARY.name)


def shown(path: os.PathLike[str] | str | bytes | int) -> str:
    """A path as text that every message can hold, even if it is not UTF-8."""
    if isinstance(path, int):
        return f"file {path}"
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def expanded(text: str | Path) -> Path:
    """A path with `~` replaced. Raises BadRequest if there is no such home directory."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise BadRequest(
            f"{str(text)!r} cannot be found, because the system knows no home directory: set HOME, or write the whole "
            "path",
            cause="no_home",
        ) from None


def _is_nowhere() -> bool:
    """Whether the current directory was deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _is_torch_without_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or _TORCH_SAYS in str(error)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
