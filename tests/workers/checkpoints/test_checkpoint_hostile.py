"""Links, pipes, pickles and paths where a store's own files should be: nothing gets in, nothing hangs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from checkpoint_toy import check_text, open_store, say

from ssmprov.errors import BadRequest, Corrupt, SsmprovError, Unavailable
from ssmprov.names import Ref, parse_ref
from workers import at_rest
from workers.checkpoints import Store


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch sprung",))


def put(path: Path, what: str, outside: Path) -> None:
    """Something hostile in a file's place; `outside` holds the true bytes."""
    outside.write_bytes(path.read_bytes() if path.is_file() else b"outside")
    path.unlink(missing_ok=True)
    match what:
        case "link":
            path.symlink_to(outside)
        case "dangling":
            path.symlink_to(outside.with_name("nothing"))
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "pickle":
            path.write_bytes(pickle.dumps(Trap()))


WHATS = ["link", "dangling", "pipe", "directory", "device", "pickle"]


@pytest.mark.parametrize("what", WHATS)
def test_in_place_of_an_object(store: Store, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    say(store, "a", b"one")
    say(store, "b", b"two")
    path = store._objects.path(store.resolve(Ref("a")))
    outside = tmp_path / "outside"
    put(path, what, outside)
    kept = outside.read_bytes()
    with pytest.raises(Corrupt, match=path.name):
        store.load(Ref("a"))
    with pytest.raises(Corrupt, match=path.name):
        store.export(Ref("a"), tmp_path / "archive")
    assert [path.name in fault for fault in store.verify().faults] == [True]
    store.gc()
    check_text(store, "b")
    if what == "directory":
        with pytest.raises(Unavailable, match=path.name):
            say(store, "c", b"one")
    found = store.repair()
    assert found.faults == []
    assert os.path.lexists(store.directory / "quarantine" / path.name)
    say(store, "c", b"one")  # the same object, made anew
    check_text(store, "a")
    assert outside.read_bytes() == kept
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("what", ["link", "dangling", "pipe", "directory", "device"])
@pytest.mark.parametrize("name", ["catalogue.sqlite", "catalogue.sqlite-wal", "lock", "in-use"])
def test_in_place_of_the_stores_own_files(tmp_path: Path, what: str, name: str) -> None:
    directory, outside = tmp_path / "s", tmp_path / "outside"
    with open_store(directory) as store:
        say(store, "a", b"one")
    put(directory / name, what, outside)
    kept = outside.read_bytes()
    for use in (lambda: open_store(directory), lambda: at_rest.gc(directory, dry_run=False)):
        try:
            done = use()
        except SsmprovError as error:
            told = error
        else:
            assert name in ("lock", "in-use")  # where nothing is written, a pipe may be a lock as well
            if isinstance(done, Store):
                done.close()
            continue
        assert told.code in ("corrupt", "unavailable", "bad_request"), told
        assert name in told.message
    assert outside.read_bytes() == kept
    assert not outside.with_name("nothing").exists()


@pytest.mark.parametrize("name", ["objects", "holders"])
def test_a_linked_directory_is_no_part_of_a_store(tmp_path: Path, name: str) -> None:
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"one")
    (tmp_path / "s" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "s" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadRequest, match=name):
        open_store(tmp_path / "s")


def test_a_linked_prefix_is_not_followed(store: Store, tmp_path: Path) -> None:
    say(store, "a", b"one")
    path = store._objects.path(store.resolve(Ref("a")))
    path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt, match="symbolic link"):
        store.load(Ref("a"))
    assert len(store.verify().faults) == 2
    with pytest.raises(SsmprovError):
        say(store, "b", b"one")
    store.gc()
    assert sorted(each.name for each in (tmp_path / "elsewhere").iterdir()) == [path.name]
    assert store.repair().faults == []
    say(store, "b", b"one")
    assert sorted(each.name for each in (tmp_path / "elsewhere").iterdir()) == [path.name]


@pytest.mark.parametrize("what", ["link", "pipe", "directory"])
def test_among_the_holders(store: Store, tmp_path: Path, what: str) -> None:
    object_id = say(store, "a", b"one").object
    put(store.directory / "holders" / "stranger", what, tmp_path / "outside")
    with store.hold(object_id):
        store.gc()
    assert (tmp_path / "outside").read_bytes() == b"outside"
    check_text(store, "a")


@pytest.mark.parametrize(
    "name", ["../up", "a/../b", "/etc/passwd", "a//b", ".hidden", "a/.b", "", "a\0b", "a\nb", "x" * 129, "-/../-"]
)
def test_no_name_is_a_path(store: Store, tmp_path: Path, name: str) -> None:
    say(store, "a", b"one")
    store.export(Ref("a"), tmp_path / "archive")
    for use in (
        lambda: say(store, name, b"x", base="a"),
        lambda: store.fork(Ref("a"), [name]),
        lambda: store.import_(tmp_path / "archive", name),
    ):
        with pytest.raises(BadRequest):
            use()
    assert [row.name for row in store.ls(reserved=True).rows] == ["a"]


@pytest.mark.parametrize("text", ["#../../etc/passwd", "#" + "/" * 16, "#zzzzzzzz", "#" + "a" * 65, "#abc"])
def test_no_object_id_is_a_path(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_ref(text)


@pytest.mark.parametrize("what", WHATS)
def test_in_place_of_a_file_to_import(store: Store, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "archive", what, tmp_path / "outside")
    with pytest.raises((BadRequest, Corrupt)):
        store.import_(tmp_path / "archive", "a")
    assert not (tmp_path / "sprung").exists()
    assert store.ls().rows == []
