"""What others say, on a terminal and in a log: it neither steers the one nor forges a line of the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from cluster import PATIENCE_S, Cluster

from ssmprov import sockets, wire
from ssmprov.errors import Problem
from ssmprov.logs import text_of

STEERING = "\x1b]0;owned\x07\x1b[2J\r\x9b1m"
ESCAPED = r"\x1b]0;owned\x07\x1b[2J\r\x9b1m"


@pytest.mark.parametrize("word", ["bye", "final"])
def test_an_error_of_a_broker_does_not_steer_the_terminal(
    request: pytest.FixtureRequest, tmp_path: Path, word: str
) -> None:
    if request.config.getoption("reword") is not None:
        pytest.skip("it is about the bytes of a message")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    sockets.prepare_router(router)
    endpoint = f"ipc://{tmp_path}/broker.sock"
    router.bind(endpoint)
    problem = Problem("internal", f"it said {STEERING}.", traceback=f"line {STEERING}\n")
    program = "import sys; from ssmprov.main import main; sys.exit(main())"
    arguments = ["-P", "-c", program, "--debug", "--broker", endpoint, "status"]
    with subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as client:
        while router.poll(int(1000 * PATIENCE_S)):
            route, *frames = router.recv_multipart()
            message, _ = wire.decode(frames)
            if isinstance(message, wire.Request):
                answer = wire.Bye("no", problem) if word == "bye" else wire.Final(message.id, 1, error=problem)
                router.send_multipart([route, *wire.encode(answer)])
                break
            router.send_multipart([route, *wire.encode(wire.Hello(wire.new_id(), "broker"))])
        _, said = client.communicate(timeout=PATIENCE_S)
    router.close(0)
    context.term()
    assert client.returncode == 1
    assert said.decode() == f"ssmprov: it said {ESCAPED}.\nline {ESCAPED}\n"


def test_a_worker_forges_no_line_of_the_brokers_log(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    broker = cluster.broker()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    forger = context.socket(zmq.DEALER)
    sockets.connect_dealer(forger, cluster.endpoint)
    forged = f"talk/0\nworker talk/0 (process 1) is lost{STEERING}"
    for message in (
        wire.Hello(wire.new_id(), "worker"),
        wire.Register(worker=forged, model=wire.ModelCard(name="talk")),
    ):
        forger.send_multipart(wire.encode(message))
    assert ESCAPED in broker.expect("refused worker")
    forger.close(0)
    context.term()
    assert broker.stop() == 0
    texts = [text_of(line) for line in broker.lines]
    assert None not in texts, "a line that the broker did not write"
    assert not any(str(text).startswith("worker talk/0") for text in texts)
