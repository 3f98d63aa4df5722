"""The broker as a process: real sockets, signals, and peers that misbehave."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from cluster import PATIENCE_S, Cluster, busy
from peers import Peer, Peers
from ports import free_port

from broker import backlog
from broker.machine import Broker
from broker.metrics import Metrics
from ssmprov import wire
from ssmprov.process import EXIT_CONFIGURATION, started_at

SOON_S = 2.0
"""What must happen within a second may take that long on a machine that is busy with something else."""


@pytest.fixture
def peers() -> Iterator[Peers]:
    with contextlib.ExitStack() as stack:
        yield Peers(stack)


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker that every test leaves alive."""
    cluster = Cluster(tmp_path_factory.mktemp("alive"), "")
    process = cluster.broker()
    yield cluster
    assert process.child.poll() is None, f"the broker has ended: {process.lines}"
    cluster.close()


def socket_of(cluster: Cluster) -> Path:
    return Path(cluster.endpoint.removeprefix("ipc://"))


class TestPeers:
    def test_hello_is_answered_with_the_brokers_own_identity(self, alive: Cluster, peers: Peers) -> None:
        first, second = peers(alive.endpoint, hello=False), peers(alive.endpoint, hello=False)
        answers = []
        for peer in (first, second):
            peer.say(wire.Hello(peer.id))
            answers.append(peer.hears(wire.Hello))
        assert answers[0] == answers[1]
        assert (answers[0].role, answers[0].versions) == ("broker", (wire.VERSION,))

    def test_only_its_owner_reaches_the_socket(self, alive: Cluster, peers: Peers) -> None:
        peers(alive.endpoint)
        assert stat.S_IMODE(socket_of(alive).parent.stat().st_mode) == 0o700

    def test_a_turn_goes_through_a_worker_and_back(self, alive: Cluster, peers: Peers) -> None:
        worker, client = peers(alive.endpoint, "worker"), peers(alive.endpoint)
        epoch = worker.leases("way/0").epoch
        request_id = client.asks(model="way")
        assert worker.hears(wire.Request).id == request_id
        worker.say(wire.Partial(request_id, 1, 1, epoch), [b"some"])
        worker.say(wire.Final(request_id, 1, epoch, offset=4, result=wire.pack({"stop": "end"})), [b"thing"])
        assert client.hears(wire.Partial).seq == 1
        assert client.hears(wire.Final).offset == 4

    def test_random_frames_are_refused_and_end_nothing(self, alive: Cluster, peers: Peers) -> None:
        random = Random(0)
        kinds = [*wire.KINDS, b"SSP1", b"SSP2HELLO", b"", b"\0" * 4]
        nested = b"\x91" * 60_000 + b"\xc0"
        witness = peers(alive.endpoint)
        for _ in range(300):
            peer = peers(alive.endpoint, hello=random.random() < 0.5) if random.random() < 0.1 else witness
            frames = [random.choice(kinds)] if random.random() < 0.8 else []
            frames += [random.randbytes(random.choice([0, 1, 20, 70_000])) for _ in range(random.choice([0, 1, 2, 12]))]
            frames += [nested] if random.random() < 0.1 else []
            peer.socket.send_multipart(frames or [b""])
            if random.random() < 0.3:
                witness.say(wire.Hello(witness.id))
        assert peers(alive.endpoint).status().broker.pid == alive.processes["broker"].child.pid

    def test_the_one_who_sent_it_is_told_why(self, alive: Cluster, peers: Peers) -> None:
        peer = peers(alive.endpoint)
        for frames, reason in (
            ([b"hello"], "does not begin with SSP1"),
            ([b"SSP1DANCE", b"\x80"], "there is no message DANCE"),
            ([b"SSP1HELLO", b"\xc1"], "the header of HELLO is wrong"),
            ([b"SSP1HELLO", b"x" * (wire.MAX_HEADER + 1)], "the header has"),
            ([b"SSP1HELLO", b"\x80"] + [b""] * 9, "9 payloads"),
            ([b"SSP1HELLO", msgspec.msgpack.encode({"client": b"short"})], "Expected `bytes` of length >= 16"),
        ):
            peer.socket.send_multipart(frames)
            refused = peer.hears(wire.Bye)
            assert reason in refused.reason
            assert refused.error is not None
            peer.say(wire.Hello(peer.id))
            peer.hears(wire.Hello)

    def test_a_worker_that_names_a_process_that_cannot_be_ends_nothing(self, alive: Cluster, peers: Peers) -> None:
        """A lost worker's process is ended: by an id that no process has, as a forged REGISTER may bring it."""
        witness = peers(alive.endpoint)
        for number, pid in enumerate((2**22 + 1, 2**31, 2**53 - 1)):
            forged = Peer(alive.endpoint, "worker")
            forged.leases(f"forged/{number}", pid=pid, started=number % 2, host=socket.gethostname())
            forged.close()
        witness.status_when(lambda status: not any(worker.model == "forged" for worker in status.workers))

    def test_what_is_too_large_ends_its_connection_only(self, alive: Cluster, peers: Peers) -> None:
        large, many, witness = peers(alive.endpoint), peers(alive.endpoint), peers(alive.endpoint)
        large.socket.send_multipart([b"SSP1REQUEST", b"x" * (wire.MAX_PAYLOAD + 1)])
        many.socket.send_multipart([b"SSP1REQUEST", *[b"x" * 1000] * 2000])
        assert "payloads" in many.hears(wire.Bye).reason
        assert witness.status().broker.pid

    def test_who_does_not_speak_zeromq_disturbs_nobody(self, alive: Cluster, peers: Peers) -> None:
        witness = peers(alive.endpoint)
        with contextlib.ExitStack() as stack:
            for seed in range(20):
                stranger = stack.enter_context(socket.socket(socket.AF_UNIX))
                stranger.connect(str(socket_of(alive)))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    stranger.sendall(Random(seed).randbytes(1000))
            assert witness.status().broker.pid

    def test_one_who_never_reads_slows_nobody_and_is_dropped(self, alive: Cluster, peers: Peers) -> None:
        """Its answers pile up to a bound: in its own queue, in the kernel, in ZeroMQ and in the broker's backlog."""
        witness = peers(alive.endpoint)
        witness.is_alone()
        deaf = peers(alive.endpoint, room=1)
        slowest = 0.0
        for _ in range((wire.HIGH_WATER_MARK + backlog.MESSAGES) // 250 + 8):
            for _ in range(250):
                deaf.asks("status")
            asked = time.monotonic()
            witness.status()
            slowest = max(slowest, time.monotonic() - asked)
        witness.is_alone()
        assert slowest < SOON_S * busy()

    def test_a_client_that_is_gone_is_noticed(self, alive: Cluster, peers: Peers) -> None:
        witness = peers(alive.endpoint)
        witness.is_alone()
        guest = Peer(alive.endpoint)
        assert witness.status().broker.clients == 2
        guest.close()
        gone = time.monotonic()
        witness.is_alone()
        assert time.monotonic() - gone < SOON_S * busy()

    def test_a_worker_that_is_gone_is_noticed_and_its_turn_is_answered(self, alive: Cluster, peers: Peers) -> None:
        worker, client = Peer(alive.endpoint, "worker"), peers(alive.endpoint)
        worker.leases("gone/0")
        client.asks(model="gone")
        worker.hears(wire.Request)
        worker.close()
        gone = time.monotonic()
        lost = client.hears(wire.Final)
        assert lost.error is not None
        assert lost.error.code == "worker_lost"
        assert time.monotonic() - gone < SOON_S * busy()

    def test_a_lost_workers_process_is_ended_for_sure(self, alive: Cluster, peers: Peers) -> None:
        with subprocess.Popen([sys.executable, "-c", "input()", "-m", "workers"], stdin=subprocess.PIPE) as child:
            worker = Peer(alive.endpoint, "worker")
            worker.leases("kill/0", pid=child.pid, started=started_at(child.pid), host=socket.gethostname())
            worker.close()
            assert child.wait(PATIENCE_S) == -signal.SIGKILL

    def test_but_no_other_process_that_got_its_id_since(self, alive: Cluster, peers: Peers) -> None:
        witness = peers(alive.endpoint)
        with subprocess.Popen([sys.executable, "-c", "input()", "-m", "workers"], stdin=subprocess.PIPE) as child:
            worker = Peer(alive.endpoint, "worker")
            worker.leases("spare/0", pid=child.pid, started=started_at(child.pid) - 1, host=socket.gethostname())
            worker.close()
            witness.status_when(lambda status: all(worker.name != "spare/0" for worker in status.workers))
            assert child.poll() is None
            child.communicate(b"\n", PATIENCE_S)
            assert child.returncode == 0


class TestStartAndEnd:
    def test_a_second_broker_leaves_the_first_alive(self, alive: Cluster, peers: Peers) -> None:
        peer = peers(alive.endpoint)
        second = alive.start("second", "-m", "broker")
        second.expect("another broker serves .*: stop it first")
        assert second.wait() == EXIT_CONFIGURATION
        assert socket_of(alive).is_socket()
        assert peer.status().broker.pid == alive.processes["broker"].child.pid

    def test_sigterm_ends_it_and_leaves_no_socket(self, make_cluster: Callable[[str], Cluster], peers: Peers) -> None:
        cluster = make_cluster("")
        process = cluster.broker()
        peer = peers(cluster.endpoint)
        process.child.send_signal(signal.SIGTERM)
        assert peer.hears(wire.Bye).code == "leaving"
        assert process.wait() == 0
        assert not socket_of(cluster).exists()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_running_turn_is_answered_first(
        self, make_cluster: Callable[[str], Cluster], peers: Peers, number: int
    ) -> None:
        cluster = make_cluster("")
        del cluster.environment["SSMPROV_SUPERVISED"]  # under `up`, Ctrl-C is the supervisor's to hear
        process = cluster.broker()
        worker, client = peers(cluster.endpoint, "worker"), peers(cluster.endpoint)
        epoch = worker.leases("talk/0").epoch
        request_id = client.asks(model="talk")
        worker.hears(wire.Request)
        process.child.send_signal(number)
        assert worker.hears(wire.Cancel) == wire.Cancel(request_id, "keep")
        client.asks(model="talk")
        refused = client.hears(wire.Final)
        assert refused.error is not None
        assert refused.error.code == "unavailable"
        worker.say(wire.Final(request_id, 1, epoch, result=wire.pack({"stop": "cancelled"})), [b"half"])
        assert client.hears(wire.Final).error is None
        assert process.wait() == 0

    def test_after_a_kill_another_one_takes_the_socket_over(
        self, make_cluster: Callable[[str], Cluster], peers: Peers
    ) -> None:
        cluster = make_cluster("")
        first = cluster.broker()
        peer = peers(cluster.endpoint)
        first.kill()
        assert socket_of(cluster).is_socket()
        second = cluster.broker()
        assert peers(cluster.endpoint).status().broker.pid == second.child.pid
        peer.say(wire.Pulse())
        assert peer.hears(wire.Bye).code == "hello_first"

    def test_an_address_that_others_reach_is_refused(self, make_cluster: Callable[[str], Cluster]) -> None:
        for address in ("0.0.0.0", "*", "[::]", "192.0.2.1"):
            process = make_cluster(f'[broker]\nlisten = ["tcp://{address}:5999"]\n').broker()
            process.expect("can be reached from other machines, and without keys anybody there may read")
            assert process.wait() == EXIT_CONFIGURATION

    def test_loopback_is_served_and_held(self, make_cluster: Callable[[str], Cluster], peers: Peers) -> None:
        port = free_port()
        cluster = make_cluster(f'[broker]\nlisten = ["ipc://run/broker.sock", "tcp://127.0.0.1:{port}"]\n')
        process = cluster.broker()
        for endpoint in (cluster.endpoint, f"tcp://127.0.0.1:{port}"):
            assert peers(endpoint).status().broker.pid == process.child.pid
        second = make_cluster(f'[broker]\nlisten = ["tcp://127.0.0.1:{port}"]\n').broker()
        second.expect("cannot listen on tcp://127.0.0.1")
        assert second.wait() == EXIT_CONFIGURATION


class TestMetrics:
    def test_its_numbers_are_served_on_loopback(self, make_cluster: Callable[[str], Cluster], peers: Peers) -> None:
        port = free_port()
        cluster = make_cluster(f"[broker]\nmetrics_port = {port}\n")
        cluster.broker()
        peer = peers(cluster.endpoint, "worker")
        peer.leases("talk/0")
        until = time.monotonic() + PATIENCE_S
        while 'ssmprov_worker_slots{worker="talk/0"} 4.0' not in (text := scrape(port)):
            assert time.monotonic() < until, text
            peer.socket.poll(100)
        for name in ("accepted_total", "answered_total", "refused_total", "queued", "running", "clients"):
            assert f"\nssmprov_{name} 0.0" in text

    def test_before_the_first_tick_there_are_none(self) -> None:
        metrics = Metrics(0)
        try:
            assert "ssmprov" not in scrape(metrics.port)
            metrics.update(Broker(wire.new_id(), 0.0, pid=os.getpid()))
            assert "ssmprov_queued 0.0" in scrape(metrics.port)
        finally:
            metrics.close()

    def test_a_port_that_is_taken_is_said(self, make_cluster: Callable[[str], Cluster]) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            process = make_cluster(f"[broker]\nmetrics_port = {taken.getsockname()[1]}\n").broker()
            process.expect("cannot listen on port")
            assert process.wait() == EXIT_CONFIGURATION


def scrape(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
