"""A stop after every step of everything that writes: the old or the new stands, whole, and what was told stays.

Each operation is run once on a disk that remembers. Then every state in which a kill or a power cut could have left the
directory is laid out, opened and looked at.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import grow, open_store, restored, say, text_of
from power_cut import Disk, Image, images, lay_out
from test_checkpoint_versions import as_version_1

from ssmprov.errors import NotFound
from ssmprov.names import Ref, parse_ref
from workers import at_rest
from workers.checkpoints import Commit, Committed, RequestKey, Store
from workers.checkpoints.salvage import mend_catalogue
from workers.context import Read, Snapshot

Heads = dict[str, str]


def heads_of(store: Store) -> Heads:
    return {row.name: row.object for row in store.ls(reserved=True).rows}


def fill(directory: Path) -> None:
    """A store with forks, a history, an opaque root, a collected state and garbage."""
    with open_store(directory, keep_steps=2) as store:
        for n in range(4):
            say(store, "a", bytes([65 + n]))
        say(store, "gone", b"gone")
        store.fork(parse_ref("a~1"), ["b"])
        bare = Snapshot(
            arrays={"text": np.frombuffer(b"??", np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=2
        )
        store.commit(bare, Read(np.zeros(0, np.int32), b"", kind="import"), "opaque")
        store.remove(["gone"])


def whole(store: Store, allowed: list[Heads]) -> None:
    """Nothing is wrong, the names are one of what they may be, and each state is that of its text; after a gc too."""
    for _ in range(2):
        assert store.verify().faults == []
        heads = heads_of(store)
        assert heads in allowed
        for name in heads:
            assert text_of(restored(store.load(Ref(name)))).removeprefix(b"??") == store.text(
                Ref(name), since_root=True
            )
        store.gc()
    assert not list((store.directory / "objects").glob("*/*.tmp"))


Check = Callable[[Path], None]


def survives(place: Path, disk: Disk, check: Check, acknowledged: Check) -> int:
    """Look at every state; how many there were. What is left at the end must be what was acknowledged."""
    disk.note("the end")
    seen: set[bytes] = set()
    count = 0
    try:
        for point in disk.points:
            for what, image in images(point):
                if (digest := _digest(image)) not in seen:
                    seen.add(digest)
                    _look_at(place, image, what, check)
                    count += 1
        for what, image in images(disk.points[-1]):
            if not what.startswith("log") and "no more of the log" not in what:
                _look_at(place, image, what, acknowledged)
    finally:
        disk.close()
    return count


def _look_at(place: Path, image: Image, what: str, check: Check) -> None:
    laid = place / "laid"
    lay_out(image, laid)
    try:
        check(laid)
    except BaseException as error:
        error.add_note(f"after: {what}; it left {sorted(image)}")
        raise
    finally:
        shutil.rmtree(laid)


def _digest(image: Image) -> bytes:
    digest = hashlib.sha256()
    for name, data in sorted(image.items()):
        digest.update(f"{name}:{-1 if data is None else len(data)}:".encode() + (data or b""))
    return digest.digest()


def save_together(store: Store) -> None:
    base = store.load(Ref("a")).snapshot
    grown = [(*grow(base, text), name) for text, name in ((b"E", "a"), (b"F", "b"), (b"G", "c"))]
    commits = [Commit(snapshot=snapshot, read=read, name=name) for snapshot, read, name in grown]
    for done in store.commit_all([*commits[:2], replace(commits[2], request=RequestKey(b"1" * 16, 60))]):
        assert isinstance(done, Committed)


OPERATIONS: dict[str, Callable[[Store, Path], object]] = {
    "save": lambda store, _: say(store, "a", b"E", request=b"1" * 16),
    "saves together": lambda store, _: save_together(store),
    "save under a new name": lambda store, _: say(store, "new", b"E"),
    "fork": lambda store, _: store.fork(Ref("a"), ["x", "y"], request=RequestKey(b"1" * 16, 60)),
    "overwrite": lambda store, _: store.fork(Ref("b"), ["a"], overwrite=True),
    "rm": lambda store, _: store.remove(["a", "b"]),
    "pin": lambda store, _: store.pin("a", "toy/1"),
    "settle": lambda store, _: store.settle(RequestKey(b"1" * 16, 60), b"lost"),
    "import": lambda store, place: store.import_(place / "archive", "imported"),
    "gc": lambda store, _: store.gc(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_change(place: Path, operation: str) -> None:
    fill(place / "s")
    with open_store(place / "other") as other:
        for part in (b"one ", b"two"):
            say(other, "c", part)
        other.export(Ref("c"), place / "archive")
    disk = Disk(place / "s")
    with open_store(place / "s", keep_steps=2, files=disk) as store:
        disk.watch(store)
        old = heads_of(store)
        answers = [store.outcome(b"1" * 16)]
        OPERATIONS[operation](store, place)
        store._catalogue._connection.set_trace_callback(None)
        new = heads_of(store)
        answers.append(store.outcome(b"1" * 16))

        def check(directory: Path) -> None:
            with open_store(directory, keep_steps=2) as left:
                found = heads_of(left), left.outcome(b"1" * 16)
                assert found in ((old, answers[0]), (new, answers[1]))
                whole(left, [found[0]])
                if found == (old, answers[0]):  # then it can be done again
                    OPERATIONS[operation](left, place)
                    assert heads_of(left).keys() == new.keys()

        def acknowledged(directory: Path) -> None:
            with open_store(directory, keep_steps=2) as left:
                assert (heads_of(left), left.outcome(b"1" * 16)) == (new, answers[1])
                whole(left, [new])

        assert survives(place, disk, check, acknowledged) > 5


def test_making_a_store(place: Path) -> None:
    disk = Disk(place)
    open_store(place / "deep" / "s", files=disk).close()

    def check(directory: Path) -> None:
        with open_store(directory / "deep" / "s") as store:
            assert heads_of(store) == {}
            say(store, "a", b"x")
            whole(store, [heads_of(store)])

    def acknowledged(directory: Path) -> None:
        Store(directory / "deep" / "s").close()
        check(directory)

    assert survives(place, disk, check, acknowledged) > 5


def test_bringing_an_older_store_up(place: Path) -> None:
    fill(place / "s")
    with open_store(place / "s") as store:
        heads = heads_of(store)
    as_version_1(place / "s")
    disk = Disk(place / "s")
    with open_store(place / "s", keep_steps=2, files=disk):

        def check(directory: Path) -> None:
            with open_store(directory, keep_steps=2) as left:
                whole(left, [heads])

        assert survives(place, disk, check, check) > 5


def test_a_repair_of_states(place: Path) -> None:
    fill(place / "s")
    with open_store(place / "s") as store:
        heads = heads_of(store)
        path = store._objects.path(heads["a"])
    path.write_bytes(b"spoiled")
    path.with_name(f"{heads['a']}.{'0' * 16}.tmp").write_bytes(b"torn")
    disk = Disk(place / "s")
    with open_store(place / "s", keep_steps=2, files=disk) as store:
        disk.watch(store)
        assert len(store.repair().repairs) == 2
        store._catalogue._connection.set_trace_callback(None)

        def check(directory: Path) -> None:
            with open_store(directory, keep_steps=2) as left:
                left.repair()
                whole(left, [heads])
            kept = [file for file in directory.rglob(f"{heads['a']}*") if file.read_bytes() == b"spoiled"]
            assert kept

        assert survives(place, disk, check, check) > 5


def test_a_new_catalogue_for_a_damaged_one(place: Path) -> None:
    fill(place / "s")
    with open_store(place / "s") as store:
        heads = heads_of(store)
    path = place / "s" / "catalogue.sqlite"
    data = bytearray(path.read_bytes())
    data[2] ^= 1
    path.write_bytes(data)
    spoiled = path.read_bytes()
    disk = Disk(place / "s")
    mend_catalogue(place / "s", "toy", disk)

    def check(directory: Path) -> None:
        at_rest.repair(directory, "toy")
        with open_store(directory, keep_steps=2) as left:
            whole(left, [heads])
        assert any(kept.read_bytes() == spoiled for kept in directory.glob("catalogue.sqlite.damaged-*"))

    def acknowledged(directory: Path) -> None:
        with open_store(directory, keep_steps=2) as left:
            whole(left, [heads])

    assert survives(place, disk, check, acknowledged) > 5


@pytest.mark.parametrize("again", [False, True])
def test_a_backup(place: Path, again: bool) -> None:
    fill(place / "s")
    (place / "s" / "settings").mkdir()
    (place / "s" / "settings" / "cool.json").write_text("{}")
    former: Heads = {}
    if again:
        with open_store(place / "s", keep_steps=2) as store:
            store.backup(place / "b")
            former = heads_of(store)
            say(store, "a", b"E")
            store.remove(["b"])
            store.gc()
    disk = Disk(place, "b")
    with open_store(place / "s", keep_steps=2, files=disk) as store:
        store.backup(place / "b")
        heads = heads_of(store)

    def check(directory: Path) -> None:
        try:
            with Store(directory / "b") as left:
                assert left.verify().faults == []
                assert heads_of(left) in (former, heads)
        except NotFound:
            assert not again
        with open_store(directory / "s", keep_steps=2) as left:
            assert heads_of(left) == heads
            assert left.backup(directory / "b").faults == []
        acknowledged(directory)

    def acknowledged(directory: Path) -> None:
        assert (directory / "b" / "settings" / "cool.json").read_text() == "{}"
        with open_store(directory / "b", keep_steps=2) as left:
            whole(left, [heads])

    assert survives(place, disk, check, acknowledged) > 5
