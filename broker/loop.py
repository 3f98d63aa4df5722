"""The Poller loop around the machine: one ROUTER socket, its monitor, a signal pipe and a tick."""

from __future__ import annotations

import contextlib
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
from ssmprov import locks, logs, sockets, wire
from ssmprov.causes import explained, not_listening
from ssmprov.configuration import host_of, is_loopback, private_directory
from ssmprov.errors import BadRequest, Conflict, NoSpace, Refused
from ssmprov.keys import LOCAL, User
from ssmprov.process import SUPERVISED, has_ended, heard, host, is_worker, memory_of, ready, started_at

log = logging.getLogger(__name__)

TICK_S = 0.1
WATCH_S = 1.0
"""How often the allow-list and the memory in use are checked."""

BATCH = 512
"""The messages that are received before the clock is checked again."""

GATHER = 16
"""The messages that are collected before they are sent, while more are arriving."""

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
        """With a `gate`, TCP endpoints use CURVE. Without one, only `insecure` allows others than loopback.

        `memory` is how many bytes this process may use before it ends itself (see `_watch`).
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

        Raises Conflict if another broker holds an endpoint, BadRequest if an endpoint must not be bound, NoSpace if
        this process uses more memory than it may.
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
                raise explained(error, f"cannot listen on {endpoint}") from None
            self._paths.append(path)
        elif not (self._gate or self._insecure or is_loopback(host_of(rest))):
            raise BadRequest(
                f"{endpoint} can be reached from other machines, and without keys anybody there may read and change "
                "everything. Make keys with `ssmprov keys new broker`, listen on 127.0.0.1 or an ipc:// socket, or use "
                "--insecure"
            )
        elif not self._gate and not is_loopback(host_of(rest)):
            log.warning("%s can be reached from other machines, and anybody may connect without a key", endpoint)
        if self._gate and scheme != "ipc":
            self._gate.arm(self._router)
        try:
            (self._router.bind if scheme == "ipc" else self._ports.open)(sockets.address_of(endpoint))
        except zmq.ZMQError as error:
            told = OSError(error.errno, error.strerror)
            if scheme == "ipc":
                raise explained(told, f"cannot listen on {endpoint}") from None
            raise not_listening(told, endpoint, "`listen` of [broker]") from None

    def _lock(self, path: Path) -> None:
        """Make sure that no second broker steals the socket of a live one."""
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locks.append(handle)
        try:
            locks.lock(handle, locks.EXCLUSIVE | locks.NO_WAIT, path)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            who = f"process {holder}" if holder.isdecimal() else "another process"
            raise Conflict(
                f"another broker serves {path} already ({who}): use that one, stop it first, or serve another working "
                "directory (`ssmprov --home DIR up`)"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.environ.get(SUPERVISED) or os.getpid()}\n".encode(), 0)

    def _catch_signals(self) -> None:
        self._signal.setblocking(False)
        signal.set_wakeup_fd(self._signal.fileno(), warn_on_full_buffer=False)
        for number in heard(signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._router.disable_monitor()
        self._monitor.close(linger=0)
        self._router.close(linger=2000)  # time for the last answers to reach clients on a busy machine
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
        poller.register(monitor, zmq.POLLIN)  # cheaper than its socket, but it only reports changes: so look first
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
            if late >= 0 and (drained or late >= STALL_S):  # silence counts only if nothing is waiting to be read
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
        """Check what changes outside: files, the allow-list, and how much memory this process uses.

        ZeroMQ keeps the parts of a message until the last one arrives. It limits neither their number nor their size,
        and does not tell who sent them. So this is the only defence against a peer that never ends its message: the
        broker ends, and so drops all connections and what they hold. Accepted requests continue at the workers, and the
        restarted broker finds them there.
        """
        if self._ports.open_again():
            log.info("the TCP endpoints are open again")
        if self._gate and self._gate.changed():
            self._handle(Admit(time.monotonic(), self._gate.users))
        if (taken := memory_of(os.getpid())) > self._memory:
            raise NoSpace(
                f"the broker uses {taken >> 20} MiB of memory, but `memory` in [broker] allows only "
                f"{self._memory >> 20} MiB: it stops, so that it can be started again"
            )

    def _receive(self) -> bool:
        """Receive a limited number of messages. Returns whether the socket is empty."""
        for number in range(BATCH):
            try:
                first, frames = sockets.receive(self._router)
            except zmq.Again:
                self._deliver()
                return True
            now, route = time.monotonic(), first.bytes
            user = self._gate.user_of(first) if self._gate else LOCAL
            self._take_up(self._event(now, route, frames, user))
            more = number > 0 or sockets.has_more(self._router)  # an exception ends a burst
            if not more or len(self._outgoing) >= GATHER:
                self._deliver()
            if not more:
                return True
        self._deliver()
        return False

    @staticmethod
    def _event(now: float, route: Route, frames: list[bytes], user: User | None) -> Event:
        """The event for a message's frames. `user` is None if the key is no longer allowed."""
        if user is None:
            return Refuse(now, route, Refused("this key is no longer allowed"))
        try:
            message, payloads = wire.decode(frames)
        except wire.WireError as error:
            return Refuse(now, route, error)
        return Received(now=now, route=route, message=message, payloads=payloads, frames=frames, user=user)

    def _monitored(self) -> None:
        """A connection has opened or closed.

        A ROUTER does not tell whose it was, so everybody is asked now instead of at the next probe.
        """
        gone = False
        with contextlib.suppress(zmq.Again):
            while True:
                event, value = sockets.event_of(self._monitor.recv_multipart(zmq.NOBLOCK))
                gone |= event != zmq.EVENT_ACCEPTED
                if event == zmq.EVENT_ACCEPTED and self._ports.accepted(value):
                    log.warning("too many files are open for more connections: the TCP endpoints are closed for now")
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
        """Handle an event, but only collect the messages to send."""
        for action in self._broker.handle(event):
            if isinstance(action, Send):
                self._outgoing.append(action)
            elif (follows := self._act(action)) is not None:
                self._take_up(follows)

    def _deliver(self) -> None:
        """Send what was collected. This costs less at once, because ZeroMQ's thread is woken only once."""
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
        """Whether a client's process has ended. Its sockets close a moment before, so this is soon asked again."""
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
        """Send what slow peers had no room for before."""
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
    """The event for an error that says that nobody is there. Raises any other error."""
    if error.errno != zmq.EHOSTUNREACH:
        raise error
    return Unreachable(time.monotonic(), route)


def _kill(action: Kill) -> None:
    """Kill a lost worker's process on this host, unless its id now belongs to another process.

    The worker reported the id itself, so it may be wrong: only a worker's process is killed, a start time of 0 names no
    process, and the id may be larger than any process id.
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
