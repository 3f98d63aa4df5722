"""Repair: what can be read again is, what cannot is told, nothing is deleted, and a sound store is left as it is."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import check_text, child, finish, open_store, restored, say, text_of

from ssmprov.errors import Busy, Corrupt
from ssmprov.names import Ref, parse_ref
from workers.checkpoints import Store
from workers.checkpoints.files import locked
from workers.context import Read, Snapshot


def path_of(store: Store, ref: str) -> Path:
    return store._objects.path(store.resolve(parse_ref(ref)))


def damage(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return bytes(data)


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files if path.parent.name != "holders"}


def test_a_sound_store_is_left_as_it_is(store: Store) -> None:
    for part in (b"one ", b"two"):
        say(store, "a", part)
    before = contents(store.directory / "objects")
    found = store.repair()
    assert (found.objects, found.faults, found.repairs) == (2, [], [])
    assert contents(store.directory / "objects") == before
    assert not (store.directory / "quarantine").exists()


def test_verify_alone_changes_nothing(store: Store) -> None:
    say(store, "a", b"one")
    damage(path_of(store, "a"))
    before = contents(store.directory)
    (fault,) = store.verify().faults
    assert "state of a" in fault
    assert "--repair" in fault
    assert contents(store.directory) == before


@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_state_is_set_aside_and_read_again(store: Store, missing: bool) -> None:
    for part in (b"one ", b"two ", b"three"):
        say(store, "a", part)
    path = path_of(store, "a")
    data = damage(path)
    if missing:
        path.unlink()
    with pytest.raises(Corrupt, match=path.name):
        store.load(Ref("a"))
    found = store.repair()
    assert found.faults == []
    assert len(found.repairs) == 1
    assert path.name in found.repairs[0]
    assert "(a) is read again" in found.repairs[0]
    kept = store.directory / "quarantine" / path.name
    assert not path.exists()
    assert kept.exists() == (not missing)
    assert missing or kept.read_bytes() == data
    loaded = store.load(Ref("a"))
    assert bytes(loaded.replay.astype(np.uint8)) == b"three"
    assert text_of(restored(loaded)) == b"one two three"
    say(store, "a", b"!")
    check_text(store, "a")
    store.gc()
    assert store.verify().faults == []
    assert store.repair().repairs == []


def test_all_states_of_a_lineage_are_read_again_from_its_beginning(store: Store) -> None:
    for part in (b"one ", b"two"):
        say(store, "a", part)
    for ref in ("a", "a~1"):
        damage(path_of(store, ref))
    assert len(store.repair().repairs) == 2
    assert bytes(store.load(Ref("a")).replay.astype(np.uint8)) == b"one two"
    assert store.verify().faults == []


def opaque(store: Store) -> None:
    bare = Snapshot(
        arrays={"text": np.frombuffer(b"??", np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=2
    )
    store.commit(bare, Read(np.zeros(0, np.int32), b"", kind="import"), "root")
    store.fork(Ref("root"), ["twin"])
    say(store, "a", b"one", base="root")
    say(store, "a", b" two")


def test_an_opaque_root_stays_refused_and_what_it_hits_is_told(store: Store) -> None:
    opaque(store)
    path = path_of(store, "root")
    data = damage(path)
    found = store.repair()
    assert found.repairs == []
    (fault,) = found.faults
    assert "state of root, twin;" in fault
    assert "cannot be read again" in fault
    assert "backup" in fault
    assert path.read_bytes() == data
    with pytest.raises(Corrupt, match=path.name):
        store.load(Ref("root"))
    check_text_after(store, "a", b"??one two")


def test_what_came_of_an_opaque_root_is_read_again_from_a_sound_ancestor(store: Store) -> None:
    opaque(store)
    damage(path_of(store, "a"))
    root, middle = store.head("root"), store.resolve(parse_ref("a~1"))
    (repair,) = store.repair().repairs
    assert f"from #{middle[:12]}" in repair
    damage(path_of(store, "a~1"))
    (repair,) = store.repair().repairs
    assert f"from #{root[:12]}" in repair  # type: ignore[index]
    check_text_after(store, "a", b"??one two")
    assert store.verify().faults == []


def check_text_after(store: Store, name: str, text: bytes) -> None:
    assert text_of(restored(store.load(Ref(name)))) == text


def test_leftovers_go_and_strangers_are_moved_away(store: Store, tmp_path: Path) -> None:
    object_id = say(store, "a", b"x").object
    path = path_of(store, "a")
    torn = path.with_name(f"{object_id}.{'0' * 16}.tmp")
    torn.write_bytes(b"torn")
    (path.parent / "README").write_bytes(b"?")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"mine")
    (store.directory / "objects" / "zz").symlink_to(outside)
    os.mkfifo(path.with_name(f"{object_id[:2]}{'0' * 62}.safetensors"))
    found = store.repair()
    assert found.faults == []
    assert len(found.repairs) == 4
    assert sum("removed" in each for each in found.repairs) == 1
    kept = store.directory / "quarantine"
    assert {each.name for each in kept.iterdir()} == {"README", "zz", f"{object_id[:2]}{'0' * 62}.safetensors"}
    assert (outside / "precious").read_bytes() == b"mine"
    check_text(store, "a")


def test_nothing_in_quarantine_is_overwritten(store: Store) -> None:
    for _ in range(3):
        say(store, "a", b"same")
        damage(path_of(store, "a"))
        store.repair()
        store.remove(["a"])
    names = sorted(path.name for path in (store.directory / "quarantine").iterdir())
    assert [name.rpartition("safetensors")[2] for name in names] == ["", ".1", ".2"]


def test_a_state_in_use_is_left_for_later(store: Store) -> None:
    object_id = say(store, "a", b"one").object
    path = path_of(store, "a")
    damage(path)
    with store.hold(object_id):
        found = store.repair()
        assert ["in use" in each for each in found.repairs] == [True]
        assert path.exists()
    store.repair()
    assert store.verify().faults == []


def test_a_repair_waits_for_no_gc(store: Store) -> None:
    with locked(store.directory / "lock"), pytest.raises(Busy):
        store.repair()


WRITE = """
import random
with open_store(Path(sys.argv[1]), keep_steps=3) as store:
    for n in range(60):
        say(store, f"w/{n % 3}", bytes([65 + n % 26]))
"""


def test_repair_beside_writers_loses_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", keep_steps=3) as store:
        for part in (b"one ", b"two"):
            say(store, "mine", part)
        writers = [child(WRITE, tmp_path / "s"), child(WRITE, tmp_path / "s")]
        over = threading.Event()

        def spoil() -> None:
            while not over.is_set():
                path = path_of(store, "mine")
                if path.exists():
                    damage(path)
                store.repair()
                say(store, "mine", b"")

        spoiler = threading.Thread(target=spoil)
        spoiler.start()
        try:
            for writer in writers:
                finish(writer)
        finally:
            over.set()
            spoiler.join()
        store.repair()
        assert store.verify().faults == []
        for name in ("mine", "w/0", "w/1", "w/2"):
            check_text(store, name)


def test_an_object_comes_back_from_a_backup_by_its_name(store: Store, tmp_path: Path) -> None:
    opaque(store)
    store.backup(tmp_path / "b")
    path = path_of(store, "root")
    damage(path)
    shutil.copy(tmp_path / "b" / path.relative_to(store.directory), path)
    assert store.verify().faults == []
