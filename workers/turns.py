"""The two ends of a turn, on the store thread: restore its context before, commit its checkpoint after."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from ssmprov import ops, wire
from ssmprov.errors import Cancelled, Conflict, Corrupt, NotFound, SsmprovError, WorkerLost, problem_of
from ssmprov.names import parse_ref
from ssmprov.settings import Sets, Settings, as_values
from workers.answers import Answers, Outcome, key_of, milliseconds
from workers.checkpoints import ANY, Commit, Committed, Loaded, Store
from workers.context import Read, Snapshot, empty
from workers.job import Job
from workers.prompt import Prompt, Vocabulary, characters
from workers.runtimes.base import Runtime
from workers.state_cache import StateCache
from workers.turn import Limits, Turn

TEXT_PAGE = wire.MAX_TEXT - wire.MAX_PAYLOAD
NO_HEAD = "none"


class Turns:
    """Used by the store thread alone, except `prompt`."""

    def __init__(
        self,
        store: Store,
        sets: Sets,
        runtime: Runtime,
        cache: StateCache,
        submit: Callable[[Job], None],
        answers: Answers,
    ) -> None:
        self._store = store
        self._sets = sets
        self._cache = cache
        self._submit_job = submit
        self._answers = answers
        self._vocabulary = vocabulary_of(runtime)
        self._context_tokens = runtime.context_tokens

    # -- a turn's two ends

    def prompt(self, payloads: list[bytes]) -> Prompt:
        """The payloads of a request as a checked and tokenized prompt."""
        return Prompt(b"".join(payloads), self._vocabulary, heal=True)

    def begin(self, job: Job, prompt: Prompt) -> None:
        """Restore the context, make the turn, and let it join the batch. A request sent again gets its old answer."""
        args = job.args
        assert isinstance(args, ops.Turn)
        if args.save and (answer := self._store.outcome(job.id)) is not None:
            self._answers.repeat(job.request, answer)
            return
        if job.request.have:
            lost = WorkerLost(
                f"the rest of the answer was lost after {job.request.have} bytes, and the turn saved nothing: "
                "send the turn again"
            )
            if not args.save:
                raise lost
            problem = problem_of(lost, worker=self._answers.worker)  # an earlier attempt can no longer commit
            _, answer = self._store.settle(key_of(job.request), Outcome(error=problem).encode())
            self._answers.repeat(job.request, answer)
            return
        settings = self._sets.resolve(args.settings, args.values)
        head = self._store.head(args.save) if args.save else None  # before the context: a later move is a conflict
        loaded = self._restore(job, args)
        if args.if_head is not None:
            job.any_head, job.expect = False, None if args.if_head == NO_HEAD else args.if_head
            if head != job.expect:
                raise Conflict(_moved(args.save, args.if_head, head), head=head or "")
        elif args.save and job.request.context and parse_ref(job.request.context).name == args.save:
            job.any_head, job.expect = False, head
        limits = Limits(args.max_tokens, settings.max if args.max_chars is None else args.max_chars)
        seed = args.seed if args.seed is not None else loaded.seed
        if seed is None:
            seed = secrets.randbits(63)
        job.settings = as_values(settings)
        job.turn = self._make_turn(job, loaded, prompt, settings, limits, seed, headers=args.headers)
        self._submit(job)

    def _make_turn(
        self,
        job: Job,
        loaded: Loaded,
        prompt: Prompt,
        settings: Settings,
        limits: Limits,
        seed: int,
        *,
        headers: bool = False,
    ) -> Turn:
        job.start = loaded.snapshot
        job.parent = loaded.object
        limits = replace(limits, context=self._context_tokens)
        replay = loaded.replay.tolist()
        return Turn(self._vocabulary, loaded.snapshot, prompt, settings, limits, seed, replay, headers=headers)

    def _submit(self, job: Job) -> None:
        assert job.turn is not None
        job.restored_at = time.monotonic()
        if job.cancelled:
            job.turn.fail(Cancelled("cancelled before it began: nothing was read and nothing has changed"))
        self._submit_job(job)

    def _restore(self, job: Job, args: ops.Turn) -> Loaded:
        """The context that a turn starts from: empty, from the cache, from the disk, or to be replayed."""
        reference = job.request.context
        if not reference:
            return Loaded.empty()
        ref = parse_ref(reference)
        try:
            object_id = self._store.resolve(ref)
        except NotFound:
            if not args.create or str(ref) != ref.name:
                raise
            return Loaded.empty()
        if args.save:
            job.holds.enter_context(self._store.hold(object_id))
        return self.load(job, object_id)

    def load(self, job: Job | None, object_id: str) -> Loaded:
        if (snapshot := self._cache.get(object_id)) is not None:
            where = "hot"
            loaded = Loaded(
                object=object_id,
                snapshot=snapshot,
                replay=np.zeros(0, np.int32),
                parent=snapshot.parent,
                seed=snapshot.seed,
                tokens=snapshot.tokens,
            )
        else:
            loaded = self._store.load(parse_ref("#" + object_id))
            where = "replay" if len(loaded.replay) else "disk"
            if where == "disk":
                self._cache.put(loaded.snapshot)
        if job is not None:
            job.restored = where
        return loaded

    def end(self, jobs: Sequence[Job]) -> None:
        """Commit or answer the jobs that the model thread is done with; those that save share one wait for the disk."""
        saving: list[tuple[Job, Commit, ops.TurnResult]] = []
        for job in jobs:
            with self._failing(job):
                turn = job.turn
                assert turn is not None
                if turn.failed is not None:
                    raise turn.failed
                if isinstance(job.args, ops.Turn) and job.args.save:
                    saving.append(self._saving(job, turn, job.args.save))
                else:
                    self._answer(job, turn)
        if not saving:
            return
        started = time.monotonic()
        try:
            found = self._store.commit_all([commit for _, commit, _ in saving])
        except Exception as error:
            for job, _, _ in saving:
                self._answers.fail(job.request, error)
            return
        for (job, commit, result), committed in zip(saving, found, strict=True):
            with self._failing(job):
                if isinstance(committed, SsmprovError):
                    raise committed
                result.commit_ms = milliseconds(started, time.monotonic())
                self._saved(job, commit, committed, result)

    @contextmanager
    def _failing(self, job: Job) -> Iterator[None]:
        """An exception in the body answers this job alone."""
        try:
            yield
        except Exception as error:
            self._answers.fail(job.request, error)

    def _answer(self, job: Job, turn: Turn) -> None:
        """Answer a job that saves no turn."""
        if isinstance(job.args, ops.Replay):
            if job.args.prime:
                self._end_prime(job, turn, job.args.save)
            else:
                self._end_replay(job, turn)
            return
        result = self._result(job, turn)
        name = _context_name(job.request)
        turn.text()
        self._answers.reply(job.request, result, bytes(turn.reply), hot=[name] if name else [])

    def _saving(self, job: Job, turn: Turn, save: str) -> tuple[Job, Commit, ops.TurnResult]:
        result = self._result(job, turn)
        result.name, result.parent = save, job.parent
        text = bytes(turn.reply)

        def answer(object_id: str) -> bytes:
            result.object = object_id
            return Outcome(result=wire.pack(result), text=text, hot=[save]).encode()

        return job, self._commit(job, turn, save, answer), result

    def _saved(self, job: Job, commit: Commit, committed: Committed, result: ops.TurnResult) -> None:
        if committed.duplicate:
            self._answers.repeat(job.request, committed.answer)
            return
        assert job.turn is not None
        self._cache.put(commit.snapshot.committed(committed.object))
        self._answers.reply(job.request, result, bytes(job.turn.reply), hot=[commit.name])

    def _commit(self, job: Job, turn: Turn, name: str, answer: Callable[[str], bytes]) -> Commit:
        """The commit that makes the context after a turn durable under a name."""
        assert job.arrays is not None
        return Commit(
            snapshot=turn.snapshot(job.arrays, job.parent),
            read=replace(turn.text(), settings=job.settings),
            name=name,
            expect=ANY if job.any_head else job.expect,
            request=key_of(job.request),
            answer=answer,
        )

    def _result(self, job: Job, turn: Turn) -> ops.TurnResult:
        assert job.start is not None
        reading_done = job.prompt_at or job.admitted_at
        return ops.TurnResult(
            stop=turn.stop,
            seed=turn.seed,
            tokens=job.start.tokens + turn.replayed + len(turn.tokens),
            prompt_tokens=turn.prompt_tokens,
            reply_tokens=turn.sampled,
            reply_bytes=len(turn.reply),
            prefill_tokens=turn.replayed,
            restored=job.restored,
            exact=job.start.exact,
            worker=self._answers.worker,
            restore_ms=milliseconds(job.arrived, job.restored_at),
            prompt_ms=milliseconds(job.admitted_at, reading_done),
            reply_ms=milliseconds(reading_done, job.done_at),
            shared_tokens=job.shared,
        )

    # -- replay

    def begin_prime(self, job: Job, prompt: Prompt) -> None:
        """Read a text, such as that of another model's context, into an empty context."""
        if job.args.save and (answer := self._store.outcome(job.id)) is not None:
            self._answers.repeat(job.request, answer)
            return
        seed = secrets.randbits(63)
        job.turn = self._make_turn(job, Loaded.empty(), prompt, Settings(), Limits(0, 1), seed)
        self._submit(job)

    def _end_prime(self, job: Job, turn: Turn, save: str) -> None:
        result = ops.Replayed(tokens=len(turn.tokens), ms=milliseconds(job.admitted_at, job.done_at))

        def answer(object_id: str) -> bytes:
            result.object, result.name = object_id, save
            return Outcome(result=wire.pack(result), hot=[save]).encode()

        if not save:
            self._answers.reply(job.request, result)
            return
        commit = self._commit(job, turn, save, answer)
        (committed,) = self._store.commit_all([commit])
        if isinstance(committed, SsmprovError):
            raise committed
        if not committed.duplicate:
            self._cache.put(commit.snapshot.committed(committed.object))
        self._answers.repeat(job.request, committed.answer)

    def begin_replay(self, job: Job) -> None:
        """Read a lineage again from its root, beside the stored one."""
        if job.args.save and (answer := self._store.outcome(job.id)) is not None:
            self._answers.repeat(job.request, answer)
            return
        object_id = self._store.resolve(parse_ref(job.request.context))
        job.holds.enter_context(self._store.hold(object_id))
        tokens = self._store.tokens(parse_ref("#" + object_id))  # the name may have moved in the meantime
        nothing = Prompt(b"", self._vocabulary, heal=False)
        loaded = Loaded(object=object_id, snapshot=empty(), replay=tokens, parent="", seed=None, tokens=0)
        job.turn = self._make_turn(job, loaded, nothing, Settings(), Limits(0, 1), 0)
        self._submit(job)

    def _end_replay(self, job: Job, turn: Turn) -> None:
        """Compare the state after reading again with the stored one. Give the object another name if asked to."""
        assert job.arrays is not None
        tokens = self._store.tokens(parse_ref("#" + job.parent))
        text = b"".join(map(self._vocabulary.piece, tokens.tolist()))
        result = ops.Replayed(tokens=len(tokens), ms=milliseconds(job.admitted_at, job.done_at), object=job.parent)
        result.text_equal = text == b"".join(self._pages(job.parent))
        snapshot = turn.snapshot(job.arrays, "")
        sound = self._stored(job.parent)
        if sound is not None:
            result.largest_difference = _difference(sound, snapshot)
        if not job.args.save:
            self._answers.reply(job.request, result)
            return
        result.name = job.args.save
        if sound is None:
            self._save_again(job, snapshot, tokens, result)
            return
        done = self._store.fork(
            parse_ref("#" + job.parent),
            [job.args.save],
            overwrite=True,
            request=key_of(job.request),
            answer=lambda _fork: Outcome(result=wire.pack(result)).encode(),
        )
        self._answers.repeat(job.request, done.answer)

    def _stored(self, object_id: str) -> Snapshot | None:
        """The stored state of a checkpoint; None if it was collected or is damaged."""
        try:
            loaded = self._store.load(parse_ref("#" + object_id))
        except Corrupt:
            return None
        return None if len(loaded.replay) else loaded.snapshot

    def _save_again(
        self, job: Job, snapshot: Snapshot, tokens: np.ndarray[Any, np.dtype[np.int32]], result: ops.Replayed
    ) -> None:
        """Commit a state that was read again, as a step beside the one whose state is gone."""
        shown = self._store.show(parse_ref("#" + job.parent))
        parent = shown.row.parent
        above = self._store.show(parse_ref("#" + parent)) if parent else None
        read = Read(
            tokens[above.row.tokens if above else 0 :],
            b"".join(self._pages(job.parent))[above.row.text_bytes if above else 0 :],
            settings=shown.settings,
            kind="replay",
        )

        def answer(object_id: str) -> bytes:
            result.object = object_id
            return Outcome(result=wire.pack(result), hot=[result.name]).encode()

        again = replace(snapshot, parent=parent, seed=shown.seed)
        committed = self._store.commit(again, read, result.name, request=key_of(job.request), answer=answer)
        if not committed.duplicate:
            self._cache.put(again.committed(committed.object))
        self._answers.repeat(job.request, committed.answer)

    def _pages(self, object_id: str) -> Sequence[bytes]:
        ref = parse_ref("#" + object_id)
        total = self._store.show(ref).row.text_bytes
        return [self._store.text(ref, offset, TEXT_PAGE) for offset in range(0, total, TEXT_PAGE)]


def vocabulary_of(runtime: Runtime) -> Vocabulary:
    """A runtime's tokens as a turn sees them; what needs a pass over all tokens is computed at first use."""
    spaced: list[np.ndarray[Any, np.dtype[np.bool_]]] = []

    def begin_with_space() -> np.ndarray[Any, np.dtype[np.bool_]]:
        if not spaced:
            pieces = map(runtime.piece, range(runtime.vocabulary))
            spaced.append(np.fromiter((piece[:1] == b" " for piece in pieces), bool, runtime.vocabulary))
        return spaced[0]

    @lru_cache(maxsize=64)
    def misfits(opened: bytes) -> list[int]:
        pieces = enumerate(map(runtime.piece, range(runtime.vocabulary)))
        return [token for token, piece in pieces if piece and not _fits(opened, piece)]

    return Vocabulary(
        tokenize=runtime.tokenize,
        piece=runtime.piece,
        end=runtime.end_tokens,
        control=runtime.control_tokens,
        spaced=begin_with_space,
        misfits=misfits,
    )


def _fits(opened: bytes, piece: bytes) -> bool:
    """Whether a piece can follow an open character; for most pieces the first byte is enough to tell."""
    continues = piece[0] & 0xC0 == 0x80
    return not (opened and not continues) and characters(opened, piece) is not None


def _context_name(request: wire.Request) -> str:
    return parse_ref(request.context).name if request.context else ""


def _moved(name: str, wanted: str, head: str | None) -> str:
    now = f"is at #{head[:12]}" if head else "does not exist"
    return f"{name} {now}, but was expected at #{wanted[:12]}: somebody moved it; load it again and send the turn again"


def _difference(a: Snapshot, b: Snapshot) -> float:
    """The largest difference between the numbers and logits of two states; a library's own bytes are not compared."""
    pairs = [(a.arrays[name], b.arrays[name]) for name in a.arrays if a.arrays[name].dtype.kind == "f"]
    if a.logits is not None and b.logits is not None:
        pairs.append((a.logits, b.logits))
    differences = [np.abs(x.astype(np.float64) - y.astype(np.float64)).max(initial=0.0) for x, y in pairs]
    return float(max(differences, default=0.0))
