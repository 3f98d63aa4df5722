"""Contexts that are committed together: each stands or falls alone, and none waits for another's mistake."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import check_text, grow, open_store, say

from ssmprov.errors import BadRequest, Conflict, NoSpace, NotFound
from ssmprov.names import Ref
from workers.checkpoints import ANY, Commit, Committed, RequestKey, Store
from workers.checkpoints.files import Files
from workers.context import Read, Snapshot, empty


def commit(store: Store, text: bytes, name: str, base: str = "", **options: object) -> Commit:
    start = store.load(Ref(base)).snapshot if base else empty()
    snapshot, read = grow(start, text)
    return Commit(snapshot=snapshot, read=read, name=name, **options)  # type: ignore[arg-type]


def test_all_are_there_when_it_returns(store: Store) -> None:
    say(store, "a", b"base ")
    done = store.commit_all([commit(store, bytes([65 + n]) * 3, f"n{n}", "a") for n in range(12)])
    assert [store.head(f"n{n}") for n in range(12)] == [each.object for each in done if isinstance(each, Committed)]
    for n in range(12):
        check_text(store, f"n{n}")
    assert store.text(Ref("n7")) == b"base HHH"
    assert store.verify().faults == []


def test_one_that_fails_takes_no_other_with_it(store: Store) -> None:
    head = say(store, "a", b"base").object
    gone = Snapshot(arrays={}, logits=None, window=np.zeros(0, np.int32), tokens=1, parent="ab" * 32)
    step = Read(np.ones(1, np.int32), b"x")
    done = store.commit_all(
        [
            commit(store, b"1", "a", "a", expect=head, request=RequestKey(b"1" * 16, 60), answer=lambda _: b"one"),
            commit(store, b"2", "a", "a", expect=head, request=RequestKey(b"2" * 16, 60), answer=lambda _: b"two"),
            commit(store, b"3", "a", "a", expect="cd" * 32),
            commit(store, b"4", "no//name"),
            Commit(snapshot=gone, read=step, name="b"),
            commit(store, b"6", "c", "a"),
        ]
    )
    assert [type(each) for each in done] == [Committed, Conflict, Conflict, BadRequest, NotFound, Committed]
    assert (store.text(Ref("a")), store.text(Ref("c"))) == (b"base1", b"base6")
    assert (store.outcome(b"1" * 16), store.outcome(b"2" * 16)) == (b"one", None)
    assert [row.name for row in store.ls().rows] == ["a", "c"]
    assert store.verify().faults == []


def test_a_commit_asked_for_again_has_its_answer_though_it_has_moved_the_name_itself(store: Store) -> None:
    head = say(store, "a", b"base").object
    key = RequestKey(b"1" * 16, 60)
    (first,) = store.commit_all([commit(store, b"1", "a", "a", expect=head, request=key, answer=lambda _: b"one")])
    (again,) = store.commit_all([commit(store, b"2", "a", "a", expect=head, request=key, answer=lambda _: b"two")])
    assert isinstance(first, Committed)
    assert isinstance(again, Committed)
    assert (again.duplicate, again.answer) == (True, b"one")
    assert store.text(Ref("a")) == b"base1"


def test_equal_contexts_share_an_object(store: Store) -> None:
    first, second = store.commit_all([commit(store, b"same", "a"), commit(store, b"same", "b", expect=None)])
    assert isinstance(first, Committed)
    assert isinstance(second, Committed)
    assert first.object == second.object
    assert store.show(Ref("a")).names == ["a", "b"]


def test_a_request_that_comes_twice_has_one_effect(store: Store) -> None:
    key = RequestKey(b"1" * 16, 60)
    done = store.commit_all([commit(store, text, "a", request=key, answer=lambda _: b"it") for text in (b"x", b"y")])
    assert [(each.answer, each.duplicate) for each in done if isinstance(each, Committed)] == [
        (b"it", False),
        (b"it", True),
    ]
    assert store.text(Ref("a")) == b"x"


class Refusing(Files):
    """Flushes no file of more than a few bytes."""

    def sync(self, fd: int) -> None:
        if os.fstat(fd).st_size > 100_000:
            raise OSError(errno.ENOSPC, "full")
        super().sync(fd)


@pytest.mark.parametrize("expect", [ANY, None])
def test_a_state_that_does_not_fit_is_told_alone(tmp_path: Path, expect: object) -> None:
    with open_store(tmp_path / "s", files=Refusing()) as store:
        snapshot, read = grow(empty(), b"large", ballast=200_000)
        large = Commit(snapshot=snapshot, read=read, name="large")
        found = store.commit_all([commit(store, b"a", "a", expect=expect), large, commit(store, b"b", "b")])
        assert [type(each) for each in found] == [Committed, NoSpace, Committed]
        assert [row.name for row in store.ls().rows] == ["a", "b"]
        assert not list((store.directory / "objects").glob("*/*.tmp"))
        assert store.verify().faults == []


def test_directories_are_made_ahead_with_one_flush(tmp_path: Path) -> None:
    flushed: list[int] = []

    class Counting(Files):
        def sync(self, fd: int) -> None:
            flushed.append(fd)
            super().sync(fd)

    with open_store(tmp_path / "s", files=Counting()) as store:
        flushed.clear()
        store.prepare()
        assert len(flushed) == 1
        flushed.clear()
        say(store, "a", b"x")
        assert len(flushed) == 2, "the file and its directory"
        assert len(list((store.directory / "objects").iterdir())) == 256


def test_what_one_had_changed_before_it_failed_is_undone(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", max_names=2) as store:
        say(store, "a", b"base ")
        first, second, third = store.commit_all(
            [commit(store, b"1", "b", "a"), commit(store, b"2", "c", "a"), commit(store, b"3", "a", "a")]
        )
        assert [type(each) for each in (first, second, third)] == [Committed, NoSpace, Committed]
        assert [row.name for row in store.ls().rows] == ["a", "b"]
        assert store._catalogue.run("SELECT text FROM reads ORDER BY step") == [(b"base ",), (b"1",), (b"3",)]
        assert store.verify().faults == []
