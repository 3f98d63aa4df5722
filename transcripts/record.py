"""The record of a directory: `.transcript.txt` and `.counter`, kept under one lock.

Only the holder of the lock assigns numbers and appends. A turn holds it from its number to its last byte, so two
writers never share a number or interleave. An append is first written whole to `.transcript.pending`, then carried out,
then removed. After a crash, the next process that takes the lock finishes it if it is there.

What a turn asks of a server is written to `.transcript.asked` before it is sent, and removed with the append. A process
that finds it asks again under the same id, which takes effect only once, and records the missed answer. When a context
and its transcript move back, that is noted in `.transcript.moving` in the same way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from ssmprov import durable, encoding, locks
from ssmprov.causes import explaining
from ssmprov.errors import BadRequest, Cancelled, NotFound
from ssmprov.transcript import Transcript, Turn

TRANSCRIPT = ".transcript.txt"
COUNTER = ".counter"
LOCK = ".transcript.lock"
PENDING = ".transcript.pending"
ASKED = ".transcript.asked"
MOVING = ".transcript.moving"
CONTEXT = ".context"
"""Names the context that has read the transcript: see `transcripts.own`."""

SETTINGS = ".settings.json"
"""What slash commands chose for the next turns: see `shell.chosen`."""

MAX_COUNTER = 10**15
MAX_FILE = (1 << 63) - 1
"""No file can be larger."""

LOOK_S = 0.05
"""How often a cancellable wait for the lock tries again."""


class Record:
    """The record of one directory. Reading needs no lock. `locked` returns a `Writer`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def exists(self) -> bool:
        return any((self.directory / name).exists() for name in (TRANSCRIPT, COUNTER))

    @property
    def unfinished(self) -> bool:
        """Whether something was sent or moved and has not been recorded yet."""
        return any((self.directory / name).exists() for name in (ASKED, MOVING))

    def noted(self, request_id: str) -> bool:
        """Whether a turn was sent under that id (hex) and has not been recorded yet."""
        with contextlib.suppress(OSError):
            note = _note((self.directory / ASKED).read_bytes(), Asked)
            return note is not None and note.id == request_id
        return False

    def transcript(self) -> Transcript:
        """The recorded turns. Raises NotFound if there is no transcript."""
        path = self.directory / TRANSCRIPT
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no transcript here ({path}): PIPE starts one") from None
        encoding.check_not_utf16(data, str(path))
        return Transcript(data.decode("utf-8", "surrogateescape"))

    def turn(self, number: int | None, *roles: str) -> Turn:
        """The closed turn with that number, or the last one, with one of these roles (any role if none is given).

        If several turns have that number, the last one counts. Raises NotFound, which says what there is.
        """
        turns = self.transcript().turns
        wanted = " or ".join(roles) or "turn"
        found = [turn for turn in turns if turn.closed and (not roles or turn.role in roles)]
        if number is not None:
            numbered = [turn for turn in found if turn.number == number]
            if not numbered:
                others = [turn for turn in turns if turn.number == number]
                what = (
                    f"it is {others[-1].role}" + ("" if others[-1].closed else ", and open")
                    if others
                    else "there is none"
                )
                raise NotFound(f"no {wanted} turn {number}: {what}")
            return numbered[-1]
        if not found:
            raise NotFound(f"the transcript has no closed {wanted} turn")
        return found[-1]

    def read(self) -> bytes:
        """The bytes of the transcript; empty if there is none."""
        try:
            return (self.directory / TRANSCRIPT).read_bytes()
        except FileNotFoundError:
            return b""

    @contextmanager
    def locked(
        self, on_wait: Callable[[], None] = lambda: None, cancelled: threading.Event | None = None
    ) -> Iterator[Writer]:
        """Take the lock and finish what a crash has left. If the lock is taken, `on_wait` is called before waiting.

        Raises Cancelled if `cancelled` is set while waiting.
        """
        path = self.directory / LOCK
        with explaining("nothing can be recorded here"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                locks.lock(descriptor, locks.EXCLUSIVE | locks.NO_WAIT, path)
            except BlockingIOError:
                on_wait()
                _wait(descriptor, path, cancelled)
            writer = Writer(self)
            writer.check()
            writer.recover()
            yield writer
        finally:
            os.close(descriptor)


def _wait(descriptor: int, path: Path, cancelled: threading.Event | None) -> None:
    """Wait for the lock. A cancellable wait tries again and again, because the system's own wait cannot be ended."""
    if cancelled is None:
        locks.lock(descriptor, locks.EXCLUSIVE, path)
        return
    while True:
        with contextlib.suppress(BlockingIOError):
            locks.lock(descriptor, locks.EXCLUSIVE | locks.NO_WAIT, path)
            return
        if cancelled.wait(LOOK_S):
            raise Cancelled("nothing was sent: another turn of this transcript is in progress")


@contextmanager
def guarded(record: Record) -> Iterator[None]:
    """Use this while holding the lock to run foreign code: it can then neither create nor forge a pending append.

    The file exists but is empty, so that a sandbox sees it as one of the dot files that it guards. If a crash leaves it
    behind, it promises nothing and is removed.
    """
    made = [
        path for name in (PENDING, ASKED, MOVING, CONTEXT, SETTINGS) if not (path := record.directory / name).exists()
    ]
    for path in made:
        path.touch()
    try:
        yield
    finally:
        for path in made:
            path.unlink(missing_ok=True)


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A turn that was sent: under which id (hex), when (seconds since 1970), with which arguments of a client.

    `boot` and `uptime` tell when on a clock that no one can set, as long as the machine runs.
    `before` is recorded before its reply; then the counter is `counter`, and the context `also` is updated, too.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{32}\Z")]
    at: float
    prompt: str
    arguments: dict[str, Any]
    before: str
    counter: int | None
    also: str = ""
    boot: str = ""
    uptime: float = 0.0


class Moving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A context's name that moves from object `head` to `object` ('' for none), and what the transcript becomes.

    It keeps its first `at` bytes and continues with `tail`. `sha256` is that of the transcript before, which is kept in
    the file `kept`. Then the directory's context is `context` ('' for the same as before).
    """

    model: str
    name: str
    head: str
    object: str
    at: Annotated[int, msgspec.Meta(ge=0)]
    tail: str
    sha256: str
    counter: Annotated[int, msgspec.Meta(ge=0)]
    kept: str = ""
    context: str = ""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a pending append: where its text goes, how long it is, its hash, and the counter after it."""

    at: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE)]
    bytes: int
    sha256: str
    counter: int | None


class Writer:
    """Writes a record. It exists only while the lock is held."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._directory = record.directory
        self._transcript = record.directory / TRANSCRIPT
        self._counter = record.directory / COUNTER
        self._pending = record.directory / PENDING
        self._asked = record.directory / ASKED
        self._moving = record.directory / MOVING

    def check(self) -> None:
        """Raises BadRequest if the transcript cannot be written: better now than after a model has read the turn."""
        try:
            with self._transcript.open("rb+"):
                pass
        except FileNotFoundError:
            pass
        except OSError as error:
            raise BadRequest(f"nothing can be recorded here: {self._transcript}: {error.strerror}") from None

    def next_number(self) -> int:
        """The number of the next turn: one more than the counter, and than any turn recorded.

        Raises BadRequest if fewer than two numbers are left.
        """
        number = max(self.counter(), self.highest()) + 1
        if number >= MAX_COUNTER:
            raise BadRequest(
                f"no turn can follow turn {number - 1}: set {COUNTER} lower, or correct that number in {TRANSCRIPT}"
            )
        return number

    def counter(self) -> int:
        """The number in `.counter`, 0 if there is none."""
        try:
            number = int(self._counter.read_text(encoding="utf-8-sig")[:40].strip())
        except (OSError, ValueError):
            return 0
        return number if 0 <= number <= MAX_COUNTER else 0

    def highest(self) -> int:
        """The highest number of a turn in the transcript, 0 if there is none, ignoring any above MAX_COUNTER."""
        try:
            turns = self._record.transcript().turns
        except NotFound:
            return 0
        return max((turn.number for turn in turns if turn.number <= MAX_COUNTER), default=0)

    def lead(self) -> str:
        """What must precede a header so that it begins a line: '' unless the last line is open."""
        with contextlib.suppress(OSError), self._transcript.open("rb") as file:
            begin = len(encoding.BOM) if file.read(len(encoding.BOM)) == encoding.BOM else 0
            if file.seek(0, os.SEEK_END) > begin:
                file.seek(-1, os.SEEK_END)
                return "" if file.read(1) == b"\n" else "\n\n"
        return ""

    def append(self, text: str, counter: int | None = None) -> None:
        """Record a text and the counter after it. Durable, and whole or not at all."""
        data = text.encode("utf-8", "surrogateescape")
        at = self._transcript.stat().st_size if self._transcript.exists() else 0
        head = Head(at=at, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), counter=counter)
        durable.replace(self._pending, msgspec.json.encode(head) + b"\n" + data)
        self._carry_out(head, data)

    def ask(self, asked: Asked) -> None:
        """Note, durably, what is about to be sent."""
        durable.replace(self._asked, json.dumps(msgspec.structs.asdict(asked)).encode())

    def asked(self) -> Asked | None:
        """The turn that was sent and has not been recorded yet. A damaged note is removed."""
        try:
            data = self._asked.read_bytes()
        except FileNotFoundError:
            return None
        if (found := _note(data, Asked)) is None:
            self.answered()
        return found

    def answered(self) -> None:
        """Forget the turn that was sent: it is recorded, or had no effect."""
        self._asked.unlink(missing_ok=True)
        durable.sync(self._directory)

    def move(self, move: Moving) -> None:
        """Note, durably, that a name is about to be moved."""
        durable.replace(self._moving, json.dumps(msgspec.structs.asdict(move)).encode())

    def moving(self) -> Moving | None:
        """The move that has not been finished. A damaged note is removed."""
        try:
            data = self._moving.read_bytes()
        except FileNotFoundError:
            return None
        if (found := _note(data, Moving)) is None:
            self.moved()
        return found

    def carry_out_move(self, move: Moving) -> bool:
        """Make the transcript match its context; False, with nothing changed, if it has changed since."""
        data, tail = self._record.read(), move.tail.encode("utf-8", "surrogateescape")
        if digest_of(data) == move.sha256:
            self.rewrite(data[: move.at] + tail, move.counter)
        elif len(data) == move.at + len(tail) and data.endswith(tail):  # a crash came right after it
            self.set_counter(move.counter)
        else:
            return False
        if move.context:
            self.set_context(move.context)
        self.moved()
        return True

    def rewrite(self, data: bytes, counter: int) -> None:
        """Replace the whole transcript, and set the counter."""
        durable.replace(self._transcript.resolve(), data)
        self.set_counter(counter)

    def moved(self) -> None:
        """Forget a move: it is done, or never started."""
        self._moving.unlink(missing_ok=True)
        durable.sync(self._directory)

    def set_counter(self, number: int) -> None:
        durable.replace(self._counter, str(number).encode())

    def set_context(self, reference: str) -> None:
        """Name the context that has read the transcript."""
        durable.replace(self._directory / CONTEXT, f"{reference}\n".encode())

    def recover(self) -> None:
        """Finish the append that a crash has left, if any."""
        for name in (PENDING, COUNTER, ASKED, MOVING, CONTEXT, SETTINGS, TRANSCRIPT):
            for torn in self._directory.glob(f"{name}.{'[0-9a-f]' * 8}"):
                torn.unlink(missing_ok=True)
        try:
            first, _, data = self._pending.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return
        head = _head(first, data)
        if head is None:  # not one of ours: it was never promised
            self._pending.unlink()
            return
        self._carry_out(head, data)

    def _carry_out(self, head: Head, data: bytes) -> None:
        with durable.naming(self._transcript), self._transcript.open("ab+") as file:
            file.seek(head.at)
            there = file.read()
            beyond = file.tell() < head.at
            if not there.startswith(data):
                # The rest of it, or all of it if others have changed the transcript in between.
                file.write(data[len(there) :] if data.startswith(there) and not beyond else data)
            file.flush()
            os.fsync(file.fileno())
        if head.counter is not None:
            self.set_counter(head.counter)
        self._asked.unlink(missing_ok=True)
        self._pending.unlink(missing_ok=True)
        durable.sync(self._directory)


N = TypeVar("N", bound=msgspec.Struct)


def _note(data: bytes, kind: type[N]) -> N | None:
    """What a note says, or None if it is damaged.

    `json` reads it, because msgspec rejects the lone surrogates that represent bytes which are not UTF-8.
    """
    try:
        found = msgspec.convert(json.loads(data), kind)
        for value in msgspec.structs.astuple(found):
            if isinstance(value, str):
                value.encode("utf-8", "surrogateescape")  # JSON can also spell surrogates that stand for no byte
    except (ValueError, RecursionError):
        return None
    return found


def digest_of(data: bytes) -> str:
    """The hash by which a note knows a transcript."""
    return hashlib.sha256(data).hexdigest()


def _head(first: bytes, data: bytes) -> Head | None:
    """The first line of a pending file, if the rest of the file is what it says."""
    try:
        head = msgspec.json.decode(first, type=Head)
    except (ValueError, RecursionError):
        return None
    whole = head.bytes == len(data) and head.sha256 == hashlib.sha256(data).hexdigest()
    return head if whole else None
