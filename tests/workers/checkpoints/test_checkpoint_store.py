"""The store: names move by compare-and-swap, forks copy nothing, texts are true, requests have one effect."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import IDENTITY, check_text, child, finish, grow, open_store, say, text_of

from ssmprov import clock
from ssmprov.errors import BadRequest, Conflict, Corrupt, NotFound, Refused, Unsupported, WrongModel
from ssmprov.names import Ref, parse_ref
from workers.checkpoints import RequestKey, Store, catalogue
from workers.context import Read, Snapshot, empty


def files(store: Store) -> set[str]:
    return {path.name for path in (store.directory / "objects").glob("*/*")}


def test_a_turn_comes_back_as_it_was(store: Store) -> None:
    first = say(store, "a", "grüß ".encode())
    second = say(store, "a", b"dich", expect=first.object)
    assert store.head("a") == second.object == store.resolve(Ref("a"))
    assert store.text(Ref("a")) == "grüß dich".encode()
    assert store.tokens(Ref("a")).tolist() == list("grüß dich".encode())
    assert store.text(parse_ref("a~1")) == "grüß ".encode()
    loaded = store.load(Ref("a"))
    assert (loaded.object, loaded.parent, loaded.tokens, len(loaded.replay)) == (second.object, first.object, 11, 0)
    assert loaded.snapshot.object == second.object
    assert store.resolve(parse_ref("#" + first.object[:9])) == first.object
    check_text(store, "a")


def test_the_text_is_given_in_any_slices(store: Store) -> None:
    for part in (b"one ", b"", b"two ", b"three"):
        say(store, "a", part)
    whole = b"one two three"
    for offset in range(len(whole) + 2):
        for limit in (0, 1, 3, 5, 99):
            assert store.text(Ref("a"), offset, limit) == whole[offset : offset + limit]


def test_references_that_mean_nothing_say_so(store: Store) -> None:
    say(store, "poem", b"x")
    say(store, "poem", b"y")
    with pytest.raises(NotFound, match="did you mean poem"):
        store.resolve(Ref("pome"))
    with pytest.raises(NotFound, match=r"2 steps, the last being poem~1"):
        store.resolve(parse_ref("poem~2"))
    with pytest.raises(NotFound, match="no checkpoint"):
        store.load(parse_ref("#" + "0" * 12))
    with pytest.raises(BadRequest):
        say(store, "../up", b"x")


def test_an_ambiguous_object_is_not_guessed(store: Store) -> None:
    cat = store._catalogue
    say(store, "a", b"x")
    record = catalogue.StepRecord(
        parent="", kind="turn", tokens=b"", text=b"", settings={}, seed=None, total=0, exact=True, dtype="fp32"
    )
    with cat.change():
        for last in "12":
            cat.add_step("0" * 63 + last, record, IDENTITY, 0, 0.0)
    with pytest.raises(NotFound, match="more digits"):
        store.resolve(parse_ref("#00000000"))


def test_a_name_moves_only_from_where_it_was_expected(store: Store) -> None:
    first = say(store, "a", b"x", expect=None).object
    with pytest.raises(Conflict, match="taken") as taken:
        say(store, "a", b"y", expect=None)
    assert taken.value.details == {"name": "a", "head": first, "expected": ""}
    say(store, "a", b"y", expect=first)
    with pytest.raises(Conflict, match="moved"):
        say(store, "a", b"z", expect=first)
    with pytest.raises(Conflict, match="does not exist"):
        say(store, "b", b"z", expect=first)
    assert store.text(Ref("a")) == b"xy"
    assert store.head("b") is None


COUNT = """
from ssmprov.errors import Conflict
with open_store(Path(sys.argv[1])) as store:
    done = 0
    while done < 15:
        head = store.head("a")
        try:
            say(store, "a", sys.argv[2].encode(), expect=head)
        except Conflict:
            continue
        done += 1
"""


def test_of_two_processes_each_step_has_one_winner(tmp_path: Path) -> None:
    open_store(tmp_path / "s").close()
    for process in [child(COUNT, tmp_path / "s", letter) for letter in "xy"]:
        finish(process)
    with open_store(tmp_path / "s") as store:
        text = store.text(Ref("a"))
        assert (len(text), text.count(b"x"), text.count(b"y")) == (30, 15, 15)
        assert store.row(Ref("a")).steps == 30
        assert store.verify().faults == []


def test_a_request_has_one_effect(store: Store) -> None:
    first = say(store, "a", b"x", request=b"1" * 16)
    again = say(store, "a", b"x", request=b"1" * 16)
    assert (again.duplicate, again.answer, again.object) == (True, first.answer, "")
    assert store.text(Ref("a")) == b"x"
    assert store.outcome(b"1" * 16) == b"saved " + first.object.encode()
    assert store.outcome(b"2" * 16) is None


def test_the_first_outcome_decides(store: Store) -> None:
    key = RequestKey(b"1" * 16, 60)
    assert store.settle(key, b"lost") == (True, b"lost")
    assert store.settle(key, b"again") == (False, b"lost")
    late = say(store, "a", b"x", request=key.id)
    assert (late.duplicate, late.answer) == (True, b"lost")
    assert store.head("a") is None
    first = say(store, "a", b"x", request=b"2" * 16)
    assert store.settle(RequestKey(b"2" * 16, 60), b"lost") == (False, first.answer)


def test_every_change_has_one_effect_per_request(store: Store, tmp_path: Path) -> None:
    say(store, "a", b"x")
    store.export(Ref("a"), tmp_path / "file")
    keys = [RequestKey(bytes([n]) * 16, 60) for n in range(4)]
    for _ in range(2):
        forked = store.fork(Ref("a"), ["b"], request=keys[0], answer=lambda result: result.object.encode())
        pinned = store.pin("a", "toy/1", request=keys[1], answer=lambda row: row.pinned.encode())
        removed = store.remove(["b"], request=keys[2], answer=lambda rows: rows[0].name.encode())
        taken = store.import_(tmp_path / "file", "c", request=keys[3], answer=lambda row: row.name.encode())
        assert (forked.answer, pinned.answer) == (store.resolve(Ref("a")).encode(), b"toy/1")
        assert (removed.answer, taken.answer) == (b"b", b"c")
    assert all(done.duplicate and done.result is None for done in (forked, pinned, removed, taken))
    assert [row.name for row in store.ls().rows] == ["a", "c"]


def test_an_outcome_outlives_its_time_whatever_the_wall_clock_does(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.uptime_s()
    monkeypatch.setattr("time.time", lambda: 4e9)
    say(store, "a", b"x", request=b"1" * 16)
    store.gc()
    assert store.outcome(b"1" * 16)
    monkeypatch.setattr(catalogue, "uptime_s", lambda: now + 590)
    store.gc()
    assert store.outcome(b"1" * 16)
    monkeypatch.setattr(catalogue, "uptime_s", lambda: now + 700)
    store.gc()
    assert store.outcome(b"1" * 16) is None


def test_an_outcome_of_an_earlier_boot_goes_when_this_boot_is_old_enough(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(store, "a", b"x", request=b"1" * 16)
    monkeypatch.setattr(catalogue, "boot", lambda: "another")
    monkeypatch.setattr(catalogue, "uptime_s", lambda: 599.0)
    store.gc()
    assert store.outcome(b"1" * 16)
    monkeypatch.setattr(catalogue, "uptime_s", lambda: 601.0)
    store.gc()
    assert store.outcome(b"1" * 16) is None


def test_expired_outcomes_go_without_a_gc(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "SWEEP_EVERY", 4)
    for n in range(20):
        store.settle(RequestKey(bytes([n]) * 16, -1), b"")
    assert sum(store.outcome(bytes([n]) * 16) is not None for n in range(20)) <= 4


def test_a_fork_names_all_or_none_and_copies_nothing(store: Store) -> None:
    say(store, "a", b"x")
    say(store, "taken", b"y")
    before = files(store)
    with pytest.raises(Conflict, match="taken"):
        store.fork(Ref("a"), ["b", "taken"])
    assert store.head("b") is None
    done = store.fork(Ref("a"), ["b", "taken", "b"], overwrite=True, pins={"b": "toy/1", "z": "toy/0"})
    assert done.result is not None
    assert (done.result.targets, done.result.pins) == (["b", "taken"], {"b": "toy/1"})
    assert store.head("b") == store.head("taken") == store.head("a") == done.result.object
    assert store.pins() == {"b": "toy/1"}
    assert files(store) == before
    say(store, "b", b"!")
    assert (store.text(Ref("a")), store.text(Ref("b"))) == (b"x", b"x!")
    assert store.pins() == {"b": "toy/1"}


def test_a_name_is_moved_only_from_where_it_was_seen(store: Store) -> None:
    say(store, "a", b"x")
    seen = store.head("a")
    say(store, "a", b"y")
    say(store, "b", b"z")
    moved = store.head("a")
    with pytest.raises(Conflict, match="a moved"):
        store.fork(Ref("b"), ["a"], overwrite=True, if_head=seen)
    with pytest.raises(Conflict, match="does not exist"):
        store.fork(Ref("b"), ["new"], overwrite=True, if_head=seen)
    assert (store.head("a"), store.head("new")) == (moved, None)
    store.fork(Ref("b"), ["a"], overwrite=True, if_head=moved)
    assert store.head("a") == store.head("b")


def test_pins_come_and_go(store: Store) -> None:
    say(store, "a", b"x")
    done = store.pin("a", "toy/1")
    assert done.result is not None
    assert done.result.pinned == "toy/1"
    assert store.row(Ref("a")).pinned == "toy/1"
    store.pin("a", "")
    assert store.pins() == {}
    with pytest.raises(NotFound):
        store.pin("b", "toy/1")


def test_rm_unnames_all_or_none(store: Store) -> None:
    for name in "abc":
        say(store, name, name.encode())
    with pytest.raises(NotFound, match="'d'"):
        store.remove(["a", "d"])
    assert store.head("a")
    done = store.remove(["a", "b", "a"])
    assert [row.name for row in done.result or []] == ["a", "b"]
    assert [row.name for row in store.ls().rows] == ["c"]


def test_counts_that_do_not_add_up_are_refused(store: Store) -> None:
    snapshot, read = grow(empty(), b"abc")
    for wrong in (replace(snapshot, tokens=4), replace(snapshot, tokens=2), replace(snapshot, seed=-1)):
        with pytest.raises(BadRequest):
            store.commit(wrong, read, "a")
    for text in (b"\xff", b"a\0b"):
        with pytest.raises(BadRequest, match="text"):
            store.commit(snapshot, replace(read, text=text), "a")
    assert (files(store), store.head("a")) == (set(), None)


def test_a_turn_from_a_removed_checkpoint_saves_nothing(store: Store) -> None:
    say(store, "a", b"x")
    base = store.load(Ref("a")).snapshot
    store.remove(["a"])
    store.gc()
    with pytest.raises(NotFound, match="removed"):
        store.commit(*grow(base, b"y"), "a")


def test_an_opaque_root_has_no_text(store: Store) -> None:
    bare = Snapshot(
        arrays={"text": np.frombuffer(b"??", np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=2
    )
    store.commit(bare, Read(np.zeros(0, np.int32), b"", kind="import"), "a")
    say(store, "a", b"more")
    assert store.row(Ref("a")).opaque
    assert store.row(Ref("a")).tokens == 6
    for ask in (store.text, store.tokens):
        with pytest.raises(Unsupported, match="does not know what it has read"):
            ask(Ref("a"))
    assert store.text(Ref("a"), since_root=True) == b"more"
    assert store.text(Ref("a"), 2, 1, since_root=True) == b"r"
    assert text_of(store.load(Ref("a")).snapshot) == b"??more"
    assert store.verify().faults == []


def test_a_page_of_names(store: Store) -> None:
    say(store, "a", b"x")
    store.fork(Ref("a"), ["b/1", "b/2", "c", "@bridge/6502"])
    assert [row.name for row in store.ls().rows] == ["a", "b/1", "b/2", "c"]
    page = store.ls(limit=2)
    assert ([row.name for row in page.rows], page.more) == (["a", "b/1"], True)
    assert [row.name for row in store.ls(after="b/1").rows] == ["b/2", "c"]
    assert [row.name for row in store.ls(prefix="b/").rows] == ["b/1", "b/2"]
    assert [row.name for row in store.ls(reserved=True, limit=1).rows] == ["@bridge/6502"]
    assert [row.name for row in store.ls(prefix="@").rows] == ["@bridge/6502"]


def test_show_log_and_tree(store: Store) -> None:
    ids = [say(store, "a", bytes([65 + n])).object for n in range(5)]
    side = say(store, "side", b"!", base="a~2").object
    shown = store.show(Ref("a"))
    assert (shown.row.object, shown.row.parent, shown.row.steps, shown.row.text_bytes) == (ids[4], ids[3], 5, 5)
    assert (shown.settings, shown.names, shown.row.model) == ({"temperature": 0.5}, ["a"], "toy")
    assert store.row(parse_ref("#" + side)).name == "side"
    log = store.log(Ref("a"), limit=2)
    assert ([step.object for step in log.steps], log.more) == ([ids[4], ids[3]], True)
    rest = store.log(Ref("a"), before=ids[3])
    assert ([step.excerpt for step in rest.steps], rest.more) == (["C", "B", "A"], False)
    for before in (say(store, "other", b"?").object, "not hex"):
        with pytest.raises(BadRequest):
            store.log(Ref("a"), before=before)
    tree = store.tree(Ref("a"))
    assert [(step.object, step.parent, step.step_tokens) for step in tree.steps] == [
        (ids[0], "", 1),
        (ids[2], ids[0], 2),
        (ids[4], ids[2], 2),
        (side, ids[2], 1),
    ]
    assert len(store.tree().steps) == 5
    few = store.tree(limit=2)
    assert few.more
    assert len(few.steps) <= 2


def test_a_text_is_that_of_the_step_it_is_shown_with(store: Store) -> None:
    """Another process moves the name meanwhile."""
    say(store, "a", b"short")
    say(store, "b", b"much longer")
    script = """
import select
with open_store(Path(sys.argv[1])) as store:
    print("ready", flush=True)
    while select.select([sys.stdin], [], [], 0)[0] == []:
        for name in ("a", "b"):
            store.fork(Ref(name), ["moving"], overwrite=True)
"""
    store.fork(Ref("a"), ["moving"])
    other = child(script, store.directory)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    seen = [store.show_text(Ref("moving"), 0, 100) for _ in range(400)]
    finish(other)  # it stops when its input ends
    assert {text for _, text in seen} == {b"short", b"much longer"}, "it moved while it was shown"
    assert all(shown.row.text_bytes == len(text) for shown, text in seen)


def test_a_store_at_rest_answers_but_holds_no_states(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"x")
        uuid = store.uuid
    with Store(tmp_path / "s") as rest:
        assert (rest.model, rest.uuid, rest.text(Ref("a"))) == ("toy", uuid, b"x")
        with pytest.raises(BadRequest, match="without its model"):
            rest.load(Ref("a"))
        rest.fork(Ref("a"), ["b"])
        assert rest.verify().faults == []


def test_a_directory_that_is_not_the_models_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no store"):
        Store(tmp_path / "s")
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"x")
    with pytest.raises(Refused, match="toy"):
        Store(tmp_path / "s", "other", IDENTITY)
    path = tmp_path / "s" / "catalogue.sqlite"
    whole = path.read_bytes()
    for damage in (b"", b"no database " * 100):
        path.write_bytes(damage)
        with pytest.raises(Corrupt, match=r"catalogue\.sqlite"):
            open_store(tmp_path / "s")
    path.unlink()
    with pytest.raises(Corrupt, match="missing"):
        open_store(tmp_path / "s")
    path.write_bytes(whole)
    with open_store(tmp_path / "s") as store:
        check_text(store, "a")


def test_a_path_that_cannot_be_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadRequest, match="cannot be used as a store"):
            open_store(path)
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"x")
    (tmp_path / "s" / "holders").rmdir()  # a backup may leave out empty directories
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"y")


def test_a_committed_text_that_was_changed_is_found(store: Store) -> None:
    for part in (b"one", b"two"):
        say(store, "a", part)
    for change in ("UPDATE reads SET text = 'six' WHERE step = 1", "UPDATE steps SET depth = 7 WHERE number = 2"):
        store._catalogue.run("SAVEPOINT s")
        store._catalogue.run(change.replace("'six'", "x'736978'"))
        assert len(store.verify().faults) >= 1
        store._catalogue.run("ROLLBACK TO s")
        store._catalogue.run("RELEASE s")
    assert store.verify().faults == []


def test_a_foreign_parent_cannot_be_continued(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"x")
        base = store.load(Ref("a")).snapshot
    with Store(tmp_path / "s", "toy", replace(IDENTITY, fingerprint="0" * 64)) as other, pytest.raises(WrongModel):
        other.commit(*grow(base, b"y"), "a")


def test_threads_share_a_store(store: Store) -> None:
    def work(name: str) -> None:
        for _ in range(10):
            say(store, name, name.encode())
            check_text(store, name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.text(Ref(name)) for name in "abc"] == [name * 10 for name in (b"a", b"b", b"c")]
