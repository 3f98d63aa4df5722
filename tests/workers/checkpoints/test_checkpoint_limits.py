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
