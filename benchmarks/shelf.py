"""A checkpoint store with a context in it, and the simplest ways to do the same on the same disk."""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from pathlib import Path

import numpy as np

from ssmprov.errors import SsmprovError
from ssmprov.names import Ref
from workers.checkpoints import Commit, RequestKey, Store
from workers.context import Identity, Read, Snapshot

HEAD = 64
EXPIRES_S = 3600.0


class Shelf:
    """A store and bare files in one directory. The context's state has the shape of an RWKV-7 state."""

    def __init__(self, directory: Path, layers: int, channels: int, vocabulary: int) -> None:
        directory.mkdir()
        self._directory = directory
        heads = channels // HEAD
        generator = np.random.default_rng(1)
        self._arrays = {
            "shifts": generator.standard_normal((layers, 2, channels), np.float32),
            "wkv": generator.standard_normal((layers, heads, HEAD, HEAD), np.float32),
        }
        self._copies = [np.zeros_like(array) for array in self._arrays.values()]
        self._logits = generator.standard_normal(vocabulary, np.float32)
        self._store = Store(directory / "store", "bench", Identity("0" * 64, "rwkv7", "bench", "fp32"))
        self._store.prepare()  # as a worker does when it starts
        self._names = 0
        self.save()
        row = self._store.row(Ref("save-1"))
        self._bytes = secrets.token_bytes(row.bytes)
        self._object = directory / "store" / "objects" / row.object[:2] / f"{row.object}.safetensors"
        self._commits = _bare_catalogue(directory / "bare.sqlite")

    def close(self) -> None:
        self._store.close()
        self._commits.close()

    def save(self) -> None:
        """Commit a new state under a new name."""
        self.save_together(1)

    def save_together(self, count: int) -> None:
        """Commit several states, as a worker does for turns that end together. Raises the first error."""
        for done in self._store.commit_all([self._commit() for _ in range(count)]):
            if isinstance(done, SsmprovError):
                raise done

    def _commit(self) -> Commit:
        number = self._next()
        arrays = self._arrays | {"shifts": self._arrays["shifts"] + np.float32(number)}
        window = np.array([number], np.int32)
        snapshot = Snapshot(arrays=arrays, logits=self._logits, window=window, tokens=1, seed=1)
        return Commit(
            snapshot=snapshot, read=Read(window, b"x"), name=f"save-{number}", request=_key(), answer=str.encode
        )

    def write(self, count: int = 1) -> None:
        """Write the same number of bytes durably in the simplest way, one file after the other."""
        for _ in range(count):
            self._write()

    def _write(self) -> None:
        path = self._directory / f"bare-{self._next()}"
        temporary = path.with_suffix(".tmp")
        with temporary.open("xb", buffering=0) as file:
            file.write(self._bytes)
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(self._directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def fork(self, count: int = 1) -> None:
        """Give a context more names durably, in one call."""
        names = [f"fork-{self._next()}" for _ in range(count)]
        self._store.fork(Ref("save-1"), names, request=_key(), answer=lambda _: b"done")

    def copy(self, count: int) -> None:
        """Copy the state in memory this many times, with a plain memcpy."""
        for _ in range(count):
            for source, target in zip(self._arrays.values(), self._copies, strict=True):
                np.copyto(target, source)

    def commit(self) -> None:
        """Insert one row in one transaction."""
        self._commits.execute("INSERT INTO names VALUES (?, ?)", (f"fork-{self._next()}", 1))

    def load(self) -> None:
        self._store.load(Ref("save-1"))

    def read(self) -> None:
        hashlib.sha256(self._object.read_bytes()).digest()

    def _next(self) -> int:
        self._names += 1
        return self._names


def _key() -> RequestKey:
    return RequestKey(secrets.token_bytes(16), EXPIRES_S)


def _bare_catalogue(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE names (name TEXT PRIMARY KEY, step INTEGER NOT NULL) STRICT")
    return connection
