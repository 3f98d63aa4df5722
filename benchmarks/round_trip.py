"""Requests through the broker against bare sockets: latency, and the broker's CPU time per request.

The client is raw pyzmq in this process, and every side gets REQUESTs of one size over ipc. `settings.show` of a model
without a sampling set goes to the worker and back and reads no file. The bare worker answers it at once, so the rest
of the time is the broker's. The broker answers `status` itself. The turn reads one token and writes none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from time import monotonic, perf_counter, sleep

import msgspec
import zmq

from benchmarks.measure import Bound, Curve, Figure, Plan, at_most, cpu_s, figure, interleave, spread
from benchmarks.serving import Companion, Serving
from clients import Client
from ssmprov import ops, wire

GROUP = "round trip"
MODEL = "scripted"
BARE_MODEL = "bareness"
START_S = 20.0
SCRIPT = {"replies": [{"after": "", "pieces": ["yes"]}]}


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side: sorted latencies in seconds, and CPU seconds per request of the process in between."""

    latencies: list[float]
    cpu: float

    def quantile_us(self, share: float) -> float:
        return self.latencies[int(share * (len(self.latencies) - 1))] * 1e6


class Raw:
    """A DEALER that sends one request at a time."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def close(self) -> None:
        self.socket.close()

    def greet(self) -> None:
        """Say HELLO to a broker and wait for its answer."""
        self.socket.send_multipart(wire.encode(wire.Hello(wire.new_id(), agent="benchmarks")))
        while not isinstance(wire.decode(self.socket.recv_multipart())[0], wire.Hello):
            pass

    def wait_for(self, model: str) -> None:
        """Send requests to a model until it answers."""
        deadline = monotonic() + START_S
        while True:
            try:
                return self.ask("settings.show", ops.SettingsShow(), model)
            except RuntimeError:
                if monotonic() > deadline:
                    raise
                sleep(0.05)

    def echo(self, op: str, args: msgspec.Struct) -> None:
        """Send a request to a bare peer and wait for its answer."""
        frames, _ = _request(op, args, MODEL)
        self.socket.send_multipart(frames)
        self.socket.recv_multipart()

    def ask(self, op: str, args: msgspec.Struct, model: str = MODEL) -> None:
        """Send a request to the broker and wait for the final answer. Raises RuntimeError if that is an error."""
        frames, request_id = _request(op, args, model)
        self.socket.send_multipart(frames)
        while True:
            message, _ = wire.decode(self.socket.recv_multipart())
            if isinstance(message, wire.Final) and message.id == request_id:
                if message.error is not None:
                    raise RuntimeError(message.error.message)
                return


def _request(op: str, args: msgspec.Struct, model: str) -> tuple[list[bytes], bytes]:
    request = wire.Request(wire.new_id(), op, model, args=wire.pack(args))
    return wire.encode(request, [b"x"] if op == "turn" else []), request.id


def measure(plan: Plan) -> list[Figure | Curve]:
    plan.say("round trip: bare sockets, zmq.proxy, the broker")
    script = plan.scratch / "script.json"
    script.write_text(json.dumps(SCRIPT), encoding="utf-8")
    table = {"name": MODEL, "runtime": "scripted", "path": str(script), "checkpoints": "store"}
    with ExitStack() as stack:
        serving = stack.enter_context(Serving(plan.scratch / "round-trip", table))
        taken = interleave(plan.rounds, _sides(stack, plan, serving))
    return [*_figures(taken)]


def _sides(stack: ExitStack, plan: Plan, serving: Serving) -> dict[str, Callable[[], Taken]]:
    context = stack.enter_context(zmq.Context())
    sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssmprov-"))

    def start(*arguments: str) -> Companion:
        return stack.enter_context(closing(Companion("peers", *arguments)))

    def raw(endpoint: str) -> Raw:
        return stack.enter_context(closing(Raw(context, endpoint)))

    show, status = ops.SettingsShow(), ops.Status()
    turn = ops.Turn(max_tokens=0)
    direct, proxied, backed, forwarded = (
        f"ipc://{sockets}/{name}" for name in ("direct", "front", "back", "forwarder")
    )
    router = start("router", direct)
    proxy = start("proxy", proxied, backed)
    start("answerer", backed)
    forwarder = start("forwarder", forwarded)
    start("answerer", forwarded, "answerer")
    bare, through_proxy, through_forwarder = raw(direct), raw(proxied), raw(forwarded)
    start("worker", serving.endpoint, BARE_MODEL)
    served = raw(serving.endpoint)
    served.greet()
    served.wait_for(BARE_MODEL)
    client = stack.enter_context(Client(serving.endpoint))
    broker = serving.pids["broker"]
    count = plan.size(200, 1000)
    warm = plan.size(50, 200)

    def side(action: Callable[[], object], pid: int) -> Callable[[], Taken]:
        return lambda: _take(action, pid, warm, count)

    return {
        "DEALER-ROUTER": side(lambda: bare.echo("settings.show", show), router.pid),
        "zmq.proxy": side(lambda: through_proxy.echo("settings.show", show), proxy.pid),
        "Poller loop": side(lambda: through_forwarder.echo("settings.show", show), forwarder.pid),
        "status": side(lambda: served.ask("status", status, ""), broker),
        "bare worker": side(lambda: served.ask("settings.show", show, BARE_MODEL), broker),
        "worker": side(lambda: served.ask("settings.show", show), broker),
        "turn": side(lambda: served.ask("turn", turn), broker),
        "client": side(lambda: client.settings_show(model=MODEL), broker),
    }


def _take(action: Callable[[], object], pid: int, warm: int, count: int) -> Taken:
    for _ in range(warm):
        action()
    latencies = []
    used = cpu_s(pid)
    for _ in range(count):
        began = perf_counter()
        action()
        latencies.append(perf_counter() - began)
    return Taken(sorted(latencies), (cpu_s(pid) - used) / count)


def _figures(taken: dict[str, list[Taken]]) -> list[Figure]:
    def latency(
        name: str, ours: str, theirs: str, *, share: float = 0.5, target: Bound | None = None, limit: str = ""
    ) -> Figure:
        a, b = ([one.quantile_us(share) for one in taken[side]] for side in (ours, theirs))
        return figure(GROUP, name, "µs", (ours, a), (theirs, b), target=target, limit=limit)

    def cpu(name: str, theirs: str, *, target: Bound | None = None, limit: str = "") -> Figure:
        a, b = ([one.cpu * 1e6 for one in taken[side]] for side in ("bare worker", theirs))
        return figure(GROUP, name, "µs CPU", ("broker", a), (theirs, b), target=target, limit=limit)

    between = spread([one.quantile_us(0.5) for one in taken["zmq.proxy"]]).median
    floor = f"zmq.proxy between: {between:.0f} µs"
    return [
        latency("zmq.proxy between, p50", "zmq.proxy", "DEALER-ROUTER"),
        latency("a Poller loop in Python between, p50", "Poller loop", "DEALER-ROUTER", limit=floor),
        latency("answered by the broker, p50", "status", "DEALER-ROUTER"),
        latency("through the broker, p50", "bare worker", "DEALER-ROUTER", target=at_most(3), limit=floor),
        latency("through the broker, p99", "bare worker", "DEALER-ROUTER", share=0.99),
        latency("through broker and worker, p50", "worker", "DEALER-ROUTER", limit=floor),
        latency("through broker and worker, p99", "worker", "DEALER-ROUTER", share=0.99),
        latency("the broker against zmq.proxy, p50", "bare worker", "zmq.proxy"),
        latency("the broker against a Poller loop, p50", "bare worker", "Poller loop"),
        latency("a turn that reads one token, p50", "turn", "worker"),
        latency("the blocking client against pyzmq, p50", "client", "worker"),
        cpu("broker CPU per request", "zmq.proxy", target=at_most(8)),
        cpu("broker CPU per request", "Poller loop"),
    ]
