"""Runs code in a sandbox: bubblewrap if it works here, else Landlock on a copy of the directory.

docs/sandbox.md says what each of them guarantees and what it does not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sandbox import bubblewrap, interpreter, kernel, tree_copy
from sandbox.follow import Cancelled, follow
from ssmprov.configuration import RUN_DIRECTORY, home_of
from ssmprov.errors import BadRequest, SsmprovError, Unsupported
from ssmprov.keys import secret_places

Role = Literal["BASH", "PYTHON"]

FILE_BYTES = 1 << 30
"""The largest file that sandboxed code may write."""

_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TERM")


@dataclass(frozen=True)
class Limits:
    """Limits of one run. `memory_bytes` limits the whole process tree, and the address space of each process."""

    timeout_s: float = 60.0
    memory_bytes: int = 2 << 30
    output_bytes: int = 1 << 20
    processes: int = 256


@dataclass(frozen=True)
class Ended:
    """How a run ended: stdout and stderr in order, and the status as a shell reports it (128 + signal).

    `reason` says what ended it early: a limit (timeout, output, memory or processes) or `cancelled`; '' if nothing did.
    `dropped` lists protected entries of the working directory that the code made or changed. The changes are lost.
    """

    output: bytes
    status: int
    reason: str = ""
    dropped: tuple[str, ...] = ()


class Mechanism(NamedTuple):
    """The sandbox that works here (bubblewrap, landlock or None), and why there is no better one."""

    name: Literal["bubblewrap", "landlock"] | None
    reason: str


def mechanism() -> Mechanism:
    """The sandbox that works on this machine. The first call tries bubblewrap, which takes some milliseconds."""
    program, why = bubblewrap.usable()
    if program:
        return Mechanism("bubblewrap", "")
    version, machine = kernel.landlock_version(), os.uname().machine
    if version < kernel.LANDLOCK_NEEDED:
        had = f"only version {version} of Landlock" if version else "no Landlock"
        return Mechanism(None, f"{why}; this kernel has {had} (version 3 came with Linux 6.2)")
    if kernel.socket_filter(machine, internet=False) is None:
        return Mechanism(None, f"{why}, and without it sockets cannot be blocked on {machine}")
    return Mechanism("landlock", why)


def run(
    role: Role,
    code: str,
    directory: Path,
    *,
    limits: Limits = Limits(),
    network: bool = False,
    unsafe: bool = False,
    on_output: Callable[[bytes], None] | None = None,
    cancelled: Cancelled | None = None,
    using: Mechanism | None = None,
) -> Ended:
    """Run the code of a BASH or PYTHON turn in `directory`, and wait until its whole process tree has ended.

    The code can write to the directory, except its dot files. The rest of the file system is read-only, and there is no
    network unless `network` is set. CRLF in the code is read as LF, which bash needs. `on_output` gets the output as it
    arrives. `unsafe` runs the code without a sandbox but with the limits. Raises BadRequest for a wrong role or
    directory, and Unsupported if no sandbox works here.
    """
    work = directory.resolve()
    if role not in ("BASH", "PYTHON"):
        raise BadRequest(f"{role} turns cannot be run: only BASH and PYTHON turns can")
    if not work.is_dir():
        raise BadRequest(f"{directory} is not a directory")
    if str(work) == "/" and not unsafe:
        raise BadRequest("code cannot run in /, because it could write everywhere: change to another directory")
    found = using or mechanism()
    if found.name is None and not unsafe:
        raise Unsupported(
            f"no sandbox works here: {found.reason}. Install bubblewrap (apt-get install bubblewrap), or use --unsafe "
            "to run the code with all your rights"
        )
    fence = "" if unsafe else found.name
    with tempfile.TemporaryDirectory(prefix="ssmprov-run-", ignore_cleanup_errors=True) as folder:
        place = _Place(
            role, code.replace("\r\n", "\n").encode("utf-8", "surrogateescape"), work, Path(folder).resolve(), network
        )
        plan = {"fence": fence, "processes": limits.processes, "memory": limits.memory_bytes, "file_bytes": FILE_BYTES}
        fenced = {"bubblewrap": _bubblewrap, "landlock": _landlock, "": _plainly}[fence or ""]
        with fenced(place) as (view, dropped):
            output, answer, reason = follow(
                plan | view,
                timeout_s=limits.timeout_s,
                output_bytes=limits.output_bytes,
                on_output=on_output,
                cancelled=cancelled,
            )
    if "error" in answer:
        said = output.decode(errors="replace").strip()
        raise SsmprovError(f"the code was not run: {answer['error']}" + (f" ({said})" if said else ""))
    return Ended(output, answer["status"], reason or answer["reason"], tuple(dropped))


class _Place(NamedTuple):
    """The code, its working directory, and a scratch directory for it."""

    role: Role
    code: bytes
    work: Path
    scratch: Path
    network: bool

    def command(self, folder: str) -> list[str]:
        if self.role == "PYTHON":
            return [sys.executable, "-u", f"{folder}/turn.py"]
        return [shutil.which("bash") or "/bin/bash", f"{folder}/turn.sh"]

    def environment(self, home: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        path = interpreter.find(str(self.work), bubblewrap.hidden(self.work)).path
        return kept | {"PATH": path, "HOME": home}


_View = Iterator[tuple[dict[str, Any], list[str]]]
"""A part of the launcher's plan, and the list of dropped entries, which is complete after the run."""


@contextlib.contextmanager
def _bubblewrap(place: _Place) -> _View:
    before = {name: _link(place.work / name) for name in bubblewrap.off_limits(place.work)}
    folder = bubblewrap.code_folder(place.work)
    command = place.command(folder)
    program = bubblewrap.usable()[0]
    code = os.memfd_create("code")
    dropped: list[str] = []
    try:
        with open(code, "wb", closefd=False) as file:
            file.write(place.code)
        os.lseek(code, 0, os.SEEK_SET)
        args = [program, *bubblewrap.view(program, place.work, network=place.network)]
        args += ["--ro-bind-data", str(code), command[-1]]
        home = (bubblewrap.homes() or [folder])[0]
        yield {"bubblewrap": args, "command": command, "env": place.environment(home), "fds": [code]}, dropped
    finally:
        os.close(code)
        dropped += _sweep(place.work, before)


def _link(path: Path) -> str | None:
    return os.readlink(path) if path.is_symlink() else None


def _sweep(work: Path, before: dict[str, str | None]) -> list[str]:
    """Remove new protected entries and restore links, because mounts cannot stop the code from making these changes.

    A new directory for sockets stays, because it does no harm and a broker may have just made it.
    """
    dropped = [name for name in bubblewrap.off_limits(work) if name not in before and name != RUN_DIRECTORY]
    dropped += [name for name, link in before.items() if link is not None and _link(work / name) != link]
    for name in dropped:
        tree_copy.remove(work / name)
        if (link := before.get(name)) is not None:
            (work / name).symlink_to(link)
    return sorted(dropped)


@contextlib.contextmanager
def _landlock(place: _Place) -> _View:
    copied, own, home = (place.scratch / name for name in ("work", "tmp", "home"))
    for folder in (copied, own, home):
        folder.mkdir()
    homes = bubblewrap.homes()
    secrets = bubblewrap.SECRETS if str(place.work) in homes else ()
    if place.scratch.is_relative_to(place.work):  # a copy that contains itself would never end
        secrets = (*secrets, str(place.scratch.relative_to(place.work)))
    keys = secret_places(home_of())
    secrets = (*secrets, *(os.path.relpath(path, place.work) for path in keys))
    before = tree_copy.copy(place.work, copied, without=secrets)
    command = place.command(str(place.scratch))
    Path(command[-1]).write_bytes(place.code)
    hidden = {"/tmp", "/var/tmp", "/run", "/dev", str(place.scratch.parent), *homes, *keys}  # noqa: S108
    readable = [
        *_outside(hidden),
        *interpreter.find(str(place.work), bubblewrap.hidden(place.work)).places,
        command[-1],
    ]
    readable += [os.path.realpath("/etc/resolv.conf")] if place.network else []
    devices = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")]
    dropped: list[str] = []
    view = {
        "command": command,
        "env": place.environment(str(home)) | {"TMPDIR": str(own)},
        "directory": str(place.work),
        "network": place.network,
        "scratch": str(place.scratch),
        "work": str(copied),
        "readable": readable,
        "writable": [str(copied), str(own), str(home), *devices],
    }
    try:
        yield view, dropped
    finally:
        dropped += tree_copy.bring_back(copied, place.work, before, guarded=bubblewrap.house(place.work))


def _outside(hidden: set[str], folder: str = "/") -> Iterator[str]:
    """The largest directories and files below `folder` that contain nothing hidden. Landlock can only grant access."""
    with contextlib.suppress(PermissionError):
        for entry in os.scandir(folder):
            if entry.is_symlink() or entry.path in hidden:
                continue
            if any(path.startswith(entry.path + "/") for path in hidden):
                yield from _outside(hidden, entry.path)
            else:
                yield entry.path


@contextlib.contextmanager
def _plainly(place: _Place) -> _View:
    command = place.command(str(place.scratch))
    Path(command[-1]).write_bytes(place.code)
    yield {"command": command, "env": dict(os.environ), "directory": str(place.work)}, []
