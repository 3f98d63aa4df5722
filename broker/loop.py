"""The Poller loop around the machine: one ROUTER socket, a monitor, a signal pipe, and a tick."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import zmq

from broker.backlog import Backlog
from broker.events import (
    Action,
    Admit,
    Disconnected,
    Drain,
    Due,
    Ended,
    Event,
    Kill,
    Log,
    Look,
    Received,
    Refuse,
    Send,
    Stop,
    Tick,
    Unreachable,
)
from broker.keys import Gate
from broker.machine import STALL_S, Broker
from broker.metrics import Metrics
from broker.ports import Ports
from broker.records import Route
from ssmprov import logs, sockets, wire
from ssmprov.configuration import host_of, is_loopback, private_directory
from ssmprov.errors import BadRequest, Conflict, NoSpace, Refused, Unavailable
from ssmprov.keys import LOCAL, User
from ssmprov.process import has_ended, host, is_worker, memory_of, ready, started_at

log = logging.getLogger(__name__)

TICK_S = 0.1
WATCH_S = 1.0
"""How often the allow-list and the memory are looked at."""

BATCH = 512
"""Messages taken in one go before the clock is looked at."""

GATHER = 16
"""Messages that are gathered, where more are there to be taken, before they are sent."""

LOOK_AGAIN_S = 0.01

BACKLOG_RETRY_MS = 5


class Loop:
    """Runs a broker on its endpoints until it has drained."""

    def __init__(
        self,
        endpoints: Sequence[str],
        broker: Broker,
        metrics: Metrics | None = None,
        gate: Gate | None = None,
        *,
        insecure: bool = False,
        memory: int = 4 * 2**30,
    ) -> None:
        """`gate` has TCP endpoints speak CURVE; `insecure` lets others than loopback be bound without one.

        `memory` is how many bytes this process may hold before it ends itself (see `_watch`).
        """
        self._broker = broker
        self._metrics = metrics
        self._gate = gate
        self._insecure = insecure
        self._memory = memory
        self._watch_at = 0.0
        self._endpoints = sorted(endpoints, key=lambda endpoint: not endpoint.startswith("ipc://"))  # `arm` lasts
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        sockets.prepare_router(self._router)
        self._ports = Ports(self._router)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_ACCEPTED)
        self._backlog: dict[Route, Backlog] = {}
        self._outgoing: list[Send] = []
        self._locks: list[int] = []
        self._paths: list[Path] = []
        self._wake, self._signal = socket.socketpair()
        self._next_tick = 0.0
        self._stopped = False

    def run(self) -> None:
        """Serve until drained.

        Raises Conflict where another broker holds an endpoint, BadRequest where one cannot be bound, NoSpace where this
        process has taken more memory than it may.
        """
        try:
            if self._gate:
                self._gate.start(self._context)
            for endpoint in self._endpoints:
                self._bind(endpoint)
            self._catch_signals()
            ready()
            self._serve()
        finally:
            self._close()

    # -- start and end

    def _bind(self, endpoint: str) -> None:
        scheme, _, rest = endpoint.partition("://")
        if scheme == "ipc":
            path = Path(rest)
            try:
                private_directory(path.parent)
                self._lock(path)
                path.unlink(missing_ok=True)
            except OSError as error:
                raise Unavailable(f"cannot listen on {endpoint}: {error.strerror}: {error.filename or path}") from None
            self._paths.append(path)
        elif not (self._gate or self._insecure or is_loopback(host_of(rest))):
            raise BadRequest(
                f"{endpoint} can be reached from other machines, where without keys everybody may read, change and ask "
                "everything: make some with `ssmprov keys new broker`, listen on 127.0.0.1 or an ipc:// socket, or say "
                "--insecure"
            )
        elif not self._gate and not is_loopback(host_of(rest)):
            log.warning("%s can be reached from other machines, and nobody is asked who they are", endpoint)
        if self._gate and scheme != "ipc":
            self._gate.arm(self._router)
        try:
            (self._router.bind if scheme == "ipc" else self._ports.open)(endpoint)
        except zmq.ZMQError as error:
            held = ". Another program holds it" if error.errno == zmq.EADDRINUSE else ""
            raise Conflict(f"cannot listen on {endpoint}: {error}{held}") from None

    def _lock(self, path: Path) -> None:
        """A second broker must not steal the socket of a live one."""
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locks.append(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"another broker serves {path}: stop it first, or set SSMPROV_HOME elsewhere") from None

    def _catch_signals(self) -> None:
        self._signal.setblocking(False)
        signal.set_wakeup_fd(self._signal.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._router.disable_monitor()
        self._monitor.close(linger=0)
        self._router.close(linger=2000)  # the last answers, to readers on a busy machine
        if self._gate:
            self._gate.stop()
        self._context.term()
        for path in self._paths:
            path.unlink(missing_ok=True)
        for handle in self._locks:
            os.close(handle)
        self._wake.close()
        self._signal.close()

    # -- serving

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        monitor, wake = self._monitor.FD, self._wake.fileno()
        poller.register(monitor, zmq.POLLIN)  # its file alone is cheaper to poll, and tells of changes: so look first
        self._monitored()
        poller.register(wake, zmq.POLLIN)
        while not self._stopped:
            ready = dict(poller.poll(self._pause_ms()))
            drained = self._receive() if self._router in ready else True
            if monitor in ready:
                self._monitored()
            if wake in ready:
                self._signalled()
            if self._backlog:
                self._flush()
            now = time.monotonic()
            if now >= self._broker.due_at:
                self._handle(Due(now))
            late = now - self._next_tick
            if late >= 0 and (drained or late >= STALL_S):  # silence is judged only when nothing waits to be read
                self._next_tick = now + TICK_S
                self._handle(Tick(now))
                if self._metrics:
                    self._metrics.update(self._broker)
                if now >= self._watch_at:
                    self._watch_at = now + WATCH_S
                    self._watch()

    def _pause_ms(self) -> int:
        if self._backlog:
            return BACKLOG_RETRY_MS
        return max(0, 1 + int((min(self._next_tick, self._broker.due_at) - time.monotonic()) * 1000))

    def _watch(self) -> None:
        """Look at what changes outside: files, the allow-list, and how much memory this process has taken.

        ZeroMQ keeps the parts of a message until the last one has come, and bounds neither their number nor their sum;
        nor does it tell whose they are. So a peer that never ends its message can only be met here: all connections
        are given up, with all that they hold. What was accepted goes on at the workers, and is taken up again after
        the restart.
        """
        if self._ports.open_again():
            log.info("the TCP endpoints are open again")
        if self._gate and self._gate.changed():
            self._handle(Admit(time.monotonic(), self._gate.users))
        if (taken := memory_of(os.getpid())) > self._memory:
            raise NoSpace(
                f"the broker has taken {taken >> 20} MiB of memory, more than the {self._memory >> 20} MiB of `memory` "
                "in [broker]: it ends, so that it can be started again"
            )

    def _receive(self) -> bool:
        """Take what has come, in bounded batches; whether the socket was emptied."""
        for number in range(BATCH):
            try:
                first, frames = sockets.receive(self._router)
            except zmq.Again:
                self._deliver()
                return True
            now, route = time.monotonic(), first.bytes
            user = self._gate.user_of(first) if self._gate else LOCAL
            self._take_up(self._event(now, route, frames, user))
            more = number > 0 or sockets.has_more(self._router)  # the end of a burst is told by an exception
            if not more or len(self._outgoing) >= GATHER:
                self._deliver()
            if not more:
                return True
        self._deliver()
        return False

    @staticmethod
    def _event(now: float, route: Route, frames: list[bytes], user: User | None) -> Event:
        """What the frames of a message are to the broker; `user` is None for a key that is let in no more."""
        if user is None:
            return Refuse(now, route, Refused("this key is let in no more"))
        try:
            message, payloads = wire.decode(frames)
        except wire.WireError as error:
            return Refuse(now, route, error)
        return Received(now=now, route=route, message=message, payloads=payloads, frames=frames, user=user)

    def _monitored(self) -> None:
        """Somebody has come or gone.

        A ROUTER does not say who has gone: ask everybody now instead of at the next probe.
        """
        gone = False
        with contextlib.suppress(zmq.Again):
            while True:
                event, value = sockets.event_of(self._monitor.recv_multipart(zmq.NOBLOCK))
                gone |= event != zmq.EVENT_ACCEPTED
                if event == zmq.EVENT_ACCEPTED and self._ports.accepted(value):
                    log.warning("no files are left for more connections: the TCP endpoints are closed for a while")
        if gone:
            now = time.monotonic()
            self._handle(Disconnected(now))
            self._next_tick = min(self._next_tick, now)

    def _signalled(self) -> None:
        numbers = self._wake.recv(64)
        if any(number in (signal.SIGTERM, signal.SIGINT) for number in numbers):
            self._handle(Drain(time.monotonic()))

    def _handle(self, event: Event) -> None:
        self._take_up(event)
        self._deliver()

    def _take_up(self, event: Event) -> None:
        """Do what follows from an event, but for what is to be sent."""
        for action in self._broker.handle(event):
            if isinstance(action, Send):
                self._outgoing.append(action)
            elif (follows := self._act(action)) is not None:
                self._take_up(follows)

    def _deliver(self) -> None:
        """Send what has gathered. Together costs less: ZeroMQ's own thread is woken once."""
        while self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            for send in outgoing:
                if (follows := self._send(send.route, send.frames)) is not None:
                    self._take_up(follows)

    def _act(self, action: Action) -> Event | None:
        match action:
            case Kill():
                _kill(action)
            case Look():
                return self._look(action)
            case Log():
                log.log(logs.LEVELS[action.level], "%s", action.text)
            case Stop():
                self._stopped = True
        return None

    def _look(self, look: Look) -> Event | None:
        """Whether a client's process has ended. Its sockets close a moment before that, so it is asked again soon."""
        if look.process.host != host():
            return None
        now = time.monotonic()
        if has_ended(look.process.pid, look.process.started):
            return Ended(now, look.client)
        self._next_tick = min(self._next_tick, now + LOOK_AGAIN_S)
        return None

    def _send(self, route: Route, frames: Sequence[bytes]) -> Event | None:
        waiting = self._backlog.get(route)
        if waiting is None:
            try:
                sockets.send(self._router, [route, *frames])
            except zmq.Again:
                waiting = self._backlog[route] = Backlog()
            except zmq.ZMQError as error:
                return _unreachable(error, route)
            else:
                return None
        if waiting.add(frames):
            return None
        del self._backlog[route]
        return Unreachable(time.monotonic(), route)

    def _flush(self) -> None:
        """Send what slow peers had no room for."""
        for route, waiting in list(self._backlog.items()):
            if event := self._flush_one(route, waiting):
                self._handle(event)

    def _flush_one(self, route: Route, waiting: Backlog) -> Event | None:
        event = None
        while waiting and event is None:
            try:
                sockets.send(self._router, [route, *waiting.first])
            except zmq.Again:
                return None
            except zmq.ZMQError as error:
                event = _unreachable(error, route)
            else:
                waiting.sent()
        self._backlog.pop(route, None)
        return event


def _unreachable(error: zmq.ZMQError, route: Route) -> Unreachable:
    """That nobody is there, where this is what the error says. Raises any other."""
    if error.errno != zmq.EHOSTUNREACH:
        raise error
    return Unreachable(time.monotonic(), route)


def _kill(action: Kill) -> None:
    """End a lost worker's process on this host, unless its id has passed on to another process.

    The id is what the worker said of itself: no other program is ended for it, a time of 0 names no process, and an id
    may be larger than any is.
    """
    if action.host != socket.gethostname() or action.pid <= 1 or not action.started:
        return
    if started_at(action.pid) != action.started or not is_worker(action.pid):
        return
    with contextlib.suppress(OSError, OverflowError):
        handle = os.pidfd_open(action.pid)
        try:
            if started_at(action.pid) == action.started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
