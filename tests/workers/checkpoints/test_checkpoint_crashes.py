"""Power cuts, kills and full disks: a name stands at its old checkpoint or at its new one, whole."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_toy import check_text, child, finish, open_store, say

from ssmprov.errors import Conflict, NoSpace
from ssmprov.names import Ref
from workers.checkpoints import Store
from workers.checkpoints.files import Files


class Halted(BaseException):
    """The machine stopped."""


class Failing(Files):
    """Fails at the n-th step; `halt` also after it, as a machine that stopped does nothing more."""

    def __init__(self, allowed: int, failure: Callable[[], BaseException], *, halt: bool) -> None:
        self.allowed = allowed
        self.failure = failure
        self.halt = halt
        self.failed = False

    def _step(self, done: Callable[..., Any], *arguments: Any) -> Any:
        if self.failed and self.halt:
            raise self.failure()
        if self.allowed == 0 and not self.failed:
            self.failed = True
            raise self.failure()
        self.allowed -= 1
        return done(*arguments)

    def create(self, path: Path) -> int:
        fd: int = self._step(super().create, path)
        return fd

    def write(self, fd: int, data: bytes) -> None:
        half = len(data) // 2
        self._step(super().write, fd, data[:half])
        self._step(super().write, fd, data[half:])

    def sync(self, fd: int) -> None:
        self._step(super().sync, fd)

    def rename(self, source: Path, target: Path) -> None:
        self._step(super().rename, source, target)

    def unlink(self, path: Path) -> None:
        self._step(super().unlink, path)


STEPS = 7
"""Of a write: the directory's flush, create, two writes, flush, rename, the directory's flush."""


def leftovers(store: Store) -> list[Path]:
    return list((store.directory / "objects").glob("*/*.tmp"))


def test_a_stop_after_any_step_of_a_commit_leaves_old_or_new(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        old = say(store, "a", b"old").object
    for allowed in itertools.count():
        files = Failing(allowed, Halted, halt=True)
        with open_store(tmp_path / "s", files=files) as store, contextlib.suppress(Halted):
            say(store, "a", f" {allowed}".encode(), base="#" + old)
        with open_store(tmp_path / "s") as store:
            assert store.verify().faults == []
            check_text(store, "a")
            if not files.failed:
                assert store.text(Ref("a")) == f"old {allowed}".encode()
                break
            assert store.head("a") == old
            store.gc()
            assert leftovers(store) == []
    assert allowed == STEPS


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path: Path, code: int) -> None:
    with open_store(tmp_path / "s") as store:
        old = say(store, "a", b"old").object
    for allowed in range(STEPS + 1):
        files = Failing(allowed, lambda: OSError(code, "full"), halt=False)
        with open_store(tmp_path / "s", files=files) as store:
            turn = functools.partial(say, store, "a", f" {allowed}".encode(), base="#" + old, request=b"1" * 16)
            if allowed == STEPS:
                turn()
                break
            with pytest.raises(NoSpace, match=r"\.safetensors"):
                turn()
            assert store.head("a") == old
            assert store.outcome(b"1" * 16) is None
            assert leftovers(store) == []
            check_text(store, "a")


LIMITED = """
import resource
from ssmprov.errors import NoSpace
with open_store(Path(sys.argv[1])) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        say(store, "a", b" more", ballast=int(sys.argv[2]))
    except NoSpace as error:
        print(error.message)
    print(store.text(Ref("a")).decode())
"""


def test_a_disk_that_really_refuses(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"old")
    out = finish(child(LIMITED, tmp_path / "s", 1_000_000))
    assert ".safetensors" in out
    assert out.endswith("\nold\n")
    with open_store(tmp_path / "s") as store:
        assert leftovers(store) == []
        assert store.verify().faults == []
        assert finish(child(LIMITED, tmp_path / "s", 1000)) == "old more\n"


def test_a_catalogue_that_cannot_grow_changes_nothing(store: Store) -> None:
    old = say(store, "a", b"old").object
    (pages,) = store._catalogue.run("PRAGMA page_count")[0]
    store._catalogue.run(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NoSpace, match=r"catalogue\.sqlite"):
        say(store, "a", b"x" * 100_000, request=b"1" * 16)
    assert (store.head("a"), store.outcome(b"1" * 16)) == (old, None)
    store._catalogue.run("PRAGMA max_page_count = 1000000")
    say(store, "a", b" new")
    assert store.text(Ref("a")) == b"old new"


WRITER = """
with open_store(Path(sys.argv[1])) as store:
    while True:
        print(say(store, "a", b"x", ballast=200_000).object, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 2, 5, 9])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    writer = child(WRITER, tmp_path / "s")
    assert writer.stdout is not None
    last = [writer.stdout.readline().strip() for _ in range(acknowledged)][-1]
    writer.kill()
    rest, _ = writer.communicate()
    last = ([last] + [line for line in rest.splitlines() if len(line) == 64])[-1]
    with open_store(tmp_path / "s") as store:
        assert store.verify().faults == []
        assert last in [step.object for step in store.log(Ref("a"), limit=2).steps]
        check_text(store, "a")
        store.gc()
        assert leftovers(store) == []
        assert store.verify().faults == []
        with pytest.raises(Conflict):
            say(store, "a", b"y", expect=None)
