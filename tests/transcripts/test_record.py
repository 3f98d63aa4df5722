"""The record of a directory: numbers minted once, appends whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmprov.errors import BadRequest, NotFound
from ssmprov.transcript import FENCE, turn
from transcripts import record as module
from transcripts.record import ASKED, COUNTER, MOVING, PENDING, TRANSCRIPT, Asked, Moving, Record

ROOT = Path(__file__).parents[2]


def add(record: Record, role: str, content: str) -> int:
    with record.locked() as writer:
        number = writer.next_number()
        writer.append(writer.lead() + turn(number, role, content), number)
    return number


def test_turns_are_numbered_one_after_the_other(tmp_path: Path) -> None:
    record = Record(tmp_path)
    assert not record.exists
    assert [add(record, "USER", f"n{i}") for i in range(3)] == [1, 2, 3]
    assert (tmp_path / COUNTER).read_text() == "3"
    assert [t.content for t in record.transcript().turns] == ["n0", "n1", "n2"]
    assert record.exists


@pytest.mark.parametrize(
    ("counter", "expected"), [("7", 8), (" 7\n", 8), ("", 5), ("x", 5), ("-3", 5), ("2", 5), ("9" * 50, 5)]
)
def test_the_next_number_is_above_the_counter_and_every_turn(tmp_path: Path, counter: str, expected: int) -> None:
    (tmp_path / TRANSCRIPT).write_text(turn(4, "USER", "x"))
    (tmp_path / COUNTER).write_text(counter)
    assert add(Record(tmp_path), "USER", "y") == expected


def test_no_number_is_given_twice_at_the_end_of_all_numbers(tmp_path: Path) -> None:
    """A model can write a header with any number into its turn."""
    (tmp_path / TRANSCRIPT).write_text(turn(4, "USER", "x") + f"(Turn {module.MAX_COUNTER - 1}) [USER]: x{FENCE}")
    with pytest.raises(BadRequest, match=r"no turn can follow turn 999999999999999"):
        add(Record(tmp_path), "USER", "y")
    (tmp_path / TRANSCRIPT).write_text(turn(4, "USER", "x"))
    (tmp_path / COUNTER).write_text(str(module.MAX_COUNTER))
    with pytest.raises(BadRequest, match="no turn can follow"):
        add(Record(tmp_path), "USER", "y")


def test_while_code_of_others_runs_an_append_stands_there_that_promises_nothing(tmp_path: Path) -> None:
    record = Record(tmp_path)
    with record.locked(), contextlib.suppress(Crash), module.guarded(record):
        assert (tmp_path / PENDING).read_bytes() == b""
        raise Crash
    assert not (tmp_path / PENDING).exists()


def test_an_open_line_is_ended_before_a_header(tmp_path: Path) -> None:
    (tmp_path / TRANSCRIPT).write_text("(Turn 1) [USER]: broken off")
    add(Record(tmp_path), "USER", "next")
    assert [t.content for t in Record(tmp_path).transcript().turns] == ["broken off\n\n", "next"]


def test_turns_are_found_by_number_and_role(tmp_path: Path) -> None:
    text = turn(1, "FILE", "a") + turn(2, "BASH", "b") + turn(2, "OUTPUT", "c") + "(Turn 3) [BASH]: open"
    (tmp_path / TRANSCRIPT).write_text(text)
    record = Record(tmp_path)
    assert record.turn(None, "FILE").content == "a"
    assert record.turn(None, "BASH", "PYTHON").content == "b"
    assert (record.turn(2).content, record.turn(2, "BASH").content) == ("c", "b")
    for number, roles, says in [
        (1, ("BASH",), "it is FILE"),
        (3, ("BASH",), "BASH, and open"),
        (9, (), "there is none"),
    ]:
        with pytest.raises(NotFound, match=says):
            record.turn(number, *roles)
    with pytest.raises(NotFound, match="no closed PYTHON turn"):
        record.turn(None, "PYTHON")
    with pytest.raises(NotFound, match="no transcript"):
        Record(tmp_path / "elsewhere").turn(1)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="nothing can be recorded"), Record(tmp_path / "gone").locked():
        pass
    (tmp_path / ".transcript.txt").mkdir()  # not even root can write it, so it is noticed before a turn is sent
    with pytest.raises(BadRequest, match=r"nothing can be recorded here: .*transcript\.txt"), Record(tmp_path).locked():
        pass


WRITER = """
import sys
from pathlib import Path
from transcripts.record import Record
from ssmprov.transcript import turn
for i in range(int(sys.argv[3])):
    with Record(Path(sys.argv[1])).locked() as writer:
        n = writer.next_number()
        writer.append(turn(n, sys.argv[2], "x" * (n * 37 % 5000)), n)
"""


def writers(directory: Path, count: int, each: int) -> list[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen([sys.executable, "-c", WRITER, str(directory), f"W{i}", str(each)], env=environment)
        for i in range(count)
    ]


def test_writers_at_once_never_share_a_number_or_interleave(tmp_path: Path) -> None:
    for process in writers(tmp_path, 4, 15):
        assert process.wait(60) == 0
    turns = Record(tmp_path).transcript().turns
    assert [t.number for t in turns] == list(range(1, 61))
    assert all(t.content == "x" * (t.number * 37 % 5000) for t in turns)
    assert (tmp_path / COUNTER).read_text() == "60"


def test_kill_9_of_a_writer_loses_no_turn_and_leaves_no_half_of_one(tmp_path: Path) -> None:
    for _ in range(12):
        (process,) = writers(tmp_path, 1, 10_000)
        before = size(tmp_path)
        while size(tmp_path) == before:  # it has begun to write
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Record(tmp_path).locked() as writer:
            number = writer.next_number()
        turns = Record(tmp_path).transcript().turns
        assert [t.number for t in turns] == list(range(1, number))
        assert all(t.closed and t.content == "x" * (t.number * 37 % 5000) for t in turns)
        assert not (tmp_path / PENDING).exists()


def size(directory: Path) -> int:
    path = directory / TRANSCRIPT
    return path.stat().st_size if path.exists() else -1


class Crash(Exception):
    pass


@given(st.integers(0, 40), st.booleans(), st.text(max_size=300))
@settings(max_examples=150)
def test_a_crash_at_any_write_is_mended(
    tmp_path_factory: pytest.TempPathFactory, step: int, torn: bool, text: str
) -> None:
    """Every system call that changes a file may be the last one; the one that writes may be torn."""
    directory = tmp_path_factory.mktemp("crash")
    record = Record(directory)
    add(record, "USER", "before")
    before = (directory / TRANSCRIPT).read_bytes()
    whole = before + turn(2, "USER", text).encode("utf-8", "surrogateescape")
    with pytest.MonkeyPatch.context() as patch:
        _crash_at(patch, step, torn)
        with contextlib.suppress(Crash):
            add(record, "USER", text)
    with Record(directory).locked() as writer:
        assert writer.next_number() in (2, 3)
    found = (directory / TRANSCRIPT).read_bytes()
    assert found in (before, whole)
    assert (directory / COUNTER).read_text() == ("1" if found == before else "2")
    assert {path.name for path in directory.iterdir()} == {TRANSCRIPT, COUNTER, module.LOCK}


def _crash_at(patch: pytest.MonkeyPatch, step: int, torn: bool) -> None:
    left = step

    def count() -> None:
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1

    genuine_open, genuine_replace, genuine_unlink, genuine_sync = Path.open, Path.replace, Path.unlink, os.fsync

    class File:
        def __init__(self, file: object) -> None:
            self.file = file

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def write(self, data: bytes) -> None:
            try:
                count()
            except Crash:
                if torn:
                    self.file.write(data[: len(data) // 2])  # type: ignore[attr-defined]
                    self.file.flush()  # type: ignore[attr-defined]
                raise
            self.file.write(data)  # type: ignore[attr-defined]

    def opened(path: Path, mode: str = "r", **options: object) -> object:
        count()
        return (
            File(genuine_open(path, mode, **options)) if "b" in mode and "r" not in mode else genuine_open(path, mode)
        )  # type: ignore[call-overload]

    def replaced(path: Path, target: Path) -> Path:
        count()
        return genuine_replace(path, target)

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        count()
        genuine_unlink(path, missing_ok=missing_ok)

    def synced(descriptor: int) -> None:
        count()
        genuine_sync(descriptor)

    patch.setattr(Path, "open", opened)
    patch.setattr(Path, "replace", replaced)
    patch.setattr(Path, "unlink", unlinked)
    patch.setattr(os, "fsync", synced)


def test_what_others_wrote_after_a_crash_stays(tmp_path: Path) -> None:
    record = Record(tmp_path)
    add(record, "USER", "one")
    text = turn(2, "USER", "two")
    at = size(tmp_path)
    head = {"at": at, "bytes": len(text), "sha256": module.hashlib.sha256(text.encode()).hexdigest(), "counter": 2}
    (tmp_path / PENDING).write_text(json.dumps(head) + "\n" + text)
    with (tmp_path / TRANSCRIPT).open("a") as file:  # an old tool, which knows no lock
        file.write(turn(2, "BASH", "ls"))
    with record.locked():
        pass
    assert [t.content for t in record.transcript().turns] == ["one", "ls", "two"]


@pytest.mark.parametrize(
    "junk", [b"", b"x", b"{}\n", b'{"at": -1, "bytes": 0, "sha256": "", "counter": 1}\n', b"[" * 9999]
)
def test_a_pending_file_that_is_none_is_dropped(tmp_path: Path, junk: bytes) -> None:
    record = Record(tmp_path)
    add(record, "USER", "one")
    (tmp_path / PENDING).write_bytes(junk)
    assert add(record, "USER", "two") == 2
    assert (tmp_path / TRANSCRIPT).read_text() == turn(1, "USER", "one") + turn(2, "USER", "two")
    assert FENCE in (tmp_path / TRANSCRIPT).read_text()


OLD_ASKED = {"id": "ab" * 16, "at": 1, "prompt": "p", "arguments": {"save": "a"}, "before": "b", "counter": None}
"""A note as it was written before it told the boot and the uptime."""

MOVE = Moving(model="m", name="n", head="h", object="o", at=3, tail="t\udcff", sha256="s", counter=5, kept="k")


def test_a_note_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """A transcript may hold bytes that are not UTF-8: in a text they are lone surrogates."""
    asked = Asked(
        id="ab" * 16, at=1.5, prompt="p\udcff", arguments={"seed": 7}, before="b", counter=4, boot="x", uptime=9.0
    )
    with Record(tmp_path).locked() as writer:
        writer.ask(asked)
        writer.move(MOVE)
        assert (writer.asked(), writer.moving()) == (asked, MOVE)


def test_a_note_of_an_older_program_still_reads(tmp_path: Path) -> None:
    (tmp_path / ASKED).write_text(json.dumps(OLD_ASKED))
    assert Record(tmp_path).noted("ab" * 16)
    with Record(tmp_path).locked() as writer:
        found = writer.asked()
    assert found == Asked(id="ab" * 16, at=1.0, prompt="p", arguments={"save": "a"}, before="b", counter=None)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "ab"},
        {"id": "xy" * 16},
        {"at": "now"},
        {"prompt": 1},
        {"prompt": "\ud800"},
        {"arguments": []},
        {"counter": 1.5},
        {"uptime": None},
        {"more": 1},
    ],
)
def test_a_damaged_note_of_a_turn_is_dropped(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / ASKED).write_text(json.dumps(OLD_ASKED | change))
    assert not Record(tmp_path).noted("ab" * 16)
    with Record(tmp_path).locked() as writer:
        assert writer.asked() is None
    assert not (tmp_path / ASKED).exists()


@pytest.mark.parametrize(
    "change",
    [{"at": -1}, {"at": True}, {"counter": -1}, {"counter": None}, {"tail": 1}, {"kept": "\ud800"}, {"more": 1}],
)
def test_a_damaged_note_of_a_move_is_dropped(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / MOVING).write_text(json.dumps(msgspec.structs.asdict(MOVE) | change))
    with Record(tmp_path).locked() as writer:
        assert writer.moving() is None
    assert not (tmp_path / MOVING).exists()


def test_a_transcript_with_a_byte_order_mark_is_read_and_kept(tmp_path: Path) -> None:
    record, path = Record(tmp_path), tmp_path / TRANSCRIPT
    path.write_bytes(b"\xef\xbb\xbf")
    (tmp_path / COUNTER).write_bytes(b"\xef\xbb\xbf6\r\n")
    assert add(record, "USER", "hello") == 7
    assert path.read_bytes() == b"\xef\xbb\xbf" + turn(7, "USER", "hello").encode()
    assert record.turn(7).content == "hello"


def test_a_transcript_in_utf_16_is_told_and_left_alone(tmp_path: Path) -> None:
    record, path = Record(tmp_path), tmp_path / TRANSCRIPT
    path.write_bytes(turn(1, "USER", "hello").encode("utf-16"))
    before = path.read_bytes()
    with pytest.raises(BadRequest) as caught:
        add(record, "USER", "more")
    assert caught.value.details == {"encoding": "utf-16"}
    assert path.read_bytes() == before
