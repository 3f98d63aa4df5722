"""Bad connections, through the proxy: of a client or a worker with the broker, of a tool with the bridge."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from aftermath import Aftermath
from house import ENDLESS, SOME, House, Listener, Moment, opened, until
from proxy import Proxy

from ssmprov.errors import Unreachable, WorkerLost

IDLE_S = 1.0
SEEN_S = 1.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    bridge = f"idle_s = {IDLE_S}\nconnections = 8"
    with opened(tmp_path_factory.mktemp("house"), models=("talk",), bridge=bridge) as made:
        yield made


@pytest.fixture
def proxy(house: House) -> Iterator[Proxy]:
    with Proxy(house.port) as made:
        yield made


def slow(proxy: Proxy) -> None:
    proxy.up.delay_s = proxy.down.delay_s = 0.1


BAD: dict[str, Callable[[Proxy], None]] = {
    "cut": lambda proxy: proxy.cut(),
    "reset": lambda proxy: proxy.cut(reset=True),
    "half-open": lambda proxy: proxy.swallow(),
    "half-open to the broker": lambda proxy: proxy.swallow(down=False),
    "half-open to the client": lambda proxy: proxy.swallow(up=False),
    "slow": slow,
}


@pytest.mark.parametrize("kind", BAD)
def test_a_clients_turn_outlives_its_connection(house: House, aftermath: Aftermath, proxy: Proxy, kind: str) -> None:
    """One effect, and every byte of the reply once, whatever became of the connection meanwhile."""
    with house.client(proxy.endpoint) as client, house.client() as other:
        beside = Listener(other.stream("[LONG]:", **ENDLESS)).has(3)
        stream = Listener(client.stream("[SOME]:", save=f"over/{kind.replace(' ', '-')}")).has(5)
        moment = Moment()
        BAD[kind](proxy)
        if kind.startswith("half-open"):
            connections = proxy.connections
            until(lambda: proxy.connections > connections, "the client gives the connection up, and tries another")
            moment.within(SEEN_S, f"a connection that is {kind} is given up")
            proxy.heal()
        assert stream.end().error is None
        assert stream.text == SOME
        house.acknowledge(f"over/{kind.replace(' ', '-')}", "[SOME]:" + SOME)
        beside.more()
        assert beside.longest_gap(moment.at) < SEEN_S
        beside.stream.cancel("drop")
        beside.end()


def test_a_dripping_client_slows_nobody(house: House, aftermath: Aftermath, proxy: Proxy) -> None:
    """A byte each 20 ms is too slow for a heartbeat: it never gets in, and is told so in its own time."""
    proxy.up.drip_s = 0.02
    with house.client() as other:
        beside = Listener(other.stream("[LONG]:", **ENDLESS)).has(3)
        moment = Moment()
        with house.client(proxy.endpoint, timeout_s=2.0) as client, pytest.raises(Unreachable):
            client.turn("x")
        beside.more()
        assert beside.longest_gap(moment.at) < SEEN_S
        beside.stream.cancel("drop")
        beside.end()


@pytest.mark.parametrize("kind", ["cut", "reset", "half-open"])
def test_a_worker_that_loses_its_connection_is_back_at_once_or_replaced(
    house: House, aftermath: Aftermath, proxy: Proxy, kind: str
) -> None:
    """Its lease ends with its connection, and its process for sure before another has its name.

    Where it has connected anew before the broker notices, it goes on with its turn under the next epoch.
    """
    house.cluster.processes["talk/0"].stop()
    config = house.cluster.environment
    house.cluster.environment = config | {"SSMPROV_BROKER": proxy.endpoint}
    try:
        house.start("talk/0").expect(" serves ")
    finally:
        house.cluster.environment = config
    with house.client() as client:
        name = f"worker/{kind}"
        house.turn(client, "before", name, max_tokens=0)
        client.move(name, "talk/0")
        stream = Listener(client.stream("[LONG]:", context=name, save=name, **ENDLESS)).has(3)
        moment = Moment()
        BAD[kind](proxy)
        came = len(stream.pieces)
        until(lambda: stream.ended_at or len(stream.pieces) > came + 100, "it is lost or goes on")
        if not stream.ended_at:
            assert kind != "half-open"
            stream.stream.cancel("keep")
            assert stream.end().error is None
            house.acknowledge(name, "before[LONG]:" + stream.text)
            assert max(worker.epoch for worker in client.status().workers) > 1
            assert house.cluster.processes["talk/0"].stop() == 0  # the proxy that it goes through is about to end
            house.start("talk/0").expect(" serves ")
        else:
            moment.within(SEEN_S, f"a worker whose connection is {kind} is lost", stream.ended_at)
            assert isinstance(stream.error, WorkerLost)
            assert stream.error.details["committed"] is False
            house.lost("talk/0")
        house.turn(client, "[SOME]:", name, max_tokens=3)


# -- the bridge


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def said(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def running(house: House) -> int:
    with house.client() as client:
        return int(client.status().broker.running)


@pytest.fixture
def before_bridge(house: House) -> Iterator[Proxy]:
    with Proxy(house.bridge_port) as made:
        yield made


def test_a_tool_that_drips_is_heard_within_its_time_and_refused_after_it(
    house: House, aftermath: Aftermath, before_bridge: Proxy
) -> None:
    before_bridge.up.drip_s = 0.01
    with connect(before_bridge.port) as quick:
        quick.sendall(b"/t\0")
        assert said(quick) == b"temp = 1.0\0"
    before_bridge.up.drip_s = 0.3
    with connect(before_bridge.port) as slowly:
        moment = Moment()
        slowly.sendall(b"hello there\0")
        assert said(slowly).startswith(b"[error] no complete request arrived within 1 s")
        moment.within(IDLE_S + 1.0, "a tool that drips is refused")


def test_a_half_open_tool_meets_the_deadline_and_its_place_is_free(
    house: House, aftermath: Aftermath, before_bridge: Proxy
) -> None:
    """More than there are places; each one's request is swallowed on its way, and nobody says that it has gone."""
    before_bridge.swallow()
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(connect(before_bridge.port)).sendall(b"hello\0")
        with connect(house.bridge_port) as honest:  # the oldest that has sent nothing makes room
            honest.sendall(b"/t\0")
            assert said(honest) == b"temp = 1.0\0"


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_tool_that_goes_cancels_its_turn(
    house: House, aftermath: Aftermath, before_bridge: Proxy, reset: bool
) -> None:
    with connect(before_bridge.port) as connection:
        connection.sendall(b"[LONG]:\0")
        until(lambda: running(house) == 1, "its turn runs")
        moment = Moment()
        before_bridge.cut(reset=reset)
        until(lambda: running(house) == 0, "its turn is cancelled")
        moment.within(0.5, "the turn of a tool that went is cancelled")
    with house.client() as client:
        assert client.ls("@bridge/", reserved=True).rows == []  # the live context is as empty as before


def test_hundreds_of_idle_connections_through_the_proxy_keep_nobody_out(
    house: House, aftermath: Aftermath, before_bridge: Proxy
) -> None:
    """Each is ended in its time, or sooner to make room; an honest tool is served meanwhile."""
    moment = Moment()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(before_bridge.port)) for _ in range(300)]
        _served_beside(house, before_bridge, idle)
    moment.within(IDLE_S + 4.0, "all idle connections are ended")


def _served_beside(house: House, before_bridge: Proxy, idle: list[socket.socket]) -> None:
    until(lambda: before_bridge.connections == len(idle), "all of them have come as far as the bridge")
    answers: list[bytes] = []

    def honest() -> None:
        with connect(house.bridge_port) as connection:
            connection.sendall(b"/t\0")
            answers.append(said(connection))

    threads = [threading.Thread(target=honest) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"temp = 1.0\0"] * 3
    for connection in idle:
        connection.settimeout(20)
        while connection.recv(100):
            pass
