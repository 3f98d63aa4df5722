"""Unusual surroundings: no directory or home, names that are no UTF-8 or very long, a terminal of another encoding."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cluster import Cluster

BIN = Path(sys.executable).parent
NOT_UTF8 = os.fsdecode(b"caf\xe9")
SAID = "Grüße → 世界 🌍"
UNMAPPED = ["unshare", "--user", "--map-user=54321"]
"""Another user for one process, without an entry in the password file; it may still read this installation."""


def run(
    words: Sequence[str], environment: dict[str, str], cwd: Path | None = None, text: str = "", lead: Sequence[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*lead, str(BIN / words[0]), *words[1:]],
        input=text.encode(),
        env=environment,
        cwd=cwd,
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert b"unexpected" not in done.stderr
    return done


def in_deleted_directory(words: Sequence[str], environment: dict[str, str], place: Path) -> tuple[int, str]:
    place.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    command = ["sh", "-c", script, "sh", str(place), str(BIN / words[0]), *words[1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", [["PIPE"], ["GET_FILE", "x"], ["RUN"], ["QUOTE", "1"], ["ssmprov", "transcript"], ["ssmprov", "composer"]]
)
def test_what_needs_the_current_directory_says_that_it_was_deleted(
    talk: Cluster, tmp_path: Path, words: list[str]
) -> None:
    environment = talk.environment | {"QT_QPA_PLATFORM": "offscreen"}
    code, said = in_deleted_directory(words, environment, tmp_path / "gone")
    assert code == 1
    assert said == f"{words[0]}: the current directory was deleted. Change to another directory (`cd`) and try again\n"


def test_what_does_not_need_it_works(talk: Cluster, tmp_path: Path) -> None:
    code, said = in_deleted_directory(["ssmprov", "status"], talk.environment, tmp_path / "gone")
    assert code == 0
    assert "talk/0" in said


def lead() -> list[str]:
    if shutil.which("unshare") is None or subprocess.run([*UNMAPPED, "true"], check=False).returncode:
        pytest.skip("another user needs a user namespace")
    return UNMAPPED


@pytest.mark.parametrize("words", [["status"], ["up"], ["keys", "ls"], ["composer"], ["filter", "ls"]])
def test_a_user_without_a_home_is_told_what_to_set(talk: Cluster, tmp_path: Path, words: list[str]) -> None:
    wanted = {"PATH", "QT_QPA_PLATFORM"}
    environment = {key: value for key, value in os.environ.items() if key in wanted} | {"QT_QPA_PLATFORM": "offscreen"}
    done = run(["ssmprov", *words], environment, tmp_path, lead=lead())
    assert done.returncode == 1
    assert b"set SSMPROV_HOME" in done.stderr or b"set HOME" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_with_a_working_directory_such_a_user_needs_no_home(talk: Cluster, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "SSMPROV_HOME": str(tmp_path)}
    done = run(["ssmprov", "keys", "new", "x"], environment, tmp_path, lead=lead())
    assert done.returncode == 0, done


def test_a_home_that_is_no_utf_8_is_told_with_the_remedy(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "SSMPROV_HOME": str(tmp_path / NOT_UTF8)}
    for word in ("status", "up"):
        done = run(["ssmprov", word], environment, tmp_path)
        assert done.returncode == 1
        assert b"is not valid UTF-8" in done.stderr.splitlines()[-1]
        assert b"set SSMPROV_HOME" in done.stderr.splitlines()[-1]


def test_a_transcript_and_a_store_may_be_in_a_directory_that_is_no_utf_8(talk: Cluster, tmp_path: Path) -> None:
    place = tmp_path / NOT_UTF8
    place.mkdir()
    done = run(["PIPE", "--in", "USER"], talk.environment, place, "hello")
    assert done.returncode == 0, done
    assert (place / ".transcript.txt").exists()
    done = run(["ssmprov", "ckpt", "backup", str(place / "copy"), "--model", "talk"], talk.environment, place)
    assert done.returncode == 0, done
    done = run(["ssmprov", "ckpt", "verify", "--store", str(place / "copy")], talk.environment, place)
    assert done.returncode == 0, done
    (place / "copy" / "catalogue.sqlite").write_bytes(b"nothing")
    done = run(["ssmprov", "ckpt", "ls", "--store", str(place / "copy")], talk.environment, place)
    assert done.returncode == 1
    assert b"is damaged" in done.stderr


def test_a_text_that_is_no_utf_8_is_named(talk: Cluster) -> None:
    done = run(["ssmprov", "ckpt", "show", "talk:x", "--model", NOT_UTF8], talk.environment)
    assert done.returncode in (1, 4)
    assert done.stderr.count(b"\n") == 1


@pytest.fixture
def said(talk: Cluster) -> str:
    """A context whose text most encodings lack."""
    with talk.client() as client:
        client.turn(SAID, save="greeting", max_tokens=0, model="talk")
    return "talk:greeting"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_another_encoding_of_the_terminal_ends_nothing(talk: Cluster, said: str, encoding: str) -> None:
    environment = talk.environment | {"PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    for words in (["log", said], ["tree", said], ["show", said], ["ls"], ["show", said, "--text"]):
        done = run(["ssmprov", "ckpt", *words], environment)
        assert (done.returncode, done.stderr) == (0, b""), words
    assert done.stdout.decode() == SAID  # data is what it is
    shown = run(["ssmprov", "ckpt", "log", said, "--json"], environment)
    assert json.loads(shown.stdout.decode("utf-8"))[0]["excerpt"] == SAID


def test_a_terminal_gets_a_reply_in_its_own_encoding(talk: Cluster, said: str, tmp_path: Path) -> None:
    """Characters that the encoding has are shown, and others are escaped."""
    environment = talk.environment | {"PYTHONIOENCODING": "latin-1"}
    main, other = pty.openpty()
    script = f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\nfrom shell.terminal import say\nsay({SAID!r})"
    command = [sys.executable, "-P", "-c", script]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=other, stderr=subprocess.PIPE) as process:
        _, errors = process.communicate(timeout=200)
        os.close(other)
        shown = os.read(main, 1000)
        os.close(main)
    assert (process.returncode, errors) == (0, b"")
    assert shown == "Grüße \\u2192 \\u4e16\\u754c \\U0001f30d".encode("latin-1")


def test_a_long_name_of_a_file_works_and_a_longer_one_is_told(talk: Cluster, said: str, tmp_path: Path) -> None:
    store = talk.home / ".checkpoints" / "talk"
    longest, longer = "é" * 125, "é" * 150
    done = run(["ssmprov", "ckpt", "export", said, longest, "--store", str(store)], talk.environment, tmp_path)
    assert done.returncode == 0, done
    assert [path.name for path in tmp_path.iterdir()] == [longest]
    for words in (["export", said, longer], ["export", said, longer, "--store", str(store)], ["import", longer, "x"]):
        done = run(["ssmprov", "ckpt", *words], talk.environment, tmp_path)
        assert done.returncode == 1, done
        assert b"its name is too long" in done.stderr
        assert b"255 bytes" in done.stderr
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("limit", [9, 12])
def test_too_many_open_files_are_told_whoever_meets_them(talk: Cluster, limit: int) -> None:
    script = f"ulimit -n {limit} && exec {BIN / 'ssmprov'} status"
    done = subprocess.run(["sh", "-c", script], env=talk.environment, capture_output=True, timeout=200, check=False)
    assert done.returncode == 1
    assert b"too many files are open" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_the_cause_is_in_the_details_for_programs(talk: Cluster, said: str, tmp_path: Path) -> None:
    from ssmprov.causes import known

    with pytest.raises(OSError) as told:
        (tmp_path / ("x" * 300)).write_bytes(b"")
    ours = known(told.value)
    assert ours is not None
    assert (ours.code, ours.details["cause"], ours.details["errno"]) == ("bad_request", "too_long", "ENAMETOOLONG")
    assert told.value.errno == errno.ENAMETOOLONG
