"""Invariants 5 and 6 on real processes: names move by compare-and-swap, a request id has one effect."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from cluster import Cluster, scripted_toml

from ssmprov import wire
from ssmprov.errors import Conflict, NotFound, WorkerLost


def test_of_two_writers_one_commits_and_one_conflicts(house: Cluster) -> None:
    with house.client() as client:
        head = client.turn("root", model="talk", save="cas", max_tokens=0).result.object
        outcomes: list[str] = []

        def write(word: str) -> None:
            try:
                client.turn(word, model="talk", context="cas", save="cas", if_head=head, max_tokens=0)
                outcomes.append(word)
            except Conflict:
                outcomes.append("conflict")

        threads = [threading.Thread(target=write, args=(word,)) for word in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count("conflict") == 1
        assert client.text("talk:cas") == "root" + next(word for word in outcomes if word != "conflict")


def test_turns_on_one_name_queue_behind_each_other(house: Cluster) -> None:
    with house.client() as client:
        client.turn("", model="talk", save="queue", max_tokens=0)
        threads = [
            threading.Thread(
                target=lambda i=i: client.turn(f"<{i}>", model="talk", context="queue", save="queue", max_tokens=0)
            )
            for i in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(client.text("talk:queue").strip("<>").split("><")) == sorted(map(str, range(12)))


def test_a_resent_request_has_one_effect(house: Cluster) -> None:
    key = wire.new_id()
    with house.client() as client:
        first = client.turn("once", model="talk", context="one", save="one", create=True, request_id=key)
    with house.client() as other:  # the broker has kept no answer for this client: the store decides
        second = other.turn("once", model="talk", context="one", save="one", create=True, request_id=key)
        assert second.text == first.text
        assert second.result.object == first.result.object
        assert other.text("talk:one") == "once" + first.text


def test_an_acknowledged_save_survives_kill_9_of_everything(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home))
    cluster.up()
    with cluster.client() as client:
        head = client.turn("kept", save="k").result.object
    for process in cluster.processes.values():
        process.kill()
    cluster.up()
    with cluster.client() as client:
        assert client.show("k").row.object == head
        assert client.text("k") == "kepthello!"
        assert client.verify().faults == []


def test_a_worker_killed_in_mid_turn_loses_only_that_turn(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    slow = {"replies": [{"after": "[SLOW]:", "pieces": [f" {i}" for i in range(10_000)]}], "token_delay_s": 0.01}
    cluster.config.write_text(scripted_toml(cluster.home, workers=2, script=slow))
    cluster.up()
    with cluster.client() as client:
        client.turn("before", save="ctx", max_tokens=0)
        client.fork("ctx", ["other"], on=["talk/1"])
        client.move("ctx", "talk/0")
        stream = client.stream("[SLOW]:", context="ctx", save="ctx")
        pieces = iter(stream)
        next(pieces)
        beside = client.stream("[SLOW]:", context="other", save="other", max_tokens=60)
        cluster.processes["talk/0"].child.kill()
        with pytest.raises(WorkerLost) as lost:
            list(pieces)
        assert lost.value.details["seq"] >= 1
        assert lost.value.details["committed"] is False
        assert client.text("ctx") == "before"
        assert "".join(beside) == "".join(f" {i}" for i in range(60))
        cluster.worker("talk", 0)
        again = client.turn("[SLOW]:", context="ctx", save="ctx", max_tokens=3)
        assert (again.text, again.result.worker) == (" 0 1 2", "talk/0")


def test_the_broker_killed_in_mid_turn_costs_nothing(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    slow = {"replies": [{"after": "[SLOW]:", "pieces": [f" {i}" for i in range(200)]}], "token_delay_s": 0.01}
    cluster.config.write_text(scripted_toml(cluster.home, workers=2, script=slow))
    cluster.up()
    with cluster.client() as client:
        stream = client.stream("[SLOW]:", save="ctx")
        pieces = iter(stream)
        said = [next(pieces)]
        cluster.processes["broker"].kill()
        cluster.broker()
        said += pieces
        assert "".join(said) == "".join(f" {i}" for i in range(200))
        assert client.text("talk:ctx") == "[SLOW]:" + "".join(said)
        assert len(client.log("ctx").steps) == 1


def test_a_gone_client_lets_a_saving_turn_finish(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    slow = {"replies": [{"after": "[SLOW]:", "pieces": [f" {i}" for i in range(100)]}], "token_delay_s": 0.01}
    cluster.config.write_text(scripted_toml(cluster.home, script=slow))
    cluster.up()
    leaving = cluster.client()
    next(iter(leaving.stream("[SLOW]:", save="kept")))
    leaving.close()
    with cluster.client() as client:
        # queued behind the turn that saves: it answers when that has committed
        client.turn("!", context="kept", save="kept", create=True, max_tokens=0)
        assert client.text("kept") == "[SLOW]:" + "".join(f" {i}" for i in range(100)) + "!"


def test_sigterm_ends_turns_at_a_tokens_edge_and_answers_them(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    slow = {"replies": [{"after": "[SLOW]:", "pieces": [f" {i}" for i in range(10_000)]}], "token_delay_s": 0.01}
    cluster.config.write_text(scripted_toml(cluster.home, script=slow))
    cluster.up()
    with cluster.client() as client:
        stream = client.stream("[SLOW]:", save="ctx")
        pieces = iter(stream)
        said = next(pieces)
        worker = cluster.processes["talk/0"]
        assert worker.stop() == 0
        said += "".join(pieces)
        assert stream.reply.result.stop == "cancelled"
        cluster.worker("talk", 0)
        assert client.text("ctx") == "[SLOW]:" + said
    assert cluster.processes["broker"].stop() == 0
    assert not list((cluster.home / "run").glob("*.sock"))


def test_a_step_that_a_name_lacks_is_not_a_missing_name(talk: Cluster) -> None:
    with talk.client() as client:
        client.turn("root", save="short", max_tokens=0)
        with pytest.raises(NotFound) as lacks:
            client.show("short~7")
        with pytest.raises(NotFound) as missing:
            client.show("shorter-still")
    assert ("name" in lacks.value.details, lacks.value.details["steps"]) == (False, 1)
    assert missing.value.details["name"] == "shorter-still"
