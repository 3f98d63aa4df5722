"""How a request comes in: it joins its first attempt, or passes the checks and becomes a task, or is refused."""

from __future__ import annotations

from broker.accepted import AcceptedNotices
from broker.admission import Admission
from broker.records import Client, Task
from broker.state import MAX_ARGS, State
from ssmprov import operations, wire
from ssmprov.errors import BadRequest, Busy, SsmprovError, Unavailable, nearest, problem_of
from ssmprov.keys import User


class Intake:
    """The part of the machine that takes requests from clients."""

    def __init__(self, state: State, admission: Admission, accepted: AcceptedNotices) -> None:
        self._state = state
        self._admission = admission
        self._accepted = accepted

    def accept(self, client: Client, user: User, request: wire.Request, payloads: list[bytes]) -> None:
        """Accept a request or refuse it at once. A resent request joins its first attempt."""
        state = self._state
        try:
            self._admission.check_rate(user)
            if self._joined(client, request):
                return
            task = self._task(client, user, request, payloads)
            self._check_room(client, task)
            model = state.model_of(task)
        except SsmprovError as error:
            self.refuse(client, request, error)
            return
        state.counters.accepted += 1
        state.add(task, f"accepted, attempt {task.attempt}")
        client.tasks.add(task.id)
        state.count(task, +1)
        place = state.queued - 1
        if model is None:
            state.limbo[task.id] = task
        task.place = place
        state.enqueue(task)  # before ACCEPTED, so that the worker need not wait for it
        self._accepted.hold_back(task)

    def refuse(self, client: Client, request: wire.Request, error: SsmprovError) -> None:
        state = self._state
        state.counters.refused += 1
        state.send(client.route, wire.Final(request.id, request.attempt, error=problem_of(error)))

    def _joined(self, client: Client, request: wire.Request) -> bool:
        state = self._state
        task = state.tasks.get(request.id)
        if task is not None and not task.internal:
            if task.client not in (client.id, wire.NOBODY):
                self.refuse(client, request, Busy("this request id is in use by another client", retry_ms=500))
                return True
            self._rejoin(task, client, request)
            return True
        kept = state.answers.find(request.id, client.id)
        if kept is None or _open(kept[0]):
            return False
        state.send_answer(client.id, request.attempt, 0, request.have, *kept)
        return True

    def _rejoin(self, task: Task, client: Client, request: wire.Request) -> None:
        """A client came back for an open request: stream on from what it has.

        A broker that was restarted may have less of the reply than the client. Then the worker sends it the rest too.
        """
        state = self._state
        if request.attempt < task.attempt:
            state.counters.stale += 1
            return
        if unknown := state.clients.get(task.client):
            unknown.tasks.discard(task.id)
        task.client = client.id
        task.unasked = False
        client.tasks.add(task.id)
        task.attempt = request.attempt
        task.request.attempt = request.attempt
        task.request.have = request.have
        task.request.credit = request.credit
        task.seq = 0
        task.sent = request.have
        task.place = 0
        state.note(task, f"asked for again, attempt {task.attempt}")
        self._accepted.announce(task)
        if task.phase == "running" and (worker := state.worker(task)):
            if task.transfer:
                state.break_off(task, worker)
            else:
                have = min(request.have, len(task.text))
                state.send(worker.route, wire.Credit(task.id, request.credit, task.attempt, have))

    def _task(self, client: Client, user: User, request: wire.Request, payloads: list[bytes]) -> Task:
        state = self._state
        if state.draining:
            raise Unavailable("the broker is shutting down: send the request again", retry_ms=1000)
        operation = operations.find(request.op)
        if operation.internal:
            raise BadRequest(f"only the broker may ask for {request.op}")
        if request.id.startswith(state.identity[:8]):
            raise BadRequest("this request id is reserved for the broker: use a random one")
        if len(request.args) > MAX_ARGS:
            raise BadRequest(f"the arguments have {len(request.args)} bytes: at most {MAX_ARGS} are allowed")
        request.model = request.model or state.default
        if not request.model and not state.models:
            raise Unavailable("no model is served yet: `ssmprov status` shows what runs", retry_ms=1000)
        if not request.model:
            raise BadRequest(f"several models are served: name one of them{nearest('', state.models)}")
        args = operations.decode_args(request)
        user.check(operations.right(request, args), request.op)
        if operation.file == "out":
            request.credit = max(1, request.credit)  # the first CHUNK is sent even if its reader has not asked for it
        shared, exclusive = operations.locks(request, args)
        state.order += 1
        return Task(
            request=request,
            payloads=payloads,
            args=args,
            client=client.id,
            shared=shared,
            exclusive=exclusive,
            saves=operations.saves(request, args),
            deadline=state.now + request.ttl_ms / 1000,
            order=state.order,
            attempt=request.attempt,
            waits_since=state.now,
            owner=client.owner,
        )

    def _waiting_of(self, client: Client) -> int:
        """The number of open requests of a client, or of all clients with its key."""
        if not (key := client.key):
            return len(client.tasks)
        state = self._state
        return sum(len(state.clients[other].tasks) for other in state.of_key[key])

    def _check_room(self, client: Client, task: Task) -> None:
        state = self._state
        bounds = state.bounds
        mine = self._waiting_of(client)
        size = task.bytes
        if state.queued >= bounds.queue or mine >= bounds.queue_per_client:
            who = "the broker's queue" if state.queued >= bounds.queue else "this client's queue"
            raise Busy(
                f"{who} is full ({state.queued} requests are waiting): try again", retry_ms=100 + 10 * state.queued
            )
        if state.queued_bytes + size > bounds.queue_bytes:
            raise Busy(f"{state.queued_bytes} bytes of requests are waiting already: try again", retry_ms=500)


def _open(answer: wire.Final) -> bool:
    """Whether an answer said that the outcome was unknown. The store may know it by now, so it is asked again."""
    return answer.error is not None and answer.error.details.get("committed") == "unknown"
