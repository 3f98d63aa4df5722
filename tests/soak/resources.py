"""What is left behind: memory and open files of those that live, processes and files of those that ended."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

MORE_RSS = 48 * 2**20
"""So much more memory than at the warm start may a process hold at the end."""

MORE_FDS = 6
"""And so many more open files: SQLite's and the holder's, which a worker opens at its first turn."""


@dataclass(frozen=True, slots=True)
class Use:
    pid: int
    rss: int
    fds: int
    seconds: float


def measure(pids: Mapping[str, int]) -> dict[str, Use]:
    """Each named process's memory, open files and age."""
    found = {}
    for name, pid in pids.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            age = psutil.time.time() - process.create_time()
            found[name] = Use(pid, process.memory_info().rss, process.num_fds(), age)
    return found


def grown(warm: Mapping[str, Use], now: Mapping[str, Use]) -> list[str]:
    """Who holds more than the bound allows; one that was started again is held against its former life."""
    faults = []
    for name, use in now.items():
        before = warm.get(name)
        if before is None:
            continue
        if use.rss > before.rss + MORE_RSS:
            faults.append(f"{name} holds {use.rss >> 20} MiB, and {before.rss >> 20} MiB at the warm start")
        if use.fds > before.fds + MORE_FDS:
            faults.append(f"{name} has {use.fds} files open, and {before.fds} at the warm start")
    return faults


def orphans(home: Path) -> list[str]:
    """Processes that still belong to the working directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SSMPROV_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"process {process.pid} is left over: {' '.join(process.cmdline())[:120]}")
    return found


def left_files(home: Path, ready: Path, scratch: Path, stores: Iterable[Path]) -> list[str]:
    """Sockets, ready files, temporary files and dead holders that nobody will miss or use."""
    faults = [f"{path} is left over" for path in scratch.iterdir()]
    faults += [f"{path} is left over" for path in (home / "run").iterdir() if path.name != "broker.sock.lock"]
    faults += [f"{path} is a stale socket" for path in home.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    if ready.exists():
        faults.append(f"{ready} is left over")
    for store in stores:
        faults += [f"{path} is left over" for path in (store / "holders").iterdir()]
        faults += [f"{path} is a temporary file" for path in (store / "objects").rglob("*.tmp")]
        faults += [f"{path} is a temporary file" for path in (store / "scratch").glob("*")]
    return faults
