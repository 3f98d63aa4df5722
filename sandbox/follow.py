"""The caller's side of a run: starts the launcher, reads the output, and ends the process tree in time."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ssmprov.errors import SsmprovError

POLL_S = 0.05
"""How often an event or a function is asked whether to end the run. A descriptor needs no polling."""

GRACE_S = 10.0
"""How long a process tree may take to end before its launcher is killed."""

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from sandbox.launcher import main; main()"


class EventLike(Protocol):
    def is_set(self) -> bool: ...


Cancelled = EventLike | int | Callable[[], bool]
"""What can end a run: an event, a descriptor that becomes readable, or a function that returns True."""


def follow(
    plan: dict[str, Any],
    *,
    timeout_s: float,
    output_bytes: int,
    on_output: Callable[[bytes], None] | None,
    cancelled: Cancelled | None,
) -> tuple[bytes, dict[str, Any], str]:
    """Run a plan to its end. Returns the output, the launcher's answer, and why we ended it (or '')."""
    out, out_in = os.pipe()
    answer, answer_in = os.pipe()
    try:
        launcher = _launch(plan | {"out": out_in, "answer": answer_in})
    except BaseException:
        os.close(out)
        os.close(answer)
        raise
    finally:
        os.close(out_in)
        os.close(answer_in)
    follower = _Follower(out, answer, time.monotonic() + timeout_s, output_bytes, on_output, cancelled)
    try:
        with launcher:
            follower.follow(launcher)
    finally:
        os.close(out)
        os.close(answer)
    return bytes(follower.output), follower.answer(), follower.reason


def _launch(plan: dict[str, Any]) -> subprocess.Popen[bytes]:
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, str(Path(__file__).parents[1])],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[plan["out"], plan["answer"], *plan.get("fds", ())],
        start_new_session=True,  # Ctrl-C must only reach the caller, which ends the tree in order
        env=plan["env"],  # so that the launcher's /proc entry shows no secrets either
    )
    assert launcher.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it did not start; the missing answer shows it
        view = memoryview(json.dumps(plan).encode() + b"\n")
        while view:
            view = view[launcher.stdin.write(view) :]
    return launcher


class _Follower:
    """Reads the pipes of one launcher until both have ended."""

    def __init__(
        self,
        out: int,
        answer: int,
        deadline: float,
        output_bytes: int,
        on_output: Callable[[bytes], None] | None,
        cancelled: Cancelled | None,
    ) -> None:
        self.output, self.reason = bytearray(), ""
        self._out, self._answer, self._deadline = out, answer, deadline
        self._room, self._on_output, self._cancelled = output_bytes, on_output, cancelled
        self._said = b""

    def answer(self) -> dict[str, Any]:
        return json.loads(self._said or b'{"error": "the process that starts it died"}')  # type: ignore[no-any-return]

    def follow(self, launcher: subprocess.Popen[bytes]) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                for fd in (self._out, self._answer):
                    os.set_blocking(fd, False)
                    selector.register(fd, selectors.EVENT_READ)
                if isinstance(self._cancelled, int):
                    selector.register(self._cancelled, selectors.EVENT_READ)
                self._read(selector, launcher)
        finally:
            self._end(launcher, "")
            try:
                launcher.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                launcher.kill()

    def _read(self, selector: selectors.BaseSelector, launcher: subprocess.Popen[bytes]) -> None:
        while self._answer in selector.get_map():
            for key, _ in selector.select(self._wait_s()):
                if key.fd == self._cancelled:
                    selector.unregister(key.fd)
                    self._end(launcher, "cancelled")
                elif (data := os.read(key.fd, 1 << 16)) == b"":
                    selector.unregister(key.fd)
                elif key.fd == self._answer:
                    self._said += data
                else:
                    self._take(data, launcher)
            if time.monotonic() >= self._deadline:
                if self.reason:
                    launcher.kill()
                    raise SsmprovError(
                        f"the code's processes did not end within {GRACE_S:g} s: check whether any are still running"
                    )
                self._end(launcher, "timeout")
            elif not self.reason and self._is_cancelled():
                self._end(launcher, "cancelled")
        with contextlib.suppress(BlockingIOError):  # the tree has ended: read what is left in the pipe
            while data := os.read(self._out, 1 << 16):
                self._take(data, launcher)

    def _take(self, data: bytes, launcher: subprocess.Popen[bytes]) -> None:
        kept = data[: self._room]
        self._room -= len(kept)
        self.output += kept
        if kept and self._on_output is not None:
            self._on_output(kept)
        if len(kept) < len(data):
            self._end(launcher, "output")

    def _wait_s(self) -> float:
        left = max(0.0, self._deadline - time.monotonic())
        polled = self._cancelled is not None and not isinstance(self._cancelled, int)
        return min(left, POLL_S) if polled and not self.reason else left

    def _is_cancelled(self) -> bool:
        if self._cancelled is None or isinstance(self._cancelled, int):
            return False
        return self._cancelled() if callable(self._cancelled) else self._cancelled.is_set()

    def _end(self, launcher: subprocess.Popen[bytes], reason: str) -> None:
        """Make the launcher end the tree, by closing its standard input. The first reason is kept."""
        assert launcher.stdin is not None
        if not launcher.stdin.closed:
            launcher.stdin.close()
            self.reason = reason
            self._deadline = time.monotonic() + GRACE_S
