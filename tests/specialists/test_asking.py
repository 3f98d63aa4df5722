"""Answers are asked of whoever lives: a probe outlives the worker that was answering it."""

from __future__ import annotations

import threading
from pathlib import Path

from cluster import Cluster, scripted_toml

from specialists.asking import Answer, ask, candidate
from ssmprov.errors import SsmprovError
from ssmprov.transcript import FENCE

SCRIPT = {
    "replies": [
        {"after": "(Turn 2) [BOT]:", "pieces": [" one", *[" more"] * 20, FENCE]},
        {"after": "", "pieces": ["?"]},
    ],
    "token_delay_s": 0.05,
}


def test_a_probe_whose_worker_is_killed_is_answered_by_another(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, scripted_toml(tmp_path, workers=2, script=SCRIPT)).up()
    found: list[Answer | SsmprovError] = []
    try:
        client = cluster.client()
        who = candidate(client, "talk", "", ("USER", "BOT"))

        def answer() -> None:
            try:
                found.append(ask(client, who, "count", values={"temp": 0.0}, seed=1, max_tokens=60, ttl_s=60))
            except SsmprovError as error:
                found.append(error)

        asking = threading.Thread(target=answer)
        asking.start()
        with cluster.client() as other:
            busy = ""
            while not busy:
                busy = next((worker.name for worker in other.status().workers if worker.running), "")
        cluster.processes[busy].kill()
        asking.join(60)
    finally:
        cluster.close()
    [answered] = found
    assert isinstance(answered, Answer), answered
    assert answered.text == "one" + " more" * 20
    assert answered.worker != busy
