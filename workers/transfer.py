"""A file on its way through CHUNKs: credit paces it between a disk thread and the socket thread."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ssmprov import wire
from ssmprov.errors import BadRequest, Cancelled, Corrupt, TimedOut
from workers.checkpoints.files import no_space

PATIENCE_S = 60.0
"""A transfer ends if its client grants or sends nothing for this long."""

AHEAD = 8
"""CHUNKs of an import that may be on their way at once."""


class Transfer:
    """One export or import. The socket thread calls `grant`, `chunk` and `abort`, a disk thread the rest."""

    def __init__(
        self,
        request: wire.Request,
        deadline: float,
        post: Callable[[wire.Chunk | wire.Credit, list[bytes]], None],
        credit: int = 0,
    ) -> None:
        self._request = request
        self._deadline = deadline
        self._post = post
        self._credit = threading.Semaphore(credit)
        self._chunks: queue.Queue[tuple[wire.Chunk, bytes] | None] = queue.Queue(AHEAD + 1)
        self._aborted = False

    def grant(self, n: int) -> None:
        if n:
            self._credit.release(min(n, 1024))

    def chunk(self, message: wire.Chunk, payloads: list[bytes]) -> None:
        """Take a CHUNK; a CHUNK beyond the granted credit ends the import."""
        if self._aborted:
            return
        if self._chunks.qsize() >= AHEAD:
            self.abort()
        else:
            self._chunks.put_nowait((message, b"".join(payloads)))

    def abort(self) -> None:
        self._aborted = True
        self._credit.release(1)
        while True:
            try:
                self._chunks.put_nowait(None)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):  # the disk thread emptied it in the meantime
                    self._chunks.get_nowait()

    def write(self, seq: int, offset: int, data: bytes, *, last: bool) -> None:
        """Send the next CHUNK once the reader has room. Raises Cancelled and TimedOut."""
        if not self._credit.acquire(timeout=self._left()):
            raise TimedOut("the client did not read the export in time: try again")
        self._check()
        self._post(wire.Chunk(id=self._request.id, seq=seq, offset=offset, last=last), [data])

    def ask(self, n: int) -> None:
        self._post(wire.Credit(self._request.id, n), [])

    def read(self) -> tuple[wire.Chunk, bytes]:
        """The next CHUNK of an import. Raises Cancelled and TimedOut."""
        try:
            found = self._chunks.get(timeout=self._left())
        except queue.Empty:
            raise TimedOut("the rest of the import did not arrive in time; nothing was imported: try again") from None
        self._check()
        assert found is not None, "only an abort puts nothing into the queue"
        return found

    def _left(self) -> float:
        return min(PATIENCE_S, max(0.0, self._deadline - time.monotonic()))

    def _check(self) -> None:
        if self._aborted:
            raise Cancelled("the transfer was aborted: nothing has changed")


def send(path: Path, transfer: Transfer) -> None:
    """Send a file."""
    left = path.stat().st_size
    with path.open("rb") as file:
        seq = offset = 0
        while left:
            data = file.read(wire.MAX_PAYLOAD)
            left -= len(data)
            seq += 1
            transfer.write(seq, offset, data, last=left == 0)
            offset += len(data)


def receive(path: Path, transfer: Transfer, size: int, sha256: str) -> None:
    """Write a file of `size` bytes from CHUNKs. Raises BadRequest and Corrupt if they do not add up, and NoSpace."""
    digest = hashlib.sha256()
    transfer.ask(AHEAD)
    with no_space(path), path.open("wb") as file:
        seq = done = 0
        while done < size:
            chunk, data = transfer.read()
            seq += 1
            if chunk.seq != seq or chunk.offset != done or not data or done + len(data) > size:
                raise BadRequest("the parts of the import do not follow each other: send it again")
            file.write(data)
            digest.update(data)
            done += len(data)
            transfer.ask(1)
    if sha256 and digest.hexdigest() != sha256:
        raise Corrupt("the import was damaged on its way (its hash is not the announced one): send it again")
