"""What is done to contexts: fork, save and load against the bare disk, restore against reading the text again."""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks import weights
from benchmarks.measure import Figure, Plan, figure, interleave, median_s
from benchmarks.serving import Companion, Serving
from clients import Client
from ssmprov.names import Ref
from workers.checkpoints import RequestKey, Store
from workers.context import Identity, Read, Snapshot

GROUP = "contexts"
HOT, COLD = "hot", "cold"
PROMPT_TOKENS = 13_000
SLICE = 128
"""Tokens of a prompt that a worker reads between two decode steps, by default."""

SHAPES = {"mini, 0.2 MB": (5, 128, 257), "0.1B, 2.7 MB": (12, 768, 65536)}
"""Layers, channels and vocabulary of the states that are saved."""

HEAD = 64
EXPIRES_S = 3600.0


def measure(plan: Plan) -> list[Figure]:
    return [*_stored(plan), *_served(plan)]


# -- inside the store, without a broker


class Shelf:
    """A store with a context in it, and the same disk without a store."""

    def __init__(self, directory: Path, layers: int, channels: int, vocabulary: int) -> None:
        directory.mkdir()
        self._directory = directory
        heads = channels // HEAD
        generator = np.random.default_rng(1)
        self._arrays = {
            "shifts": generator.standard_normal((layers, 2, channels), np.float32),
            "wkv": generator.standard_normal((layers, heads, HEAD, HEAD), np.float32),
        }
        self._logits = generator.standard_normal(vocabulary, np.float32)
        self._store = Store(directory / "store", "bench", Identity("0" * 64, "rwkv7", "bench", "fp32"))
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
        """Commit a state that the store has not seen, under a new name."""
        number = self._next()
        arrays = self._arrays | {"shifts": self._arrays["shifts"] + np.float32(number)}
        window = np.array([number], np.int32)
        snapshot = Snapshot(arrays, self._logits, window, tokens=1, seed=1)
        read = Read(window, b"x")
        self._store.commit(snapshot, read, f"save-{number}", request=_key(), answer=str.encode)

    def write(self) -> None:
        """As many bytes, durably, by the plainest way."""
        path = self._directory / f"bare-{self._next()}"
        temporary = path.with_suffix(".tmp")
        with temporary.open("xb", buffering=0) as file:
            file.write(self._bytes)
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(self._directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def fork(self) -> None:
        """A further durable name for a context."""
        self._store.fork(Ref("save-1"), [f"fork-{self._next()}"], request=_key(), answer=lambda _: b"done")

    def commit(self) -> None:
        """One row, one transaction."""
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


def _stored(plan: Plan) -> list[Figure]:
    figures = []
    for name, shape in SHAPES.items():
        plan.say(f"contexts: fork, save and load in the store, {name}")
        with closing(Shelf(plan.scratch / f"shelf-{shape[1]}", *shape)) as shelf:
            actions = {
                "fork": shelf.fork,
                "commit": shelf.commit,
                "save": shelf.save,
                "write": shelf.write,
                "load": shelf.load,
                "read": shelf.read,
            }
            taken = _rounds(plan, actions, plan.size(5, 20))
        commit, write = "SQLite commit", "write, fsync, rename, fsync"
        figures += [
            _figure(f"durable fork in the store, {name}", taken, "fork", ("commit", commit), "at most 2"),
            _figure(f"save in the store, {name}", taken, "save", ("write", write), "at most 2"),
            _figure(f"load in the store, {name}", taken, "load", ("read", "read and SHA-256"), "1"),
        ]
    return figures


def _rounds(plan: Plan, actions: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """The median milliseconds of each action in each round."""
    return interleave(plan.rounds, {name: _median_ms(action, count) for name, action in actions.items()})


def _median_ms(action: Callable[[], object], count: int) -> Callable[[], float]:
    return lambda: 1000 * median_s(count, action)


def _figure(name: str, taken: dict[str, list[float]], ours: str, theirs: tuple[str, str], limit: str) -> Figure:
    against, label = theirs
    return figure(GROUP, name, "ms", (ours, taken[ours]), (label, taken[against]), limit)


# -- through the broker


def _served(plan: Plan) -> list[Figure]:
    tokens = plan.size(1000, PROMPT_TOKENS)
    plan.say(f"contexts: fork, save and restore through the broker, a context of {tokens} tokens")
    path = weights.endless_mini(plan.scratch / "contexts.safetensors")
    common = {"runtime": "rwkv", "path": str(path), "slots": 2, "threads": 1, "slice_tokens": SLICE}
    hot = {"name": HOT, "checkpoints": "hot", **common}
    cold = {"name": COLD, "checkpoints": "cold", "hot_bytes": "1 KiB", **common}  # no state stays in memory
    with (
        Serving(plan.scratch / "served", hot, cold) as serving,
        closing(Companion("bare", str(path), "1")) as bare,
        closing(Shelf(plan.scratch / "shelf", *SHAPES["mini, 0.2 MB"])) as shelf,
        Client(serving.endpoint) as client,
    ):
        text = _transcript(tokens)
        for model in (HOT, COLD):
            client.turn(text, model=model, save="primed", max_tokens=0)
        names = iter(range(1_000_000))
        quick = {
            "fork": lambda: client.fork("primed", [f"fork-{next(names)}"], model=HOT),
            "commit": shelf.commit,
            "save": lambda: client.turn("x", model=HOT, context="primed", save=f"save-{next(names)}", max_tokens=0),
            "write": shelf.write,
            "memory": lambda: _first_token(client, HOT, "hot", context="primed"),
            "disk": lambda: _first_token(client, COLD, "disk", context="primed"),
        }
        short = _rounds(plan, quick, plan.size(3, 20))
        slow = {
            "again": lambda: _first_token(client, HOT, "empty", prompt=text),
            "bare": lambda: bare.tell(do="prefill", text=text, step=SLICE),
        }
        long = _rounds(plan, slow, 1)
        copies = [bare.tell(do="fork", count=plan.size(20, 200)) for _ in range(plan.rounds)]
    loads, memcpy = ([one[key] * 1e6 for one in copies] for key in ("load", "copy"))
    again = f"reading {tokens:,} tokens again"
    return [
        figure(GROUP, "fork into a slot, mini", "µs", ("runtime", loads), ("memcpy", memcpy), "at most 2"),
        _figure("durable fork, client to client", short, "fork", ("commit", "SQLite commit"), "none set"),
        _figure("save, client to client", short, "save", ("write", "write, fsync, rename, fsync"), "none set"),
        figure(GROUP, f"{again}", "ms", ("served", long["again"]), ("bare model", long["bare"]), "1"),
        figure(
            GROUP,
            f"{again} over restore from disk",
            "ms",
            ("again", long["again"]),
            ("restore", short["disk"]),
            "at least 1,000",
        ),
        figure(
            GROUP,
            f"{again} over restore from memory",
            "ms",
            ("again", long["again"]),
            ("restore", short["memory"]),
            "at least 1,000",
        ),
    ]


def _first_token(client: Client, model: str, restored: str, *, prompt: str = "", context: str = "") -> None:
    """A turn of one token. Raises RuntimeError where the context came from elsewhere or was read again."""
    result = client.turn(prompt, model=model, context=context, max_tokens=1, values={"temp": 0.0}).result
    if (result.restored, result.prefill_tokens, result.reply_tokens) != (restored, 0, 1):
        raise RuntimeError(f"a turn that should start from {restored!r} was {result}")


def _transcript(size: int) -> str:
    """A text of that many bytes, which are the mini model's tokens."""
    turns = (
        f"(Turn {number}) [{'USER' if number % 2 else 'INTERFACE'}]: the {number}th of many lines\n\n~~~(end)~~~\n\n"
        for number in range(1, size)
    )
    text = ""
    for turn in turns:
        text += turn
        if len(text) >= size:
            break
    return text[:size].rstrip().ljust(size, ".")
