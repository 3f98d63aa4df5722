"""Stopped and hung workers are seen, their turns answered, their processes ended for sure."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from cluster import Cluster, scripted_toml

from ssmprov.errors import TimedOut, Unavailable, Unreachable, WorkerLost

SLOW: dict[str, Any] = {
    "replies": [{"after": "[SLOW]:", "pieces": [f" {i}" for i in range(10_000)]}],
    "token_delay_s": 0.01,
}
HANGS: dict[str, Any] = {"replies": [{"after": "", "pieces": ["never"]}], "token_delay_s": 3600}


def test_a_stopped_worker_is_lost_killed_and_replaced(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home, script=SLOW))
    cluster.up()
    with cluster.client() as client:
        client.turn("before", save="ctx", max_tokens=0)
        stream = client.stream("[SLOW]:", context="ctx", save="ctx")
        pieces = iter(stream)
        next(pieces)
        stopped = cluster.processes["talk/0"]
        stopped.child.send_signal(signal.SIGSTOP)
        with pytest.raises(WorkerLost) as lost:
            list(pieces)
        assert lost.value.details["committed"] == "unknown"  # nobody was there to decide
        assert stopped.wait() == -signal.SIGKILL
        cluster.worker("talk", 0)
        with pytest.raises(WorkerLost) as lost:
            client.turn("[SLOW]:", context="ctx", save="ctx", request_id=stream.id)
        assert lost.value.details["committed"] is False  # decided by now, and whoever asks again is told
        assert client.text("ctx") == "before"
        assert client.turn("[SLOW]:", context="ctx", save="ctx", max_tokens=2).text == " 0 1"
        assert client.status().workers[0].epoch > 1


def test_a_worker_that_hangs_with_its_heart_beating_is_replaced(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home, script=HANGS, stall_s=1.0))
    cluster.up()
    with cluster.client() as client:
        with pytest.raises(WorkerLost, match="no progress"):
            client.turn("x", save="ctx")
        assert cluster.processes["talk/0"].wait() == -signal.SIGKILL
        cluster.worker("talk", 0)
        assert client.ls().rows == []


def test_polling_does_not_hide_a_hung_model(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home, script=HANGS, stall_s=2.0))
    cluster.up()
    with cluster.client() as client, cluster.client() as other:
        stream = client.stream("x")
        failed = threading.Event()

        def wait() -> None:
            with contextlib.suppress(WorkerLost):
                list(stream)
            failed.set()

        threading.Thread(target=wait).start()
        while not failed.wait(0.1):
            with contextlib.suppress(Unavailable, TimedOut):
                other.ls(model="talk")
        assert cluster.processes["talk/0"].wait() == -signal.SIGKILL


def test_a_turn_queued_for_a_lost_pinned_worker_waits_for_it(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home, workers=2))
    cluster.up()
    with cluster.client() as client:
        client.turn("root", save="root", max_tokens=0)
        client.fork("root", ["mine"], on=["talk/1"])
        cluster.processes["talk/1"].kill()
        cluster.processes["broker"].expect("worker talk/1 .* is lost")
        waiting = client.stream("go", context="mine", save="mine")
        assert client.turn("go", context="root").result.worker == "talk/0"
        cluster.worker("talk", 1)
        assert "".join(waiting) == "hello!"
        assert waiting.reply.result.worker == "talk/1"


def test_pins_and_contexts_outlive_every_process(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home, workers=2))
    cluster.up()
    with cluster.client() as client:
        client.turn("root", save="root", max_tokens=0)
        client.fork("root", ["a", "b"], spread=True)
    for process in cluster.processes.values():
        assert process.stop() == 0
    cluster.up()
    with cluster.client() as client:
        assert {row.name: row.pinned for row in client.ls().rows} == {"a": "talk/0", "b": "talk/1", "root": ""}
        assert client.turn("!", context="b").result.worker == "talk/1"
        assert client.turn("!", context="a").result.worker == "talk/0"


def test_a_broker_that_was_stopped_for_a_while_loses_no_worker_and_no_turn(
    make_cluster: Callable[[str], Cluster],
) -> None:
    """Its silence cut every connection, and it finds them cut before it hears that everybody is back."""
    cluster = make_cluster("")
    script = {"replies": [{"after": "[SLOW]:", "pieces": [f" {i}" for i in range(400)]}], "token_delay_s": 0.01}
    cluster.config.write_text(scripted_toml(cluster.home, workers=2, script=script))
    cluster.up()
    with cluster.client() as client:
        before = {worker.name: worker.pid for worker in client.status().workers}
        streams = [client.stream("[SLOW]:", save=f"ctx/{number}") for number in range(4)]
        pieces = [iter(stream) for stream in streams]
        for each in pieces:
            next(each)
        broker = cluster.processes["broker"].child
        broker.send_signal(signal.SIGSTOP)
        with cluster.client(timeout_s=1.5) as other, pytest.raises(Unreachable):
            other.status()
        broker.send_signal(signal.SIGCONT)
        for each in pieces:
            list(each)
        assert {stream.reply.text for stream in streams} == {"".join(f" {i}" for i in range(400))}
        assert {worker.name: worker.pid for worker in client.status().workers} == before
