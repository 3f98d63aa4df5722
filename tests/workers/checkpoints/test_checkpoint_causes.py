"""Why SQLite could not do something: told by its code and by the disk, never by its sentence."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
from checkpoint_toy import child, finish, open_store, say
from refusing import Refusing, make_read_only, mounted

from ssmprov.errors import SsmprovError
from workers.checkpoints.sqlite_errors import translated


def told(path: Path, code: int) -> SsmprovError:
    error = sqlite3.OperationalError("words that nothing depends on")
    error.sqlite_errorcode = code
    with pytest.raises(SsmprovError) as raised, translated(path):
        raise error
    assert str(path) in str(raised.value)
    return raised.value


@pytest.mark.parametrize("name", ["PROTOCOL", "IOERR_LOCK", "IOERR_RDLOCK", "IOERR_SHMLOCK", "IOERR_SHMMAP"])
def test_locks_that_do_not_work_are_told_as_that(tmp_path: Path, name: str) -> None:
    ours = told(tmp_path / "catalogue.sqlite", getattr(sqlite3, f"SQLITE_{name}"))
    assert (ours.code, ours.details["cause"]) == ("unsupported", "no_locks")
    assert "local disk" in str(ours)


@pytest.mark.parametrize("name", ["CANTOPEN", "READONLY", "IOERR", "READONLY_DIRECTORY"])
def test_the_disk_says_what_sqlite_does_not(tmp_path: Path, name: str) -> None:
    code = getattr(sqlite3, f"SQLITE_{name}")
    assert told(tmp_path / "catalogue.sqlite", code).details["cause"] == "disk"
    assert told(tmp_path / "gone" / "catalogue.sqlite", code).details["cause"] == "missing"
    with mounted(tmp_path / "disk") as disk:
        make_read_only(disk)
        assert told(disk / "catalogue.sqlite", code).details["cause"] == "read_only"


@pytest.mark.parametrize("file", ["catalogue.sqlite", "catalogue.sqlite-shm"])
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_sqlite_itself_meets_a_file_system_without_locks(tmp_path: Path, file: str, number: int) -> None:
    refusing = Refusing(tmp_path)
    with open_store(tmp_path / "store") as store:
        say(store, "a", b"one")
    script = """
from ssmprov.errors import SsmprovError
try:
    with open_store(Path(sys.argv[1])) as store:
        say(store, "a", b"two")
except SsmprovError as error:
    print(error.details["cause"])
"""
    environment = refusing.environment(tmp_path / "store" / file, parts=number)
    assert finish(child(script, tmp_path / "store", environment=environment)) == "no_locks\n"
