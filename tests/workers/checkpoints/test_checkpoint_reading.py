"""A store where nothing can be written is verified, listed and exported from, with all that was committed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from checkpoint_toy import child, finish, open_store, say
from refusing import Refusing, make_read_only, mounted

from ssmprov.names import Ref
from workers.checkpoints import Store

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Refusing:
    return Refusing(tmp_path_factory.mktemp("library"))


def ssmprov(*words: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ssmprov")), *map(str, words)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )


def lay_out(store: Store, target: Path) -> None:
    """Copy a store while it is open, so that its last turn is only in its log, as on a disk that was pulled out."""
    say(store, "a", b"one ")
    say(store, "a", b"two ")
    store.fork(Ref("a"), ["b"], pins={"b": "toy/0"})
    say(store, "a", b"three")
    shutil.copytree(store.directory, target, dirs_exist_ok=True)
    (target / "catalogue.sqlite-shm").unlink()
    with closing(sqlite3.connect(f"file:{target / 'catalogue.sqlite'}?immutable=1", uri=True)) as without_log:
        assert without_log.execute("SELECT count(*) FROM steps").fetchone() == (0,)


def content(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(params=["mounted read-only", "EROFS", "EACCES"])
def media(
    request: pytest.FixtureRequest, store: Store, tmp_path: Path, refusing: Refusing
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A store that cannot be written, and the environment in which that is so."""
    if request.param != "mounted read-only":
        lay_out(store, tmp_path / "media")
        number = getattr(errno, request.param)
        yield tmp_path / "media", refusing.environment(tmp_path / "media", writes=number)
        return
    with mounted(tmp_path / "media") as place:
        lay_out(store, place)
        make_read_only(place)
        yield place, {}


def test_everything_that_only_reads_works(media: tuple[Path, dict[str, str]], store: Store, tmp_path: Path) -> None:
    place, environment = media
    before = content(place)

    def run(*words: object) -> str:
        done = ssmprov(*words, "--store", place, environment=environment)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    found = json.loads(run("ckpt", "verify", "--json"))
    assert found["objects"] == 3
    assert found["faults"] == []
    assert [row["name"] for row in json.loads(run("ckpt", "ls", "--json"))] == ["a", "b"]
    assert [row["name"] for row in json.loads(run("ckpt", "ls", "b", "--json"))] == ["b"]
    assert run("ckpt", "show", "a", "--text") == run("ckpt", "show", "toy:a", "--text") == "one two three"
    assert json.loads(run("ckpt", "show", "a", "--json"))["object"] == store.resolve(Ref("a"))
    assert len(json.loads(run("ckpt", "log", "a", "--json"))) == 3
    tree = run("ckpt", "tree")
    assert tree.startswith("toy\n")
    assert "b [toy/0]" in tree
    done = ssmprov("ckpt", "export", "a", tmp_path / "a.context", "--store", place, environment=environment)
    assert done.returncode == 0, done
    done = ssmprov("ckpt", "backup", tmp_path / "copy", "--store", place, environment=environment)
    assert done.returncode == 0, done
    with open_store(tmp_path / "other") as other:
        other.import_(tmp_path / "a.context", "a")
        assert other.text(Ref("a")) == b"one two three"
    with Store(tmp_path / "copy") as copy:
        assert copy.text(Ref("a")) == b"one two three"
        assert copy.verify().faults == []
    assert content(place) == before


def test_what_would_write_says_why_it_cannot(media: tuple[Path, dict[str, str]]) -> None:
    place, environment = media
    why = "the permission" if environment.get("REFUSE_WRITES") == str(errno.EACCES) else "read-only"
    for words in (("gc",), ("verify", "--repair")):
        done = ssmprov("ckpt", *words, "--store", place, environment=environment)
        assert done.returncode == 1
        assert why in done.stderr
        assert str(place) in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1


def test_damage_is_told_of_the_store_and_not_of_the_copy(store: Store, tmp_path: Path, refusing: Refusing) -> None:
    place = tmp_path / "media"
    lay_out(store, place)
    environment = refusing.environment(place, writes=errno.EROFS)
    path = store._objects.path(store.resolve(Ref("a")))
    there = place / path.relative_to(store.directory)
    there.write_bytes(there.read_bytes()[:-1])
    done = ssmprov("ckpt", "verify", "--store", place, environment=environment)
    assert done.returncode == 1
    assert str(there) in done.stdout
    (place / "catalogue.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (place / "catalogue.sqlite-wal").unlink()
    done = ssmprov("ckpt", "ls", "--store", place, environment=environment)
    assert done.returncode == 1
    assert f"{place / 'catalogue.sqlite'} is damaged" in done.stderr


def test_a_store_that_another_user_writes_is_not_copied_under_his_hands(
    store: Store, tmp_path: Path, refusing: Refusing
) -> None:
    say(store, "a", b"one")
    environment = refusing.environment(store.directory, writes=errno.EACCES)
    done = ssmprov("ckpt", "ls", "--store", store.directory, environment=environment)
    assert done.returncode == 1
    assert "is in use" in done.stderr
    store.close()
    done = ssmprov("ckpt", "ls", "--store", store.directory, environment=environment)
    assert done.returncode == 0, done


def test_a_context_of_another_model_is_named(store: Store) -> None:
    say(store, "a", b"one")
    done = ssmprov("ckpt", "show", "else:a", "--store", store.directory)
    assert done.returncode == 4
    assert "its model is toy" in done.stderr


def test_a_full_temporary_directory_is_named(store: Store, tmp_path: Path, refusing: Refusing) -> None:
    place = tmp_path / "media"
    say(store, "long", b"x" * 400_000)
    lay_out(store, place)
    with mounted(tmp_path / "small", "size=64k") as small:
        environment = refusing.environment(place, writes=errno.EROFS) | {"TMPDIR": str(small)}
        done = ssmprov("ckpt", "ls", "--store", place, environment=environment)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert str(small) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["flock", "parts"])
@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def test_a_file_system_without_locks_is_told_as_that(
    store: Store, tmp_path: Path, refusing: Refusing, kind: str, name: str
) -> None:
    say(store, "a", b"one")
    store.close()
    environment = refusing.environment(store.directory, **{kind: getattr(errno, name)})
    done = ssmprov("ckpt", "verify", "--store", store.directory, environment=environment)
    assert done.returncode == 1
    assert "no file locks" in done.stderr
    assert "local disk" in done.stderr
    assert str(store.directory) in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_lock_that_another_one_holds_is_not_mistaken_for_that(store: Store) -> None:
    say(store, "a", b"one")
    script = """
from workers.checkpoints.files import in_use
from ssmprov.errors import Busy
try:
    with in_use(Path(sys.argv[1]), alone=True):
        print("alone")
except Busy as error:
    print(error.code)
"""
    assert finish(child(script, store.directory)) == "busy\n"
