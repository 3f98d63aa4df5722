"""A turn asked for from a terminal: its text written as it comes, its prompt's progress shown, Ctrl-C heard."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from ssmprov import wire
from ssmprov.transcript import FENCE

if TYPE_CHECKING:
    from clients.blocking import Client
    from clients.requests import Reply


class Output:
    """Writes the reply to standard output: piece by piece when live, else whole; when bare, without its fence."""

    def __init__(self, *, live: bool, bare: bool) -> None:
        self.live = live
        self.bare = bare
        self._held = ""

    def write(self, piece: str) -> None:
        self._held += piece
        if self.live:
            keep = _may_be_fence(self._held) if self.bare else 0
            self._put(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]

    def end(self) -> None:
        self._put(self._held.removesuffix(FENCE) + "\n" if self.bare else self._held)

    def _put(self, text: str) -> None:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def _may_be_fence(text: str) -> int:
    """How many characters at the end of `text` could be the beginning of a fence."""
    longest = min(len(FENCE), len(text))
    return next((n for n in range(longest, 0, -1) if FENCE.startswith(text[-n:])), 0)


def run(
    client: Client, prompt: str, arguments: dict[str, Any], write: Callable[[str], None], on_cancel: str = "keep"
) -> Reply:
    """Run a turn in a thread of its own, so that this one can write its text and hear Ctrl-C at any moment.

    The first Ctrl-C cancels the turn in the way `on_cancel`.
    """
    events: queue.SimpleQueue[Callable[[], Reply | None]] = queue.SimpleQueue()
    request_id = wire.new_id()

    def ask() -> None:
        try:
            reply = client.turn(
                prompt,
                request_id=request_id,
                on_text=lambda piece: events.put(lambda: write(piece)),
                on_progress=lambda done, total: events.put(lambda: show(done, total)),
                **arguments,
            )
        except BaseException as error:
            events.put(_raiser(error))
        else:
            events.put(lambda: reply)

    def interrupted() -> None:
        client.cancel(request_id, on_cancel)

    with progress() as show, on_interrupt(lambda: events.put(interrupted)):
        threading.Thread(target=ask, name="turn", daemon=True).start()
        while (reply := events.get()()) is None:
            pass
    return reply


@contextmanager
def on_interrupt(first: Callable[[], None]) -> Iterator[None]:
    """Have the first Ctrl-C call `first`, wherever it strikes, so that no write is torn; the second one raises."""
    seen = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True
        first()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raiser(error: BaseException) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


@contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while a prompt is read, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from tqdm import tqdm

    bar = tqdm(desc="reading", unit=" tokens", leave=False, delay=0.3, file=sys.stderr)

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        bar.close()
