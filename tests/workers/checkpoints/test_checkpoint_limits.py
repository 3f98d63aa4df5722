"""What a store takes no more of."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_toy import open_store, say

from ssmprov.errors import NoSpace
from ssmprov.names import Ref


def test_names_are_limited_and_those_that_are_there_still_move(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", max_names=2) as store:
        say(store, "a", b"x")
        store.fork(Ref("a"), ["b"])
        store.export(Ref("a"), tmp_path / "archive")
        before = [row.object for row in store.ls().rows]
        for new in (
            lambda: say(store, "c", b"y"),
            lambda: store.fork(Ref("a"), ["b", "c"], overwrite=True),
            lambda: store.import_(tmp_path / "archive", "c"),
        ):
            with pytest.raises(NoSpace, match=r"has 2 names.*max_names.*ckpt rm"):
                new()
        assert [row.object for row in store.ls().rows] == before
        say(store, "a", b"y")
        store.fork(Ref("a"), ["b"], overwrite=True)
        store.remove(["b"])
        say(store, "c", b"z")
        assert store.verify().faults == []


def test_several_who_make_names_stay_below_the_limit_together(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", max_names=600) as one, open_store(tmp_path / "s", max_names=600) as other:
        say(one, "0", b"x")
        one.fork(Ref("0"), [str(number) for number in range(1, 300)])
        for number in range(300, 600):
            (one if number % 3 else other).fork(Ref("0"), [str(number)])
        for store in (one, other):
            with pytest.raises(NoSpace, match="has 600 names"):
                store.fork(Ref("0"), ["more"])
