"""File locks, with a clear difference between a lock that is taken and a file system that has none."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

from ssmprov.causes import NO_LOCKS, explained, of_cause, shown
from ssmprov.errors import SsmprovError

SHARED, EXCLUSIVE, NO_WAIT, RELEASE = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN

_NONE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})
"""What file systems without locks say. Our descriptors are valid: EBADF means that NFS wants one open for writing."""


def lock(descriptor: int, operation: int, path: Path) -> None:
    """`flock` of the file `path`. Raises BlockingIOError only if somebody else holds the lock and NO_WAIT is set.

    Raises Unsupported if the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise
    except OSError as error:
        raise _why(error, path) from error


def check_records(descriptor: int, path: Path) -> None:
    """Check that parts of the file can be locked, as SQLite does. It reports a file system without such locks as a
    database that is busy for ever. Raises Unsupported.
    """
    try:
        fcntl.lockf(descriptor, SHARED | NO_WAIT, 1)
        fcntl.lockf(descriptor, RELEASE, 1)
    except (BlockingIOError, PermissionError):  # both mean that somebody else holds it
        return
    except OSError as error:
        raise _why(error, path) from error


def _why(error: OSError, path: Path) -> SsmprovError:
    if error.errno not in _NONE:
        return explained(error, f"{shown(path)} cannot be locked", path)
    return of_cause(NO_LOCKS, f"{shown(path)} cannot be locked", path)
