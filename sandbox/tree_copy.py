"""Copies a working directory for code under Landlock, and copies its changes back, except those to dot files."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from ssmprov.errors import Unsupported

COPY_BYTES = 1 << 30
COPY_ENTRIES = 100_000

Stamp = tuple[int, int, int, int, int]
"""Kind and mode, inode, size, and the last change of the content and of the inode. The last one cannot be forged."""


def _stamp(s: os.stat_result) -> Stamp:
    return s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


def _walk(root: Path, *, repair: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below `root`, parents first, as a relative path. Links are not followed.

    With `repair`, directories that their owner cannot read are made readable, so that their entries do not look
    deleted.
    """
    waiting = [""]
    while waiting:
        with suppress(PermissionError), os.scandir(root / (folder := waiting.pop())) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                found = entry.stat(follow_symlinks=False)
                yield path, found
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(path)
                    if repair and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                        os.chmod(entry.path, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)


def _admitted(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def copy(directory: Path, to: Path, *, without: Collection[str] = ()) -> dict[str, Stamp]:
    """Copy a directory into an empty one, except sockets, devices and the paths `without`. Returns the copy's stamps.

    Raises Unsupported if the directory is too large to be copied for each run.
    """
    total = 0
    paths: list[str] = []
    for path, found in _walk(directory):
        if not _admitted(found.st_mode) or any(path == name or path.startswith(name + "/") for name in without):
            continue
        total += found.st_size
        paths.append(path)
        if total > COPY_BYTES or len(paths) > COPY_ENTRIES:
            raise Unsupported(
                f"{directory} is too large to copy for each run, which the Landlock sandbox needs: "
                "install bubblewrap (apt-get install bubblewrap), or use a smaller directory"
            )
        with suppress(FileNotFoundError, PermissionError):  # it was deleted meanwhile, or we may not read it
            if stat.S_ISDIR(found.st_mode):
                (to / path).mkdir()
                (to / path).chmod(stat.S_IMODE(found.st_mode) | stat.S_IRWXU)
            else:
                shutil.copy2(directory / path, to / path, follow_symlinks=False)
    return {path: _stamp((to / path).lstat()) for path in paths if os.path.lexists(to / path)}


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def bring_back(work: Path, directory: Path, before: dict[str, Stamp], *, guarded: Collection[str] = ()) -> list[str]:
    """Copy new and changed entries back to the directory, and remove what the code removed.

    Entries whose first part begins with a dot, entries in `guarded`, and pipes, sockets and devices stay unchanged.
    Returns the names of those that the code made or changed. A file is replaced in one step, so that a reader sees
    either the old or the new one.
    """
    after: dict[str, Stamp] = {}
    refused: set[str] = set()
    for path, found in _walk(work, repair=True):
        if not _admitted(found.st_mode):
            continue
        after[path] = _stamp(found)
        old = before.get(path)
        same = old is not None and (old == after[path] or (stat.S_ISDIR(old[0]) and old[0] == after[path][0]))
        if name := _off_limits(path, guarded):
            refused |= set() if same else {name}
        elif not same and _is_special(directory / path):  # the code had no copy of it
            refused.add(path)
        elif not same:
            _make_folders(directory, path)
            _place(work / path, directory / path, found)
    for path in before:
        if path not in after:
            if name := _off_limits(path, guarded):
                refused.add(name)
            elif all(map(_is_folder, _folders(directory, path))):  # otherwise it was removed with its folder
                remove(directory / path)
    return sorted(refused)


def _off_limits(path: str, guarded: Collection[str]) -> str:
    """The protected entry that a path names or is inside of, or ''."""
    name = path.partition("/")[0]
    return name if name.startswith(".") or name in guarded else ""


def _folders(directory: Path, path: str) -> list[Path]:
    """The folders between a directory and an entry below it, the outermost first."""
    return [directory / folder for folder in reversed(Path(path).parents[:-1])]


def _is_folder(path: Path) -> bool:
    """Whether it is a real folder. The code or another run may have put a link there that leads outside."""
    return path.is_dir() and not path.is_symlink()


def _is_special(path: Path) -> bool:
    return os.path.lexists(path) and not _admitted(path.lstat().st_mode)


def _make_folders(directory: Path, path: str) -> None:
    for folder in _folders(directory, path):
        if not _is_folder(folder):
            remove(folder)
            folder.mkdir()


def _place(source: Path, target: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode) & 0o777
    if stat.S_ISDIR(found.st_mode):
        if not _is_folder(target):
            remove(target)
            target.mkdir()
        target.chmod(mode)
        return
    if _is_folder(target):
        remove(target)
    aside = target.with_name(f".{os.fsdecode(os.fsencode(target.name)[:200])}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    if stat.S_ISLNK(found.st_mode):
        aside.symlink_to(source.readlink())
    else:
        source.chmod(mode | stat.S_IRUSR)
        with source.open("rb") as file, aside.open("xb") as copied:
            shutil.copyfileobj(file, copied)
        aside.chmod(mode)
        os.utime(aside, ns=(found.st_atime_ns, found.st_mtime_ns))
    aside.replace(target)
