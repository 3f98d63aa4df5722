"""Files in CHUNKs: what is sent arrives whole, credit paces it, and an abort or a lie ends it at once."""

from __future__ import annotations

import hashlib
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ssmprov import wire
from ssmprov.errors import BadRequest, Cancelled, Corrupt, TimedOut
from workers.transfer import AHEAD, Transfer, receive, send

PATIENCE_S = 60.0
Post = Callable[[wire.Message, list[bytes]], None]


class Line:
    """What a transfer posts."""

    def __init__(self) -> None:
        self.posted: queue.SimpleQueue[tuple[wire.Message, list[bytes]]] = queue.SimpleQueue()

    def __call__(self, message: wire.Message, payloads: list[bytes]) -> None:
        self.posted.put((message, payloads))

    def get(self) -> tuple[wire.Message, list[bytes]]:
        return self.posted.get(timeout=PATIENCE_S)


def transfer(line: Post, *, seconds: float = PATIENCE_S, credit: int = 0) -> Transfer:
    return Transfer(wire.Request(b"i" * 16, "ckpt.export"), time.monotonic() + seconds, line, credit)


def chunk(seq: int, offset: int) -> wire.Chunk:
    return wire.Chunk(id=b"i" * 16, seq=seq, offset=offset)


@pytest.fixture
def disk() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, "disk") as pool:
        yield pool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


DATA = bytes(range(256)) * 4 * 1024 * 2 + b"the rest"


def test_a_file_goes_out_in_gapless_chunks_and_comes_in_as_it_was(
    disk: ThreadPoolExecutor, path: Path, tmp_path: Path
) -> None:
    path.write_bytes(DATA)
    line = Line()
    send(path, transfer(line, credit=3))
    sent = [line.get() for _ in range(3)]
    assert [(m.seq, m.offset, m.last) for m, _ in sent if isinstance(m, wire.Chunk)] == [
        (1, 0, False), (2, wire.MAX_PAYLOAD, False), (3, 2 * wire.MAX_PAYLOAD, True),
    ]  # fmt: skip
    assert b"".join(data for _, (data,) in sent) == DATA
    back = Line()
    incoming = transfer(back)
    target = tmp_path / "copy"
    done = disk.submit(receive, target, incoming, len(DATA), hashlib.sha256(DATA).hexdigest())
    for message, payloads in sent:
        assert isinstance(message, wire.Chunk)
        incoming.chunk(message, payloads)
    done.result(PATIENCE_S)
    assert target.read_bytes() == DATA
    credits = [message.n for message, _ in (back.get() for _ in range(4)) if isinstance(message, wire.Credit)]
    assert credits == [AHEAD, 1, 1, 1]


def test_a_reader_without_room_is_sent_nothing(disk: ThreadPoolExecutor, path: Path) -> None:
    path.write_bytes(DATA)
    line = Line()
    outgoing = transfer(line)
    done = disk.submit(send, path, outgoing)
    for count in (1, 1, 1):
        with pytest.raises(queue.Empty):
            line.posted.get(timeout=0.02)
        outgoing.grant(count)
        line.get()
    done.result(PATIENCE_S)


def test_an_export_that_nobody_takes_runs_out_of_time(path: Path) -> None:
    path.write_bytes(DATA)
    with pytest.raises(TimedOut, match="did not read the export in time"):
        send(path, transfer(Line(), seconds=0.0))


def test_an_import_whose_parts_stay_away_runs_out_of_time(path: Path) -> None:
    with pytest.raises(TimedOut, match="did not arrive"):
        receive(path, transfer(Line(), seconds=0.0), 10, "")


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (chunk(2, 0), b"abc"),
        (chunk(0, 0), b"abc"),
        (chunk(1, 1), b"abc"),
        (chunk(1, 0), b""),
        (chunk(1, 0), b"too much for it"),
    ],
)
def test_parts_that_do_not_follow_each_other_are_refused(path: Path, message: wire.Chunk, data: bytes) -> None:
    incoming = transfer(Line())
    incoming.chunk(message, [data])
    with pytest.raises(BadRequest, match="do not follow"):
        receive(path, incoming, 10, "")


def test_a_part_that_comes_twice_is_refused(path: Path) -> None:
    incoming = transfer(Line())
    for _ in range(2):
        incoming.chunk(chunk(1, 0), [b"abc"])
    with pytest.raises(BadRequest, match="do not follow"):
        receive(path, incoming, 6, "")


def test_what_hashes_to_something_else_is_corrupt(path: Path) -> None:
    incoming = transfer(Line())
    incoming.chunk(chunk(1, 0), [b"ab", b"c"])
    with pytest.raises(Corrupt):
        receive(path, incoming, 3, hashlib.sha256(b"abd").hexdigest())
    incoming.chunk(chunk(1, 0), [b"abc"])
    receive(path, incoming, 3, "")


def test_as_many_parts_as_were_asked_for_may_wait_and_one_more_ends_the_import(path: Path) -> None:
    incoming = transfer(Line())
    for i in range(AHEAD):
        incoming.chunk(chunk(i + 1, i), [b"x"])
    receive(path, incoming, AHEAD, "")
    assert path.read_bytes() == b"x" * AHEAD
    flooded = transfer(Line())
    for i in range(AHEAD + 1):
        flooded.chunk(chunk(i + 1, i), [b"x"])
    with pytest.raises(Cancelled):
        receive(path, flooded, AHEAD + 1, "")


def test_an_abort_reaches_who_waits_for_room_and_who_waits_for_parts(
    disk: ThreadPoolExecutor, path: Path, tmp_path: Path
) -> None:
    path.write_bytes(DATA)
    line = Line()
    outgoing = transfer(line, credit=1)
    done: Future[None] = disk.submit(send, path, outgoing)
    line.get()
    outgoing.abort()
    with pytest.raises(Cancelled):
        done.result(PATIENCE_S)
    assert line.posted.empty(), "nothing is sent behind an abort"
    asked = Line()
    incoming = transfer(asked)
    done = disk.submit(receive, tmp_path / "copy", incoming, 10, "")
    asked.get()
    incoming.abort()
    with pytest.raises(Cancelled):
        done.result(PATIENCE_S)


def test_an_abort_goes_before_room_and_parts_that_are_there(path: Path) -> None:
    path.write_bytes(DATA)
    line = Line()
    outgoing = transfer(line, credit=5)
    outgoing.abort()
    with pytest.raises(Cancelled):
        send(path, outgoing)
    assert line.posted.empty()
    incoming = transfer(Line())
    for i in range(AHEAD):
        incoming.chunk(chunk(i + 1, i), [b"x"])
    for _ in range(3):
        incoming.abort()
    incoming.chunk(chunk(9, 8), [b"x"])
    with pytest.raises(Cancelled):
        receive(path, incoming, AHEAD, "")


def test_an_abort_survives_a_disk_thread_that_empties_the_queue_meanwhile(path: Path) -> None:
    """The socket's thread finds the queue full, and by the time that it makes room there is nothing to take out."""

    class Emptied(queue.Queue[tuple[wire.Chunk, bytes] | None]):
        def put_nowait(self, item: tuple[wire.Chunk, bytes] | None) -> None:
            try:
                super().put_nowait(item)
            except queue.Full:
                while not self.empty():
                    self.get_nowait()
                raise

    incoming = transfer(Line())
    incoming._chunks = Emptied(AHEAD + 1)
    for i in range(AHEAD):
        incoming.chunk(chunk(i + 1, i), [b"x"])
    incoming.abort()
    incoming.abort()
    with pytest.raises(Cancelled):
        receive(path, incoming, AHEAD, "")
