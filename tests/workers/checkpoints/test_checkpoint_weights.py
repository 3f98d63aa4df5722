"""Files of weights: there before the state that names them, and no longer than any state names them."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import grow, open_store, say

from ssmprov.errors import Conflict, Corrupt, NoSpace, NotFound, Unavailable
from ssmprov.names import Ref
from workers.checkpoints import Store
from workers.checkpoints.files import Files
from workers.checkpoints.weights import WeightFiles
from workers.context import WEIGHTS, empty

DATA = b"all the numbers of a model"
NUMBER = hashlib.sha256(DATA).digest()
ID = NUMBER.hex()


def weights(store: Store) -> WeightFiles:
    return WeightFiles(store.directory / "weights")


def commit(store: Store, name: str, number: bytes = NUMBER) -> str:
    """A state that names weights, as a root."""
    snapshot, read = grow(empty(), name.encode(), kind="import")
    arrays = {**snapshot.arrays, WEIGHTS: np.frombuffer(number, np.uint8)}
    return store.commit(replace(snapshot, arrays=arrays), read, name, expect=None).object


def bring(store: Store, name: str) -> str:
    with store.having_weights(ID, DATA):
        return commit(store, name)


def left(store: Store) -> list[str]:
    return sorted(path.name for path in weights(store).directory.glob("*"))


def fail_after(first: Callable[[], object], second: Callable[[], object]) -> None:
    first()
    second()


@contextlib.contextmanager
def beside(store: Store) -> Iterator[Store]:
    """The same store, opened by another process."""
    with open_store(store.directory) as other:
        yield other


def test_they_stand_as_long_as_a_stored_state_names_them(store: Store) -> None:
    bring(store, "a")
    store.fork(Ref("a"), ["b"])
    say(store, "plain", b"no weights at all")
    loaded = store.load(Ref("b")).snapshot
    assert loaded.arrays[WEIGHTS].tobytes() == NUMBER
    store.remove(["a"])
    assert store.gc(dry_run=True).objects == store.gc().objects == 0
    assert weights(store).read(ID) == DATA
    store.remove(["b"])
    preview = store.gc(dry_run=True)
    assert left(store) == [f"{ID}.safetensors"]
    done = store.gc()
    assert (done.objects, done.bytes) == (preview.objects, preview.bytes)
    assert done.objects == 2
    assert left(store) == []
    with pytest.raises(NotFound, match="import its state file first"):
        weights(store).read(ID)


def test_without_any_no_folder_is_made(store: Store) -> None:
    say(store, "plain", b"x")
    store.gc()
    assert not weights(store).directory.exists()


def test_a_refused_commit_leaves_nothing(store: Store) -> None:
    say(store, "taken", b"x")
    with pytest.raises(Conflict):
        bring(store, "taken")
    assert left(store) == []


def test_a_refused_commit_leaves_what_was_there(store: Store) -> None:
    say(store, "taken", b"x")
    weights(store).write(ID, DATA)
    with pytest.raises(Conflict):
        bring(store, "taken")
    assert left(store) == [f"{ID}.safetensors"]


def test_a_refused_commit_leaves_what_another_writer_needs(store: Store) -> None:
    with beside(store) as other, store.having_weights(ID, DATA):
        first = other.having_weights(ID, DATA)  # finds them there, and so answers for nothing
        first.__enter__()
        with pytest.raises(KeyError), store.having_weights(ID, DATA):
            raise KeyError
        assert left(store) == [f"{ID}.safetensors"]
        first.__exit__(None, None, None)


def test_a_writer_that_fails_leaves_what_another_has_committed_meanwhile(store: Store) -> None:
    say(store, "taken", b"x")
    with beside(store) as other, pytest.raises(Conflict), store.having_weights(ID, DATA):
        fail_after(lambda: bring(other, "a"), lambda: commit(store, "taken"))
    assert weights(store).read(ID) == DATA


def test_gc_leaves_what_is_about_to_be_named_and_takes_what_killed_writers_left(store: Store) -> None:
    stray = weights(store).directory / f"{'ab' * 32}.0123456789abcdef.tmp"
    with beside(store) as other, store.having_weights(ID, DATA):
        stray.write_bytes(b"half")
        own = weights(store).directory / f"{ID}.0123456789abcdef.tmp"
        own.write_bytes(b"of a living writer")
        (stray.parent / "notes.txt").write_text("a stranger's")
        other.gc()
        assert left(store) == sorted([f"{ID}.safetensors", own.name, "notes.txt"])
        commit(store, "a")
    store.gc()
    assert left(store) == sorted([f"{ID}.safetensors", "notes.txt"])


class Gate(Files):
    """Stops where a file of weights is first looked for, so that something happens before."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def place_directory(self, path: Path) -> bool:
        if path.name == "weights":
            self.reached.set()
            assert self.go.wait(60)
        return super().place_directory(path)


def test_a_gc_before_the_file_is_written_changes_nothing(store: Store, tmp_path: Path) -> None:
    weights(store).write(ID, DATA)  # unnamed: a gc's
    gate = Gate()
    done: list[str] = []
    with open_store(store.directory, files=gate) as other:
        writer = threading.Thread(target=lambda: done.append(bring(other, "a")))
        writer.start()
        assert gate.reached.wait(60)
        store.gc()
        gate.go.set()
        writer.join(60)
    assert done
    assert weights(store).read(ID) == DATA


class Late(Files):
    """Does something else when a gc has begun to look at what the objects name."""

    def __init__(self) -> None:
        self.meanwhile: list[Callable[[], object]] = []

    def open(self, path: Path) -> int:
        if path.parent.parent.name == "objects" and self.meanwhile:
            self.meanwhile.pop()()
        return super().open(path)


def test_what_is_named_while_gc_looks_stays(store: Store) -> None:
    say(store, "plain", b"x")
    weights(store).write(ID, DATA)
    files = Late()
    with open_store(store.directory, files=files) as other:
        files.meanwhile.append(lambda: bring(store, "a"))
        other.gc()
    assert not files.meanwhile
    assert weights(store).read(ID) == DATA


def test_where_an_object_cannot_be_read_nothing_is_swept(store: Store) -> None:
    bring(store, "a")
    other = bring(store, "b")
    path = store.directory / "objects" / other[:2] / f"{other}.safetensors"
    data = path.read_bytes()
    path.write_bytes(b"\xff" * len(data))
    store.remove(["a"])
    store.gc()
    assert left(store) == [f"{ID}.safetensors"]
    path.write_bytes(data)


def test_a_damaged_file_is_told_and_healed_by_bringing_it_again(store: Store) -> None:
    bring(store, "a")
    path = weights(store).path(ID)
    path.write_bytes(b"other numbers")
    with pytest.raises(Corrupt, match="do not match its hash"):
        weights(store).read(ID)
    (fault,) = store.verify().faults
    assert str(path) in fault
    path.unlink()
    (fault,) = store.verify().faults
    assert "is missing" in fault
    path.symlink_to("/etc/hostname")
    with pytest.raises(Corrupt, match="cannot be opened"):
        weights(store).read(ID)
    bring(store, "b")
    assert weights(store).read(ID) == DATA
    assert not path.is_symlink()
    assert store.verify().faults == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    class Full(Files):
        def write(self, fd: int, data: bytes) -> None:
            if data == DATA:
                super().write(fd, data[:5])
                raise OSError(28, "No space left on device")
            super().write(fd, data)

    with open_store(tmp_path / "store", files=Full()) as store:
        with pytest.raises(NoSpace, match=ID):
            bring(store, "a")
        assert left(store) == []
        assert store.ls().rows == []


def test_a_folder_that_is_none_is_said(store: Store) -> None:
    weights(store).directory.write_text("in the way")
    with pytest.raises(Unavailable, match="cannot be written"):
        bring(store, "a")


def test_a_backup_has_them_and_drops_what_the_store_no_longer_names(store: Store, tmp_path: Path) -> None:
    bring(store, "a")
    target = tmp_path / "backup"
    assert store.backup(target).faults == []
    with open_store(target) as copy:
        assert weights(copy).read(ID) == DATA
        assert copy.verify().faults == []
    weights(store).path(ID).write_bytes(b"damaged")
    (fault,) = store.backup(target).faults
    assert "was not copied" in fault
    weights(store).path(ID).unlink()
    store.backup(target)
    with open_store(target) as copy:
        assert weights(copy).read(ID) == DATA, "what is damaged or missing is no reason to drop the sound copy"
    store.remove(["a"])
    store.gc()
    assert store.backup(target).removed == 2
    with open_store(target) as copy:
        assert left(copy) == []
