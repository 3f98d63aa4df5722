"""Files are replaced as a whole; links stay links, and what is no plain file is written into and never replaced."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ssmprov import durable

PROGRAM = (
    "import sys; from pathlib import Path; from ssmprov import durable; durable.replace(Path(sys.argv[1]), b'new')"
)


def inode(path: Path) -> int:
    return path.lstat().st_ino


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link, dangling = tmp_path / "far" / "file", tmp_path / "link", tmp_path / "dangling"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("far/file")
    before = inode(target)
    durable.replace(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert inode(target) != before, "a reader of the old file keeps it"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    dangling.symlink_to("far/made")
    durable.replace(dangling, b"made")
    assert dangling.is_symlink()
    assert (tmp_path / "far" / "made").read_bytes() == b"made"
    assert sorted(os.listdir(tmp_path / "far")) == ["file", "made"]


def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    durable.replace(pipe, b"x" * 200_000)
    reader.join(30)
    assert read == [b"x" * 200_000]
    durable.remove(pipe)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("link", [False, True])
def test_a_device_stays_a_device(tmp_path: Path, link: bool) -> None:
    null, full = Path("/dev/null"), Path("/dev/full")
    if link:
        for path in (null, full):
            (tmp_path / path.name).symlink_to(path)
        null, full = tmp_path / "null", tmp_path / "full"
    durable.replace(null, b"gone")
    with pytest.raises(OSError, match="No space left") as caught:
        durable.replace(full, b"never")
    assert caught.value.filename == str(full)
    for path in (null, full):
        assert stat.S_ISCHR(path.stat().st_mode)
        assert path.is_symlink() == link


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_is_continued_where_it_is(tmp_path: Path, name: str) -> None:
    """`{ echo before; program; echo after; } >file` gives all three, for a file, too."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    out = tmp_path / "out"
    with out.open("wb", buffering=0) as file:
        file.write(b"before ")
        subprocess.run([sys.executable, "-c", PROGRAM, name], stdout=file, cwd=tmp_path, check=True)
        file.write(b" after")
    assert out.read_bytes() == b"before new after"
    piped = subprocess.run([sys.executable, "-c", PROGRAM, name], stdout=subprocess.PIPE, cwd=tmp_path, check=True)
    assert piped.stdout == b"new"


def test_nothing_is_left_and_the_file_is_named_if_it_cannot_be_written(tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        durable.replace(gone, b"new")
    assert caught.value.filename == str(gone)
    with pytest.raises(IsADirectoryError):
        durable.replace(tmp_path, b"new")
    kept = tmp_path / "kept"
    kept.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), durable.Replacement(kept) as new:
        new.part.write_bytes(b"half"[1 // 0 :])
    assert kept.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["kept"]


def test_the_longest_name_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    for data in (b"one", b"two"):
        durable.replace(path, data)
        assert path.read_bytes() == data


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12, 34)
    path.chmod(0o4750)
    durable.replace(path, b"new")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12, 34, 0o4750)
