"""The fault proxy does what its name says, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from cluster import busy
from proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends everything back, and ends when its client does."""

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as made:
        yield made


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def test_it_relays_everything_in_order(proxy: Proxy) -> None:
    sent = bytes(i % 251 for i in range(3_000_000))
    with connect(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(sent,), daemon=True).start()
        assert exactly(connection, len(sent)) == sent
    assert proxy.up.passed == proxy.down.passed == len(sent)


def test_an_end_is_passed_on(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert exactly(connection, 100) == b"last words"


def test_a_delay_holds_each_way_and_limits_no_rate(proxy: Proxy) -> None:
    proxy.up.delay_s = proxy.down.delay_s = 0.05
    with connect(proxy) as connection:
        began = time.monotonic()
        for i in range(20):
            connection.sendall(bytes([i]))
        assert exactly(connection, 20) == bytes(range(20))
        assert 0.1 <= time.monotonic() - began < 1.0 * busy()


def test_bytes_drip(proxy: Proxy) -> None:
    proxy.up.drip_s = 0.01
    with connect(proxy) as connection:
        began = time.monotonic()
        connection.sendall(b"0123456789")
        assert exactly(connection, 10) == b"0123456789"
        assert time.monotonic() - began >= 0.09


def test_a_half_open_connection_tells_nobody(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"a")
        assert exactly(connection, 1) == b"a"
        proxy.swallow()
        connection.sendall(b"lost")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.heal()
        connection.settimeout(10)
        assert connection.recv(1) == b""
    with connect(proxy) as connection:
        connection.sendall(b"b")
        assert exactly(connection, 1) == b"b"


def test_only_one_direction_may_be_open(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"a")
        assert exactly(connection, 1) == b"a"
        proxy.swallow(up=False)
        connection.sendall(b"heard")
        before = proxy.up.passed
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert before <= proxy.up.passed == 6


def test_a_cut_is_an_end(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"a")
        assert exactly(connection, 1) == b"a"
        proxy.cut()
        assert connection.recv(1) == b""


def test_a_reset_is_an_error(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"a")
        assert exactly(connection, 1) == b"a"
        proxy.cut(reset=True)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
