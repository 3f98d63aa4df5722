"""Messages of the tools: on a line of their own on a terminal, about cut replies, and as JSON for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from cluster import PATIENCE_S, Cluster, scripted_toml

from ssmprov import sockets, wire
from ssmprov.errors import Problem
from ssmprov.transcript import FENCE

BIN = Path(sys.executable).parent
SCRIPT = {
    "replies": [
        {"after": "[SLOW]: ", "pieces": ["one"] * 500},
        {"after": "[LONG]: ", "pieces": ["word "] * 500},
        {"after": "[OK]: ", "pieces": ["fine", FENCE]},
        {"after": "", "pieces": ["ok"]},
    ],
    "token_delay_s": 0.01,
}


@pytest.fixture
def cluster(make_cluster: Callable[[str], Cluster]) -> Cluster:
    made = make_cluster("")
    made.config.write_text(scripted_toml(made.home, script=SCRIPT))
    return made.up()


class Terminal:
    """A program whose output and messages go to one terminal, which is read as they come."""

    def __init__(self, words: list[str], text: bytes, environment: dict[str, str], cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self.child = subprocess.Popen(
            words, env=environment, cwd=cwd, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        assert self.child.stdin is not None
        self.child.stdin.write(text)
        self.child.stdin.close()
        self.seen = b""

    def read(self, until: bytes = b"") -> bytes:
        """Everything up to the end, or until these bytes have come."""
        while not until or until not in self.seen:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the program has closed the terminal
                data = b""
            if not data:
                break
            self.seen += data
        return self.seen

    def end(self) -> bytes:
        self.read()
        os.close(self._ours)
        self.child.wait(PATIENCE_S)
        return self.seen


def test_an_error_after_streamed_text_begins_a_line(cluster: Cluster, tmp_path: Path) -> None:
    words = [str(BIN / "PIPE"), "--in", "USER", "--out", "SLOW"]
    terminal = Terminal(words, b"go", cluster.environment, tmp_path)
    terminal.read(until=b"oneone")
    cluster.processes["talk/0"].kill()
    said = terminal.end()
    assert terminal.child.returncode == 1
    streamed, _, message = said.partition(b"\r\n")
    assert set(streamed) == set(b"one"), said
    assert message.startswith(b"PIPE: "), said


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A broker that sends text, then progress again as after a new connection, then more text and an error."""
    endpoint = f"ipc://{tmp_path}/b.sock"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    sockets.prepare_router(router)
    router.bind(endpoint)

    def answer(route: bytes, message: wire.Request) -> None:
        read = [(10, 100), (50, 100), (100, 100)]
        parts: list[tuple[wire.Message, list[bytes]]] = [(wire.Accepted(message.id), [])]
        parts += [(wire.Partial(message.id, 1, offset=0, tokens=1), [b"some text"])]
        parts += [(wire.Partial(message.id, 2 + n, offset=9, done=d, total=t), []) for n, (d, t) in enumerate(read)]
        parts += [(wire.Partial(message.id, 5, offset=9, tokens=2), [b" and more"])]
        parts += [(wire.Final(message.id, 1, seq=5, offset=18, error=Problem("internal", "no more")), [])]
        for part, payloads in parts:
            router.send_multipart([route, *wire.encode(part, payloads)])

    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if not router.poll(20):
                continue
            route, *frames = router.recv_multipart()
            message, _ = wire.decode(frames)
            if isinstance(message, wire.Hello):
                router.send_multipart([route, *wire.encode(wire.Hello(wire.new_id(), "broker"))])
            elif isinstance(message, wire.Request):
                answer(route, message)
        router.close(0)

    thread = threading.Thread(target=serve)
    thread.start()
    yield endpoint
    stop.set()
    thread.join(PATIENCE_S)
    context.term()


def test_the_progress_bar_leaves_streamed_text_alone(broker: str, tmp_path: Path) -> None:
    environment = os.environ | {"SSMPROV_BROKER": broker, "TERM": "xterm"}
    words = [str(BIN / "ssmprov"), "pipe", "--model", "talk", "--load", "x", "--no-record", "--stream"]
    program = "import sys, tqdm; bar = tqdm.tqdm; tqdm.tqdm = lambda **k: bar(**k | {'delay': 0, 'mininterval': 0})\n"
    program += (
        "from ssmprov.main import main; sys.exit(main())"  # the bar is drawn at once, however quick the machine is
    )
    terminal = Terminal([sys.executable, "-P", "-c", program, *words[1:]], b"go", environment, tmp_path)
    said = terminal.end()
    _, found, after = said.partition(b"some text")
    assert found, said
    assert after == b" and more\r\nssmprov: no more\r\n"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("PIPE --in USER --out LONG --max-tokens 3", b"word word word "),
        ("ssmprov pipe --save y --in USER --out LONG --max-tokens 3 --bare", b"word word word \n"),
        ("PIPE --in USER --out LONG --max-chars 12", b"word word "),
        ("PIPE --in USER --out LONG --set max=12", b"word word "),
        ("ssmprov filter run x --out LONG --max-tokens 3 --static", b"word word word \n"),
    ],
)
def test_a_cut_reply_is_told_with_what_to_do(cluster: Cluster, tmp_path: Path, command: str, reply: bytes) -> None:
    with cluster.client() as client:
        client.turn("hello", save="x", create=True, max_tokens=0)
    words = [str(BIN / command.split(maxsplit=1)[0]), *command.split()[1:]]
    done = subprocess.run(
        words, input=b"go", env=cluster.environment, cwd=tmp_path, capture_output=True, timeout=200, check=False
    )
    assert (done.returncode, done.stdout) == (0, reply), done.stderr
    (line,) = done.stderr.decode().splitlines()
    remedy = next(word for word in command.split() if word in ("--max-tokens", "--max-chars", "--set"))
    assert remedy in line
    whole = subprocess.run(
        [str(BIN / "PIPE"), "--in", "USER", "--out", "OK"],
        input=b"go", env=cluster.environment, cwd=tmp_path, capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    assert whole.stderr == b""


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["ckpt", "show", "nothing", "--json"], "not_found", 4),
        (["settings", "set", "x", "temp=99", "--json"], "bad_request", 1),
        (["ckpt", "show", "--json"], "usage", 2),
    ],
)
def test_errors_are_json_for_programs(
    cluster: Cluster, tmp_path: Path, words: list[str], code: str, exit_code: int
) -> None:
    done = subprocess.run(
        [str(BIN / "ssmprov"), *words], env=cluster.environment, cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (exit_code, b"")
    error = json.loads(done.stderr)["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "retry_ms", "details"}
    assert error["message"]


def test_a_filter_named_like_something_else_is_told(cluster: Cluster, tmp_path: Path) -> None:
    def make(name: str, *more: str) -> str:
        words = [str(BIN / "ssmprov"), "filter", "make", name, "--dir", "bin", *more]
        environment = cluster.environment | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert (tmp_path / "bin" / name).exists()
        return done.stderr

    for name in ("ls", "echo", "if"):
        assert "--as" in make(name)
        assert make(name).count("\n") == 2, "again, though the filter is now there"
    for name in ("no-such-program", "no-such-program"):
        assert make(name) == f"bin/{name}   (bin is not on your PATH)\n"
