"""A worker's operations: what each request does to the checkpoint store, and on which thread.

Each lane is a pool of threads, so that the socket thread never touches the disk: `text` checks and tokenizes prompts,
`store` does short work (load, commit, names, queries), `care` does work that may take long (verify, repair, gc, files,
texts), and `probe` computes probes.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec

from ssmprov import ops, wire
from ssmprov.errors import BadRequest, Problem, SsmprovError
from ssmprov.names import parse_ref
from ssmprov.settings import Sets, as_values
from workers.adoption import Adoption
from workers.answers import MARGIN_S, Answers, Outcome, key_of, milliseconds
from workers.checkpoints import Loaded, RequestKey, Store
from workers.checkpoints.verify import bounded
from workers.job import Job
from workers.probing import Prober, Task
from workers.scratch import scratch
from workers.transfer import Transfer, receive, send
from workers.turns import TEXT_PAGE, Turns

log = logging.getLogger(__name__)

GROUP_BYTES = 8 << 20
"""A group of this size is committed without waiting for more: writing them would take longer than it saves."""


class Service:
    """Takes requests from the socket thread. Each is answered exactly once, by the thread that finishes it."""

    def __init__(
        self, store: Store, sets: Sets, turns: Turns, answers: Answers, adoption: Adoption, prober: Prober
    ) -> None:
        self._store = store
        self._sets = sets
        self._turns = turns
        self._answers = answers
        self._adoption = adoption
        self._prober = prober
        self._text = ThreadPoolExecutor(1, "text")
        self._lane = ThreadPoolExecutor(1, "store")
        self._care = ThreadPoolExecutor(4, "care")
        self._files = ThreadPoolExecutor(64, "file")  # each may wait for its client; the broker allows no more at once
        self._probe = ThreadPoolExecutor(1, "probe")
        self._ended: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.done = 0
        self._care.submit(store.prepare)
        self._operations: dict[str, tuple[ThreadPoolExecutor, Callable[[wire.Request, Any], None]]] = {
            "ckpt.ls": (self._lane, self._ls),
            "ckpt.show": (self._care, self._show),
            "ckpt.log": (self._lane, self._log),
            "ckpt.tree": (self._lane, self._tree),
            "ckpt.fork": (self._lane, self._fork),
            "ckpt.move": (self._lane, self._move),
            "ckpt.rm": (self._lane, self._remove),
            "ckpt.verify": (self._care, lambda r, _: self._answers.reply(r, bounded(self._store.verify()))),
            "ckpt.repair": (self._care, lambda r, _: self._answers.reply(r, bounded(self._store.repair()))),
            "ckpt.gc": (self._care, lambda r, a: self._answers.reply(r, self._store.gc(dry_run=a.dry_run))),
            "settings.ls": (self._lane, self._settings_ls),
            "settings.show": (self._lane, self._settings_show),
            "settings.set": (self._lane, self._settings_set),
            "settle": (self._lane, self._settle),
            "warm": (self._lane, self._warm),
        }

    # -- taking requests

    def turn(self, job: Job, payloads: list[bytes]) -> None:
        """Begin a turn or a prime: check the prompt, restore the context, and join the batch."""

        def read() -> None:
            prompt = self._turns.prompt(payloads)
            begin = self._turns.begin if isinstance(job.args, ops.Turn) else self._turns.begin_prime
            self._do(self._lane, job.request, lambda: begin(job, prompt), job)

        self._do(self._text, job.request, read, job)

    def replay(self, job: Job) -> None:
        """Begin to read a lineage again from its root."""
        self._do(self._lane, job.request, lambda: self._turns.begin_replay(job), job)

    def probe(self, task: Task, payloads: list[bytes]) -> None:
        """Look at how a text is read after a context: on a separate thread, so that nothing waits for it."""
        request, prober = task.request, self._prober

        def read() -> None:
            text = prober.tokens(b"".join(payloads))
            self._do(self._lane, request, lambda: restore(text))

        def restore(text: list[int]) -> None:
            loaded = prober.load(task)
            self._do(self._probe, request, lambda: look(loaded, text))

        def look(loaded: Loaded, text: list[int]) -> None:
            result, replies = prober.look(task, loaded, text)
            result.worker = self._answers.worker
            self._answers.reply(request, result, replies)

        self._do(self._text, request, read)

    def finished(self, job: Job) -> None:
        """The model thread is done with a job. Jobs that end while the lane is busy are committed together."""
        self._ended.put(job)
        self._lane.submit(self._end)

    def _end(self) -> None:
        jobs: list[Job] = []
        size = 0
        with suppress(queue.Empty):  # an earlier call took them
            while size < GROUP_BYTES:
                jobs.append(self._ended.get_nowait())
                size += jobs[-1].state_bytes
        if not jobs:
            return
        try:
            self._turns.end(jobs)
        finally:
            for job in jobs:
                job.holds.close()
            self.done += len(jobs)

    def operate(self, request: wire.Request, args: Any) -> None:
        """Do an operation on the store. Raises BadRequest for an operation of the broker."""
        if request.op not in self._operations:
            raise BadRequest(f"a worker cannot do {request.op}")
        lane, action = self._operations[request.op]
        self._do(lane, request, lambda: action(request, args))

    def export(self, request: wire.Request, transfer: Transfer) -> None:
        def action() -> None:
            with scratch(self._store.directory) as path:
                exported = self._store.export(parse_ref(request.context), path)
                send(path, transfer)
            self._answers.reply(request, exported)

        self._do(self._files, request, action)

    def import_(self, request: wire.Request, args: ops.Import, transfer: Transfer) -> None:
        def answer(row: ops.Row) -> bytes:
            return Outcome(result=wire.pack(row)).encode()

        def action() -> None:
            if (former := self._store.outcome(request.id)) is not None:  # its file does not come a second time
                self._answers.repeat(request, former)
                return
            with scratch(self._store.directory) as path:
                receive(path, transfer, args.bytes, args.sha256)
                stands = self._adoption.take(path, request.model, args.save, key_of(request), trust=args.trust)
                if stands is None:
                    stands = self._store.import_(path, args.save, request=key_of(request), answer=answer).answer
            self._answers.repeat(request, stands)

        self._do(self._files, request, action)

    def pins(self, then: Callable[[dict[str, str]], None]) -> None:
        """Read which contexts are pinned to which worker, and pass that on."""

        def read() -> None:
            try:
                pins = self._store.pins()
            except SsmprovError as error:
                log.error("cannot register: %s", error)
            else:
                then(pins)

        self._lane.submit(read)

    def close(self) -> None:
        """Wait for what the lanes are still doing."""
        self._prober.close()
        for lane in (self._text, self._care, self._files, self._lane, self._probe):
            lane.shutdown(wait=True)

    def _do(
        self, lane: ThreadPoolExecutor, request: wire.Request, action: Callable[[], None], job: Job | None = None
    ) -> None:
        def run() -> None:
            try:
                action()
            except Exception as error:
                if job is not None:
                    job.holds.close()
                self._answers.fail(request, error)
            finally:
                if job is not None:  # other operations do not show whether the model makes progress
                    self.done += 1

        lane.submit(run)

    # -- operations

    def _ls(self, request: wire.Request, args: ops.List) -> None:
        self._answers.reply(request, self._store.ls(args.prefix, args.after, args.limit, reserved=args.reserved))

    def _show(self, request: wire.Request, args: ops.Show) -> None:
        ref = parse_ref(request.context)
        if args.text:
            shown, text = self._store.show_text(ref, args.offset, TEXT_PAGE, since_root=args.since_root)
            self._answers.reply(request, shown, text)
        else:
            self._answers.reply(request, self._store.show(ref))

    def _log(self, request: wire.Request, args: ops.Log) -> None:
        self._answers.reply(request, self._store.log(parse_ref(request.context), args.limit, args.before))

    def _tree(self, request: wire.Request, args: ops.Tree) -> None:
        ref = parse_ref(request.context) if request.context else None
        self._answers.reply(request, self._store.tree(ref, args.limit))

    def _fork(self, request: wire.Request, args: ops.Fork) -> None:
        pins = dict(zip(args.targets, args.on, strict=True)) if args.on else {}
        started = time.monotonic()

        def answer(result: ops.ForkResult) -> bytes:
            result.ms = milliseconds(started, time.monotonic())
            return Outcome(result=wire.pack(result), pins=pins).encode()

        done = self._store.fork(
            parse_ref(request.context),
            args.targets,
            overwrite=args.overwrite,
            if_head=args.if_head,
            pins=pins,
            request=key_of(request),
            answer=answer,
        )
        self._answers.repeat(request, done.answer)

    def _move(self, request: wire.Request, args: ops.Move) -> None:
        ref = parse_ref(request.context)
        hot = [ref.name] if args.worker else []

        def answer(row: ops.Row) -> bytes:
            return Outcome(result=wire.pack(row), hot=hot, pins={ref.name: args.worker}).encode()

        if args.worker and self._store.outcome(request.id) is None:
            self._turns.load(None, self._store.resolve(ref))  # first: a context that cannot be loaded is not moved
        done = self._store.pin(ref.name, args.worker, request=key_of(request), answer=answer)
        self._answers.repeat(request, done.answer)

    def _remove(self, request: wire.Request, args: ops.Remove) -> None:
        pins = dict.fromkeys(args.names, "")

        def answer(rows: list[ops.Row]) -> bytes:
            return Outcome(result=wire.pack(ops.Page(rows)), pins=pins).encode()

        done = self._store.remove(args.names, request=key_of(request), answer=answer)
        self._answers.repeat(request, done.answer)

    def _settings_ls(self, request: wire.Request, _: ops.SettingsLs) -> None:
        self._answers.reply(request, ops.SettingsNames(self._sets.names(), self._sets.default_name))

    def _settings_show(self, request: wire.Request, args: ops.SettingsShow) -> None:
        settings = self._sets.resolve(args.name, {})
        self._answers.reply(request, ops.SettingsSaved(args.name or self._sets.default_name, as_values(settings)))

    def _settings_set(self, request: wire.Request, args: ops.SettingsSet) -> None:
        if (former := self._store.outcome(request.id)) is not None:
            self._answers.repeat(request, former)
            return
        settings = self._sets.resolve(args.base, args.values)
        name, size = self._sets.save(args.name, settings)
        saved = Outcome(result=wire.pack(ops.SettingsSaved(name, as_values(settings), size)))
        _, answer = self._store.settle(key_of(request), saved.encode())
        self._answers.repeat(request, answer)

    def _settle(self, request: wire.Request, args: ops.Settle) -> None:
        lost = Outcome(error=wire.unpack(args.problem, Problem))
        assert lost.error is not None
        lost.error.details["committed"] = False  # this is final for everyone who asks again
        _, answer = self._store.settle(RequestKey(args.request, MARGIN_S), lost.encode())
        stands = msgspec.msgpack.decode(answer, type=Outcome)
        head = self._store.head(args.save) if args.save else None
        settled = ops.Settled(stands.error is None, stands.result, head or "")
        self._answers.reply(request, settled, stands.text)

    def _warm(self, request: wire.Request, _: ops.Warm) -> None:
        ref = parse_ref(request.context)
        self._turns.load(None, self._store.resolve(ref))
        self._answers.reply(request, None, hot=[ref.name])
