"""The checkpoint store of one model, shared by all its workers and by the CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ssmprov.causes import OTHER_STORE
from ssmprov.errors import BadRequest, Refused, SsmprovError
from ssmprov.names import Ref, check_name
from ssmprov.ops import BackedUp, Collected, Exported, ForkResult, Page, Row, Shown, Steps, Verified
from workers.checkpoints import queries, transfer
from workers.checkpoints.backup import backup
from workers.checkpoints.catalogue import MAX_NAMES, Catalogue
from workers.checkpoints.collect import collect
from workers.checkpoints.commits import Commits
from workers.checkpoints.files import Files, in_use, locked
from workers.checkpoints.holds import Holds, drop_dead
from workers.checkpoints.loading import load
from workers.checkpoints.objects import Objects
from workers.checkpoints.repair import repair
from workers.checkpoints.results import ANY, Commit, Committed, Done, Expect, Loaded, RequestKey
from workers.checkpoints.schema import finish_succession, open_catalogue, prepare_store
from workers.checkpoints.verify import verify
from workers.checkpoints.weights import FOLDER, WeightFiles, sweep
from workers.context import Identity, Read, Snapshot

T = TypeVar("T")

CATALOGUE = "catalogue.sqlite"


class Store:
    """Opens the store in `directory`, or creates it if a model is given.

    Without `identity` nothing can be loaded for a runtime or committed. All methods are safe from any thread and block
    on the disk. `close` it, or use it in a `with`.

    Raises NotFound (no store there, and no model given), Refused (another model's store), Corrupt (not a catalogue, or
    a lost one), Unsupported (made by a newer version), NoSpace.
    """

    uuid: str
    model: str

    def __init__(
        self,
        directory: Path,
        model: str = "",
        identity: Identity | None = None,
        *,
        keep_steps: int = 20,
        max_names: int = MAX_NAMES,
        files: Files | None = None,
        objects_of: Path | None = None,
    ) -> None:
        """With `objects_of`, `directory` holds only a copy of the catalogue of the store there: see `reading`."""
        self.directory = objects_of or directory
        self.identity = identity
        self.keep_steps = max(1, keep_steps)
        files = files or Files()
        self._lock = directory / "lock"
        self._files = files
        self._objects = Objects(self.directory / "objects", files)
        self._weights = WeightFiles(self.directory / FOLDER, files)
        self._open = ExitStack()
        path = directory / CATALOGUE
        try:
            prepare_store(directory, path, self._lock, model, files)
            self._open.enter_context(in_use(directory))
            finish_succession(path, self._lock, files)
            connection = open_catalogue(path, self._lock, files)
            self._catalogue = Catalogue(self.directory / CATALOGUE, connection, max_names=max_names)
            self._open.callback(self._catalogue.close)
            self._holds = Holds(directory / "holders", self._lock)
            self._commits = Commits(self._catalogue, self._objects, self._holds, self.keep_steps)
            self._open.callback(self._commits.close)
            self.uuid = self._noted("uuid")
            self.model = self._noted("model")
            if model not in ("", self.model):
                raise Refused(
                    f"{directory} holds the checkpoints of {self.model}: give {model} another directory",
                    cause=OTHER_STORE,
                )
            if identity is not None:
                self._note_identity(identity)
        except BaseException:
            self._open.close()
            raise

    def close(self) -> None:
        self._holds.close()
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Make ahead what saves would need later, and remove the holds of killed processes.

        Raises NoSpace.
        """
        with suppress(BlockingIOError), locked(self._lock, wait=False):  # a gc, which would have it, does the same
            drop_dead(self.directory / "holders")
        self._objects.prepare()

    # ---- turns ---------------------------------------------------------------------------------------------------
    def head(self, name: str) -> str | None:
        """The object that `name` points to, or None."""
        return self._catalogue.head(name)

    def resolve(self, ref: Ref) -> str:
        """The object's id. Raises NotFound with the nearest name, or with the number of steps."""
        return self._catalogue.find(ref).object

    @contextmanager
    def hold(self, object_id: str) -> Iterator[None]:
        """Protect a step, its lineage and its object's file from `gc` while the body runs and this process lives.

        It needs no disk flush. A turn holds the checkpoint that it started from until its commit. Raises NotFound if
        the step is gone.
        """
        with self._holds.hold(object_id):
            self._catalogue.find(Ref(object=object_id))
            yield

    def load(self, ref: Ref) -> Loaded:
        """The checkpoint's state, or its nearest stored ancestor's with the tokens to read again.

        Raises NotFound, WrongModel, Corrupt (a file is damaged, or missing although it should be there: never silently
        replayed), Unsupported (an opaque root whose object is gone).
        """
        return load(self._catalogue, self._objects, ref, self._own())

    def commit(
        self,
        snapshot: Snapshot,
        read: Read,
        name: str,
        *,
        expect: str | Expect | None = ANY,
        request: RequestKey | None = None,
        answer: Callable[[str], bytes] = lambda _object: b"",
    ) -> Committed:
        """Make one context durable: see `Commit`.

        Raises Conflict (nothing changed), NotFound (the parent was collected), BadRequest (tokens that do not add up),
        WrongModel, NoSpace.
        """
        (done,) = self.commit_all(
            [Commit(snapshot=snapshot, read=read, name=name, expect=expect, request=request, answer=answer)]
        )
        if isinstance(done, SsmprovError):
            raise done
        return done

    def commit_all(self, commits: Sequence[Commit]) -> list[Committed | SsmprovError]:
        """Make several contexts durable with one wait for the disk, each completely or not at all; return what came of
        each.
        """
        return self._commits.make(commits, self._own())

    def outcome(self, request_id: bytes) -> bytes | None:
        """The answer that was committed or settled for a request, or None."""
        return self._catalogue.outcome(request_id)

    def settle(self, key: RequestKey, answer: bytes) -> tuple[bool, bytes]:
        """Insert the outcome unless there is one: returns (whether this one is valid, the valid one)."""
        done = self._change(key, lambda: answer, lambda result: result)
        return not done.duplicate, done.answer

    @contextmanager
    def having_weights(self, weights_id: str, data: bytes) -> Iterator[None]:
        """Write a file of weights; gc leaves it alone while the body commits a state that names it.

        If the body raises, a new file is removed again. Raises NoSpace, Unavailable.
        """
        new = False
        try:
            with self._holds.hold(weights_id):
                new = self._weights.write(weights_id, data)
                yield
        except BaseException:
            if new:
                with suppress(SsmprovError):  # gc removes what is left of it
                    sweep(self._catalogue, self._objects, self.directory / "holders", self._weights, only=weights_id)
            raise

    # ---- names ---------------------------------------------------------------------------------------------------
    def fork(
        self,
        source: Ref,
        targets: list[str],
        *,
        overwrite: bool = False,
        if_head: str | None = None,
        pins: Mapping[str, str] | None = None,
        request: RequestKey | None = None,
        answer: Callable[[ForkResult], bytes] = lambda _result: b"",
    ) -> Done[ForkResult]:
        """Give the source more names, all or none; `pins` maps targets to workers. Raises NotFound, Conflict.

        `overwrite` allows existing names to move, and with `if_head` only those that are there.
        """
        names = list(dict.fromkeys(check_name(target, reserved=True) for target in targets))
        workers = {name: worker for name, worker in (pins or {}).items() if name in names}

        def make() -> ForkResult:
            step = self._catalogue.find(source)
            for name in names:
                if not overwrite or if_head is not None:
                    self._catalogue.expect_head(name, if_head if overwrite else None)
                self._catalogue.move(name, step, self.keep_steps, workers.get(name))
            return ForkResult(object=step.object, targets=names, pins=workers)

        return self._change(request, make, answer)

    def pin(
        self,
        name: str,
        worker: str,
        *,
        request: RequestKey | None = None,
        answer: Callable[[Row], bytes] = lambda _row: b"",
    ) -> Done[Row]:
        """Pin a name to a worker ('' removes the pin). Raises NotFound."""

        def make() -> Row:
            self._catalogue.pin(name, worker)
            return self.row(Ref(name))

        return self._change(request, make, answer)

    def pins(self) -> dict[str, str]:
        """The worker of each pinned name."""
        return queries.pins(self._catalogue)

    def remove(
        self,
        names: Iterable[str],
        *,
        request: RequestKey | None = None,
        answer: Callable[[list[Row]], bytes] = lambda _rows: b"",
    ) -> Done[list[Row]]:
        """Remove names, all or none; returns their rows. `gc` collects what nothing reaches. Raises NotFound."""
        unique = list(dict.fromkeys(names))

        def make() -> list[Row]:
            rows = [self.row(Ref(name)) for name in unique]
            for name in unique:
                self._catalogue.run("DELETE FROM names WHERE name = ?", (name,))
            return rows

        return self._change(request, make, answer)

    # ---- queries -------------------------------------------------------------------------------------------------
    def ls(self, prefix: str = "", after: str = "", limit: int = 200, *, reserved: bool = False) -> Page:
        """A page of names in order; reserved ones if asked for, or if the prefix is a reserved one."""
        return queries.ls(self._catalogue, self.model, prefix, after, limit, reserved=reserved)

    def row(self, ref: Ref) -> Row:
        """One checkpoint. Raises NotFound."""
        with self._catalogue.view():
            return queries.row(self._catalogue, self.model, ref)

    def show(self, ref: Ref) -> Shown:
        """One checkpoint with its seed, settings, text size and names. Raises NotFound."""
        with self._catalogue.view():
            return queries.show(self._catalogue, self.model, ref)

    def text(self, ref: Ref, offset: int = 0, limit: int = 8 << 20, *, since_root: bool = False) -> bytes:
        """Bytes of the text that the context has read since its root. Raises NotFound, and Unsupported if opaque."""
        with self._catalogue.view():
            return queries.text(self._catalogue, ref, offset, limit, since_root=since_root)

    def show_text(self, ref: Ref, offset: int, limit: int, *, since_root: bool = False) -> tuple[Shown, bytes]:
        """Both as of one moment: even another worker may move a name at any time. Raises what they raise."""
        with self._catalogue.view():
            return queries.show(self._catalogue, self.model, ref), queries.text(
                self._catalogue, ref, offset, limit, since_root=since_root
            )

    def tokens(self, ref: Ref) -> NDArray[np.int32]:
        """[T] all tokens of the lineage, from its root. Raises NotFound, and Unsupported if the root is opaque."""
        with self._catalogue.view():
            return queries.tokens(self._catalogue, ref)

    def log(self, ref: Ref, limit: int = 50, before: str = "") -> Steps:
        """The steps of the lineage, newest first, from the one before object `before`. Raises NotFound."""
        with self._catalogue.view():
            return queries.log(self._catalogue, ref, limit, before)

    def tree(self, ref: Ref | None = None, limit: int = 400) -> Steps:
        """Named checkpoints, branch points and roots, parents before children, of all or of the ref's root. Raises
        NotFound.

        A step's `parent` is its nearest listed ancestor; `step_tokens` and `step_bytes` count what lies between.
        """
        with self._catalogue.view():
            return queries.tree(self._catalogue, ref, limit)

    # ---- care ----------------------------------------------------------------------------------------------------
    def verify(self) -> Verified:
        """Re-hash every object and every lineage; writers may continue meanwhile."""
        return verify(self._catalogue, self._objects, self._weights)

    def repair(self) -> Verified:
        """Repair what can be repaired while the store serves, and verify it: see `repairs` and `faults`.

        Raises Busy while a gc or a backup runs.
        """
        repairs = repair(self._catalogue, self._objects, self.directory / "holders", self._lock)
        found = self.verify()
        found.repairs = repairs
        return found

    def backup(self, target: Path) -> BackedUp:
        """Copy the store to `target`, while it serves. Raises BadRequest, Refused, Busy, NoSpace."""
        return backup(self.directory, self._lock, self._catalogue, self._objects, target, self._files)

    def gc(self, *, dry_run: bool = False) -> Collected:
        """Delete what no name, history or hold reaches. Raises Busy while another gc runs."""
        parts = (self._catalogue, self._objects, self._weights, self.directory / "holders", self._lock)
        return collect(*parts, self.keep_steps, dry_run=dry_run)

    def export(self, ref: Ref, path: Path) -> Exported:
        """Write the context with its lineage as one file, completely or not at all.

        Raises NotFound, Unsupported (its state was collected), Corrupt, NoSpace, BadRequest (the path cannot be
        written).
        """
        head = self.resolve(ref)  # once, since the name may move
        with self.hold(head):
            return transfer.export(self._catalogue, self._objects, self.model, Ref(object=head), path)

    def import_(
        self,
        path: Path,
        name: str,
        *,
        overwrite: bool = False,
        request: RequestKey | None = None,
        answer: Callable[[Row], bytes] = lambda _row: b"",
    ) -> Done[Row]:
        """Import an exported file under `name`, completely or not at all. Raises WrongModel, Corrupt, Conflict,
        NoSpace.
        """
        check_name(name, reserved=True)
        if request and (former := self.outcome(request.id)) is not None:
            return Done(None, former, duplicate=True)
        identity = self.identity or self._noted_identity()
        with transfer.importing(self._catalogue, self._objects, self._holds, identity, path) as insert:

            def make() -> Row:
                if not overwrite:
                    self._catalogue.expect_head(name, None)
                self._catalogue.move(name, insert(), self.keep_steps)
                return self.row(Ref(name))

            return self._change(request, make, answer)

    def _change(self, request: RequestKey | None, make: Callable[[], T], answer: Callable[[T], bytes]) -> Done[T]:
        """One durable transaction: the change with its outcome, unless the request already has one."""
        with self._catalogue.change():
            if request and (former := self.outcome(request.id)) is not None:
                return Done(None, former, duplicate=True)
            result = make()
            if request is None:
                return Done(result, b"")
            reply = answer(result)
            self._catalogue.add_outcome(request.id, reply, request.expires_s)
            return Done(result, reply)

    def _own(self) -> Identity:
        if self.identity is None:
            raise BadRequest(
                f"{self.directory} was opened without its model, but its states need a worker of {self.model}"
            )
        return self.identity

    def _note_identity(self, identity: Identity) -> None:
        """Remember which model owns the store, so that a later import without a worker can be checked against it."""
        noted = msgspec.json.encode(identity).decode()
        if self._catalogue.meta("identity") != noted:
            with self._catalogue.change():
                self._catalogue.set_meta("identity", noted)

    def _noted(self, key: str) -> str:
        found = self._catalogue.meta(key)
        if found is None:
            raise self._catalogue.damaged(f"it has no entry for {key}")
        return found

    def _noted_identity(self) -> Identity:
        noted = self._catalogue.meta("identity")
        if noted is None:
            raise Refused(
                f"no worker has opened {self.directory} yet, so its model is not known: start {self.model} once"
            )
        return msgspec.json.decode(noted, type=Identity)
