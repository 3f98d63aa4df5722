"""Workers: their registration under a lease with an epoch, their pulse, and what happens to a lost worker's tasks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from broker.events import Kill
from broker.placement import pin_of
from broker.ready import Ready
from broker.records import Client, Peer, Task, Worker
from broker.state import State
from broker.tables import Model
from ssmprov import operations, ops, wire
from ssmprov.errors import Problem, Refused, SsmprovError, WorkerLost, WrongModel, problem_of
from ssmprov.names import check_name, parse_ref, parse_worker

SILENT_S = 5.0
"""A worker that sends nothing for this long while its connection lives hangs. A dead one is noticed sooner."""

MAX_TRIES = 3
MAX_EPOCH = 1 << 52
"""No worker gets this many leases. One that claims more is refused: the next epoch could not be sent."""

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
        """Lease a name to a worker, or send BYE with the reason."""
        state = self._state
        try:
            model = self._admit(peer, offer)
        except SsmprovError as error:
            state.send(peer.route, wire.Bye(str(error), problem_of(error), "refused"))
            state.log(f"refused worker {offer.worker}: {error}", "warning")
            return
        old = model.workers.pop(offer.worker, None)
        if old and old.route != peer.route:
            state.peers.pop(old.route, None)
        known = 0 < offer.epoch <= self._epochs.get(offer.worker, 0)
        same = old is not None and old.route == peer.route
        epoch = max(self._epochs.get(offer.worker, 0), offer.epoch) + (not same)
        self._epochs[offer.worker] = epoch
        worker = Worker(
            name=offer.worker,
            model=model.card.name,
            route=peer.route,
            epoch=epoch,
            slots=offer.slots,
            pid=offer.pid,
            started=offer.started,
            host=offer.host,
            stall_s=offer.stall_ms / 1000,
            seen_at=state.now,
            pulsed_at=state.now,
            progress_at=state.now,
        )
        peer.worker, peer.model = worker.name, worker.model
        state.not_served.pop(worker.model, None)
        if not (model.workers or old):
            model.moved = False
        if not model.moved:  # from the store; once this broker has seen pins change, what a worker offers may be older
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
        """The model that a worker may serve. Raises Refused, WrongModel, and BadRequest for invalid names."""
        state = self._state
        name, _ = parse_worker(offer.worker)
        for item in offer.running:
            if item.context:
                parse_ref(item.context)
            if item.save:
                check_name(item.save, reserved=True)
        if offer.epoch >= MAX_EPOCH:
            raise Refused(f"{offer.worker} cannot have epoch {offer.epoch}: start it again")
        if peer.worker not in ("", offer.worker):
            raise Refused(f"this connection already belongs to {peer.worker}: {offer.worker} needs another one")
        if name != offer.model.name:
            raise Refused(f"{offer.worker} is not a worker name of {offer.model.name}")
        model = state.models.get(name)
        if model is None or not (model.workers or self._unfinished(name)):
            self._make_room(name)
            ready = model.ready if model else Ready()
            model = state.models[name] = Model(card=offer.model, store=offer.store, ready=ready)
            return model
        if model.card.fingerprint != offer.model.fingerprint or model.card.runtime != offer.model.runtime:
            raise WrongModel(
                f"{name} is already served with other weights or by another runtime: give this model another name"
            )
        if model.store != offer.store:
            raise Refused(f"{name} has another checkpoint store: all workers of a model must share one")
        live = model.workers.get(offer.worker)
        holder = state.peers.get(live.route) if live else None
        another = live and (live.pid, live.started, live.host) != (offer.pid, offer.started, offer.host)
        if live and (another or (holder and holder.user.public != peer.user.public)):
            raise Refused(
                f"{offer.worker} is leased to process {live.pid} on {live.host}: stop that one first", retry_ms=200
            )
        return model

    def _make_room(self, name: str) -> None:
        """If there are too many models, forget those that nobody serves or asks for. Raises Refused."""
        models = self._state.models
        if name in models or len(models) < MAX_MODELS:
            return
        asked = {task.request.model for task in self._state.tasks.values()}
        for idle in [key for key, model in models.items() if not model.workers and key not in asked]:
            del models[idle]
        if len(models) >= MAX_MODELS:
            raise Refused(f"{len(models)} models are already served, and more are not allowed")

    def _unfinished(self, model: str) -> bool:
        return any(task.request.model == model and task.phase == "settling" for task in self._state.tasks.values())

    def _adopt(
        self, model: Model, worker: Worker, running: list[wire.Running], old: Worker | None, known: bool
    ) -> list[Task]:
        """Keep the tasks that a worker still has when it registers again; returns those that it had and has lost.

        The broker says where to stream from before it grants the lease, so that nothing is sent out of order. `known`
        means that this broker has leased the name to it before, and so remembers all its tasks.
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
            task.worker = worker.name
            state.enter(task, "running", "its worker already has it")
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
        """The task that a client sent again before its worker was back."""
        task = self._state.tasks.get(item.id)
        waits = task and task.phase in ("queued", "ready") and task.request.model == model.card.name
        return task if waits else None

    def _decided(self, item: wire.Running) -> bool:
        """Whether a request was already answered, now belongs to another worker, or came from a broker itself."""
        state = self._state
        return item.id in state.tasks or item.id in state.answers or item.id[:8] == state.identity[:8]

    def _found(self, model: Model, item: wire.Running) -> Task:
        """A task that this broker has never seen: it was given out before the broker was restarted."""
        state = self._state
        args = ops.Turn(save=item.save)
        request = wire.Request(item.id, item.op, model.card.name, item.context, item.attempt, args=wire.pack(args))
        operation = operations.find(item.op)
        shared, exclusive = operation.held(item.context, [item.save] if item.save else [])
        state.order += 1
        deadline = state.now + request.ttl_ms / 1000
        saves = operation.lasts(item.save)
        task = Task(
            request=request,
            payloads=[],
            args=args,
            client=item.client,
            shared=shared,
            exclusive=exclusive,
            saves=saves,
            deadline=deadline,
            order=state.order,
            phase="running",
            attempt=item.attempt,
            found=True,
            unasked=True,
            owner=item.client,
        )
        state.add(task, "found at a worker: it was given out before this broker started")
        state.clients.setdefault(item.client, Client(id=item.client, gone_at=state.now)).tasks.add(task.id)
        return task

    # -- liveness

    def pulse(self, worker: Worker, pulse: wire.Pulse) -> None:
        """Record a worker's progress and rates."""
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
        """Find workers that are silent or hang."""
        now = self._state.now
        for worker in [w for model in self._state.models.values() for w in model.workers.values()]:
            if now - worker.seen_at >= SILENT_S:
                self.lose(worker, f"it sent nothing for {SILENT_S:g} s")
            elif worker.running and now - worker.progress_at >= worker.stall_s:
                self.lose(worker, f"no progress for {worker.stall_s:g} s")

    # -- loss

    def leave(self, worker: Worker) -> None:
        """A worker says BYE: it takes no more tasks, ends what runs, and closes its socket."""
        if worker.state != "draining":
            worker.state = "draining"
            self._state.log(f"worker {worker.name} is draining")
        if not worker.tasks:
            self._remove(worker)

    def lose(self, worker: Worker, why: str) -> None:
        """Give up a dead, hung or silent worker: kill its process, and answer its tasks or give them to others."""
        state = self._state
        model = state.models[worker.model]
        quiet = worker.state == "draining" and not worker.tasks
        if model.workers.get(worker.name) is not worker:
            return
        self._remove(worker)
        if quiet:
            return
        state.log(f"worker {worker.name} (process {worker.pid}) is lost: {why}", "warning")
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
        state.note(task, f"its worker was lost: {why}")
        again = task.operation.resend and task.seq == 0
        if again and not task.found and task.tries < MAX_TRIES and (task.internal or not state.draining):
            state.requeue(task)
        elif task.saves and task.slot:
            self._settle(model, task, worker, why)
        else:
            state.fail(task, self._loss(task, worker, why))

    def _loss(self, task: Task, worker: Worker, why: str) -> WorkerLost:
        if task.slot:
            what = f"during the turn ({why}). The context is unchanged since its last commit: send the turn again"
        elif task.saves:
            what = (
                f"({why}) and did not say whether {task.request.op} took effect: check, or ask again with the same id"
            )
        else:
            what = f"({why}); {task.request.op} changes nothing: ask again"
        return WorkerLost(
            f"worker {worker.name} was lost {what}",
            worker=worker.name,
            seq=task.seq,
        )

    def _settle(self, model: Model, task: Task, worker: Worker, why: str) -> None:
        """Have another worker ask the store whether a saving turn has committed."""
        args = ops.Settle(task.id, wire.pack(problem_of(self._loss(task, worker, why))), task.args.save)
        settle = self._own(
            wire.Request(self._key(), operations.SETTLE.name, model.card.name, ttl_ms=SETTLE_TTL_MS), args
        )
        settle.about = task
        self._state.enter(task, "settling", f"settle {settle.id.hex()} asks the store whether it committed")
        self._state.enqueue(settle)

    def _key(self) -> bytes:
        """A request id of this broker. It differs from those of an earlier broker, which a worker may still have."""
        self._internal += 1
        return self._state.identity[:8] + self._internal.to_bytes(8, "big")

    def _own(self, request: wire.Request, args: ops.Settle | ops.Warm) -> Task:
        """A new task of the broker itself."""
        state = self._state
        request.args = wire.pack(args)
        state.order += 1
        shared = frozenset({request.context} if request.context else ())
        deadline = state.now + request.ttl_ms / 1000
        task = Task(
            request=request,
            payloads=[],
            args=args,
            client=wire.NOBODY,
            shared=shared,
            exclusive=frozenset(),
            saves=True,
            deadline=deadline,
            order=state.order,
            internal=True,
            waits_since=state.now,
        )
        state.add(task, "made by the broker")
        return task

    def settled(self, settle: Task, final: wire.Final, payloads: list[bytes]) -> None:
        """Answer a lost turn with what the store says: its committed answer, or the loss. An error says nothing."""
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
                "the turn was committed with a different reply from the one that was streamed: load its context to see "
                "it"
            )
        self._state.finish(about, wire.Final(about.id, about.attempt, error=problem), [])

    def warm(self, model: Model, fork: Task, pins: Mapping[str, str]) -> None:
        """Load the newly pinned contexts of a fork where their turns will run."""
        for name, holder in pins.items():
            if name in fork.exclusive and holder in model.workers:
                request = wire.Request(self._key(), operations.WARM.name, model.card.name, name, ttl_ms=WARM_TTL_MS)
                task = self._own(request, ops.Warm())
                task.pinned = holder
                self._state.enqueue(task)
