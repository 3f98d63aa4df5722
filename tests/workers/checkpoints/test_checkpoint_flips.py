"""A bit that flips, anywhere in a store: it is told, naming the file, and never believed; the others go on."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import open_store, restored, say, text_of

from ssmprov.errors import Corrupt, NotFound, SsmprovError
from ssmprov.names import Ref, parse_ref
from workers.checkpoints import Store
from workers.checkpoints.seals import ROWS
from workers.context import Read, Snapshot

REFS = ("a", "a~1", "a~3", "b", "side", "opaque")


@dataclass(frozen=True)
class Truth:
    """What a store said before anything flipped."""

    objects: dict[str, str]
    states: dict[str, bytes]
    texts: dict[str, bytes]
    outcomes: tuple[bytes | None, ...]


def truth_of(store: Store) -> Truth:
    return Truth(
        {ref: store.resolve(parse_ref(ref)) for ref in REFS},
        {ref: text_of(restored(store.load(parse_ref(ref)))) for ref in REFS},
        {ref: store.text(parse_ref(ref), since_root=True) for ref in REFS},
        tuple(store.outcome(bytes([n]) * 16) for n in range(4)),
    )


@pytest.fixture
def sound(place: Path) -> tuple[Path, Truth]:
    with open_store(place / "s", keep_steps=2) as store:
        for n in range(4):
            say(store, "a", bytes([65 + n]) * 3, request=bytes([n]) * 16)
        say(store, "b", b"other " * 300)
        store.fork(parse_ref("a~1"), ["side"])
        bare = Snapshot(
            arrays={"text": np.frombuffer(b"??", np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=2
        )
        store.commit(bare, Read(np.zeros(0, np.int32), b"", kind="import"), "opaque")
        store.gc()
        truth = truth_of(store)
    return place / "s", truth


def flipped(path: Path, whole: bytes, place: int, bit: int) -> None:
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])


# ---- objects -----------------------------------------------------------------------------------------------------
def test_every_byte_of_an_object(sound: tuple[Path, Truth]) -> None:
    directory, truth = sound
    draw = random.Random(1)
    with open_store(directory, keep_steps=2) as store:
        path = store._objects.path(truth.objects["a"])
        whole = path.read_bytes()
        for place in range(len(whole)):
            bits = range(8) if place % 37 == 0 else [draw.randrange(8)]
            for bit in bits:
                flipped(path, whole, place, bit)
                with pytest.raises(Corrupt, match=path.name):
                    store.load(Ref("a"))
        (fault,) = store.verify().faults
        assert path.name in fault
        assert "state of a;" in fault
        for ref in ("a~1", "b", "side", "opaque"):
            assert text_of(restored(store.load(parse_ref(ref)))) == truth.states[ref]
        for cut in (*range(0, len(whole), 61), len(whole) - 1):
            path.write_bytes(whole[:cut])
            with pytest.raises(Corrupt, match=path.name):
                store.load(Ref("a"))
        path.write_bytes(whole + b"\0")
        with pytest.raises(Corrupt, match=path.name):
            store.load(Ref("a"))
        path.write_bytes(whole)
        assert truth_of(store) == truth


# ---- the catalogue -----------------------------------------------------------------------------------------------
def questions(store: Store, truth: Truth) -> Iterator[bool]:
    """Ask everything of a store that may be damaged: whether each answer was given, and not refused as corrupt."""
    asked: list[tuple[Callable[[], object], object]] = []
    for ref in REFS:
        parsed = parse_ref(ref)
        asked.append((lambda parsed=parsed: text_of(restored(store.load(parsed))), truth.states[ref]))
        asked.append((lambda parsed=parsed: store.text(parsed, since_root=True), truth.texts[ref]))
        asked.append((lambda parsed=parsed: store.resolve(parsed), truth.objects[ref]))
    for n, outcome in enumerate(truth.outcomes):
        asked.append((lambda n=n: store.outcome(bytes([n]) * 16), outcome))
    for ask, answer in asked:
        told = refusal(ask)
        if told is None:
            assert ask() in (answer, None)  # None: no outcome is found, where its id is not spelled as it was
        yield told is None


def refusal(ask: Callable[[], object]) -> SsmprovError | None:
    """The error that is raised, which may only be that the catalogue is damaged, or that something is not there."""
    try:
        ask()
    except (Corrupt, NotFound) as error:
        if error.code == "corrupt" and "catalogue.sqlite" not in error.message:
            raise
        return error
    return None


def harm(directory: Path, truth: Truth) -> tuple[bool, bool]:
    """Whether a flip is found by verify, and whether it changes any answer; no answer may be wrong."""
    try:
        store = open_store(directory, keep_steps=2)
    except SsmprovError as error:
        if error.code not in ("corrupt", "unavailable") or "catalogue.sqlite" not in error.message:
            raise
        return True, True
    with store:
        found = bool(store.verify().faults)
        answered = list(questions(store, truth))
        answered += [refusal(ask) is None for ask in (store.ls, store.tree, store.pins, lambda: store.log(Ref("a")))]
        if found:  # what a damaged catalogue does not reach may be wanted
            assert refusal(store.gc) is not None
        return found, not all(answered)


def pages_of(path: Path) -> dict[str, list[int]]:
    """The catalogue's pages by what they hold: the header, and the b-trees by the byte that begins them."""
    data = path.read_bytes()
    kinds: dict[str, list[int]] = {}
    for page in range(len(data) // 4096):
        kind = data[page * 4096 + (100 if page == 0 else 0)]
        kinds.setdefault(f"page 1 ({kind})" if page == 0 else str(kind), []).append(page)
    return kinds


def places_in(path: Path, draw: random.Random, of_each: int) -> list[int]:
    """The whole header, and of each page its own header and places all over what is in use."""
    data = path.read_bytes()
    places = list(range(100))
    for pages in pages_of(path).values():
        for page in pages:
            used = [place for place in range(page * 4096, (page + 1) * 4096) if data[place]]
            places += used[:6]
            places += draw.sample(used, min(of_each, len(used)))
    return places


def test_bytes_all_over_the_catalogue(sound: tuple[Path, Truth], tmp_path: Path) -> None:
    directory, truth = sound
    path = directory / "catalogue.sqlite"
    whole = path.read_bytes()
    draw = random.Random(2)
    changed = missed = 0
    for place in places_in(path, draw, of_each=3):
        flipped(path, whole, place, draw.randrange(8))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        try:
            found, harmed = harm(directory, truth)
        except BaseException as error:
            error.add_note(f"at {place}, in page {place // 4096 + 1}")
            raise
        changed += harmed
        missed += harmed and not found
    assert changed > 100
    assert missed == 0


COLUMNS = [
    *((table, column) for table, columns in ROWS.items() for column in columns),
    *(
        ("steps", column)
        for column in (
            "object",
            "parent",
            "root",
            "depth",
            "tokens",
            "text_bytes",
            "text_digest",
            "step_tokens",
            "step_bytes",
            "stored",
            "bytes",
            "opaque",
            "exact",
            "identity",
            "seed",
            "created",
            "kind",
            "settings",
            "lineage",
        )
    ),
]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_value_that_was_changed_behind_our_back(sound: tuple[Path, Truth], table: str, column: str) -> None:
    directory, truth = sound
    path = directory / "catalogue.sqlite"
    shutil.copy(path, directory / "whole")
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()
    for (value,) in rows[:3]:
        shutil.copy(directory / "whole", path)
        with closing(sqlite3.connect(path)) as connection:
            sql = f"UPDATE {table} SET {column} = ? WHERE {column} IS ?"
            try:
                connection.execute(sql, (other(value), value))
            except sqlite3.IntegrityError:  # another row has that one
                connection.execute(sql, (value + 1000, value))
            connection.commit()
        found, _ = harm(directory, truth)
        assert found
    assert rows or table == "history"


def other(value: object) -> object:
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "toy/0"
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    if isinstance(value, float):
        return value + 0.5
    return 1 if value is None else value ^ 1  # type: ignore[operator]


def test_bytes_of_the_log(sound: tuple[Path, Truth]) -> None:
    """A log is believed up to the first frame that is not what was written: the store stands as it was before it."""
    directory, _ = sound
    with open_store(directory, keep_steps=2) as store:
        before = truth_of(store)
        say(store, "a", b"later")
        states = {store.text(Ref("a")), before.texts["a"]}
        store._catalogue.run("SELECT 1")
        shutil.copytree(directory, directory.with_name("left"))
    left = directory.with_name("left")
    data, log = (left / "catalogue.sqlite").read_bytes(), (left / "catalogue.sqlite-wal").read_bytes()
    draw = random.Random(3)
    seen = set()
    for place in [*range(32), *range(32, 56), *draw.sample(range(56, len(log)), 80)]:
        (left / "catalogue.sqlite").write_bytes(data)
        (left / "catalogue.sqlite-shm").unlink(missing_ok=True)
        flipped(left / "catalogue.sqlite-wal", log, place, draw.randrange(8))
        with open_store(left, keep_steps=2) as store:
            assert store.verify().faults == []
            text = store.text(Ref("a"))
            assert text in states
            assert text_of(restored(store.load(Ref("a")))) == text
            seen.add(text)
            assert text_of(restored(store.load(Ref("b")))) == before.states["b"]
    assert before.texts["a"] in seen
