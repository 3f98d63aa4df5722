"""All calls to the broker: jobs that run in threads and report to the window with signals."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from PyQt6.QtCore import QObject, QRunnable, QThreadPool, pyqtSignal

from clients import Client, Reply
from ssmprov.causes import told
from ssmprov.errors import Cancelled, SsmprovError, Unreachable, error_of

THREADS = 40
"""Jobs at the same time: many rerolls, and the questions of the panels."""

T = TypeVar("T")
C = TypeVar("C", bound=Client)


class Job(QObject):
    """One piece of work. Its signals arrive in the window's thread; `done` or `failed` is the last one."""

    text = pyqtSignal(str, int)  # a piece of the reply, and the number of tokens written so far
    progress = pyqtSignal(int, int)  # prefill: tokens read, tokens in all
    placed = pyqtSignal(int)  # the number of requests ahead of this one in the broker
    said = pyqtSignal(str)  # a hint
    marked = pyqtSignal(object)  # an intermediate result
    done = pyqtSignal(object)
    failed = pyqtSignal(object)  # an SsmprovError

    def __init__(self, client: Client, parent: QObject) -> None:
        super().__init__(parent)  # the parent owns it, so that no other thread deletes it
        self.client = client
        self.cancelled = threading.Event()
        self.abandoned = False
        self._lock = threading.Lock()
        self._mode = ""
        self._request = b""
        self._others: list[Client] = []

    def use(self, client: C) -> C:
        """Close this client too when the window closes, so that it does not delay closing."""
        with self._lock:
            self._others.append(client)
            abandoned = self.abandoned
        if abandoned:
            client.close()
        return client

    def abandon(self) -> None:
        """Give up: nobody waits for this job any more."""
        with self._lock:
            self.abandoned = True
            others = list(self._others)
        self.cancelled.set()
        for client in others:
            client.close()

    def stop(self, mode: str = "close") -> None:
        """Stop early: waiting ends, and a running turn is cancelled with this `mode`."""
        with self._lock:
            self._mode = mode
            request = self._request
        self.cancelled.set()
        if request:
            self.client.cancel(request, mode)

    def ask(self, prompt: str, request_id: bytes, arguments: dict[str, Any]) -> Reply:
        """Run a turn and emit its pieces. Call it in the job's own thread.

        Raises Unreachable if the window was closed before the turn ended, because its outcome is then unknown.
        """
        try:
            return self._ask(prompt, request_id, arguments)
        except Cancelled:
            if not self.abandoned:
                raise
            raise Unreachable("the window was closed before the turn had ended") from None

    def _ask(self, prompt: str, request_id: bytes, arguments: dict[str, Any]) -> Reply:
        with self._lock:
            if self._mode:
                raise Cancelled("stopped before it was sent; nothing has changed")
        with self.client.stream(
            prompt, request_id=request_id, on_progress=self.progress.emit, on_place=self.placed.emit, **arguments
        ) as stream:
            with self._lock:
                self._request = request_id
                mode = self._mode
            if mode:
                self.client.cancel(request_id, mode)
            for piece in stream:
                self.text.emit(piece, stream.tokens)
            with self._lock:
                self._request = b""
            return stream.reply


class _Task(QRunnable):
    def __init__(self, job: Job, work: Callable[[Job], object]) -> None:
        super().__init__()
        self._job = job
        self._work = work

    def run(self) -> None:
        with contextlib.suppress(RuntimeError):  # the window and the job were deleted
            try:
                result = self._work(self._job)
            except BaseException as error:
                self._job.failed.emit(_known(error))
            else:
                self._job.done.emit(result)


def _known(error: BaseException) -> SsmprovError:
    """Turn any exception into an SsmprovError, with its traceback for the details."""
    if isinstance(error, SsmprovError):
        return error
    found = error_of(told(error))
    found.remote_traceback = "".join(traceback.format_exception(error))[-8192:]
    return found


class Link(QObject):
    """Runs jobs against one broker, and deletes each job when it has ended."""

    def __init__(self, client: Client, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.client = client
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(THREADS)
        self._jobs: set[Job] = set()
        self._closed = False

    def run(
        self,
        work: Callable[[Job], T],
        done: Callable[[T], object] | None = None,
        failed: Callable[[SsmprovError], object] | None = None,
        listen: Callable[[Job], object] = lambda _job: None,
    ) -> Job:
        """Start a job. `done` or `failed` is called in the window's thread; `listen` may connect its other signals."""
        job = Job(self.client, self)
        self._jobs.add(job)
        job.done.connect(lambda result: self._ended(job, done, result))
        job.failed.connect(lambda error: self._ended(job, failed, error))
        listen(job)  # before it runs, so that no signal is missed
        self._pool.start(_Task(job, work))
        return job

    @property
    def busy(self) -> int:
        """The number of running jobs."""
        return len(self._jobs)

    def _ended(self, job: Job, tell: Callable[[Any], object] | None, value: object) -> None:
        if self._closed:  # ignore late results
            return
        self._jobs.discard(job)
        job.deleteLater()
        if tell is not None:
            tell(value)

    def close(self, wait_ms: int = 3000) -> None:
        """Give up the running jobs. The server finishes turns that save; the next writer records them."""
        self._closed = True
        for job in self._jobs:
            job.abandon()
        self.client.close()
        self._pool.waitForDone(wait_ms)
        for job in self._jobs:
            job.blockSignals(True)
        self._jobs.clear()
