"""A worker's socket thread: it registers, takes requests, streams replies, and sends pulses while the model computes.

It never touches the disk and never waits for the model: the lanes of the service and the batch thread do the work and
post the results here, through a queue and a wake-up pipe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import zmq

from ssmprov import operations, ops, sockets, wire
from ssmprov.errors import Refused, SsmprovError, Unavailable, error_of, problem_of
from ssmprov.keys import Credentials
from ssmprov.process import heard, ready, started_at
from workers.answers import Sender
from workers.batch import Batch, News
from workers.job import Job, Stream
from workers.outbox import Outbox
from workers.prefill import Pace
from workers.probing import Task
from workers.runtimes.base import Runtime
from workers.service import Service
from workers.state_cache import StateCache
from workers.transfer import Transfer

log = logging.getLogger(__name__)

PULSE_S = 0.2
SILENCE_S = 2.0
"""After this long without a word from the broker, the worker says HELLO again."""

DRAIN_S = 10.0
BATCH = 256


@dataclass(slots=True, kw_only=True)
class Place:
    """What a worker registers with: its name, its model, its store, and how long it may stall."""

    name: str
    card: wire.ModelCard
    store: str
    slots: int
    stall_s: float


class Worker:
    """The socket thread. `run` returns once it has drained, and raises Refused if it must not serve."""

    def __init__(
        self,
        *,
        endpoint: str,
        credentials: Credentials | None,
        place: Place,
        runtime: Runtime,
        pace: Pace,
        cache: StateCache,
        open_service: Callable[[Callable[[Job], None], Sender], Service],
    ) -> None:
        """`open_service` makes the operations; it is given the functions that submit a job and send an answer."""
        self._endpoint = endpoint
        self._credentials = credentials
        self._place = place
        self._cache = cache
        self._identity = wire.new_id()
        self._streams: dict[bytes, Stream] = {}
        self._jobs: dict[bytes, Job] = {}
        self._probes: dict[bytes, Task] = {}
        self._transfers: dict[bytes, Transfer] = {}
        self._outbox = Outbox(self._send, self._streams)
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake, self._waker = socket.socketpair()
        self._woken = False
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self._epoch = 0
        self._leased = False
        self._register_at = float("inf")
        self._heard_at = 0.0
        self._pulse_at = 0.0
        self._draining_until = 0.0
        self._broken: SsmprovError | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._batch = Batch(runtime, pace, cache, self._on_news, self._on_done)
        self._service = open_service(self._batch.submit, self._answer)

    # -- for other threads

    def _post(self, action: Callable[[], None]) -> None:
        """Have the socket thread do something."""
        self._posted.put(action)
        if not self._woken:  # one wake-up is enough for everything posted before it is handled
            self._woken = True
            with contextlib.suppress(BlockingIOError):
                self._waker.send(b"\0")

    def _on_news(self, news: list[News]) -> None:
        self._post(lambda: self._take_news(news))

    def _on_done(self, job: Job) -> None:
        self._service.finished(job)

    def _answer(self, request: wire.Request, final: wire.Final, payloads: Sequence[bytes]) -> None:
        """Send the final answer of a request; its payloads hold the whole text."""
        self._post(lambda: self._take_answer(request, final, list(payloads)))

    # -- the loop

    def run(self) -> None:
        """Serve until SIGTERM. Raises Refused or WrongModel if the broker rejects this worker."""
        self._batch.start()
        try:
            self._serve()
        finally:
            self._batch.stop()
            self._service.close()

    def _serve(self) -> None:
        monitor = self._socket.get_monitor_socket(sockets.EVENTS)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in heard(signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._post(self._drain))
        poller = zmq.Poller()
        for item in (self._socket, monitor, self._wake):
            poller.register(item, zmq.POLLIN)
        self._heard_at = time.monotonic()
        try:
            sockets.connect_dealer(self._socket, self._endpoint, self._credentials)
            while not self._ended():
                ready = dict(poller.poll(self._pause()))
                if monitor in ready:
                    self._monitored(monitor)
                if self._socket in ready:
                    self._receive()
                self._do_posted()
                if self._leased:
                    self._outbox.flush(self._epoch)
                self._tend()
        finally:
            signal.set_wakeup_fd(-1)
            self._socket.disable_monitor()
            monitor.close(linger=0)
            self._socket.close(linger=1000)
            self._context.term()

    def _ended(self) -> bool:
        if self._broken is not None:
            raise self._broken
        if not self._draining_until:
            return False
        idle = not (self._streams or self._transfers or self._outbox.waiting)
        return idle or time.monotonic() >= self._draining_until

    def _pause(self) -> int:
        now = time.monotonic()
        return max(0, int(1000 * (min(self._pulse_at, self._register_at) - now)) + 1)

    def _do_posted(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass
        self._woken = False  # before the queue is emptied: anything posted from here on wakes it again
        while True:
            try:
                action = self._posted.get_nowait()
            except queue.Empty:
                return
            action()

    # -- the connection

    def _monitored(self, monitor: zmq.Socket[bytes]) -> None:
        while monitor.poll(0):
            frames = monitor.recv_multipart()
            if sockets.is_connection(frames):
                self._hello()
                continue
            self._leased = False
            if not self._draining_until:
                self._broken = self._broken or sockets.refusal(frames, self._endpoint, self._credentials)

    def _hello(self) -> None:
        """Say HELLO on a new connection, and renew the lease."""
        self._leased = False
        self._heard_at = time.monotonic()
        self._register_at = float("inf")
        self._send(wire.Hello(self._identity, "worker", agent=f"worker {self._place.name}"))
        self._register()

    def _register(self) -> None:
        """Ask for the lease again; first the store thread reads the store's pins."""
        self._register_at = time.monotonic() + SILENCE_S  # once more, in case the store does not report its pins
        if not self._draining_until:
            self._service.pins(lambda pins: self._post(lambda: self._offer(pins)))

    def _offer(self, pins: Mapping[str, str]) -> None:
        self._register_at = float("inf")
        for stream in self._streams.values():
            stream.reset()
        running = [
            wire.Running(
                id=s.request.id,
                attempt=s.attempt,
                client=s.request.client,
                op=s.request.op,
                context=s.request.context,
                save=s.save,
            )
            for s in self._streams.values()
        ]
        place = self._place
        offer = wire.Register(
            worker=place.name,
            model=place.card,
            store=place.store,
            slots=place.slots,
            pid=os.getpid(),
            started=started_at(os.getpid()),
            host=socket.gethostname(),
            epoch=self._epoch,
            stall_ms=int(place.stall_s * 1000),
            running=running,
        )
        self._send(offer, wire.split_text(bytes(wire.pack(dict(pins)))))

    def _send(self, message: wire.Message, payloads: Sequence[bytes] = ()) -> bool:
        """Send now or not at all; returns whether it was sent."""
        try:
            self._socket.send_multipart(wire.encode(message, payloads), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _receive(self) -> None:
        for _ in range(BATCH):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard_at = time.monotonic()
            try:
                message, payloads = wire.decode(frames)
            except wire.WireError as error:
                log.warning("ignored a message from the broker: %s", error)
                continue
            self._take(message, payloads)

    def _take(self, message: wire.Message, payloads: list[bytes]) -> None:
        match message:
            case wire.Register():
                self._lease(message)
            case wire.Request():
                self._request(message, payloads)
            case wire.Cancel():
                self._cancel(message.id, message.mode)
            case wire.Credit():
                self._credit(message)
            case wire.Chunk():
                if message.id in self._transfers:
                    self._transfers[message.id].chunk(message, payloads)
            case wire.Bye():
                self._bye(message)

    def _lease(self, lease: wire.Register) -> None:
        self._epoch = lease.epoch
        self._leased = True
        log.info("%s serves %s (epoch %d)", self._place.name, self._place.card.name, self._epoch)
        ready()

    def _bye(self, bye: wire.Bye) -> None:
        if bye.error is not None:
            error = error_of(bye.error)
            if error.retry_ms:
                self._register_at = time.monotonic() + error.retry_ms / 1000
            elif not self._draining_until:
                self._broken = error
        elif bye.code == "hello_first":
            self._hello()
        elif self._leased and bye.code == "lease_ended":
            self._broken = Refused(bye.reason)

    # -- requests

    def _request(self, request: wire.Request, payloads: list[bytes]) -> None:
        if request.id in self._streams:
            resumed = wire.Credit(request.id, request.credit, request.attempt, request.have)
            self._streams[request.id].resume(resumed)
            return
        now = time.monotonic()
        deadline = now + request.ttl_ms / 1000
        stream = Stream(request=request, wanted=False, credit=request.credit, attempt=request.attempt)
        self._streams[request.id] = stream
        try:
            args = operations.decode_args(request)
            if self._draining_until:
                raise Unavailable(f"{self._place.name} is shutting down: send the request again", retry_ms=500)
            self._begin(
                request, args, payloads, stream, Job(request=request, args=args, deadline=deadline, arrived=now)
            )
        except SsmprovError as error:
            self._take_answer(request, wire.Final(request.id, error=problem_of(error, worker=self._place.name)), [])

    def _begin(self, request: wire.Request, args: object, payloads: list[bytes], stream: Stream, job: Job) -> None:
        match args:
            case ops.Turn():
                stream.wanted, stream.save = args.stream, args.save
                self._jobs[request.id] = job
                self._service.turn(job, payloads)
            case ops.Replay():
                stream.save = args.save
                self._jobs[request.id] = job
                if args.prime:
                    self._service.turn(job, payloads)
                else:
                    self._service.replay(job)
            case ops.Probe():
                self._probes[request.id] = task = Task(
                    request=request, args=args, deadline=job.deadline, arrived=job.arrived
                )
                self._service.probe(task, payloads)
            case ops.Export() | ops.Import():
                transfer = Transfer(
                    request, job.deadline, lambda m, p: self._post(lambda: self._relay(m, p)), request.credit
                )
                self._transfers[request.id] = transfer
                if isinstance(args, ops.Import):
                    self._service.import_(request, args, transfer)
                else:
                    self._service.export(request, transfer)
            case _:
                self._service.operate(request, args)

    def _cancel(self, request_id: bytes, mode: str) -> None:
        if job := self._jobs.get(request_id):
            job.cancelled = job.cancelled or mode
            if job.turn is not None:
                self._batch.cancel(job, mode)
        if probe := self._probes.get(request_id):
            probe.cancelled = True
        if transfer := self._transfers.get(request_id):
            transfer.abort()

    def _credit(self, credit: wire.Credit) -> None:
        if stream := self._streams.get(credit.id):
            stream.resume(credit)
        if transfer := self._transfers.get(credit.id):
            transfer.grant(credit.n)

    # -- what the other threads bring

    def _take_news(self, news: list[News]) -> None:
        for item in news:
            if stream := self._streams.get(item.job.id):
                stream.text += item.text
                stream.tokens = item.tokens
                stream.progress = item.progress

    def _take_answer(self, request: wire.Request, final: wire.Final, payloads: list[bytes]) -> None:
        """Queue an answer until it can be sent. It then contains what its reader does not have yet."""
        self._jobs.pop(request.id, None)
        self._probes.pop(request.id, None)
        self._transfers.pop(request.id, None)
        self._outbox.add(final, payloads)

    def _relay(self, message: wire.Chunk | wire.Credit, payloads: list[bytes]) -> None:
        if isinstance(message, wire.Chunk):
            message.epoch = self._epoch
            message.attempt = self._attempt(message.id)
        if not self._send(message, payloads) and (transfer := self._transfers.get(message.id)):
            transfer.abort()  # a missing piece would damage the file

    def _attempt(self, request_id: bytes) -> int:
        stream = self._streams.get(request_id)
        return stream.attempt if stream else 1

    # -- time

    def _tend(self) -> None:
        now = time.monotonic()
        if now >= self._register_at:
            self._register()
        if now < self._pulse_at:
            return
        self._pulse_at = now + PULSE_S
        if now - self._heard_at > SILENCE_S and not self._draining_until:
            self._hello()
        if self._leased:
            gauges = self._batch.gauges
            self._send(
                wire.Pulse(
                    progress=gauges.steps + self._service.done,
                    running=len(self._streams),
                    hot_bytes=self._cache.bytes,
                    tokens=gauges.tokens,
                    prefill_tokens=gauges.prefill_tokens,
                )
            )

    def _drain(self) -> None:
        """Accept no new requests; what runs ends at the next token and is answered."""
        if self._draining_until:
            return
        self._draining_until = time.monotonic() + DRAIN_S
        self._send(wire.Bye("draining", code="draining"))
        for request_id in list(self._jobs):
            self._cancel(request_id, "keep")
        for transfer in self._transfers.values():
            transfer.abort()
