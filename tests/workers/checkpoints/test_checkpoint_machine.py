"""Any sequence of commits, forks, removals and collections, held against a dictionary of texts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from checkpoint_toy import open_store, restored, say, text_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ssmprov.errors import Conflict, NotFound
from ssmprov.names import Ref, parse_ref

NAMES = st.sampled_from(["a", "b", "c/d"])
TEXTS = st.sampled_from([b"x", b"yy", b"", "ü".encode()])


class StoreMachine(RuleBasedStateMachine):
    """The model: each name's texts, one for each step from the root to its head."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="ssmprov-machine-"))
        self.store = open_store(self.path / "s", keep_steps=2)
        self.names: dict[str, list[bytes]] = {}

    def teardown(self) -> None:
        assert self.store.verify().faults == []
        self.store.close()
        shutil.rmtree(self.path)

    @rule(name=NAMES, text=TEXTS)
    def commit(self, name: str, text: bytes) -> None:
        say(self.store, name, text, expect=self.store.head(name))
        steps = self.names.get(name, [])
        self.names[name] = [*steps, (steps[-1] if steps else b"") + text]

    @rule(name=NAMES, text=TEXTS, back=st.integers(0, 4), onto=NAMES)
    def branch(self, name: str, text: bytes, back: int, onto: str) -> None:
        steps = self.names.get(name, [])
        if back >= len(steps):
            with pytest.raises(NotFound):
                self.store.load(Ref(name, back))
            return
        say(self.store, onto, text, base=str(Ref(name, back)))
        steps = steps[: len(steps) - back]
        self.names[onto] = [*steps, steps[-1] + text]

    @rule(source=NAMES, copies=st.lists(NAMES, min_size=1, max_size=2), overwrite=st.booleans())
    def fork(self, source: str, copies: list[str], overwrite: bool) -> None:
        if source not in self.names:
            expected: type[Exception] = NotFound
        elif not overwrite and any(name in self.names for name in copies):
            expected = Conflict
        else:
            self.store.fork(Ref(source), copies, overwrite=overwrite)
            self.names.update({name: list(self.names[source]) for name in copies})
            return
        with pytest.raises(expected):
            self.store.fork(Ref(source), copies, overwrite=overwrite)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if name in self.names:
            self.store.remove([name])
            del self.names[name]
        else:
            with pytest.raises(NotFound):
                self.store.remove([name])

    @rule()
    def collect(self) -> None:
        preview = self.store.gc(dry_run=True)
        assert self.store.gc() == preview

    @precondition(lambda self: self.names)
    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.path / "s", keep_steps=2)

    @rule(name=NAMES)
    def load_each_step(self, name: str) -> None:
        for back, text in enumerate(reversed(self.names.get(name, []))):
            loaded = self.store.load(parse_ref(f"{name}~{back}"))
            assert text_of(restored(loaded)) == text
            assert back >= 2 or not len(loaded.replay)

    @invariant()
    def names_and_texts_agree(self) -> None:
        assert [row.name for row in self.store.ls().rows] == sorted(self.names)
        for name, steps in self.names.items():
            assert self.store.text(Ref(name)) == steps[-1]
            assert self.store.row(Ref(name)).steps == len(steps)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
