"""`ssmprov up`: runs the broker, the workers and the bridges of one configuration as child processes.

The broker starts first. Once it answers with the process id of our child, the rest follows, so that nothing registers
with a stranger's broker. A child that ends is started again after a growing delay. If a worker reports an error that no
new start can mend, its model is not served, and the others are. If that leaves no model, or if the broker or a bridge
reports such an error, everything ends. The children are stopped in this order: bridges, workers, broker.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec
import zmq

from broker.children import Child, ending
from broker.probe import BoundPort, ask_status, missing, tell_not_served
from ssmprov import durable, logs
from ssmprov.causes import explained
from ssmprov.configuration import LOOPBACK, RUN_DIRECTORY, Configuration, private_directory
from ssmprov.errors import Refused, SsmprovError
from ssmprov.keys import INSECURE_VARIABLE, AllowList, Credentials, Role, credentials_for
from ssmprov.names import worker_name
from ssmprov.process import EXIT_CONFIGURATION, SUPERVISED, handling
from ssmprov.terminal import harmless

log = logging.getLogger(__name__)

BROKER, WORKER, BRIDGE = range(3)
GRACE_S = {BRIDGE: 10.0, WORKER: 15.0, BROKER: 5.0}
HURRIED_S = 1.0
PROBE_EVERY_S = 0.1
PROBE_TIMEOUT_S = 0.5
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """Runs the children of one configuration until a signal stops it, or a child cannot be started."""

    def __init__(
        self,
        configuration: Configuration,
        config_file: Path,
        ready_file: Path | None = None,
        *,
        insecure: bool = False,
        at_once: bool = False,
    ) -> None:
        """With `at_once`, nothing waits for the broker: for an endpoint at which no other broker can be."""
        self.configuration = configuration
        self.config_file = config_file
        self.ready_file = ready_file
        self.endpoint = configuration.endpoints()[0]
        self.bound: dict[str, Path] = {}
        self.children = list(self._children())
        for child in self.children[: None if at_once else 1]:
            child.due = time.monotonic()
        self.selector = selectors.DefaultSelector()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.environment = os.environ | {
            "SSMPROV_HOME": str(configuration.home),
            "SSMPROV_BROKER": self.endpoint,
            SUPERVISED: str(os.getpid()),
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if insecure:
            self.environment[INSECURE_VARIABLE] = "1"
        self.credentials = self._credentials()
        self.signals = 0
        self.fatal = False
        self.serving = False
        self.wrote_ready = False

    def _credentials(self) -> Credentials | None:
        """The keys to ask the broker with. Raises Refused if it would not allow them."""
        found = credentials_for(self.endpoint, self.configuration.home)
        if found is not None:
            user = AllowList(self.configuration.home).users().get(found.pair.public)
            if user is None or not user.may(Role.READ):
                raise Refused(
                    f"the broker would reject its supervisor at {self.endpoint}: run `ssmprov keys allow "
                    f"{found.name}`, or let it also listen on an ipc:// socket"
                )
        return found

    def _children(self) -> Iterator[Child]:
        config = ["--config", str(self.config_file)]
        yield Child(name="broker", arguments=["broker", *config], rank=BROKER)
        for model in self.configuration.tables.model:
            for index in range(model.workers):
                arguments = ["workers", *config, "--model", model.name, "--index", str(index)]
                yield Child(name=worker_name(model.name, index), arguments=arguments, rank=WORKER, model=model.name)
        bridges = self.configuration.tables.bridge
        folder = self.configuration.home / RUN_DIRECTORY
        if bridges or any(endpoint.startswith(f"ipc://{folder}/") for endpoint in self.configuration.endpoints()):
            private_directory(folder)
        for index, bridge in enumerate(bridges):
            name = f"bridge/{bridge.port or index}"
            self.bound[name] = folder / f"bridge-{bridge.port or index}.json"
            arguments = ["bridge_tcp", *config, "--index", str(index), "--ready-file", str(self.bound[name])]
            yield Child(name=name, arguments=arguments, rank=BRIDGE)

    def run(self) -> int:
        """Serve until a signal. Returns 0, or 1 if a child cannot start with its configuration."""
        with self._signals():
            try:
                while not self.signals and not self.fatal:
                    self._start_due()
                    self._wait(self._pause())
                    self._reap()
                    if not self.serving:
                        self._look()
            finally:
                self._stop()
        return 1 if self.fatal else 0

    # Signals: a handler counts them, and the wake-up descriptor ends the wait.

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        self.selector.register(read_end, selectors.EVENT_READ)
        wake_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        child_before = signal.signal(signal.SIGCHLD, self._on_signal)  # handled even if it is ignored: we need it
        try:
            with handling(self._on_signal, *STOP_SIGNALS):
                yield
        finally:
            signal.signal(signal.SIGCHLD, child_before)
            signal.set_wakeup_fd(wake_before)
            self.selector.close()
            self.context.destroy(linger=0)
            os.close(read_end)
            os.close(write_end)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self.signals += 1

    # The way up

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.due is None or child.due > now:
                continue
            if child.name in self.bound:
                self.bound[child.name].unlink(missing_ok=True)
            try:
                child.start(self.environment, now)
            except OSError as error:  # no process or memory is available: a failure like any other
                child.failures += 1
                child.due = now + 10.0
                log.error("%s. Trying again in 10 s", explained(error, f"{child.name} cannot be started"))
                continue
            self.selector.register(child.output, selectors.EVENT_READ, child)

    def _pause(self) -> float | None:
        """How long to wait at most; None for until something happens."""
        dues = [child.due - time.monotonic() for child in self.children if child.due is not None]
        if not self.serving:
            dues.append(PROBE_EVERY_S)
        return max(0.0, min(dues)) if dues else None

    def _wait(self, timeout_s: float | None) -> None:
        for key, _ in self.selector.select(timeout_s):
            child = key.data
            if child is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif not child.relay(_relay):
                self.selector.unregister(key.fileobj)

    def _reap(self) -> list[Child]:
        """Handle the children that have ended, and return them."""
        gone = []
        for child in self.children:
            if child.process is None or child.process.poll() is None:
                continue
            child.relay(_relay)
            with contextlib.suppress(KeyError):
                self.selector.unregister(child.output)
            status = child.ended(time.monotonic())
            gone.append(child)
            if status is not None and not self.signals:
                self._lost(child, status)
        return gone

    def _lost(self, child: Child, status: int) -> None:
        self.serving = False
        if status == EXIT_CONFIGURATION:
            child.why_not = child.last_line or "it did not say why"
            log.error("%s cannot start: %s", child.name, child.why_not)
            self.fatal |= child.rank != WORKER or len(self._not_served()) == len(self.configuration.tables.model)
        elif child.due is not None:
            pause = child.due - time.monotonic()
            log.warning("%s %s and will be started again in %.1f s", child.name, ending(status), pause)

    def _not_served(self) -> dict[str, str]:
        """The models of which no worker can start, and why."""
        workers = [child for child in self.children if child.rank == WORKER]
        started = {child.model for child in workers if not child.why_not}
        return {child.model: child.why_not for child in workers if child.model not in started}

    def _look(self) -> None:
        """Check whether everything serves, and start what waits for the broker."""
        broker = self.children[0]
        if broker.process is None:
            return
        try:
            status = ask_status(self.context, self.endpoint, PROBE_TIMEOUT_S, self.credentials)
        except SsmprovError as error:
            log.warning("the broker's status is not available: %s", error)
            return
        if status is None or status.broker.pid != broker.pid:
            return
        wanted = [child for child in self.children if not child.why_not]
        for child in wanted:
            if child.process is None and child.due is None:
                child.due = time.monotonic()
        for model, why in self._not_served().items():
            if model not in status.not_served:
                tell_not_served(self.context, self.endpoint, model, why, self.credentials)
        if all(child.process for child in wanted):
            workers = {child.name: child.pid for child in wanted if child.rank == WORKER}
            ports = {name: port for name, path in self.bound.items() if (port := _read_port(path))}
            if not missing(status, workers) and len(ports) == len(self.bound):
                self._serve(ports)

    def _serve(self, ports: dict[str, BoundPort]) -> None:
        self.serving = True
        pids = {child.name: child.pid for child in self.children if child.process}
        failed = self._not_served()
        bridges = [
            {"model": table.model, "host": port.host, "port": port.port}
            for table, port in zip(self.configuration.tables.bridge, ports.values(), strict=True)
        ]
        if self.ready_file is not None:
            content = {"endpoint": self.endpoint, "pid": os.getpid(), "bridges": bridges, "pids": pids}
            content["not_served"] = failed
            self.ready_file.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(self.ready_file, json.dumps(content, indent=1).encode() + b"\n")
            self.wrote_ready = True
        tables, default = self.configuration.tables, self.configuration.default
        names = [f"{model.name} (default)" if model.name == default else model.name for model in tables.model]
        names = [name for name, model in zip(names, tables.model, strict=True) if model.name not in failed]
        for bridge in bridges:
            log.info(
                "port %s:%d: %s, with the protocol of the old tools", bridge["host"], bridge["port"], bridge["model"]
            )
        if tables.broker.metrics_port is not None:
            log.info("metrics: http://%s:%d/metrics", LOOPBACK, tables.broker.metrics_port)
        log.info("working directory: %s", self.configuration.home)
        log.info("serving %s at %s", ", ".join(names) or "no model", " and ".join(self.configuration.endpoints()))
        for model, why in failed.items():
            log.error("not serving %s: %s. Correct that, and start `ssmprov up` again", model, why)

    # The way down

    def _stop(self) -> None:
        if self.ready_file is not None and self.wrote_ready:
            durable.remove(self.ready_file)
        log.info("stopping")
        self.signals = max(self.signals, 1)
        for rank in (BRIDGE, WORKER, BROKER):
            self._stop_rank([child for child in self.children if child.rank == rank], GRACE_S[rank])
        for path in self.bound.values():
            path.unlink(missing_ok=True)

    def _stop_rank(self, children: list[Child], grace_s: float) -> None:
        for child in children:
            child.due = None
            child.signal(signal.SIGTERM)
        began = time.monotonic()
        while any(child.process for child in children):
            left = began + (grace_s if self.signals < 2 else HURRIED_S) - time.monotonic()
            if left <= 0:
                for child in children:
                    if child.process:
                        log.warning("%s did not stop in time and is now killed", child.name)
                        child.signal(signal.SIGKILL)
            self._wait(max(0.05, left))
            self._reap()


def _relay(who: str, line: str) -> None:
    """Pass on a child's line: unchanged if the child logged it, otherwise as a log record with the child's name."""
    if logs.text_of(line) is None:  # shown whatever the level is, since it may tell why a child crashed
        log.handle(log.makeRecord(log.name, logging.INFO, "", 0, line, (), None, extra={"service": who}))
        return
    with contextlib.suppress(OSError):  # a log that nobody reads must not stop us
        print(harmless(line), file=sys.stderr, flush=True)


def _read_port(path: Path) -> BoundPort | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=BoundPort)
    except (OSError, msgspec.MsgspecError):
        return None
