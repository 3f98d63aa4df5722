"""A backup: a store of its own, of one moment, whole or as it was before."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import IDENTITY, STARTED, check_text, child, open_store, restored, say, text_of

from ssmprov.errors import BadRequest, Busy, Corrupt, NotFound, Refused
from ssmprov.names import Ref, parse_ref
from workers import at_rest
from workers.checkpoints import Store
from workers.checkpoints.files import Files
from workers.context import Read, Snapshot


def names_in(directory: Path) -> dict[str, str]:
    with Store(directory) as store:
        return {row.name: row.object for row in store.ls(reserved=True).rows}


def test_a_backup_is_a_store_like_the_other(store: Store, tmp_path: Path) -> None:
    for n in range(4):
        say(store, "a", bytes([65 + n]), request=bytes([n]) * 16)
    store.fork(parse_ref("a~1"), ["b", "@bridge/6502"], pins={"b": "toy/1"})
    (store.directory / "settings").mkdir()
    (store.directory / "settings" / "cool.json").write_text(json.dumps({"temp": 0.2}))
    done = store.backup(tmp_path / "b")
    assert (done.objects, done.copied, done.removed, done.faults) == (4, 4, 0, [])
    assert done.bytes == done.copied_bytes
    assert at_rest.verify(tmp_path / "b").faults == []
    with open_store(tmp_path / "b") as copy:
        assert copy.uuid == store.uuid
        assert (copy.pins(), copy.outcome(b"\x03" * 16)) == (store.pins(), store.outcome(b"\x03" * 16))
        for name in ("a", "b", "@bridge/6502"):
            assert copy.head(name) == store.head(name)
            check_text(copy, name)
        say(copy, "a", b"!")
    assert (tmp_path / "b/settings/cool.json").read_bytes() == (store.directory / "settings/cool.json").read_bytes()
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "b").rglob("*")} == {0}


def test_the_next_backup_copies_what_is_new_and_drops_what_is_gone(store: Store, tmp_path: Path) -> None:
    say(store, "a", b"one")
    say(store, "gone", b"gone")
    store.backup(tmp_path / "b")
    kept = store._objects.path(store.resolve(Ref("a"))).relative_to(store.directory)
    inode = (tmp_path / "b" / kept).stat().st_ino
    say(store, "a", b" two")
    store.remove(["gone"])
    store.gc()
    done = store.backup(tmp_path / "b")
    assert (done.objects, done.copied, done.removed) == (2, 1, 1)
    assert (tmp_path / "b" / kept).stat().st_ino == inode
    assert names_in(tmp_path / "b") == names_in(store.directory)
    assert at_rest.verify(tmp_path / "b").faults == []
    assert store.backup(tmp_path / "b").copied == 0


def test_a_log_left_beside_the_backup_is_not_played_into_the_new_one(store: Store, tmp_path: Path) -> None:
    say(store, "a", b"one")
    store.backup(tmp_path / "b")
    user = child(
        "with open_store(Path(sys.argv[1])) as store:\n    say(store, 'theirs', b'x')\n"
        "    print('said', flush=True)\n    sys.stdin.read()\n",
        tmp_path / "b",
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "said\n"
    with pytest.raises(Busy, match="open in another process"):
        store.backup(tmp_path / "b")
    user.kill()
    user.communicate()
    assert (tmp_path / "b/catalogue.sqlite-wal").stat().st_size
    say(store, "a", b" two")
    store.backup(tmp_path / "b")
    assert names_in(tmp_path / "b") == names_in(store.directory)
    assert at_rest.verify(tmp_path / "b").faults == []


def test_only_a_place_of_its_own_is_taken(store: Store, tmp_path: Path) -> None:
    say(store, "a", b"x")
    for inside in (store.directory, store.directory / "backup", store.directory / "objects" / ".." / "b"):
        with pytest.raises(BadRequest, match="inside the store"):
            store.backup(inside)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(Refused, match="neither empty nor a backup"):
        store.backup(tmp_path / "full")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadRequest):
        store.backup(tmp_path / "file")
    with Store(tmp_path / "other", "toy", IDENTITY) as other:
        say(other, "b", b"y")
    with pytest.raises(Refused, match="another store"):
        store.backup(tmp_path / "other")
    assert names_in(tmp_path / "other").keys() == {"b"}
    assert not (store.directory / "backup").exists()


def test_a_damaged_state_does_not_stop_the_others(store: Store, tmp_path: Path) -> None:
    say(store, "a", b"one")
    say(store, "b", b"two")
    store.backup(tmp_path / "before")
    path = store._objects.path(store.resolve(Ref("a")))
    path.write_bytes(b"x" * path.stat().st_size)
    done = store.backup(tmp_path / "fresh")
    assert (done.copied, [path.name in fault for fault in done.faults]) == (1, [True])
    with open_store(tmp_path / "fresh") as copy:
        check_text(copy, "b")
        with pytest.raises(Corrupt):
            copy.load(Ref("a"))
    assert store.backup(tmp_path / "before").faults == []  # the sound one that is there is kept
    assert at_rest.verify(tmp_path / "before").faults == []


def test_a_backup_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no store"):
        at_rest.backup(tmp_path / "nothing", "", tmp_path / "b")
    assert not (tmp_path / "b").exists()


COMMIT = """
with open_store(Path(sys.argv[1]), keep_steps=2) as store:
    n = 0
    while True:
        n += 1
        say(store, f"w/{n % 3}", b"x" * (n % 7), ballast=50_000)
        if n % 5 == 0:
            store.fork(Ref(f"w/{n % 3}"), [f"f/{n % 4}"], overwrite=True)
        print(n, flush=True)
"""
COLLECT = """
from ssmprov.errors import Busy
with open_store(Path(sys.argv[1]), keep_steps=2) as store:
    while True:
        try:
            store.gc()
            print("collected", flush=True)
        except Busy:
            print("busy", flush=True)
"""


def test_backups_while_others_write_and_collect(tmp_path: Path) -> None:
    open_store(tmp_path / "s").close()
    others = [child(COMMIT, tmp_path / "s"), child(COLLECT, tmp_path / "s")]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    former: dict[str, str] = {}
    copied = 0
    for _ in range(8):
        copied += at_rest.backup(tmp_path / "s", "", tmp_path / "b").copied
        assert at_rest.verify(tmp_path / "b").faults == []
        with open_store(tmp_path / "b", keep_steps=2) as store:
            names = {row.name: row.object for row in store.ls().rows}
            assert names
            for name in names:
                assert text_of(restored(store.load(Ref(name)))) == store.text(Ref(name))
        assert names != former
        former = names
    assert all(other.poll() is None for other in others)
    for other in others:
        other.kill()
        other.communicate()
    STARTED.clear()
    assert copied
    assert at_rest.verify(tmp_path / "s").faults == []


class Slow(Files):
    """Lets another thread in after each object that was copied."""

    def __init__(self) -> None:
        self.between = threading.Event()
        self.go_on = threading.Event()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if target.suffix == ".safetensors":
            self.between.set()
            assert self.go_on.wait(30)


def test_a_gc_in_between_waits_and_turns_go_on(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", keep_steps=1) as store:
        for n in range(4):
            say(store, "a", bytes([65 + n]))
        files = Slow()
        with Store(tmp_path / "s", files=files) as rest:
            worker = threading.Thread(target=rest.backup, args=(tmp_path / "b",))
            worker.start()
            assert files.between.wait(30)
            with pytest.raises(Busy, match="backup"):
                store.gc()
            say(store, "a", b"!")
            with open_store(tmp_path / "s") as late:  # a worker that starts meanwhile
                say(late, "late", b"x")
            files.go_on.set()
            worker.join()
        store.gc()
        assert store.text(Ref("a")) == b"ABCD!"
    assert names_in(tmp_path / "b").keys() == {"a"}
    assert at_rest.verify(tmp_path / "b").objects == 4


def test_a_configured_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMPROV_HOME", str(tmp_path))
    monkeypatch.delenv("SSMPROV_CONFIG", raising=False)
    (tmp_path / "ssmprov.toml").write_text(
        '[[model]]\nname = "toy"\nruntime = "scripted"\npath = "x"\ncheckpoints = "here"\n'
    )
    with open_store(tmp_path / "here") as store:
        say(store, "a", b"x")
    for model in ("toy", ""):
        assert at_rest.backup(None, model, tmp_path / "b").objects == 1
    with pytest.raises(NotFound, match="did you mean toy"):
        at_rest.backup(None, "tou", tmp_path / "b")
    with (tmp_path / "ssmprov.toml").open("a") as file:
        file.write('[[model]]\nname = "two"\nruntime = "scripted"\npath = "x"\n')
    assert at_rest.backup(None, "", tmp_path / "b").objects == 1  # the first is the default


def test_an_opaque_lineage_is_backed_up_with_its_root(store: Store, tmp_path: Path) -> None:
    bare = Snapshot(
        arrays={"text": np.frombuffer(b"??", np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=2
    )
    store.commit(bare, Read(np.zeros(0, np.int32), b"", kind="import"), "root")
    say(store, "a", b"one", base="root")
    store.backup(tmp_path / "b")
    with open_store(tmp_path / "b") as copy:
        assert text_of(restored(copy.load(Ref("a")))) == b"??one"
