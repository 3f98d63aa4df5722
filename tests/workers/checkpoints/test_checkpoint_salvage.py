"""A damaged catalogue, at rest: what can be vouched for is recovered, the rest is told, what was there is kept."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import IDENTITY, check_text, child, open_store, restored, say, text_of

from ssmprov.errors import BadRequest, Busy, Corrupt, NotFound
from ssmprov.names import Ref, parse_ref
from ssmprov.ops import Verified
from workers import at_rest
from workers.checkpoints import Store
from workers.checkpoints.files import Files
from workers.checkpoints.salvage import mend_catalogue
from workers.checkpoints.seals import install
from workers.context import Read, Snapshot

Spoil = Callable[[sqlite3.Connection], object]


@pytest.fixture
def rest(tmp_path: Path) -> Path:
    """A store at rest: two lineages, a fork, a history, an opaque root, outcomes, a pin and a collected state."""
    with open_store(tmp_path / "s", keep_steps=2) as store:
        for n in range(5):
            say(store, "a", bytes([65 + n]), request=bytes([n]) * 16)
        say(store, "b", b"other")
        store.fork(parse_ref("a~1"), ["side"])
        store.fork(Ref("b"), ["side"], overwrite=True)
        store.pin("a", "toy/1")
        bare = Snapshot(
            arrays={"text": np.frombuffer(b"??", np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=2
        )
        store.commit(bare, Read(np.zeros(0, np.int32), b"", kind="import"), "opaque")
        store.gc()
    return tmp_path / "s"


def spoiled(directory: Path, spoil: Spoil) -> None:
    with closing(sqlite3.connect(directory / "catalogue.sqlite", isolation_level=None)) as connection:
        install(connection)
        spoil(connection)


def run(*statements: str) -> Spoil:
    return lambda connection: [connection.execute(each) for each in statements]


def everything(directory: Path) -> dict[str, object]:
    with open_store(directory, keep_steps=2) as store:
        names = {row.name: (row.object, row.pinned, row.created) for row in store.ls(reserved=True).rows}
        texts = {name: store.text(Ref(name), since_root=True) for name in names}
        states = {name: text_of(restored(store.load(Ref(name)))) for name in names}
        log = [(step.object, step.created, step.stored) for step in store.log(Ref("a")).steps]
        outcomes = [store.outcome(bytes([n]) * 16) for n in range(5)]
        history = store._catalogue.run("SELECT number, name FROM history")
        return {
            "uuid": store.uuid,
            "names": names,
            "texts": texts,
            "states": states,
            "log": log,
            "outcomes": outcomes,
            "history": history,
            "faults": store.verify().faults,
        }


def is_faulty(directory: Path) -> None:
    """Whoever opens or verifies the store is told that the catalogue is damaged."""
    try:
        told = at_rest.verify(directory).faults
    except Corrupt as error:
        told = [error.message] if "ssmprov ckpt verify" in error.message else []
    assert told
    assert all("catalogue.sqlite" in each for each in told)


REDUNDANT = [
    run("UPDATE steps SET depth = depth + 8 WHERE number = 3"),  # its state was collected: what came of it vouches
    run("UPDATE steps SET root = 2 WHERE number = 4", "UPDATE steps SET text_bytes = 9 WHERE number = 5"),
    run("UPDATE steps SET bytes = 1 WHERE number = 5"),
    run("DROP INDEX names_by_step"),
    run("CREATE TABLE stranger (x)"),
    run("CREATE TRIGGER t AFTER INSERT ON names BEGIN DELETE FROM names; END"),
]


@pytest.mark.parametrize("spoil", REDUNDANT)
def test_what_can_be_worked_out_again_is_recovered_whole(rest: Path, spoil: Spoil) -> None:
    before = everything(rest)
    spoiled(rest, spoil)
    is_faulty(rest)
    found = at_rest.repair(rest, "")
    assert found.faults == []
    assert "damaged-1" in found.repairs[0]
    assert everything(rest) == before
    assert at_rest.repair(rest, "").repairs == []


def without(directory: Path, page_of: str) -> None:
    """Zero the first page of a table or an index."""
    path = directory / "catalogue.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (page_of,)).fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(data)


@pytest.mark.parametrize("index", ["steps_by_root", "names_by_step", "history_by_step", "sqlite_autoindex_steps_1"])
def test_a_lost_index_is_made_anew(rest: Path, index: str) -> None:
    before = everything(rest)
    without(rest, index)
    is_faulty(rest)
    found = at_rest.repair(rest, "")
    assert found.faults == []
    assert everything(rest) == before


def test_an_index_that_lacks_a_row_is_made_anew_by_reindex(rest: Path) -> None:
    before = everything(rest)
    path = rest / "catalogue.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = 'CREATE INDEX steps_by_root ON steps (depth)' WHERE name = 'steps_by_root'"
        )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("REINDEX steps_by_root")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = 'CREATE INDEX steps_by_root ON steps (root)' WHERE name = 'steps_by_root'"
        )
    is_faulty(rest)
    found = at_rest.repair(rest, "")
    assert ["indexes" in each for each in found.repairs] == [True]
    assert everything(rest) == before


@pytest.mark.parametrize("place", [0, 16, 18, 19, 21, 28, 44, 56, 63, 68])
def test_a_header_is_put_right(rest: Path, place: int) -> None:
    before = everything(rest)
    path = rest / "catalogue.sqlite"
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)
    found = at_rest.repair(rest, "")
    assert found.faults == []
    assert everything(rest) == before


def repaired(directory: Path, model: str = "") -> Verified:
    found = at_rest.repair(directory, model)
    assert found.faults == [], found.faults
    assert at_rest.verify(directory).faults == []
    return found


def test_a_lost_text_leaves_the_state_as_an_opaque_root(rest: Path) -> None:
    before = everything(rest)
    spoiled(rest, run("UPDATE reads SET text = x'66' WHERE step = 4"))
    is_faulty(rest)
    with open_store(rest) as store, pytest.raises(Corrupt, match=r"catalogue\.sqlite"):
        store.text(Ref("a"))
    said = " ".join(repaired(rest).repairs)
    assert "a still continues, but as an opaque root" in said
    after = everything(rest)
    recovered = f"recovered/{before['log'][2][0][:12]}"  # type: ignore[index]
    assert after["states"] == {**before["states"], recovered: b"ABC"}  # type: ignore[dict-item]
    assert after["texts"] == {**before["texts"], "a": b"", recovered: b"ABC"}  # type: ignore[dict-item]
    with open_store(rest) as store:
        assert store.row(Ref("a")).opaque
        assert store.show(Ref("a")).row.pinned == "toy/1"
        say(store, "a", b"!")
        assert text_of(restored(store.load(Ref("a")))) == b"ABCDE!"


def test_a_lost_name_is_told_and_its_checkpoint_has_another(rest: Path) -> None:
    spoiled(rest, run("UPDATE names SET step = 6 WHERE name = 'a'"))
    is_faulty(rest)
    with open_store(rest) as store:
        with pytest.raises(Corrupt, match="'a'"):
            store.load(Ref("a"))
        check_text(store, "b")
        with pytest.raises(Corrupt):
            store.gc()
    found = repaired(rest)
    assert any("the name a is lost" in each for each in found.repairs)
    with open_store(rest) as store:
        names = {row.name for row in store.ls().rows}
        (recovered,) = [name for name in names if name.startswith("recovered/")]
        assert names == {"b", "side", "opaque", recovered}
        assert store.text(Ref(recovered)) == b"ABCDE"
        check_text(store, recovered)


def test_states_survive_the_loss_of_the_whole_catalogue(rest: Path) -> None:
    with open_store(rest) as store:
        heads = {name: store.head(name) for name in ("a", "b", "opaque")}
        states = sorted(text_of(restored(store.load(Ref(name)))) for name in heads)
    (rest / "catalogue.sqlite").unlink()
    with pytest.raises(BadRequest, match="--model"):
        at_rest.repair(rest, "")
    found = repaired(rest, "toy")
    assert sum("recovered/" in each for each in found.repairs) == 3
    with open_store(rest) as store:
        assert sorted(text_of(restored(store.load(Ref(row.name)))) for row in store.ls().rows) == states
        assert all(row.opaque for row in store.ls().rows)


def test_a_torn_table_gives_what_is_left_of_it(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        for n in range(120):
            say(store, f"n/{n:03}", b"x" * n + b"y")
    path = tmp_path / "s" / "catalogue.sqlite"
    data = bytearray(path.read_bytes())
    leaf, text = 0x0D, b"x" * 60 + b"y"  # of a table, with a text in it
    pages = range(len(data) // 4096)
    page = next(p for p in pages if data[p * 4096] == leaf and text in data[p * 4096 : (p + 1) * 4096]) + 1
    data[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(data)
    found = repaired(tmp_path / "s")
    lost = [each for each in found.repairs if "opaque root" in each]
    assert 5 < len(lost) < 100
    with open_store(tmp_path / "s") as store:
        rows = store.ls(limit=200).rows
        assert len(rows) == 120
        assert sum(row.opaque for row in rows) == len(lost)
        for n, row in enumerate(rows):
            assert text_of(restored(store.load(Ref(row.name)))) == b"x" * n + b"y"
            if not row.opaque:
                assert store.text(Ref(row.name)) == b"x" * n + b"y"


def test_damaged_objects_are_seen_to_after_the_catalogue(rest: Path) -> None:
    with open_store(rest) as store:
        path = store._objects.path(store.resolve(Ref("a")))
    path.write_bytes(b"x")
    spoiled(rest, run("UPDATE steps SET depth = 7 WHERE number = 2"))
    found = repaired(rest)
    assert any("quarantine" in each for each in found.repairs)
    with open_store(rest) as store:
        assert text_of(restored(store.load(Ref("a")))) == b"ABCDE"


def test_a_repair_keeps_every_former_catalogue(rest: Path) -> None:
    kept = []
    for n in (1, 2):
        spoiled(rest, run(f"UPDATE steps SET depth = {n + 20} WHERE number = 2"))
        kept.append((rest / "catalogue.sqlite").read_bytes())
        repaired(rest)
    assert [(rest / f"catalogue.sqlite.damaged-{n}").read_bytes() for n in (1, 2)] == kept


def test_a_store_that_serves_is_not_rebuilt(rest: Path) -> None:
    serving = child(
        "with open_store(Path(sys.argv[1])):\n    print('open', flush=True)\n    sys.stdin.read()\n",
        rest,
    )
    assert serving.stdout is not None
    assert serving.stdout.readline() == "open\n"
    assert at_rest.repair(rest, "").repairs == []  # a sound one is looked at all the same
    spoiled(rest, run("UPDATE steps SET depth = 7 WHERE number = 2"))
    with pytest.raises(Busy, match="open in another process"):
        at_rest.repair(rest, "")
    with Store(rest, "toy", IDENTITY) as store:
        found = store.repair()  # what a worker does: it tells, and leaves the catalogue alone
        assert found.repairs == []
        assert re.search(r"catalogue\.sqlite", found.faults[0])
    serving.kill()
    serving.communicate()
    repaired(rest)


def test_what_is_no_store_is_not_made_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no store"):
        at_rest.repair(tmp_path / "nothing", "toy")
    assert not (tmp_path / "nothing").exists()


def test_a_log_that_was_left_is_not_played_into_the_new_catalogue(rest: Path, tmp_path: Path) -> None:
    with open_store(rest, keep_steps=2) as store:
        store._catalogue.run("PRAGMA wal_checkpoint(TRUNCATE)")
        store.pin("b", "toy/0")  # changes no header, so that nothing but the file itself has one
        shutil.copytree(rest, tmp_path / "copy")  # as a killed process leaves it: with its log
    copy = tmp_path / "copy"
    (copy / "catalogue.sqlite-shm").unlink()
    before = everything_but_open(copy)
    assert (copy / "catalogue.sqlite-wal").stat().st_size > 0
    data = bytearray((copy / "catalogue.sqlite").read_bytes())
    data[1] ^= 1
    (copy / "catalogue.sqlite").write_bytes(data)
    assert mend_catalogue(copy, "", Files())
    assert not (copy / "catalogue.sqlite-wal").exists()
    assert everything(copy) == before


def everything_but_open(directory: Path) -> dict[str, object]:
    """`everything` of a copy, so that its log is left as it is."""
    shutil.copytree(directory, directory.with_name("looked-at"))
    return everything(directory.with_name("looked-at"))
