"""The transcript as the window shows it: what others write to the file, and what streams behind it."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot

from composer.reading import follow
from composer.reading.book import Book
from composer.reading.follow import FollowedFile, shared_prefix
from composer.reading.growing import Growing, first_difference
from ssmprov.transcript import Turn, half_step, header, parse, turn, written
from transcripts.record import TRANSCRIPT

PARTS = st.sampled_from(
    [
        "(Turn 1) [USER]: hello",
        "(Turn 2) [INTERFACE]:",
        "\n",
        "\r\n",
        "\n\n~~~(end)~~~\n\n",
        "~~~(end)~~~",
        "\n\n~~~(",
        "text",
        " ",
        "\\(Turn 3) [X]: y",
        "é",
        "\U0001f600",
    ]
)
TEXTS = st.lists(PARTS, max_size=14).map("".join)


def turns(count: int, begin: int = 1) -> str:
    return "".join(turn(number, "USER", f"says {number}") for number in range(begin, begin + count))


def contents(book: Book) -> list[str]:
    return [item.content for item in book.items if isinstance(item, Turn)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / TRANSCRIPT


# -- items of a text that grows and is cut


@given(st.lists(st.tuples(TEXTS, st.none() | st.integers(0, 120)), max_size=6))
def test_items_of_a_text_that_grew_and_was_cut_are_those_of_the_text(steps: list[tuple[str, int | None]]) -> None:
    growing, text = Growing(), ""
    for piece, cut in steps:
        before = growing.items
        if cut is not None and cut <= len(text):
            first = growing.cut(cut)
            text = text[:cut]
        else:
            first = growing.append(piece)
            text += piece
        assert growing.items == parse(text)
        assert growing.items[:first] == before[:first]
        assert growing.length == len(text)


@given(TEXTS, st.integers(0, 60), TEXTS)
def test_a_branch_leaves_the_text_that_it_came_from_alone(text: str, at: int, more: str) -> None:
    growing = Growing()
    growing.append(text)
    other = growing.branch(min(at, len(text)))
    other.append(more)
    assert other.items == parse(text[:at] + more)
    assert growing.items == parse(text)


@given(TEXTS)
def test_offsets_are_where_items_begin(text: str) -> None:
    growing = Growing()
    growing.append(text)
    for index, item in enumerate(growing.items):
        offset = growing.offset(index)
        assert text.startswith(item.text, offset)
        assert growing.index_at(offset) == index


@given(TEXTS, TEXTS)
def test_the_shared_prefix_is_the_longest(one: str, other: str) -> None:
    length = shared_prefix(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or one == other


# -- a file that others write

BYTES = TEXTS.map(str.encode) | st.binary(max_size=12)
CHANGES = st.tuples(st.sampled_from(["append", "replace", "truncate", "rewrite", "delete"]), BYTES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(CHANGES, st.booleans()), max_size=10))
def test_following_a_file_gives_what_reading_it_whole_gives(
    tmp_path: Path, changes: list[tuple[tuple[str, bytes], bool]]
) -> None:
    path = tmp_path / "followed"
    path.unlink(missing_ok=True)
    file, growing = FollowedFile(path), Growing()
    for (what, data), quiet in changes:
        change(path, what, data)
        for changed in (file.poll(), file.settle() if quiet else None):
            if changed is not None:
                growing.cut(changed)
                growing.append(file.since(changed))
        held = path.read_bytes() if path.exists() else b""
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        assert file.text == decoder.decode(held, final=quiet)
        assert growing.items == parse(file.text)


def change(path: Path, what: str, data: bytes) -> None:
    if what == "append":
        with path.open("ab") as file:
            file.write(data)
    elif what == "replace":
        new = path.with_name("new")
        new.write_bytes(data)
        new.replace(path)
    elif what == "truncate" and path.exists():
        os.truncate(path, min(len(data), path.stat().st_size))
    elif what == "rewrite":
        path.write_bytes(data)
    elif what == "delete":
        path.unlink(missing_ok=True)


def test_only_what_was_added_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(turns(3000))
    file = FollowedFile(path)
    file.poll()
    size, read = path.stat().st_size, 0
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        data = pread(descriptor, length, offset)
        read += len(data) if offset >= size else 0
        assert offset >= size - follow.KNOWN
        return data

    monkeypatch.setattr(os, "pread", counted)
    with path.open("a") as out:
        out.write(turns(1, 3001))
    assert file.poll() == size
    assert read == len(turns(1, 3001))


def test_a_large_file_is_read_in_slices(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "SLICE", 1000)
    text = turns(200)
    path.write_text(text)
    file = FollowedFile(path)
    assert file.poll(budget_s=0) == 0
    assert file.behind
    assert file.text == text[:1000]
    while file.behind:
        file.poll(budget_s=0)
    assert file.text == text


def test_a_changed_place_in_the_middle_is_found(path: Path) -> None:
    path.write_text(turns(50))
    file = FollowedFile(path)
    file.poll()
    at = turns(50).index("says 20")
    path.write_text(turns(50).replace("says 20", "SAYS 20"))
    assert file.poll() == at


def test_a_fifo_in_its_place_does_not_block(path: Path) -> None:
    os.mkfifo(path)
    file = FollowedFile(path)
    assert file.poll() is None
    assert "not a regular file" in file.trouble


# -- the book


def test_a_missing_transcript_is_a_new_one(qtbot: QtBot, tmp_path: Path, path: Path) -> None:
    book = Book(tmp_path)
    assert (book.items, book.text, book.trouble_now) == ([], "", "")
    with qtbot.waitSignal(book.changed):
        path.write_text(turns(1))
    assert contents(book) == ["says 1"]


def test_what_another_process_appends_is_shown(qtbot: QtBot, tmp_path: Path, path: Path) -> None:
    path.write_text(turns(3))
    book = Book(tmp_path)
    with qtbot.waitSignal(book.changed) as signal, path.open("a") as file:
        file.write(turns(1, 4))
    assert contents(book)[-1] == "says 4"
    assert signal.args == [2]  # the last one there was: its end might have gone on
    assert book.line_of(3) == 13


def test_a_replaced_file_is_followed_on(qtbot: QtBot, tmp_path: Path, path: Path) -> None:
    path.write_text(turns(3))
    book = Book(tmp_path)
    new = tmp_path / "new"
    for count in (5, 2):
        new.write_text(turns(count))
        with qtbot.waitSignal(book.changed):
            new.replace(path)
        assert len(book.items) == count
    with qtbot.waitSignal(book.changed), path.open("a") as file:
        file.write(turns(1, 3))
    assert len(book.items) == 3


def test_what_stands_before_a_change_is_not_told_as_changed(tmp_path: Path, path: Path, qtbot: QtBot) -> None:
    path.write_text(turns(10))
    book = Book(tmp_path)
    path.write_text(turns(6) + turn(7, "USER", "another"))
    with qtbot.waitSignal(book.changed) as signal:
        book.refresh()
    assert signal.args is not None
    assert signal.args[0] in (5, 6)
    assert contents(book)[5:] == ["says 6", "another"]


def test_a_deleted_transcript_is_told_and_its_return_too(qtbot: QtBot, tmp_path: Path, path: Path) -> None:
    path.write_text(turns(3))
    book = Book(tmp_path)
    with qtbot.waitSignals([book.trouble, book.reset]):
        path.unlink()
    assert book.items == []
    assert "deleted" in book.trouble_now
    assert "contexts still have" in book.trouble_now
    with qtbot.waitSignal(book.trouble) as signal:
        path.write_text(turns(2))
    assert signal.args == [""]
    assert len(book.items) == 2


def test_bytes_that_are_no_utf8_are_shown_and_told_by_line(tmp_path: Path, path: Path, qtbot: QtBot) -> None:
    path.write_bytes(turns(2).encode() + b"(Turn 3) [USER]: a\n\xff\xfe b\n\n~~~(end)~~~\n\n")
    book = Book(tmp_path)
    assert "Line 10 " in book.trouble_now
    assert contents(book)[2] == "a\n\udcff\udcfe b"
    path.write_text(turns(2))
    book.refresh()
    assert book.trouble_now == ""


def test_a_character_cut_in_two_waits_for_its_rest(tmp_path: Path, path: Path, qtbot: QtBot) -> None:
    whole = turn(1, "USER", "Zoë \U0001f600").encode()
    cut = whole.index(b"\xf0") + 2
    path.write_bytes(whole[:cut])
    book = Book(tmp_path)
    assert book.text.endswith("Zoë ")
    assert book.trouble_now == ""
    path.write_bytes(whole)
    book.refresh()
    assert contents(book) == ["Zoë \U0001f600"]


def test_a_directory_in_its_place_is_told(tmp_path: Path, path: Path, qtbot: QtBot) -> None:
    path.mkdir()
    book = Book(tmp_path)
    assert "it is a directory" in book.trouble_now
    assert str(path) in book.trouble_now


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LIMIT", 1000)
    path.write_text(turns(100))
    book = Book(tmp_path)
    assert book.items == []
    assert "larger than" in book.trouble_now


# -- streaming


def test_a_stream_is_shown_after_the_file(tmp_path: Path, path: Path, qtbot: QtBot) -> None:
    path.write_text(turns(2))
    book = Book(tmp_path)
    changes: list[int] = []
    book.changed.connect(changes.append)
    book.begin(header(3, "USER") + "hi")
    assert book.streaming
    book.write(" there")
    assert contents(book) == ["says 1", "says 2", "hi there"]
    assert book.shown == turns(2) + "(Turn 3) [USER]: hi there"
    assert book.text == turns(2)
    assert changes[-1] == 2
    assert min(changes) >= 1
    assert book.offset_of(2) == len(turns(2))
    assert book.line_of(2) == 9


def test_a_stream_can_take_the_place_of_what_follows(tmp_path: Path, path: Path, qtbot: QtBot) -> None:
    path.write_text(turns(4))
    book = Book(tmp_path)
    book.begin(header(3, "USER") + "again", at=len(turns(2)))
    assert contents(book) == ["says 1", "says 2", "again"]
    assert written(book.items) == book.shown
    book.end()
    assert contents(book) == ["says 1", "says 2", "says 3", "says 4"]


def test_where_the_file_says_what_streamed_only_the_end_is_drawn_again(
    tmp_path: Path, path: Path, qtbot: QtBot
) -> None:
    path.write_text(turns(5))
    book = Book(tmp_path)
    book.begin(header(6, "USER") + "said")
    book.write("\n\n~~~(end)~~~\n\n")
    with path.open("a") as file:
        file.write(turn(6, "USER", "said"))
    changes: list[int] = []
    book.changed.connect(changes.append)
    book.refresh()
    assert contents(book)[-2:] == ["says 5", "said"]  # not shown twice
    book.end()
    assert changes == [5]
    assert not book.streaming
    assert contents(book)[-1] == "said"


def test_a_turn_that_failed_leaves_what_the_file_says(tmp_path: Path, path: Path, qtbot: QtBot) -> None:
    path.write_text(turns(2) + half_step(3, "USER", "x"))
    book = Book(tmp_path)
    before = book.items
    book.begin("end)~~~\n\n" + header(4, "INTERFACE"))
    assert [item.closed for item in book.items if isinstance(item, Turn)] == [True, True, True, False]
    book.end()
    assert book.items == before


def test_a_file_replaced_under_a_stream_is_shown_before_it(tmp_path: Path, path: Path, qtbot: QtBot) -> None:
    path.write_text(turns(4))
    book = Book(tmp_path)
    book.begin(header(5, "USER") + "on")
    path.write_text(turns(1))
    book.refresh()
    assert contents(book) == ["says 1", "on"]
    path.unlink()
    book.refresh()
    assert contents(book) == ["on"]
    book.end()
    assert book.items == []


def test_the_first_difference_is_found() -> None:
    one, other = parse(turns(4)), parse(turns(2) + turn(3, "X", "y"))
    assert first_difference(one, other) == 2
    assert first_difference(one, one[:2]) == 2
