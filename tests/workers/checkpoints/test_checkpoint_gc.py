"""gc: what a name, its history or a hold reaches stays; what can be replayed is replayed to the same state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import check_text, child, finish, grow, open_store, restored, say, text_of

from ssmprov.errors import Busy, NotFound
from ssmprov.names import Ref, parse_ref
from workers.checkpoints import Store
from workers.checkpoints.files import Files, locked
from workers.checkpoints.holds import standing
from workers.context import Read, Snapshot


def files(store: Store) -> set[str]:
    return {path.name.partition(".")[0] for path in (store.directory / "objects").glob("*/*")}


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "store", keep_steps=3) as opened:
        yield opened


def test_old_steps_are_collected_and_replayed_to_the_same_state(short: Store) -> None:
    ids = [say(short, "a", bytes([65 + n])).object for n in range(8)]
    before = [text_of(short.load(parse_ref(f"a~{n}")).snapshot) for n in range(8)]
    preview = short.gc(dry_run=True)
    assert files(short) == set(ids)
    done = short.gc()
    assert preview == done
    assert (done.objects, done.steps, done.kept) == (5, 0, 3)
    assert files(short) == set(ids[-3:])
    for n in range(8):
        loaded = short.load(parse_ref(f"a~{n}"))
        assert len(loaded.replay) == (0 if n < 3 else 8 - n)
        assert text_of(restored(loaded)) == before[n]
        assert loaded.object == ids[7 - n]
    assert short.row(parse_ref("a~5")).stored is False
    assert short.gc().objects == 0
    assert short.verify().faults == []


def test_a_collected_step_is_replayed_from_its_nearest_stored_ancestor(short: Store) -> None:
    for n in range(4):
        say(short, "a", bytes([65 + n]))
    short.fork(Ref("a"), ["mark"])
    for n in range(4, 10):
        say(short, "a", bytes([65 + n]))
    short.gc()
    loaded = short.load(parse_ref("a~4"))
    assert loaded.snapshot.object == short.head("mark")
    assert bytes(loaded.replay.astype(np.uint8)) == b"EF"


def test_an_equal_commit_stores_a_collected_step_again(short: Store) -> None:
    for n in range(6):
        say(short, "a", bytes([65 + n]))
    short.gc()
    assert not short.row(parse_ref("a~5")).stored
    say(short, "new", b"A")
    assert short.head("new") == short.resolve(parse_ref("a~5"))
    assert short.row(Ref("new")).stored
    short.gc()
    assert len(short.load(Ref("new")).replay) == 0


def test_rm_then_gc_forgets_what_only_that_name_reached(store: Store) -> None:
    say(store, "a", b"common")
    say(store, "b", b"more", base="a")
    only = say(store, "b", b" still").object
    store.remove(["b"])
    assert store.gc().steps == 2
    assert files(store) == {store.head("a")}
    with pytest.raises(NotFound):
        store.load(parse_ref("#" + only))
    check_text(store, "a")


def test_an_overwritten_head_stays_in_the_names_history(short: Store) -> None:
    say(short, "base", b"base")
    heads = []
    for n in range(6):
        heads.append(say(short, "a", bytes([65 + n]), base="base").object)
    short.gc()
    assert files(short) == {short.head("base"), *heads[-4:]}  # the head and the last three that it replaced
    check_text(short, "#" + heads[-2])
    short.remove(["a"])
    short.gc()
    assert files(short) == {short.head("base")}


def test_an_opaque_root_is_kept_for_its_descendants(short: Store) -> None:
    bare = Snapshot(
        arrays={"text": np.frombuffer(b"??", np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=2
    )
    short.commit(bare, Read(np.zeros(0, np.int32), b"", kind="import"), "a")
    for n in range(8):
        say(short, "a", bytes([65 + n]))
    short.gc()
    assert len(files(short)) == 4
    assert text_of(restored(short.load(parse_ref("a~5")))) == b"??ABC"


def test_a_hold_protects_a_step_and_its_object(store: Store) -> None:
    object_id = say(store, "a", b"x").object
    base = store.load(Ref("a")).snapshot
    with store.hold(object_id):
        with store.hold(object_id):
            store.remove(["a"])
        store.gc()
        assert files(store) == {object_id}
        store.commit(*grow(base, b"y"), "b")
    assert store.text(Ref("b")) == b"xy"
    store.remove(["b"])
    store.gc()
    assert files(store) == set()
    with pytest.raises(NotFound), store.hold(object_id):
        pass


def test_places_of_former_holds_are_taken_again(store: Store) -> None:
    ids = [say(store, "a", bytes([65 + n])).object for n in range(3)]
    for _ in range(4):
        with store.hold(ids[0]):
            with store.hold(ids[1]):
                pass
            with store.hold(ids[2]), standing(store.directory / "holders") as held:
                assert held & set(ids) == {ids[0], ids[2]}
    (holder,) = (store.directory / "holders").iterdir()
    assert holder.read_bytes() == bytes(2 * 32)


def test_nobody_takes_a_hold_while_a_gc_decides(store: Store) -> None:
    object_id = say(store, "a", b"x").object
    order: list[str] = []

    def hold() -> None:
        with store.hold(object_id):
            order.append("held")

    holding = threading.Thread(target=hold)
    with standing(store.directory / "holders"):
        holding.start()
        holding.join(0.2)
        order.append("decided")
    holding.join()
    assert order == ["decided", "held"]


def test_the_hold_of_a_killed_process_counts_no_more(store: Store) -> None:
    object_id = say(store, "a", b"x").object
    holding = child(
        "with open_store(Path(sys.argv[1])) as store, store.hold(sys.argv[2]):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n",
        store.directory,
        object_id,
    )
    assert holding.stdout is not None
    assert holding.stdout.readline() == "held\n"
    store.remove(["a"])
    store.gc()
    assert files(store) == {object_id}
    holding.kill()
    holding.communicate()
    store.gc()
    assert files(store) == set()
    assert list((store.directory / "holders").iterdir()) == [store._holds._holder]


def test_the_next_worker_takes_away_what_a_killed_one_held(store: Store) -> None:
    object_id = say(store, "a", b"x").object
    script = """
with open_store(Path(sys.argv[1])) as store, store.hold(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""
    holding = [child(script, store.directory, object_id) for _ in range(2)]
    for process in holding:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
    holding[0].kill()
    holding[0].communicate()
    assert len(list((store.directory / "holders").iterdir())) == 3
    store.prepare()
    with standing(store.directory / "holders") as held:
        assert object_id in held
        assert len(list((store.directory / "holders").iterdir())) == 2, "this process's and that of the one which lives"
    finish(holding[1])


def test_leftovers_of_a_crash_go_and_strangers_stay(store: Store) -> None:
    object_id = say(store, "a", b"x").object
    path = next((store.directory / "objects").glob("*/*"))
    torn = path.with_name(f"{object_id}.{'0' * 16}.tmp")
    torn.write_bytes(b"torn")
    orphan = path.with_name(f"{object_id[:2]}{'0' * 62}.safetensors")
    orphan.write_bytes(b"orphan")
    stranger = path.with_name("README")
    stranger.write_bytes(b"?")
    assert store.gc(dry_run=True).objects == 2
    assert store.gc().objects == 2
    assert (torn.exists(), orphan.exists(), stranger.exists()) == (False, False, True)
    assert [str(stranger) in fault for fault in store.verify().faults] == [True]
    check_text(store, "a")


class Halting(Files):
    """Stops at the n-th deletion, as a crash would."""

    left = 1

    def unlink(self, path: Path) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().unlink(path)


def test_a_gc_that_was_interrupted_is_finished_by_the_next(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        for name in "abcd":
            say(store, name, name.encode())
        store.remove(["a", "b", "c"])
    with open_store(tmp_path / "s", files=Halting()) as store, pytest.raises(KeyboardInterrupt):
        store.gc()
    with open_store(tmp_path / "s") as store:
        assert store.verify().faults == []
        say(store, "a", b"a")  # an object that was about to go is wanted again
        store.gc()
        assert files(store) == {store.head("a"), store.head("d")}
        assert store.verify().faults == []


def test_a_second_gc_is_told_to_wait(store: Store) -> None:
    with locked(store.directory / "lock"), pytest.raises(Busy):
        store.gc()


CHURN = """
import random
draw = random.Random(int(sys.argv[2]))
with open_store(Path(sys.argv[1]), keep_steps=2) as store:
    for n in range(60):
        name = f"{sys.argv[2]}/{draw.randrange(3)}"
        say(store, name, draw.choice([b"a", b"b"]))
        if draw.random() < 0.3:
            store.fork(Ref(name), [f"{sys.argv[2]}/{draw.randrange(3)}"], overwrite=True)
        if draw.random() < 0.3:
            store.remove([name])
"""
COLLECT = """
from ssmprov.errors import Busy
with open_store(Path(sys.argv[1]), keep_steps=2) as store:
    while not Path(sys.argv[2]).exists():
        store.gc()
        assert not store.verify().faults, store.verify().faults
"""


def test_gc_beside_writers_removes_nothing_that_is_referenced(tmp_path: Path) -> None:
    open_store(tmp_path / "s").close()
    collector = child(COLLECT, tmp_path / "s", tmp_path / "stop")
    writers = [child(CHURN, tmp_path / "s", seed) for seed in (1, 2)]
    try:
        for writer in writers:
            finish(writer)
    finally:
        (tmp_path / "stop").touch()
    finish(collector)
    with open_store(tmp_path / "s") as store:
        assert store.verify().faults == []
        for row in store.ls().rows:
            check_text(store, row.name)


REBUILD = """
with open_store(Path(sys.argv[1]), keep_steps=1) as store:
    for _ in range(12):
        for letter in b"ABCDEFGH":
            say(store, "a", bytes([letter]))
        store.gc()
        store.remove(["a"])
        store.gc()
"""


def test_a_load_beside_rm_and_gc_is_whole_or_not_found(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", keep_steps=1) as store:
        other = child(REBUILD, tmp_path / "s")
        found = 0
        while other.poll() is None:
            for back in range(8):
                try:
                    loaded = store.load(Ref("a", back))
                except NotFound:
                    continue
                found += 1
                assert text_of(restored(loaded)) == b"ABCDEFGH"[: loaded.tokens]
        finish(other)
    assert found
