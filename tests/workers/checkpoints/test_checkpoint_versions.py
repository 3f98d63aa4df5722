"""A catalogue of an older version is brought up to this one; one of a newer version is left alone."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from checkpoint_toy import check_text, child, finish, open_store, say

from ssmprov.errors import Corrupt, Unsupported
from ssmprov.names import Ref, parse_ref
from ssmprov.textdigest import text_digest
from workers.checkpoints import RequestKey, Store, migrate, seals
from workers.checkpoints.seals import ROWS
from workers.checkpoints.tables import APPLICATION, VERSION

V1 = Path(__file__).with_name("catalogue_v1.sql")
V3 = Path(__file__).with_name("catalogue_v3.sql")
COLUMNS = {
    "meta": "key, value",
    "identities": "number, fingerprint, architecture, layout, dtype",
    "steps": "number, object, parent, root, depth, tokens, text_bytes, step_tokens, step_bytes, stored, bytes, opaque,"
    " exact, identity, seed, created, kind, settings, lineage",
    "reads": "step, tokens, text",
    "names": "name, step, pinned, created, updated",
    "history": "number, name, step",
    "outcomes": "request, answer, boot, until, lasts",
}


VIEW_2 = """CREATE VIEW entries AS
SELECT
    s.number, s.object, s.parent AS parent_number, (SELECT p.object FROM steps p WHERE p.number = s.parent) AS parent,
    s.root, s.depth, s.tokens, s.text_bytes, s.step_tokens, s.step_bytes, s.stored, s.bytes, s.opaque, s.exact, s.seed,
    s.created, s.kind, s.settings, s.lineage, i.fingerprint, i.dtype, s.seal
FROM steps s LEFT JOIN identities i ON i.number = s.identity"""


def as_older(path: Path, version: int, tables: Path, names: str) -> None:
    """Make a catalogue one of an older version, whose tables are those of a file beside this one. It has no seals."""
    older = path.with_name("older")
    with closing(sqlite3.connect(older, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(tables.read_text())
        connection.execute("ATTACH ? AS new", (str(path),))
        for table, columns in (COLUMNS | {"names": names}).items():
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {version}")
    older.rename(path)


def as_version_1(directory: Path) -> None:
    as_older(directory / "catalogue.sqlite", 1, V1, COLUMNS["names"])


def as_version_3(path: Path) -> None:
    as_older(path, 3, V3, f"{COLUMNS['names']}, object")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        seals.install(connection)
        for table in ("steps", *ROWS):
            connection.execute(f"UPDATE {table} SET seal = {migrate.former_seal_of(table)}")


def as_version_2(path: Path) -> None:
    """Make a catalogue one of version 2: with the table of holds, the view that was a join, and the seals of then."""
    as_version_3(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_function("seal_2", -1, migrate._seal_2, deterministic=True)
        for table in ("steps", *ROWS):
            former = migrate.former_seal_of(table).replace("seal(", "seal_2(", 1)
            connection.execute(f"UPDATE {table} SET seal = {former}")
        connection.execute("DROP VIEW entries")
        connection.execute(VIEW_2)
        connection.execute("CREATE TABLE holds (holder TEXT NOT NULL, object BLOB NOT NULL)")
        connection.execute("PRAGMA user_version = 2")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store of version 1 with forks, a history, an outcome, a pin and a collected state."""
    with open_store(tmp_path / "s", keep_steps=2) as store:
        for n in range(5):
            say(store, "a", bytes([65 + n]), request=bytes([n]) * 16)
        store.fork(parse_ref("a~1"), ["b"])
        say(store, "b", b"!")
        say(store, "c", b"?")
        store.fork(Ref("c"), ["b"], overwrite=True)
        store.pin("a", "toy/1")
        store.gc()
    as_version_1(tmp_path / "s")
    return tmp_path / "s"


def test_a_store_of_version_1_is_brought_up_and_nothing_is_lost(old: Path) -> None:
    before = (old / "catalogue.sqlite").read_bytes()
    with open_store(old, keep_steps=2) as store:
        assert store.verify().faults == []
        assert (store.text(Ref("a")), store.text(Ref("b"))) == (b"ABCDE", b"?")
        assert len(store.load(parse_ref("a~3")).replay) == 2
        assert (store.pins(), store.outcome(b"\x04" * 16)) == ({"a": "toy/1"}, b"saved " + store.head("a").encode())  # type: ignore[union-attr]
        say(store, "a", b"F")
        store.gc()
        check_text(store, "a")
        assert store._catalogue.run("SELECT count(*) FROM history") == [(1,)]
        assert store.verify().faults == []
    with closing(sqlite3.connect(old / "catalogue.sqlite.v1")) as kept, closing(sqlite3.connect(":memory:")) as was:
        (old / "was").write_bytes(before)
        was.execute("ATTACH ? AS old", (str(old / "was"),))
        for table, columns in COLUMNS.items():
            assert (
                kept.execute(f"SELECT {columns} FROM {table}").fetchall()
                == was.execute(f"SELECT {columns} FROM old.{table}").fetchall()
            )
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize("make_older", [as_version_2, as_version_3])
def test_a_newer_store_is_brought_up_unless_a_row_was_changed(
    tmp_path: Path, make_older: Callable[[Path], None]
) -> None:
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"x")
        say(store, "a", "größer".encode())
        store.fork(Ref("a"), ["b"], request=RequestKey(b"1" * 16, 60), answer=lambda _: b"forked")
    path = tmp_path / "s" / "catalogue.sqlite"
    make_older(path)
    shutil.copy(path, tmp_path / "whole")
    with open_store(tmp_path / "s") as store:
        assert store.verify().faults == []
        check_text(store, "b")
        row = store.show(Ref("b")).row
        assert (row.text_bytes, row.text_digest) == (9, text_digest("xgrößer".encode()).data.hex())
        assert store.outcome(b"1" * 16) == b"forked"
        assert store._catalogue.run("SELECT 1 FROM sqlite_master WHERE name = 'holds'") == []
    for changed, found in (
        ("UPDATE names SET created = created + 1 WHERE name = 'b'", "row of names was changed"),
        ("UPDATE steps SET text_bytes = text_bytes + 1 WHERE number = 1", "row of steps was changed"),
        ("DELETE FROM reads WHERE step = 2", "text of step 2 is not whole"),
    ):
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        shutil.copy(tmp_path / "whole", path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(changed)
            connection.commit()
        data = path.read_bytes()
        with pytest.raises(Corrupt, match=found):
            open_store(tmp_path / "s")
        assert path.read_bytes() == data


def test_a_migrated_catalogue_has_the_tables_of_a_fresh_one(old: Path, tmp_path: Path) -> None:
    found = []
    open_store(tmp_path / "fresh").close()
    open_store(old).close()
    for directory in (old, tmp_path / "fresh"):
        with closing(sqlite3.connect(directory / "catalogue.sqlite")) as connection:
            found.append(set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")))
            assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert found[0] == found[1]


def test_processes_that_open_it_at_once_migrate_it_once(old: Path) -> None:
    opener = "with open_store(Path(sys.argv[1])) as store: print(len(store.verify().faults), store.text(Ref('a')))"
    for process in [child(opener, old) for _ in range(3)]:
        assert finish(process) == "0 b'ABCDE'\n"


def test_a_damaged_older_catalogue_is_left_as_it_is(old: Path) -> None:
    path = old / "catalogue.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM steps WHERE number = 2")
        connection.commit()
    whole = path.read_bytes()
    with pytest.raises(Corrupt, match=r"catalogue\.sqlite"):
        open_store(old)
    assert path.read_bytes() == whole


def test_a_newer_catalogue_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"x")
    path = tmp_path / "s" / "catalogue.sqlite"
    shutil.copy(path, tmp_path / "whole")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE future (x)")
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.commit()
    changed = path.read_bytes()
    for opening in (open_store, Store):
        with pytest.raises(Unsupported, match=rf"catalogue\.sqlite has the version {VERSION + 1}.*update ssmprov"):
            opening(tmp_path / "s")
    assert path.read_bytes() == changed
    shutil.copy(tmp_path / "whole", path)
    with closing(sqlite3.connect(path)) as connection:  # with the tables of this version the number is what is wrong
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.commit()
    with pytest.raises(Corrupt, match="version"):
        open_store(tmp_path / "s")
