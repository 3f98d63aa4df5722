"""The catalogue of checkpoints: the cost of queries, saves and forks as it grows."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Bound, Curve, Figure, Plan, at_most, curve, figure, interleave, median_s
from ssmprov.names import Ref, parse_ref
from workers.checkpoints import Store
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.files import Files
from workers.checkpoints.lineage import StepRecord
from workers.checkpoints.schema import open_catalogue
from workers.context import Identity, Read, Snapshot

GROUP = "catalogue"
SIZES = (1, 10, 100, 1_000, 10_000, 100_000)
QUICK_SIZES = (1, 10, 100, 1_000)
SMALL = 1_000
"""The catalogue that the largest one is compared with: the smallest one with a node of 999 ancestors."""

DEEP = 1_000
"""Steps in the one deep lineage. All others have `SHORT` steps. Each step has a name."""

SHORT = 10
PAGE = 200
TREE_PAGE = 400
INSERTED = 5_000
"""Steps per transaction while a catalogue is built."""

IDENTITY = Identity("0" * 64, "rwkv7", "bench", "fp32")
LS, ANCESTORS = f"a page of ls ({PAGE} names)", f"{DEEP:,} ancestors of a deep node, with the beginnings of their texts"
TARGETS: dict[str, Bound] = {LS: at_most(10, of="measured"), ANCESTORS: at_most(10, of="measured")}
DRAWN = {LS: "page of ls", ANCESTORS: "1,000 ancestors", "resolve a name": "resolve", "fork": "fork", "save": "save"}
"""The actions in the curve, and their labels."""


class Library:
    """A store with this many checkpoints. The measured forks and saves add more."""

    def __init__(self, directory: Path, checkpoints: int) -> None:
        self._store = Store(directory, "bench", IDENTITY)
        with closing(_catalogue(directory)) as catalogue:
            _fill(catalogue, checkpoints)
        self._deep = f"deep/{min(checkpoints, DEEP) - 1:06}"
        self._middle = _name(checkpoints // 2)
        self._prefix = self._middle[:4]
        self._digits = _object(checkpoints // 2)[:12]
        self._numbers = itertools.count()

    def close(self) -> None:
        self._store.close()

    def actions(self) -> dict[str, Callable[[], object]]:
        store, deep = self._store, Ref(self._deep)
        return {
            LS: lambda: store.ls(after=self._middle, limit=PAGE),
            f"a page of ls with a prefix ({PAGE} names)": lambda: store.ls(prefix=self._prefix, limit=PAGE),
            ANCESTORS: lambda: store.log(deep, limit=DEEP),
            "a page of log (50 steps)": lambda: store.log(deep, limit=50),
            "resolve a name": lambda: store.resolve(deep),
            "resolve the beginning of an id": lambda: store.resolve(parse_ref(f"#{self._digits}")),
            "show": lambda: store.show(deep),
            f"the tree ({TREE_PAGE} names)": lambda: store.tree(None, TREE_PAGE),
            "fork": lambda: store.fork(deep, [f"fork/{next(self._numbers)}"]),
            "save": self._save,
        }

    def _save(self) -> None:
        """Commit a root with a tiny state, so that the catalogue dominates the time."""
        number = next(self._numbers)
        window = np.array([number], np.int32)
        snapshot = Snapshot(arrays={"state": window}, logits=None, window=window, tokens=1, seed=1)
        self._store.commit(snapshot, Read(window, b"x"), f"save/{number}")


def measure(plan: Plan) -> list[Figure | Curve]:
    sizes = QUICK_SIZES if plan.quick else SIZES
    with ExitStack() as held:
        sides: dict[str, Callable[[], dict[str, float]]] = {}
        for size in sizes:
            plan.say(f"catalogue: building {size:,} checkpoints")
            library = held.enter_context(closing(Library(plan.scratch / f"catalogue-{size}", size)))
            sides[str(size)] = partial(_milliseconds, library.actions(), plan.size(2, 5))
        plan.say("catalogue: measuring each of them")
        taken = interleave(plan.rounds, sides)
    large, small = str(sizes[-1]), str(min(SMALL, sizes[-2]))
    figures: list[Figure | Curve] = [
        figure(
            GROUP,
            f"{what}, {sizes[-1]:,} checkpoints",
            "ms",
            (f"{int(large):,}", [one[what] for one in taken[large]]),
            (f"{int(small):,}", [one[what] for one in taken[small]]),
            target=TARGETS.get(what),
        )
        for what in taken[large][0]
    ]
    lines = {
        label: {float(size): [one[what] for one in taken[str(size)]] for size in sizes} for what, label in DRAWN.items()
    }
    figures.append(
        curve(GROUP, "the catalogue as it grows", x="checkpoints", y="ms", lines=lines, log_x=True, log_y=True)
    )
    return figures


def _milliseconds(actions: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    return {what: 1000 * median_s(count, action) for what, action in actions.items()}


def _catalogue(directory: Path) -> Catalogue:
    """The store's catalogue, without flushing to disk while it is filled."""
    path = directory / "catalogue.sqlite"
    catalogue = Catalogue(path, open_catalogue(path, directory / "lock", Files()))
    catalogue.run("PRAGMA synchronous = OFF")
    return catalogue


def _fill(catalogue: Catalogue, checkpoints: int) -> None:
    """Insert steps as commits do, but many per transaction, and as if gc had deleted their objects."""
    parent, total = "", 0
    for start in range(0, checkpoints, INSERTED):
        with catalogue.change():
            for number in range(start, min(start + INSERTED, checkpoints)):
                if number == 0 or (number >= DEEP and (number - DEEP) % SHORT == 0):
                    parent, total = "", 0
                total += 8
                text = b"what step %06d has read" % number
                record = StepRecord(
                    parent=parent,
                    kind="turn",
                    tokens=bytes(32),
                    text=text,
                    settings={"temp": 0.5},
                    seed=number,
                    total=total,
                    exact=True,
                    dtype="fp32",
                )
                step = catalogue.add_step(_object(number), record, IDENTITY, 0, time.time())
                catalogue.move(_name(number), step, keep=20)
                parent = step.object
    catalogue.run("PRAGMA wal_checkpoint(TRUNCATE)")


def _name(number: int) -> str:
    return f"deep/{number:06}" if number < DEEP else f"c{(number - DEEP) // SHORT:06}/{number % SHORT}"


def _object(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()
