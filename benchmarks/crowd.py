"""From one client to a hundred: requests per second and latency, through the broker and through zmq.proxy.

Each client is a raw DEALER that sends its next request when the last one is answered. All clients run in one separate
process. A bare peer answers at once, either as a worker with a slot for every turn or behind the proxy.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import zmq

from benchmarks.measure import Curve, Figure, Plan, curve, figure, interleave
from benchmarks.round_trip import Raw
from benchmarks.serving import Companion, Serving, obey
from ssmprov import ops, sockets, wire
from ssmprov.process import die_with_parent

GROUP = "clients"
MODEL = "bareness"
COUNTS = (1, 2, 5, 10, 20, 50, 100)
MOST = COUNTS[-1]
WARM_S = 0.1


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side with one number of clients: requests per second, and latencies in seconds."""

    rate: float
    p50: float
    p99: float


class Crowd:
    """Several clients of one endpoint."""

    def __init__(self, endpoint: str, greets: bool) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._all = [Raw(context, endpoint) for _ in range(MOST)]
        if greets:
            for raw in self._all:
                raw.greet()
            self._all[0].wait_for(MODEL)

    def run(self, count: int, seconds: float) -> dict[str, float]:
        """Let the first `count` clients send requests for this time, after a short warm-up."""
        self._ask(count, min(WARM_S, seconds))
        latencies, took = self._ask(count, seconds)
        latencies.sort()
        last = len(latencies) - 1
        p50, p99 = (latencies[int(share * last)] for share in (0.5, 0.99))
        return {"rate": len(latencies) / took, "p50": p50, "p99": p99}

    def _ask(self, count: int, seconds: float) -> tuple[list[float], float]:
        sockets_of = [raw.socket for raw in self._all[:count]]
        poller = zmq.Poller()
        for one in sockets_of:
            poller.register(one, zmq.POLLIN)
        began = perf_counter()
        asked = {one: _ask(one) for one in sockets_of}
        latencies = []
        while asked:
            for one, _ in poller.poll():
                while one in asked and sockets.has_more(one):
                    message, _ = wire.decode(one.recv_multipart())
                    if not isinstance(
                        message, wire.Final | wire.Request
                    ):  # behind a proxy the request itself comes back
                        continue
                    now = perf_counter()
                    latencies.append(now - asked.pop(one))
                    if now - began < seconds:
                        asked[one] = _ask(one)
        return latencies, perf_counter() - began


def _ask(socket: zmq.Socket[bytes]) -> float:
    request = wire.Request(wire.new_id(), "turn", MODEL, args=wire.pack(ops.Turn(max_tokens=0)))
    socket.send_multipart(wire.encode(request, [b"x"]))
    return perf_counter()


def measure(plan: Plan) -> list[Figure | Curve]:
    plan.say(f"clients: 1 to {MOST} of them")
    script = plan.scratch / "crowd.json"
    script.write_text(json.dumps({"replies": []}), encoding="utf-8")
    table = {"name": "scripted", "runtime": "scripted", "path": str(script), "checkpoints": "store"}
    with ExitStack() as stack:
        serving = stack.enter_context(Serving(plan.scratch / "crowd", table))
        taken = interleave(plan.rounds, _sides(stack, plan, serving))
    return _drawn(taken)


def _sides(stack: ExitStack, plan: Plan, serving: Serving) -> dict[str, Callable[[], Taken]]:
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssmprov-"))
    front, back = (f"ipc://{directory}/{name}" for name in ("front", "back"))

    def start(*arguments: str) -> Companion:
        return stack.enter_context(closing(Companion(*arguments)))

    start("peers", "proxy", front, back)
    start("peers", "answerer", back)
    start("peers", "worker", serving.endpoint, MODEL, str(MOST))
    crowds = {"broker": start("crowd", serving.endpoint, "greets"), "zmq.proxy": start("crowd", front)}
    seconds = 0.03 if plan.quick else 0.6
    counts = (1, 10, MOST) if plan.quick else COUNTS
    return {f"{name} {count}": partial(_take, crowds[name], count, seconds) for count in counts for name in crowds}


def _take(crowd: Companion, count: int, seconds: float) -> Taken:
    return Taken(**crowd.tell(do="run", count=count, seconds=seconds))


def _drawn(taken: dict[str, list[Taken]]) -> list[Figure | Curve]:
    counts = sorted({int(side.split()[1]) for side in taken})

    def line(name: str, value: Callable[[Taken], float]) -> dict[float, list[float]]:
        return {count: [value(one) for one in taken[f"{name} {count}"]] for count in counts}

    names = ("broker", "zmq.proxy")
    rates = {name: line(name, lambda one: one.rate) for name in names}
    waits = {f"{name}, p50": line(name, lambda one: one.p50 * 1e3) for name in names}
    waits |= {f"{name}, p99": line(name, lambda one: one.p99 * 1e3) for name in names}
    found: list[Figure | Curve] = [
        figure(
            GROUP,
            f"requests of {count} client{'s' * (count > 1)}",
            "requests/s",
            ("broker", rates["broker"][count]),
            ("zmq.proxy", rates["zmq.proxy"][count]),
        )
        for count in counts
    ]
    found.append(curve(GROUP, "requests a second", x="clients", y="requests/s", lines=rates, log_x=True))
    found.append(curve(GROUP, "latency", x="clients", y="ms", lines=waits, log_x=True, log_y=True))
    return found


def main(endpoint: str, greets: str = "") -> None:
    die_with_parent()
    obey({"run": Crowd(endpoint, bool(greets)).run})


if __name__ == "__main__":
    main(*sys.argv[1:])
