"""The broker's door on real sockets: who comes in over TCP, what for, and what the rest get."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from cluster import PATIENCE_S, Cluster, busy, scripted_toml
from ports import free_port

from broker.keys import Gate
from clients.aio import AsyncClient
from clients.blocking import Client
from ssmprov import keys, ops, wire
from ssmprov.errors import Busy, Refused, SsmprovError, Unreachable
from ssmprov.keys import AllowList, Role
from ssmprov.process import EXIT_CONFIGURATION

SLOW = {
    "replies": [{"after": "[SLOW]:", "pieces": [f" {i}" for i in range(10_000)]}, {"after": "", "pieces": ["hi"]}],
    "token_delay_s": 0.01,
}


class House:
    """A broker with keys, and one scripted worker on its own socket."""

    def __init__(self, home: Path) -> None:
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        listen = f'[broker]\nlisten = ["{self.endpoint}", "ipc://run/broker.sock"]\nrequests_per_s = 50\n'
        self.cluster = Cluster(home, listen + scripted_toml(home, script=SLOW))
        keys.make(home, "broker")
        self.allowed = AllowList(home)
        self.local = f"ipc://{home}/run/broker.sock"
        self.cluster.environment["SSMPROV_BROKER"] = self.local
        self.cluster.up()
        self._guests: list[Client] = []

    def home_of(self, name: str, role: Role | None) -> Path:
        """The working directory of somebody on another machine: its own key, and the broker's public one."""
        home = self.cluster.home.parent / f"home of {name}"
        if not home.exists():
            keys.make(home, name)
            (home / ".keys" / f"{name}.key").rename(home / ".keys/client.key")
            shutil.copy(self.cluster.home / ".keys/broker.pub", home / ".keys")
        if role is not None:
            self.allowed.allow(name, keys.load(home / ".keys/client.key").public, role)
        return home

    def guest(self, name: str, role: Role | None = None, **options: Any) -> Client:
        client = Client(self.endpoint, home=self.home_of(name, role), timeout_s=PATIENCE_S, **options)
        self._guests.append(client)
        return client

    def close(self) -> None:
        for client in self._guests:
            client.close()
        self.cluster.close()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (keys.KEY_VARIABLE, keys.BROKER_KEY_VARIABLE, keys.INSECURE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("guarded") / "house")
    yield house
    house.close()


def when_let_in(act: Callable[[], Any]) -> Any:
    """The allow-list is looked at once a second: act again until it has been."""
    for _ in range(100):
        try:
            return act()
        except Refused:
            threading.Event().wait(0.1)
    raise AssertionError("it was never let in")


class TestWithoutARight:
    def test_no_key_gets_nothing(self, guarded: House, tmp_path: Path) -> None:
        with (
            Client(guarded.endpoint, home=tmp_path, timeout_s=PATIENCE_S) as client,
            pytest.raises(Refused, match=f"requires keys: set {keys.BROKER_KEY_VARIABLE}"),
        ):
            client.status()

    def test_an_unknown_key_gets_nothing_and_is_told_what_to_do(self, guarded: House) -> None:
        client = guarded.guest("stranger")
        with pytest.raises(Refused, match=r"does not accept this key: .* `ssmprov keys allow client '.{40}' --role"):
            client.status()

    def test_a_broker_that_is_another_gets_nothing_either(self, guarded: House, tmp_path: Path) -> None:
        keys.make(tmp_path, "client")
        shutil.copy(tmp_path / ".keys/client.pub", tmp_path / ".keys/broker.pub")
        with (
            Client(guarded.endpoint, home=tmp_path, timeout_s=2.0 * busy()) as client,
            pytest.raises(Unreachable, match=f"the handshake failed: check that {keys.BROKER_KEY_VARIABLE}"),
        ):
            client.status()

    def test_keys_for_a_broker_without_any(self, talk: Cluster, tmp_path: Path) -> None:
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        process = talk.start("plain", "-m", "broker", "--listen", endpoint)
        keys.make(tmp_path, "client")
        keys.make(tmp_path, "broker")
        with (
            Client(endpoint, home=tmp_path, timeout_s=PATIENCE_S) as client,
            pytest.raises(Refused, match="does not use keys: restart it"),
        ):
            client.status()
        process.stop()

    def test_a_plain_socket_gets_no_byte_of_an_answer(self, guarded: House) -> None:
        with Raw(guarded.endpoint) as raw:
            raw.socket.immediate = 0
            raw.send(wire.Hello(wire.new_id()))
            assert not raw.socket.poll(1000)

    def test_the_asyncio_client_is_told_the_same(self, guarded: House) -> None:
        async def ask() -> None:
            home = guarded.home_of("async-stranger", None)
            async with AsyncClient(guarded.endpoint, home=home, timeout_s=PATIENCE_S) as client:
                with pytest.raises(Refused, match="does not accept this key"):
                    await client.status()

        asyncio.run(ask())


def test_a_gate_that_nobody_keeps_lets_nobody_in(tmp_path: Path) -> None:
    keys.make(tmp_path, "broker")
    stranger = keys.make(tmp_path, "client")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    gate = Gate(tmp_path)
    gate.start(context)
    gate.arm(router)
    router.bind(f"tcp://127.0.0.1:{(port := free_port())}")
    gate.stop()
    dealer.linger = router.linger = 0
    dealer.curve_publickey, dealer.curve_secretkey = stranger.public.encode(), stranger.secret.encode()
    dealer.curve_serverkey = keys.public_of(str(tmp_path / ".keys/broker.pub")).encode()
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send(b"let me in")
    if router.poll(1000):
        assert gate.user_of(router.recv(copy=False)) is None
    dealer.close()
    router.close()
    context.term()


class TestRoles:
    def test_each_may_do_what_its_role_says(self, guarded: House) -> None:
        reader, maker = guarded.guest("reader", Role.READ), guarded.guest("maker", Role.GENERATE)
        writer, chief = guarded.guest("writer", Role.WRITE), guarded.guest("chief", Role.ADMIN)
        assert when_let_in(lambda: writer.turn("a", save="shared", create=True)).text == "hi"
        assert reader.text("shared") == "ahi"
        with pytest.raises(Refused, match="needs the role 'generate'"):
            reader.turn("b", context="shared")
        assert maker.turn("b", context="shared").text == "hi"
        with pytest.raises(Refused, match="needs the role 'write'"):
            maker.turn("b", context="shared", save="shared")
        with pytest.raises(Refused, match="needs the role 'write'"):
            maker.rm(["shared"])
        with pytest.raises(Refused, match="needs the role 'admin'"):
            writer.gc()
        assert chief.verify().faults == []
        assert reader.text("shared") == "ahi"

    def test_a_client_that_is_let_in_later_needs_no_restart(self, guarded: House) -> None:
        client = guarded.guest("late")
        with pytest.raises(Refused):
            client.status()
        guarded.home_of("late", Role.READ)
        assert when_let_in(client.status).models

    def test_a_revoked_key_loses_its_turns_and_its_connection(self, guarded: House) -> None:
        client = guarded.guest("leaver", Role.WRITE)
        when_let_in(lambda: client.turn("kept", save="of-leaver", create=True, max_tokens=0))
        stream = client.stream("[SLOW]:", context="of-leaver", save="of-leaver")
        pieces = iter(stream)
        next(pieces)
        guarded.allowed.revoke("leaver")
        with pytest.raises(SsmprovError) as told:
            list(pieces)
        assert told.value.code in ("refused", "cancelled")
        with pytest.raises(Refused):
            client.status()
        with pytest.raises(Refused, match="does not accept this key"):
            guarded.guest("leaver").status()
        with Client(guarded.local, timeout_s=PATIENCE_S) as local:
            local.turn("!", context="of-leaver", save="of-leaver", max_tokens=0)  # queued behind what still ran
            assert local.text("of-leaver") == "kept!"

    def test_a_key_is_held_to_its_rate(self, guarded: House) -> None:
        client = guarded.guest("eager", Role.READ, patience_s=0.0)
        when_let_in(client.status)

        def often() -> None:
            for _ in range(1000):
                client.status()

        with pytest.raises(Busy, match="more than 50 requests per second"):
            often()

    def test_the_brokers_own_socket_needs_no_key(self, guarded: House) -> None:
        with Client(guarded.local, timeout_s=PATIENCE_S) as client:
            assert client.turn("x").text == "hi"


class TestWorkers:
    def started(self, guarded: House, name: str, index: int) -> Any:
        environment = guarded.cluster.environment
        guarded.cluster.environment = environment | {"SSMPROV_BROKER": guarded.endpoint, "SSMPROV_KEY": name}
        try:
            return guarded.cluster.start(name, "-m", "workers", "--model", "talk", "--index", str(index))
        finally:
            guarded.cluster.environment = environment

    def test_only_a_workers_key_may_serve(self, guarded: House) -> None:
        for name in ("forger", "helper"):
            keys.make(guarded.cluster.home, name)
        self.started(guarded, "forger", 7).expect("does not accept this key")
        guarded.allowed.allow("forger", "", Role.ADMIN)
        guarded.allowed.allow("helper", "", Role.WORKER)
        with Client(guarded.local, timeout_s=PATIENCE_S) as client:
            when_let_in(guarded.guest("witness", Role.READ).status)  # the list has been read
            for index in (0, 7):  # one that serves already, and a new one
                forger = self.started(guarded, "forger", index)
                forger.expect("needs the role 'worker', but the key 'forger' has the role 'admin'")
                assert forger.wait() == 1
            helper = self.started(guarded, "helper", 7)
            helper.expect("talk/7 serves talk")
            client.turn("", save="there", create=True, max_tokens=0)
            client.move("there", "talk/7")
            assert client.turn("x", context="there").result.worker == "talk/7"
            assert helper.stop() == 0


class Raw:
    """A socket that speaks the wire by hand."""

    def __init__(self, endpoint: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def send(self, message: wire.Message, payloads: list[bytes] | None = None) -> None:
        self.socket.send_multipart(wire.encode(message, payloads or []))

    def final(self) -> wire.Final:
        while self.socket.poll(int(1000 * PATIENCE_S)):
            message, _ = wire.decode(self.socket.recv_multipart())
            if isinstance(message, wire.Final):
                return message
        raise AssertionError("no FINAL came")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.context.term()


def files_about(home: Path) -> list[Path]:
    """What lies in a working directory and beside it, the objects of its stores left out."""
    found = [*home.parent.iterdir(), *home.rglob("*")]
    return sorted(path for path in found if "objects" not in path.parts)


@pytest.mark.parametrize(
    "name", ["../up", "a/../../b", "/etc/passwd", ".hidden", "a//b", "a\0b", "~/x", "@/x", "x" * 129]
)
def test_a_name_that_is_a_path_reaches_no_store(talk: Cluster, name: str) -> None:
    before = files_about(talk.home)
    asked = [
        ("turn", ops.Turn(save="", max_tokens=0), name),
        ("turn", {"save": name, "max_tokens": 0}, ""),
        ("ckpt.fork", {"targets": [name]}, "any"),
        ("ckpt.rm", {"names": [name]}, ""),
        ("ckpt.import", {"save": name, "bytes": 3}, ""),
        ("settings.show", {"name": name}, ""),
        ("settings.set", {"name": name, "values": {"temp": 1.0}}, ""),
    ]
    with Raw(talk.endpoint) as raw:
        raw.send(wire.Hello(wire.new_id()))
        for op, args, context in asked:
            raw.send(wire.Request(wire.new_id(), op, "talk", context, args=wire.pack(args)))
            error = raw.final().error
            assert error is not None, op
            assert error.code == "bad_request", (op, error)
    assert files_about(talk.home) == before


class TestListening:
    def test_the_socket_stands_where_only_its_owner_enters(self, make_cluster: Callable[[str], Cluster]) -> None:
        cluster = make_cluster("")
        (cluster.home / "run").mkdir(0o755)
        cluster.broker()
        with cluster.client() as client:
            client.status()
        assert stat.S_IMODE((cluster.home / "run").stat().st_mode) == 0o700

    def test_plain_tcp_beyond_this_machine_is_refused(self, make_cluster: Callable[[str], Cluster]) -> None:
        cluster = make_cluster("")
        for host in ("0.0.0.0", "*", "127.example.org"):
            process = cluster.start("open", "-m", "broker", "--listen", f"tcp://{host}:{free_port()}")
            process.expect(r"can be reached from other machines.*ssmprov keys new broker.*--insecure")
            assert process.wait() == EXIT_CONFIGURATION

    def test_unless_somebody_says_so(self, make_cluster: Callable[[str], Cluster]) -> None:
        cluster = make_cluster("")
        port = free_port()
        process = cluster.start("open", "-m", "broker", "--insecure", "--listen", f"tcp://0.0.0.0:{port}")
        process.expect("anybody may connect without a key")
        with Client(f"tcp://127.0.0.1:{port}", timeout_s=PATIENCE_S) as client:
            client.status()

    def test_or_there_are_keys(self, make_cluster: Callable[[str], Cluster]) -> None:
        cluster = make_cluster("")
        made = keys.make(cluster.home, "broker"), keys.make(cluster.home, "client")
        AllowList(cluster.home).allow("client", made[1].public, Role.READ)
        port = free_port()
        cluster.start("open", "-m", "broker", "--listen", f"tcp://0.0.0.0:{port}")
        with Client(f"tcp://127.0.0.1:{port}", home=cluster.home, timeout_s=PATIENCE_S) as client:
            client.status()

    def test_a_broken_list_of_keys_is_no_open_door(self, make_cluster: Callable[[str], Cluster]) -> None:
        cluster = make_cluster("")
        keys.make(cluster.home, "broker")
        allowed = AllowList(cluster.home)
        allowed.path.write_text("{")
        process = cluster.start("open", "-m", "broker", "--listen", f"tcp://127.0.0.1:{free_port()}")
        process.expect("is not a valid list of keys")
        assert process.wait() == EXIT_CONFIGURATION

    def test_a_bridge_beyond_this_machine_is_refused_unless_somebody_says_so(
        self, talk: Cluster, tmp_path: Path
    ) -> None:
        config = tmp_path / "bridge.toml"
        config.write_text(talk.config.read_text() + '\n[[bridge]]\nport = 0\nmodel = "talk"\nhost = "0.0.0.0"\n')
        arguments = ["-m", "bridge_tcp", "--config", str(config), "--index", "0"]
        process = talk.start("bridge", *arguments)
        process.expect("has no authentication.*--insecure")
        assert process.wait() == EXIT_CONFIGURATION
        process = talk.start("bridge", *arguments, "--insecure")
        process.expect("listens on 0.0.0.0")
        assert process.stop() == 0


def test_connections_without_a_key_that_take_every_file_do_not_end_the_broker(
    make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster("")
    keys.make(cluster.home, "broker")
    AllowList(cluster.home).allow("client", keys.make(cluster.home, "client").public, Role.READ)
    port = free_port()
    listen = f'[broker]\nlisten = ["tcp://127.0.0.1:{port}", "ipc://run/broker.sock"]\n'
    cluster.config.write_text(listen + scripted_toml(cluster.home))
    program = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400)); "
        "runpy.run_module('broker', run_name='__main__')"
    )
    broker = cluster.start("broker", "-c", program)
    with cluster.client() as client, contextlib.ExitStack() as held:
        client.status()
        with contextlib.suppress(OSError):  # refused, once the port is closed
            for _ in range(1000):
                held.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
        broker.expect("the TCP endpoints are closed for now")
        with cluster.client() as another:
            assert another.status().broker.pid == broker.child.pid
        held.close()
        broker.expect("the TCP endpoints are open again")
    with Client(f"tcp://127.0.0.1:{port}", home=cluster.home, timeout_s=PATIENCE_S) as guest:
        assert guest.status().broker.pid == broker.child.pid
    with (
        Client(f"tcp://127.0.0.1:{port}", home=tmp_path / "bare", timeout_s=PATIENCE_S) as stranger,
        pytest.raises(Refused, match="requires keys"),
    ):
        stranger.status()
    assert broker.stop() == 0


def test_a_message_without_an_end_costs_the_broker_its_connections_and_nothing_else(
    make_cluster: Callable[[str], Cluster],
) -> None:
    cluster = make_cluster("")
    cluster.config.write_text('[broker]\nmemory = "300 MiB"\n' + scripted_toml(cluster.home, script=SLOW))
    cluster.up()
    broker = cluster.processes["broker"]
    with cluster.client() as client, plain_zmtp(cluster.endpoint) as raw:
        stream = client.stream("[SLOW]:", save="during", max_tokens=350)
        pieces = iter(stream)
        said = [next(pieces)]
        part = b"\x03" + (2**20).to_bytes(8, "big") + os.urandom(2**20)  # more to come, a long frame
        with contextlib.suppress(OSError):
            while broker.child.poll() is None:
                raw.sendall(part)
        broker.expect(r"the broker uses \d+ MiB of memory, but `memory` in \[broker\] allows only 300 MiB")
        assert broker.wait() == 1
        cluster.broker()
        said += pieces
        assert "".join(said) == "".join(f" {i}" for i in range(350))
        assert client.text("during") == "[SLOW]:" + "".join(said)


def plain_zmtp(endpoint: str) -> socket.socket:
    """A connection that has shaken hands as a DEALER (ZMTP 3.0, https://rfc.zeromq.org/spec/23/)."""
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(PATIENCE_S)
    raw.connect(endpoint.removeprefix("ipc://"))
    raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    kind = b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
    ready = b"\x05READY" + kind
    raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
    return raw
