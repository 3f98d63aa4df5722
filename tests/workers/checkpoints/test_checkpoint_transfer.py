"""Export and import: a context travels with its lineage, and a file of unknown origin can do no harm."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from checkpoint_toy import IDENTITY, check_text, open_store, restored, say, text_of

from ssmprov.errors import BadRequest, Conflict, Corrupt, Refused, SsmprovError, Unsupported, WrongModel
from ssmprov.names import Ref, parse_ref
from workers.checkpoints import Store
from workers.checkpoints.archive import ArchiveHeader, ArchiveStep
from workers.context import Read, Snapshot


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> Path:
    for part in (b"one ", b"two ", b"three"):
        say(store, "a", part)
    store.export(Ref("a"), tmp_path / "a.context")
    return tmp_path / "a.context"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "other") as opened:
        yield opened


def test_a_context_travels_whole(store: Store, archive: Path, other: Store, tmp_path: Path) -> None:
    row = other.import_(archive, "b").result
    assert row is not None
    assert row.object == store.head("a")
    assert other.text(Ref("b")) == b"one two three"
    assert text_of(restored(other.load(parse_ref("b~1")))) == b"one two "
    assert len(other.load(Ref("b")).replay) == 0
    assert [len(other.load(parse_ref(f"b~{n}")).replay) for n in (1, 2)] == [8, 4]  # its states did not travel
    assert other.tokens(Ref("b")).tolist() == store.tokens(Ref("a")).tolist()
    told = [(step.object, step.parent, step.kind, step.created, step.excerpt) for step in store.log(Ref("a")).steps]
    assert told == [(s.object, s.parent, s.kind, s.created, s.excerpt) for s in other.log(Ref("b")).steps]
    assert other.verify().faults == []
    exported = other.export(Ref("b"), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == archive.read_bytes()
    assert exported.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (exported.bytes, exported.steps) == (archive.stat().st_size, 3)
    say(other, "b", b"!")
    check_text(other, "b")


def test_an_import_joins_a_lineage_that_is_there(store: Store, archive: Path) -> None:
    store.remove(["a"])
    say(store, "start", b"one ")
    store.gc()
    store.import_(archive, "a")
    assert store.tree().steps[-1].parent == store.head("start")
    assert store.verify().faults == []


def test_an_opaque_lineage_travels_with_its_root(store: Store, other: Store, tmp_path: Path) -> None:
    bare = Snapshot(
        arrays={"text": np.frombuffer(b"??", np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=2
    )
    store.commit(bare, Read(np.zeros(0, np.int32), b"", kind="import"), "root")
    store.export(Ref("root"), tmp_path / "root")
    for part in (b"a", b"b"):
        say(store, "a", part, base="a" if store.head("a") else "root")
    store.export(Ref("a"), tmp_path / "a")
    other.import_(tmp_path / "a", "a")
    assert text_of(restored(other.load(parse_ref("a~1")))) == b"??a"
    other.import_(tmp_path / "root", "root")
    assert other.head("root") == store.head("root")
    assert other.verify().faults == []


def test_a_taken_name_is_not_overwritten_unasked(store: Store, archive: Path) -> None:
    say(store, "b", b"mine")
    with pytest.raises(Conflict, match="taken"):
        store.import_(archive, "b")
    store.import_(archive, "b", overwrite=True)
    assert store.text(Ref("b")) == b"one two three"


def test_another_models_context_is_refused(archive: Path, tmp_path: Path) -> None:
    with (
        Store(tmp_path / "s", "toy", replace(IDENTITY, fingerprint="0" * 64)) as stranger,
        pytest.raises(WrongModel, match="the model here is"),
    ):
        stranger.import_(archive, "a")


def test_a_store_at_rest_knows_its_model(archive: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "s", "toy") as rest, pytest.raises(Refused, match="start toy once"):
        rest.import_(archive, "a")
    open_store(tmp_path / "s").close()
    with Store(tmp_path / "s") as rest:
        rest.import_(archive, "a")
        assert rest.text(Ref("a")) == b"one two three"


def test_a_collected_state_cannot_be_exported(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", keep_steps=1) as store:
        say(store, "a", b"x")
        say(store, "a", b"y")
        store.gc()
        with pytest.raises(Unsupported, match="replay"):
            store.export(parse_ref("a~1"), tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_path_that_cannot_be_written_is_the_askers_mistake(store: Store, archive: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "file", archive / "file", tmp_path):
        with pytest.raises(BadRequest, match="cannot be written"):
            store.export(Ref("a"), path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.context", "store"]


def untouched(other: Store) -> None:
    assert other.ls(reserved=True).rows == []
    assert other.tree().steps == []
    assert other._catalogue.run("SELECT count(*) FROM steps") == [(0,)]


def test_a_flip_anywhere_or_a_cut_is_refused(archive: Path, other: Store) -> None:
    whole = archive.read_bytes()
    draw = random.Random(7)
    places = {0, 7, 8, 11, 12, len(whole) - 32, len(whole) - 1, *draw.sample(range(len(whole)), 60)}
    for place in places:
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(Corrupt, match=archive.name):
            other.import_(archive, "a")
    for length in (0, 1, 31, 32, 40, len(whole) // 2, len(whole) - 1):
        archive.write_bytes(whole[:length])
        with pytest.raises(Corrupt, match=archive.name):
            other.import_(archive, "a")
    untouched(other)


def resealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def test_a_flip_under_a_right_sum_is_refused_too(archive: Path, other: Store) -> None:
    body = archive.read_bytes()[:-32]
    draw = random.Random(8)
    admitted = 0
    for place in range(0, len(body)):
        if place > 120 and draw.random() < 0.8:
            continue
        archive.write_bytes(resealed(body[:place] + bytes([body[place] ^ 1 << draw.randrange(8)]) + body[place + 1 :]))
        try:
            other.import_(archive, "a", overwrite=True)
        except SsmprovError:
            continue
        admitted += 1  # what nothing depends on: the model's name at home, a step's time, an unknown key
        assert other.text(Ref("a")) == b"one two three"
        check_text(other, "a")
    assert admitted < 100
    assert other.verify().faults == []


def rebuilt(archive: Path, *steps: ArchiveStep, **header: object) -> None:
    """The archive with other steps or header fields, and a right sum."""
    data = archive.read_bytes()
    place = 8
    blocks = []
    for _ in range(4):
        size = int.from_bytes(data[place : place + 4], "little")
        blocks.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    blocks[0] = msgspec.msgpack.encode(
        msgspec.structs.replace(msgspec.msgpack.decode(blocks[0], type=ArchiveHeader), **header)
    )
    if steps:
        blocks[1:] = [msgspec.msgpack.encode(step) for step in steps]
    body = b"".join(len(block).to_bytes(4, "little") + block for block in blocks)
    archive.write_bytes(resealed(data[:8] + body + data[place:-32]))


def steps_in(archive: Path) -> list[ArchiveStep]:
    data = archive.read_bytes()
    place = 8
    found = []
    for index in range(4):
        size = int.from_bytes(data[place : place + 4], "little")
        if index:
            found.append(msgspec.msgpack.decode(data[place + 4 : place + 4 + size], type=ArchiveStep))
        place += 4 + size
    return found


def test_a_lineage_that_was_made_up_is_refused(archive: Path, other: Store) -> None:
    first, second, third = steps_in(archive)
    lie = msgspec.structs.replace(second, record=msgspec.structs.replace(second.record, text=b"six "))
    wrong = msgspec.structs.replace(second, record=msgspec.structs.replace(second.record, total=99))
    early = msgspec.structs.replace(second, created=float("nan"))
    renamed = msgspec.structs.replace(second, object="0" * 64)
    for steps in ((first, lie, third), (first, wrong, third), (first, early, third), (first, renamed, third)):
        whole = archive.read_bytes()
        rebuilt(archive, *steps)
        with pytest.raises(Corrupt):
            other.import_(archive, "a")
        archive.write_bytes(whole)
    for count in (1, 2, 4, 1 << 24):
        whole = archive.read_bytes()
        rebuilt(archive, steps=count)
        with pytest.raises(Corrupt):
            other.import_(archive, "a")
        archive.write_bytes(whole)
    untouched(other)


def test_sizes_are_not_believed(archive: Path, other: Store) -> None:
    body = archive.read_bytes()[:-32]
    for size in (b"\xff\xff\xff\xff", b"\x00\x00\x01\x00"):
        archive.write_bytes(resealed(body[:8] + size + body[12:]))
        with pytest.raises(Corrupt, match="too long"):
            other.import_(archive, "a")
    archive.write_bytes(resealed(body[:7] + b"\x09" + body[8:]))
    with pytest.raises(Unsupported, match="format 9"):
        other.import_(archive, "a")
    archive.write_bytes(resealed(b"SSMPROV\x01" + (3000).to_bytes(4, "little") + b"\x91" * 3000))
    with pytest.raises(Corrupt):
        other.import_(archive, "a")
    with pytest.raises(BadRequest, match="cannot be read"):
        other.import_(archive.with_name("nothing"), "a")
    untouched(other)
