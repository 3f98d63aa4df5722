"""Runs a turn for a terminal: prints text as it arrives, shows the progress of the prefill, and handles Ctrl-C."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ssmprov import wire
from ssmprov.process import handling
from ssmprov.terminal import begin_line, harmless, note_written
from ssmprov.transcript import FENCE

if TYPE_CHECKING:
    from clients.blocking import Client
    from clients.requests import Reply


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a turn early: Ctrl-C, a request to end, and a closed terminal."""

LEAVE_S = 2.0
"""How long we wait for the answer to a dropped turn. Only that answer says whether the context kept the turn."""


class Output:
    """Writes the reply to standard output: in pieces if `live`, else at the end; without its fence if `bare`.

    If standard output cannot be written any more (`| head`, a full disk), `broken` says why. `end` raises it, because
    by then the turn is recorded.
    """

    def __init__(self, *, live: bool, bare: bool) -> None:
        self.live = live
        self.bare = bare
        self.broken: OSError | None = None
        self._held = ""

    def write(self, piece: str) -> None:
        self._held += piece
        if self.live:
            keep = _may_be_fence(self._held) if self.bare else 0
            self._put(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]

    def end(self) -> None:
        self._put(self._held.removesuffix(FENCE) + "\n" if self.bare else self._held)
        if self.broken is not None:
            raise self.broken

    def _put(self, text: str) -> None:
        if self.broken is None:
            try:
                say(text)
            except OSError as error:
                self.broken = OSError(error.errno, error.strerror, "standard output")


def say(text: str) -> None:
    """Write to standard output: byte for byte. But a terminal gets its own encoding, and no control sequences."""
    terminal = sys.stdout.isatty()
    shown = harmless(text) if terminal else text
    data = (
        shown.encode(sys.stdout.encoding, "backslashreplace") if terminal else text.encode("utf-8", "surrogateescape")
    )
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    note_written(shown)


def notice(text: str) -> None:
    """Print a message on standard error, on a line of its own."""
    begin_line()
    click.echo(text, err=True)


def _may_be_fence(text: str) -> int:
    """How many characters at the end of `text` could be the beginning of a fence."""
    longest = min(len(FENCE), len(text))
    return next((n for n in range(longest, 0, -1) if FENCE.startswith(text[-n:])), 0)


def run(
    client: Client,
    prompt: str,
    arguments: dict[str, Any],
    output: Output,
    on_cancel: str = "keep",
    request_id: bytes | None = None,
    *,
    send: Callable[..., Reply] | None = None,
) -> Reply:
    """Run a turn in its own thread, so that this one can print its text and react to Ctrl-C at any moment.

    `send` is the client's method that sends it, `turn` if it is not given.

    The first Ctrl-C cancels the turn as `on_cancel` says, and so does closing the output. A second one drops it. We
    then wait a short time for the answer, because what the context kept has to be recorded.
    """
    events: queue.SimpleQueue[Callable[[], Reply | None]] = queue.SimpleQueue()
    request_id = request_id or wire.new_id()

    def ask() -> None:
        try:
            reply = (send or client.turn)(
                prompt,
                request_id=request_id,
                on_text=lambda piece: events.put(lambda: write(piece)),
                on_progress=lambda done, total: events.put(lambda: bar.show(done, total)),
                **arguments,
            )
        except BaseException as error:
            events.put(_raiser(error))
        else:
            events.put(lambda: reply)

    def write(piece: str) -> None:
        bar.close()  # it would overwrite the text if the prompt is read again, for example after a new connection
        output.write(piece)

    leave_at: float | None = None

    def interrupted() -> None:
        client.cancel(request_id, on_cancel)

    def dropped() -> None:
        nonlocal leave_at
        leave_at = time.monotonic() + LEAVE_S
        client.cancel(request_id, "drop")

    reply: Reply | None = None
    with contextlib.closing(Bar()) as bar, on_interrupt(lambda: events.put(interrupted), lambda: events.put(dropped)):
        threading.Thread(target=ask, name="turn", daemon=True).start()
        while reply is None:
            try:
                event = events.get(timeout=None if leave_at is None else max(0.0, leave_at - time.monotonic()))
            except queue.Empty:
                raise KeyboardInterrupt from None
            fine = output.broken is None
            reply = event()
            if fine and output.broken is not None:
                interrupted()
    return reply


@contextmanager
def on_interrupt(*steps: Callable[[], None]) -> Iterator[None]:
    """Make the first Ctrl-C call the first step, the second the second, and so on, so that no write is cut short.

    After the last step, Ctrl-C raises. SIGTERM and SIGHUP count like Ctrl-C. A signal that is ignored (`nohup`) stays
    ignored.
    """
    left = iter(steps)

    def handle(_number: int, _frame: FrameType | None) -> None:
        step = next(left, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    with handling(handle, *SIGNALS):
        yield


def _raiser(error: BaseException) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


class Bar:
    """A progress bar on standard error while a prompt is read, if that is a terminal. Once closed it stays away."""

    def __init__(self) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc="reading", unit=" tokens", leave=False, delay=0.3, file=sys.stderr)

    def show(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
