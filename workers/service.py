"""A worker's operations: what each request does to the checkpoint store, and how a turn is prepared and committed.

Three lanes of threads, so that the socket's thread never touches the disk: `text` checks and tokenizes prompts,
`store` does what is short (load, commit, names, queries), `care` what may take long (verify, gc, files, texts).
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw

from ssmprov import ops, wire
from ssmprov.errors import BadRequest, Cancelled, Conflict, NotFound, Problem, WorkerLost, problem_of
from ssmprov.names import parse_ref
from ssmprov.settings import Sets, Settings, as_values
from workers.batch import Batch
from workers.checkpoints import ANY, Loaded, RequestKey, Store
from workers.context import Snapshot, empty
from workers.hot import HotStates
from workers.job import Job
from workers.runtimes.base import Runtime
from workers.transfer import Transfer, receive, send
from workers.turn import Limits, Prompt, Turn, Vocabulary

OUTCOME_MARGIN_S = 3600.0
TEXT_PAGE = wire.MAX_TEXT - wire.MAX_PAYLOAD
NO_HEAD = "none"

Answer = Callable[[wire.Request, wire.Final, Sequence[bytes]], None]


class Outcome(msgspec.Struct, omit_defaults=True):
    """A durable answer, as it stands in the catalogue and is given again to a resent request."""

    result: Raw = Raw(b"\xc0")
    error: Problem | None = None
    text: bytes = b""
    hot: list[str] = []
    pins: dict[str, str] = {}

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


class Service:
    """Takes requests from the socket's thread and answers each exactly once, from whichever thread is done with it."""

    def __init__(
        self,
        worker: str,
        store: Store,
        sets: Sets,
        runtime: Runtime,
        hot: HotStates,
        batch: Batch,
        answer: Answer,
    ) -> None:
        self._worker = worker
        self._store = store
        self._sets = sets
        self._hot = hot
        self._batch = batch
        self._answer = answer
        self._runtime = runtime
        self._vocabulary = vocabulary_of(runtime)
        self._text = ThreadPoolExecutor(1, "text")
        self._lane = ThreadPoolExecutor(1, "store")
        self._care = ThreadPoolExecutor(4, "care")
        self.done = 0
        self._operations: dict[str, tuple[ThreadPoolExecutor, Callable[[wire.Request, Any], None]]] = {
            "ckpt.ls": (self._lane, self._ls),
            "ckpt.show": (self._care, self._show),
            "ckpt.log": (self._lane, self._log),
            "ckpt.tree": (self._lane, self._tree),
            "ckpt.fork": (self._lane, self._fork),
            "ckpt.move": (self._lane, self._move),
            "ckpt.rm": (self._lane, self._remove),
            "ckpt.verify": (self._care, lambda r, _: self._reply(r, self._store.verify())),
            "ckpt.gc": (self._care, lambda r, a: self._reply(r, self._store.gc(dry_run=a.dry_run))),
            "settings.ls": (self._lane, self._settings_ls),
            "settings.show": (self._lane, self._settings_show),
            "settings.set": (self._lane, self._settings_set),
            "settle": (self._lane, self._settle),
            "warm": (self._lane, self._warm),
        }

    # -- taking requests

    def turn(self, job: Job, payloads: list[bytes]) -> None:
        """Begin a turn: its prompt is checked, its context restored, and it joins the batch."""
        self._guard(self._text, job.request, lambda: self._read_prompt(job, payloads), job)

    def replay(self, job: Job) -> None:
        """Begin to read a lineage again from its root."""
        self._guard(self._lane, job.request, lambda: self._begin_replay(job), job)

    def operate(self, request: wire.Request, args: Any) -> None:
        """Do an operation on the store."""
        lane, action = self._operations[request.op]
        self._guard(lane, request, lambda: action(request, args))

    def export(self, request: wire.Request, transfer: Transfer) -> None:
        def action() -> None:
            with _scratch() as path:
                exported = self._store.export(parse_ref(request.context), path)
                send(path, transfer)
            self._reply(request, exported)

        self._guard(self._care, request, action)

    def import_(self, request: wire.Request, args: ops.Import, transfer: Transfer) -> None:
        def action() -> None:
            with _scratch() as path:
                receive(path, transfer, args.bytes, args.sha256)
                answer = lambda row: Outcome(wire.pack(row)).encode()  # noqa: E731
                done = self._store.import_(path, args.save, request=_key(request), answer=answer)
            self._reply_outcome(request, done.answer)

        self._guard(self._care, request, action)

    def pins(self, then: Callable[[dict[str, str]], None]) -> None:
        """Read which contexts are pinned where, and hand that over."""
        self._lane.submit(lambda: then(self._store.pins()))

    def finished(self, job: Job) -> None:
        """The model thread is done with a job."""
        self._guard(self._lane, job.request, lambda: self._end(job), job)

    def close(self) -> None:
        """Wait for what the lanes still do."""
        for lane in (self._text, self._care, self._lane):
            lane.shutdown(wait=True, cancel_futures=False)

    # -- answering

    def _guard(
        self, lane: ThreadPoolExecutor, request: wire.Request, action: Callable[[], None], job: Job | None = None
    ) -> None:
        def run() -> None:
            try:
                action()
            except Exception as error:
                self.fail(request, error, job)
            finally:
                self.done += 1

        lane.submit(run)

    def fail(self, request: wire.Request, error: BaseException, job: Job | None = None) -> None:
        if job is not None:
            job.holds.close()
        self._answer(request, wire.Final(request.id, error=problem_of(error, worker=self._worker)), [])

    def _reply(
        self,
        request: wire.Request,
        result: Any,
        text: bytes = b"",
        *,
        hot: Sequence[str] = (),
        pins: dict[str, str] | None = None,
    ) -> None:
        final, payloads = wire.final(wire.Final(request.id, hot=list(hot), pins=pins or {}), result, text)
        self._answer(request, final, payloads)

    def _reply_outcome(self, request: wire.Request, answer: bytes) -> None:
        """Answer from a durable outcome, be it fresh or one of an earlier attempt."""
        outcome = msgspec.msgpack.decode(answer, type=Outcome)
        if outcome.error is not None:
            self._answer(request, wire.Final(request.id, error=outcome.error), [])
        else:
            self._reply(request, outcome.result, outcome.text, hot=outcome.hot, pins=outcome.pins)

    # -- a turn's two ends

    def _read_prompt(self, job: Job, payloads: list[bytes]) -> None:
        prompt = Prompt(b"".join(payloads), self._vocabulary, heal=True)
        self._guard(self._lane, job.request, lambda: self._begin(job, prompt), job)

    def _begin(self, job: Job, prompt: Prompt) -> None:
        args = job.args
        assert isinstance(args, ops.Turn)
        if args.save and (answer := self._store.outcome(job.id)) is not None:
            self._reply_outcome(job.request, answer)
            return
        if job.request.have:
            raise WorkerLost(
                f"the rest of an answer was lost after {job.request.have} bytes, and the turn saved nothing: "
                "send it again"
            )
        settings = self._sets.resolve(args.settings, args.values)
        loaded = self._restore(job, args)
        head = self._store.head(args.save) if args.save else None
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
        job.turn = self._make_turn(job, loaded, prompt, settings, limits, seed)
        self._submit(job)

    def _make_turn(
        self, job: Job, loaded: Loaded, prompt: Prompt, settings: Settings, limits: Limits, seed: int
    ) -> Turn:
        job.start = loaded.snapshot
        job.parent = loaded.object
        return Turn(self._vocabulary, loaded.snapshot, prompt, settings, limits, seed, loaded.replay.tolist())

    def _submit(self, job: Job) -> None:
        assert job.turn is not None
        job.restored_at = time.monotonic()
        if job.cancelled:
            job.turn.fail(Cancelled("cancelled before it began: nothing was read and nothing has changed"))
        self._batch.submit(job)

    def _restore(self, job: Job, args: ops.Turn) -> Loaded:
        """The context that a turn starts from: empty, hot, from the disk, or to be replayed."""
        nothing = np.zeros(0, np.int32)
        reference = job.request.context
        if not reference:
            return Loaded("", empty(), nothing, "", None, 0)
        ref = parse_ref(reference)
        try:
            object_id = self._store.resolve(ref)
        except NotFound:
            if not args.create or str(ref) != ref.name:
                raise
            return Loaded("", empty(), nothing, "", None, 0)
        if args.save:
            job.holds.enter_context(self._store.hold(object_id))
        return self._load(job, object_id)

    def _load(self, job: Job | None, object_id: str) -> Loaded:
        if (snapshot := self._hot.get(object_id)) is not None:
            where = "hot"
            loaded = Loaded(object_id, snapshot, np.zeros(0, np.int32), snapshot.parent, snapshot.seed, snapshot.tokens)
        else:
            loaded = self._store.load(parse_ref("#" + object_id))
            where = "replay" if len(loaded.replay) else "disk"
            if where == "disk":
                self._hot.put(loaded.snapshot)
        if job is not None:
            job.restored = where
        return loaded

    def _end(self, job: Job) -> None:
        turn = job.turn
        assert turn is not None
        if turn.failed is not None:
            self.fail(job.request, turn.failed, job)
        elif isinstance(job.args, ops.Replay):
            self._end_replay(job, turn)
        elif job.args.save:
            self._commit(job, turn, job.args.save)
        else:
            result = self._result(job, turn)
            name = _context_name(job.request)
            turn.text()
            self._reply(job.request, result, bytes(turn.reply), hot=[name] if name else [])
            job.holds.close()

    def _commit(self, job: Job, turn: Turn, save: str) -> None:
        assert job.arrays is not None
        snapshot = turn.snapshot(job.arrays, job.parent)
        result = self._result(job, turn)
        result.name, result.parent = save, job.parent
        text = bytes(turn.reply)
        hot = [save]

        def answer(object_id: str) -> bytes:
            result.object = object_id
            return Outcome(wire.pack(result), text=text, hot=hot).encode()

        started = time.monotonic()
        committed = self._store.commit(
            snapshot,
            replace(turn.text(), settings=job.settings),
            save,
            expect=ANY if job.any_head else job.expect,
            request=_key(job.request),
            answer=answer,
        )
        job.holds.close()
        if committed.duplicate:
            self._reply_outcome(job.request, committed.answer)
            return
        self._hot.put(snapshot.committed(committed.object))
        result.commit_ms = _ms(started, time.monotonic())
        self._reply(job.request, result, text, hot=hot)

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
            worker=self._worker,
            restore_ms=_ms(job.arrived, job.restored_at),
            prompt_ms=_ms(job.admitted_at, reading_done),
            reply_ms=_ms(reading_done, job.done_at),
        )

    # -- replay

    def _begin_replay(self, job: Job) -> None:
        ref = parse_ref(job.request.context)
        object_id = self._store.resolve(ref)
        job.holds.enter_context(self._store.hold(object_id))
        tokens = self._store.tokens(ref)
        nothing = Prompt(b"", self._vocabulary, heal=False)
        loaded = Loaded(object_id, empty(), tokens, "", None, 0)
        job.turn = self._make_turn(job, loaded, nothing, Settings(), Limits(0, 1), 0)
        self._submit(job)

    def _end_replay(self, job: Job, turn: Turn) -> None:
        """Compare what reading again gave with what is stored; optionally give the object a further name."""
        assert job.arrays is not None
        tokens = self._store.tokens(parse_ref("#" + job.parent))
        text = b"".join(map(self._vocabulary.piece, tokens.tolist()))
        result = ops.Replayed(tokens=len(tokens), ms=_ms(job.admitted_at, job.done_at), object=job.parent)
        result.text_equal = text == b"".join(self._pages(job.parent))
        stored = self._store.load(parse_ref("#" + job.parent))
        if not len(stored.replay):
            result.largest_difference = _difference(stored.snapshot, turn.snapshot(job.arrays, ""))
        if isinstance(job.args, ops.Replay) and job.args.save:
            self._store.fork(parse_ref("#" + job.parent), [job.args.save], overwrite=True)
            result.name = job.args.save
        job.holds.close()
        self._reply(job.request, result)

    def _pages(self, object_id: str) -> Sequence[bytes]:
        ref = parse_ref("#" + object_id)
        total = self._store.show(ref).text_bytes
        return [self._store.text(ref, offset, TEXT_PAGE) for offset in range(0, total, TEXT_PAGE)]

    # -- operations

    def _ls(self, request: wire.Request, args: ops.List) -> None:
        self._reply(request, self._store.ls(args.prefix, args.after, args.limit, reserved=args.reserved))

    def _show(self, request: wire.Request, args: ops.Show) -> None:
        ref = parse_ref(request.context)
        shown = self._store.show(ref)
        text = self._store.text(ref, args.offset, TEXT_PAGE) if args.text else b""
        self._reply(request, shown, text)

    def _log(self, request: wire.Request, args: ops.Log) -> None:
        self._reply(request, self._store.log(parse_ref(request.context), args.limit, args.before))

    def _tree(self, request: wire.Request, args: ops.Tree) -> None:
        ref = parse_ref(request.context) if request.context else None
        self._reply(request, self._store.tree(ref, args.limit))

    def _fork(self, request: wire.Request, args: ops.Fork) -> None:
        pins = dict(zip(args.targets, args.on, strict=True)) if args.on else {}
        started = time.monotonic()

        def answer(result: ops.ForkResult) -> bytes:
            result.ms = _ms(started, time.monotonic())
            return Outcome(wire.pack(result), pins=pins).encode()

        done = self._store.fork(
            parse_ref(request.context),
            args.targets,
            overwrite=args.overwrite,
            pins=pins,
            request=_key(request),
            answer=answer,
        )
        self._reply_outcome(request, done.answer)

    def _move(self, request: wire.Request, args: ops.Move) -> None:
        ref = parse_ref(request.context)
        if str(ref) != ref.name:
            raise BadRequest(f"{request.context!r} is no name: only a name can be moved; fork it first")
        hot = [ref.name] if args.worker else []

        def answer(row: ops.Row) -> bytes:
            return Outcome(wire.pack(row), hot=hot, pins={ref.name: args.worker}).encode()

        done = self._store.pin(ref.name, args.worker, request=_key(request), answer=answer)
        if args.worker:
            self._load(None, self._store.resolve(ref))
        self._reply_outcome(request, done.answer)

    def _remove(self, request: wire.Request, args: ops.Remove) -> None:
        pins = dict.fromkeys(args.names, "")

        def answer(rows: list[ops.Row]) -> bytes:
            return Outcome(wire.pack(ops.Page(rows)), pins=pins).encode()

        done = self._store.remove(args.names, request=_key(request), answer=answer)
        self._reply_outcome(request, done.answer)

    def _settings_ls(self, request: wire.Request, _: ops.SettingsLs) -> None:
        self._reply(request, ops.SettingsNames(self._sets.names(), self._sets.default_name))

    def _settings_show(self, request: wire.Request, args: ops.SettingsShow) -> None:
        settings = self._sets.resolve(args.name, {})
        self._reply(request, ops.SettingsSaved(args.name or self._sets.default_name, as_values(settings)))

    def _settings_set(self, request: wire.Request, args: ops.SettingsSet) -> None:
        settings = self._sets.resolve(args.base, args.values)
        name, size = self._sets.save(args.name, settings)
        self._reply(request, ops.SettingsSaved(name, as_values(settings), size))

    def _settle(self, request: wire.Request, args: ops.Settle) -> None:
        lost = Outcome(error=wire.unpack(args.problem, Problem))
        _, answer = self._store.settle(RequestKey(args.request, OUTCOME_MARGIN_S), lost.encode())
        stands = msgspec.msgpack.decode(answer, type=Outcome)
        head = self._store.head(args.save) if args.save else None
        settled = ops.Settled(stands.error is None, stands.result, head or "")
        self._reply(request, settled, stands.text)

    def _warm(self, request: wire.Request, _: ops.Warm) -> None:
        ref = parse_ref(request.context)
        self._load(None, self._store.resolve(ref))
        self._reply(request, None, hot=[ref.name])


def vocabulary_of(runtime: Runtime) -> Vocabulary:
    """A runtime's tokens as a turn sees them; which of them begin with a space is found out at first use."""
    spaced: list[np.ndarray[Any, np.dtype[np.bool_]]] = []

    def begin_with_space() -> np.ndarray[Any, np.dtype[np.bool_]]:
        if not spaced:
            pieces = map(runtime.piece, range(runtime.vocabulary))
            spaced.append(np.fromiter((piece[:1] == b" " for piece in pieces), bool, runtime.vocabulary))
        return spaced[0]

    return Vocabulary(runtime.tokenize, runtime.piece, runtime.end_tokens, runtime.control_tokens, begin_with_space)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A path for a file that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ssmprov-") as folder:
        yield Path(folder) / "context"


def _key(request: wire.Request) -> RequestKey:
    return RequestKey(request.id, request.ttl_ms / 1000 + OUTCOME_MARGIN_S)


def _context_name(request: wire.Request) -> str:
    return parse_ref(request.context).name if request.context else ""


def _moved(name: str, wanted: str, head: str | None) -> str:
    return (
        f"{name} stands at {head[:12] if head else 'no checkpoint'}, not at {wanted[:12]}: "
        "somebody moved it; load it again and repeat the turn"
    )


def _difference(a: Snapshot, b: Snapshot) -> float:
    """The largest difference between two states' numbers and logits."""
    pairs = [(a.arrays[name], b.arrays[name]) for name in a.arrays]
    if a.logits is not None and b.logits is not None:
        pairs.append((a.logits, b.logits))
    differences = [np.abs(x.astype(np.float64) - y.astype(np.float64)).max(initial=0.0) for x, y in pairs]
    return float(max(differences, default=0.0))


def _ms(start: float, end: float) -> float:
    return round(max(0.0, end - start) * 1000, 3)
