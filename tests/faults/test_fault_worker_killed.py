"""kill -9 of a worker in mid-turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aftermath import Aftermath
from house import ENDLESS, GREEDY, House, Listener, opened

from clients.blocking import Client
from ssmprov.errors import WorkerLost

SEEN_S = 1.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("supervised"), supervised=True) as house:
        yield house


@pytest.mark.parametrize("model", ["talk", "tiny"])
def test_its_turn_is_answered_within_a_second_and_nobody_else_notices(
    house: House, aftermath: Aftermath, model: str
) -> None:
    with house.client() as client, house.client() as other:
        house.turn(client, "before", "mine", model=model, max_tokens=0)
        house.turn(other, "beside", "yours", model=model, max_tokens=0)
        client.move(f"{model}:mine", f"{model}/0")
        other.move(f"{model}:yours", f"{model}/1")
        mine = _endless(client, model, "mine")
        yours = _endless(other, model, "yours")
        moment = house.kill(f"{model}/0")
        mine.end()
        moment.within(SEEN_S, f"worker_lost of {model}", mine.ended_at)
        assert isinstance(mine.error, WorkerLost)
        assert mine.error.details["seq"] >= 3
        assert mine.error.details["committed"] is False
        # No retry: the turn ended where it stood, and the context at its last commit.
        said = mine.text
        assert client.text(f"{model}:mine") == "before"
        assert client.show(f"{model}:mine").row.steps == 1
        house.lost(f"{model}/0")
        yours.more()
        assert yours.longest_gap(moment.at) < 1.0
        yours.stream.cancel("keep")
        assert yours.end().error is None
        house.acknowledge("yours", "beside[LONG]:" + yours.stream.reply.text, model)
        again = house.turn(client, "[LONG]:", "mine", model=model, max_tokens=4, values=GREEDY)
        assert again.result.worker == f"{model}/0"  # it is pinned there, and serves again
        assert said.startswith(again.text)


def _endless(client: Client, model: str, name: str) -> Listener:
    stream = client.stream("[LONG]:", model=model, context=name, save=name, values=GREEDY, **ENDLESS)
    return Listener(stream).has(3)
