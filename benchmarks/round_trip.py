"""Requests through the broker against bare sockets: latency, and the broker's CPU for each.

The client is raw pyzmq in this process, and every side is sent the same REQUEST frames over ipc. `settings.show` of a
model without a sampling set goes to the worker and back and touches no file; `status` is answered by the broker
itself; the turn reads one token and writes none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import msgspec
import zmq

from benchmarks.measure import Figure, Plan, cpu_s, figure, interleave
from benchmarks.serving import Companion, Serving
from clients import Client
from ssmprov import ops, wire

GROUP = "round trip"
MODEL = "scripted"
SCRIPT = {"replies": [{"after": "", "pieces": ["yes"]}]}


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side: its latencies in seconds, sorted, and the CPU seconds per request of what is between."""

    latencies: list[float]
    cpu: float

    def quantile_us(self, share: float) -> float:
        return self.latencies[int(share * (len(self.latencies) - 1))] * 1e6


class Raw:
    """A DEALER that sends one request at a time."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)

    def close(self) -> None:
        self._socket.close()

    def greet(self) -> None:
        """Introduce ourselves to a broker."""
        self._socket.send_multipart(wire.encode(wire.Hello(wire.new_id(), agent="benchmarks")))
        while not isinstance(wire.decode(self._socket.recv_multipart())[0], wire.Hello):
            pass

    def echo(self, op: str, args: msgspec.Struct) -> None:
        """To a bare peer and back."""
        frames, _ = _request(op, args)
        self._socket.send_multipart(frames)
        self._socket.recv_multipart()

    def ask(self, op: str, args: msgspec.Struct) -> None:
        """To the broker, and until the terminal answer. Raises RuntimeError where that is an error."""
        frames, request_id = _request(op, args)
        self._socket.send_multipart(frames)
        while True:
            message, _ = wire.decode(self._socket.recv_multipart())
            if isinstance(message, wire.Final) and message.id == request_id:
                if message.error is not None:
                    raise RuntimeError(message.error.message)
                return


def _request(op: str, args: msgspec.Struct) -> tuple[list[bytes], bytes]:
    model = "" if op == "status" else MODEL
    request = wire.Request(wire.new_id(), op, model, args=wire.pack(args))
    return wire.encode(request, [b"x"] if op == "turn" else []), request.id


def measure(plan: Plan) -> list[Figure]:
    plan.say("round trip: bare sockets, zmq.proxy, the broker")
    script = plan.scratch / "script.json"
    script.write_text(json.dumps(SCRIPT), encoding="utf-8")
    table = {"name": MODEL, "runtime": "scripted", "path": str(script), "checkpoints": "store"}
    with ExitStack() as stack:
        serving = stack.enter_context(Serving(plan.scratch / "round-trip", table))
        taken = interleave(plan.rounds, _sides(stack, plan, serving))
    return _figures(taken)


def _sides(stack: ExitStack, plan: Plan, serving: Serving) -> dict[str, Callable[[], Taken]]:
    context = stack.enter_context(zmq.Context())
    socket_of = _Endpoints(Path(serving.endpoint.removeprefix("ipc://")).parent)

    def start(*arguments: str) -> Companion:
        return stack.enter_context(closing(Companion("peers", *arguments)))

    def raw(endpoint: str) -> Raw:
        return stack.enter_context(closing(Raw(context, endpoint)))

    show, status = ops.SettingsShow(), ops.Status()
    turn = ops.Turn(max_tokens=0)
    direct, proxied, backed, forwarded = (socket_of(name) for name in ("direct", "front", "back", "forwarder"))
    router = start("router", direct)
    proxy = start("proxy", proxied, backed)
    start("answerer", backed)
    forwarder = start("forwarder", forwarded)
    start("answerer", forwarded, "answerer")
    bare, through_proxy, through_forwarder = raw(direct), raw(proxied), raw(forwarded)
    served = raw(serving.endpoint)
    served.greet()
    client = stack.enter_context(Client(serving.endpoint))
    broker = serving.pids["broker"]
    count = plan.size(200, 2000)
    warm = plan.size(50, 200)

    def side(action: Callable[[], object], pid: int) -> Callable[[], Taken]:
        return lambda: _take(action, pid, warm, count)

    return {
        "direct": side(lambda: bare.echo("settings.show", show), router.pid),
        "proxy": side(lambda: through_proxy.echo("settings.show", show), proxy.pid),
        "forwarder": side(lambda: through_forwarder.echo("settings.show", show), forwarder.pid),
        "status": side(lambda: served.ask("status", status), broker),
        "worker": side(lambda: served.ask("settings.show", show), broker),
        "turn": side(lambda: served.ask("turn", turn), broker),
        "client": side(lambda: client.settings_show(model=MODEL), broker),
    }


class _Endpoints:
    """Ipc endpoints beside the broker's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, name: str) -> str:
        return f"ipc://{self._directory / name}"


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
    def latency(name: str, ours: str, label: str, theirs: str, against: str, share: float, limit: str) -> Figure:
        sides = [[one.quantile_us(share) for one in taken[side]] for side in (ours, theirs)]
        return figure(GROUP, name, "µs", (label, sides[0]), (against, sides[1]), limit)

    def cpu(name: str, against: str, label: str) -> Figure:
        sides = [[one.cpu * 1e6 for one in taken[side]] for side in ("worker", against)]
        return figure(
            GROUP, name, "µs CPU", ("broker", sides[0]), (label, sides[1]), "at most 8 zmq.proxy, aiming at 4"
        )

    router = "DEALER-ROUTER"
    floor = "zmq.proxy, the least that something between two processes costs"
    three = "at most 3"
    op = "settings.show"
    return [
        latency("one process between, p50", "proxy", "zmq.proxy", "direct", router, 0.5, floor),
        latency("a Poller loop in Python between, p50", "forwarder", "Poller", "direct", router, 0.5, floor),
        latency("answered by the broker, p50", "status", "status", "direct", router, 0.5, three),
        latency("answered by the worker, p50", "worker", op, "direct", router, 0.5, three),
        latency("answered by the worker, p99", "worker", op, "direct", router, 0.99, "none set"),
        latency("the same against zmq.proxy, p50", "worker", op, "proxy", "zmq.proxy", 0.5, "1"),
        latency("the same against a Poller loop, p50", "worker", op, "forwarder", "Poller", 0.5, "1"),
        latency("a turn that reads one token, p50", "turn", "turn", "worker", op, 0.5, "1"),
        latency("blocking client over the raw socket, p50", "client", "Client", "worker", "pyzmq", 0.5, "1"),
        cpu("broker CPU per request against zmq.proxy", "proxy", "zmq.proxy"),
        cpu("broker CPU per request against a Poller loop", "forwarder", "Poller"),
    ]
