"""Workers: their registration under a lease with an epoch, their pulse, and what becomes of the work of a lost one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from broker.placement import pin_of
from broker.ready import Ready
from broker.records import Client, Kill, Model, Peer, Task, Worker
from ssmprov import operations, ops, wire
from ssmprov.errors import Problem, Refused, SsmprovError, WorkerLost, WrongModel, problem_of
from ssmprov.names import check_name, parse_ref, parse_worker

if TYPE_CHECKING:
    from broker.state import State

SILENT_S = 5.0
"""A worker whose pulses stop while its connection lives hangs in Python; a dead one is seen sooner, by its socket."""

MAX_TRIES = 3
MAX_EPOCH = 1 << 52
"""No worker comes to so many leases: one that claims more is refused, since those after it could not be told theirs."""

MAX_MODELS = 256
SETTLE_TTL_MS = 3600_000
WARM_TTL_MS = 30_000


class Leases:
    """The part of the machine that speaks with workers."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._epochs: dict[str, int] = {}
        self._internal = 0

    # -- registration

    def register(self, peer: Peer, offer: wire.Register, pins: Mapping[str, str]) -> None:
        """Lease a worker's name, or say BYE with the reason."""
        state = self._state
        try:
            model = self._admit(peer, offer)
        except SsmprovError as error:
            state.send(peer.route, wire.Bye(str(error), problem_of(error), "refused"))
            state.log(f"refused worker {offer.worker}: {error}")
            return
        old = model.workers.pop(offer.worker, None)
        if old and old.route != peer.route:
            state.peers.pop(old.route, None)
        known = 0 < offer.epoch <= self._epochs.get(offer.worker, 0)
        same = old is not None and old.route == peer.route
        epoch = max(self._epochs.get(offer.worker, 0), offer.epoch) + (not same)
        self._epochs[offer.worker] = epoch
        worker = Worker(
            offer.worker,
            model.card.name,
            peer.route,
            epoch,
            offer.slots,
            offer.pid,
            offer.started,
            offer.host,
            offer.stall_ms / 1000,
            seen_at=state.now,
            pulsed_at=state.now,
            progress_at=state.now,
        )
        peer.worker, peer.model = worker.name, worker.model
        if not (model.workers or old):
            model.moved = False
        if not model.moved:  # the store's last word; once this broker has seen pins change, an offer may be older
            model.pins = dict(pins)
            model.ready.regroup(partial(pin_of, model))
        model.workers[worker.name] = worker
        state.log(f"worker {worker.name} registered (process {worker.pid}, epoch {epoch})")
        lost = self._adopt(model, worker, offer.running, old, known)
        state.send(
            peer.route,
            wire.Register(worker=worker.name, model=model.card, store=model.store, slots=worker.slots, epoch=epoch),
        )
        for task in lost:
            self._lost_task(model, task, worker, "its connection broke")
        state.leave_limbo(model.card.name)
        state.dispatch(model)

    def _admit(self, peer: Peer, offer: wire.Register) -> Model:
        """The model that a worker may serve. Raises Refused and WrongModel, and BadRequest for names that are none."""
        state = self._state
        name, _ = parse_worker(offer.worker)
        for item in offer.running:
            if item.context:
                parse_ref(item.context)
            if item.save:
                check_name(item.save, reserved=True)
        if offer.epoch >= MAX_EPOCH:
            raise Refused(f"{offer.worker} never had the epoch {offer.epoch}")
        if peer.worker not in ("", offer.worker):
            raise Refused(f"this connection is {peer.worker} already: {offer.worker} needs one of its own")
        if name != offer.model.name:
            raise Refused(f"{offer.worker} is no worker of {offer.model.name}")
        model = state.models.get(name)
        if model is None or not (model.workers or self._unfinished(name)):
            self._make_room(name)
            ready = model.ready if model else Ready()
            model = state.models[name] = Model(offer.model, offer.store, ready)
            return model
        if model.card.fingerprint != offer.model.fingerprint or model.card.runtime != offer.model.runtime:
            raise WrongModel(f"{name} is served from other weights or by another runtime: give this one another name")
        if model.store != offer.store:
            raise Refused(f"{name} has another checkpoint store: all workers of a model share one")
        live = model.workers.get(offer.worker)
        holder = state.peers.get(live.route) if live else None
        another = live and (live.pid, live.started, live.host) != (offer.pid, offer.started, offer.host)
        if live and (another or (holder and holder.user.public != peer.user.public)):
            raise Refused(f"{offer.worker} is leased to process {live.pid} on {live.host}", retry_ms=200)
        return model

    def _make_room(self, name: str) -> None:
        """Forget models that nobody serves or asks for, before one too many is known. Raises Refused."""
        models = self._state.models
        if name in models or len(models) < MAX_MODELS:
            return
        asked = {task.request.model for task in self._state.tasks.values()}
        for idle in [key for key, model in models.items() if not model.workers and key not in asked]:
            del models[idle]
        if len(models) >= MAX_MODELS:
            raise Refused(f"{len(models)} models are served already")

    def _unfinished(self, model: str) -> bool:
        return any(task.request.model == model and task.phase == "settling" for task in self._state.tasks.values())

    def _adopt(
        self, model: Model, worker: Worker, running: list[wire.Running], old: Worker | None, known: bool
    ) -> list[Task]:
        """Go on with what a re-registering worker still works on; returns what it had been given and has lost.

        It is told from where to stream before it has its lease, so that it sends nothing out of place.
        `known` says that this broker has leased its name to it before, so that it has forgotten none of its tasks.
        """
        state = self._state
        kept = dict(old.tasks) if old else {}
        broken = []
        for item in running:
            task = kept.pop(item.id, None) or self._waiting(model, item)
            if task is None and not (known or operations.find(item.op).internal or self._decided(item)):
                task = self._found(model, item)
            if task is None:
                state.send(worker.route, wire.Cancel(item.id, "drop"))
                continue
            state.unqueue(task)
            state.locks.seize(task)
            task.phase = "running"
            task.worker = worker.name
            worker.take(task)
            if task.transfer:
                broken.append(task)
                continue
            have = len(task.text) if task.attempt == item.attempt else min(task.request.have, len(task.text))
            task.seq = task.seq if task.attempt == item.attempt else 0
            state.send(worker.route, wire.Credit(task.id, task.request.credit, task.attempt, have, task.seq))
        state.recall(model)
        for task in broken:
            state.break_off(task, worker)
        late = [task for task in kept.values() if old and old.route == worker.route and not task.found]
        for task in late:  # its REQUEST is still on the way
            worker.take(task)
            state.hand(task, worker)
        return [task for task in kept.values() if task not in late]

    def _waiting(self, model: Model, item: wire.Running) -> Task | None:
        """The task that a client has sent again before its worker was back."""
        task = self._state.tasks.get(item.id)
        waits = task and task.phase in ("queued", "ready") and task.request.model == model.card.name
        return task if waits else None

    def _decided(self, item: wire.Running) -> bool:
        """Whether a request was answered already, is another worker's by now, or never was a client's."""
        state = self._state
        return item.id in state.tasks or item.id in state.answers or item.id[:8] == state.identity[:8]

    def _found(self, model: Model, item: wire.Running) -> Task:
        """A task that this broker never saw: it was given out before its own restart."""
        state = self._state
        args = ops.Turn(save=item.save)
        request = wire.Request(item.id, item.op, model.card.name, item.context, item.attempt, args=wire.pack(args))
        operation = operations.find(item.op)
        shared, exclusive = operation.held(item.context, [item.save] if item.save else [])
        state.order += 1
        deadline = state.now + request.ttl_ms / 1000
        saves = operation.lasts(item.save)
        task = Task(request, [], args, item.client, shared, exclusive, saves, deadline, state.order, owner=item.client)
        task.phase = "running"
        task.attempt = item.attempt
        task.found = task.unasked = True
        state.tasks[task.id] = task
        state.clients.setdefault(item.client, Client(item.client, None, None, state.now)).tasks.add(task.id)
        return task

    # -- liveness

    def pulse(self, worker: Worker, pulse: wire.Pulse) -> None:
        now = self._state.now
        if pulse.progress != worker.progress or not worker.running:
            worker.progress_at = now
        seconds = now - worker.pulsed_at
        if seconds > 0:
            last, blend = worker.pulse, min(1.0, seconds)
            fresh = (pulse.tokens - last.tokens, pulse.prefill_tokens - last.prefill_tokens)
            old = worker.rates
            worker.rates = (
                max(0.0, old[0] + blend * (fresh[0] / seconds - old[0])),
                max(0.0, old[1] + blend * (fresh[1] / seconds - old[1])),
            )
        worker.pulsed_at = now
        worker.progress = pulse.progress
        worker.pulse = pulse

    def watch(self) -> None:
        """Find the silent and the hung."""
        now = self._state.now
        for worker in [w for model in self._state.models.values() for w in model.workers.values()]:
            if now - worker.seen_at >= SILENT_S:
                self.lose(worker, "it fell silent")
            elif worker.running and now - worker.progress_at >= worker.stall_s:
                self.lose(worker, f"no progress for {worker.stall_s:g} s")

    # -- loss

    def leave(self, worker: Worker) -> None:
        """A worker's BYE: it takes nothing more, ends what runs, and closes its socket."""
        if worker.state != "draining":
            worker.state = "draining"
            self._state.log(f"worker {worker.name} is draining")
        if not worker.tasks:
            self._remove(worker)

    def lose(self, worker: Worker, why: str) -> None:
        """A dead, hung or silent worker: its process is ended for sure, and its tasks are answered."""
        state = self._state
        model = state.models[worker.model]
        quiet = worker.state == "draining" and not worker.tasks
        if model.workers.get(worker.name) is not worker:
            return
        self._remove(worker)
        if quiet:
            return
        state.log(f"worker {worker.name} (process {worker.pid}) is lost: {why}")
        state.send(worker.route, wire.Bye(f"the lease of epoch {worker.epoch} has ended: {why}", code="lease_ended"))
        state.actions.append(Kill(worker.pid, worker.started, worker.host))
        for task in list(worker.tasks.values()):
            self._lost_task(model, task, worker, why)
        state.dispatch(model)

    def _remove(self, worker: Worker) -> None:
        state = self._state
        model = state.models[worker.model]
        if model.workers.get(worker.name) is worker:
            del model.workers[worker.name]
        state.peers.pop(worker.route, None)
        for name in [name for name, holder in model.hot.items() if holder == worker.name]:
            del model.hot[name]
        for task in model.ready:
            if pin_of(model, task) == worker.name:
                task.waits_since = state.now
        if not model.workers:
            model.empty_at = state.now

    def _lost_task(self, model: Model, task: Task, worker: Worker, why: str) -> None:
        state = self._state
        worker.drop(task)
        again = task.operation.resend and task.seq == 0
        if again and not task.found and task.tries < MAX_TRIES and (task.internal or not state.draining):
            state.requeue(task)
        elif task.saves and task.slot:
            self._settle(model, task, worker, why)
        else:
            state.fail(task, self._loss(task, worker, why))

    def _loss(self, task: Task, worker: Worker, why: str) -> WorkerLost:
        if task.slot:
            what = f"in mid-turn ({why}); the context stands at its last commit: send the turn again"
        elif task.saves:
            what = (
                f"({why}) and did not say whether {task.request.op} took effect: look, or ask under the same id again"
            )
        else:
            what = f"({why}); {task.request.op} changes nothing: ask again"
        return WorkerLost(
            f"worker {worker.name} was lost {what}",
            worker=worker.name,
            seq=task.seq,
        )

    def _settle(self, model: Model, task: Task, worker: Worker, why: str) -> None:
        """Let another worker of the store decide whether a saving turn has committed."""
        task.phase = "settling"
        args = ops.Settle(task.id, wire.pack(problem_of(self._loss(task, worker, why))), task.args.save)
        settle = self._own(
            wire.Request(self._key(), operations.SETTLE.name, model.card.name, ttl_ms=SETTLE_TTL_MS), args
        )
        settle.about = task
        self._state.enqueue(settle)

    def _key(self) -> bytes:
        """An id of the broker's own: another broker's, which a worker may still have, must not be the same."""
        self._internal += 1
        return self._state.identity[:8] + self._internal.to_bytes(8, "big")

    def _own(self, request: wire.Request, args: ops.Settle | ops.Warm) -> Task:
        """A task of the broker's own."""
        state = self._state
        request.args = wire.pack(args)
        state.order += 1
        shared = frozenset({request.context} if request.context else ())
        deadline = state.now + request.ttl_ms / 1000
        nothing: frozenset[str] = frozenset()
        task = Task(request, [], args, wire.NOBODY, shared, nothing, True, deadline, state.order, internal=True)
        task.waits_since = state.now
        state.tasks[task.id] = task
        return task

    def settled(self, settle: Task, final: wire.Final, payloads: list[bytes]) -> None:
        """The store's word on a lost turn: the answer that it had committed, or the loss; or nothing, by an error."""
        if settle.about is None or final.error is not None:
            return
        raw, text = wire.take_result(final, payloads)
        try:
            verdict = wire.unpack(raw, ops.Settled)
        except wire.WireError:
            return
        about, settle.about = settle.about, None
        if verdict.committed and text.startswith(about.text):
            answer = wire.Final(about.id, about.attempt, result=verdict.result)
            self._state.finish(about, answer, wire.split_text(text))
            return
        problem = wire.unpack(settle.args.problem, Problem)
        problem.details |= {"committed": verdict.committed, "head": verdict.head}
        if verdict.committed:
            problem.message = (
                "the turn was committed with another reply than the one that was streamed: load its context"
            )
        self._state.finish(about, wire.Final(about.id, about.attempt, error=problem), [])

    def warm(self, model: Model, fork: Task, pins: Mapping[str, str]) -> None:
        """Have a fork's freshly pinned contexts loaded where their turns will run."""
        for name, holder in pins.items():
            if name in fork.exclusive and holder in model.workers:
                request = wire.Request(self._key(), operations.WARM.name, model.card.name, name, ttl_ms=WARM_TTL_MS)
                task = self._own(request, ops.Warm())
                task.pinned = holder
                self._state.enqueue(task)
