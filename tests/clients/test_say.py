"""`say` of both clients: what is sent, what is answered, and what is saved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, scripted_toml

from clients.aio import AsyncClient
from ssmprov.errors import NotFound
from ssmprov.transcript import FENCE, HALF_FENCE, next_turn, turns_of

SCRIPT = {"replies": [{"after": "[INTERFACE]: ", "pieces": ["The", " sea", ".", "\n\n", "~~~(", "end)~~~\n\n"]}]}


@pytest.fixture(scope="module")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home: Path = tmp_path_factory.mktemp("sea")
    cluster = Cluster(home, scripted_toml(home, script=SCRIPT)).up()
    yield cluster
    cluster.close()


def test_an_answer_has_no_fence_and_the_text_is_exact(sea: Cluster) -> None:
    with sea.client() as client:
        pieces: list[str] = []
        for reply in (client.say("Hello?"), client.say("Hello?", on_text=pieces.append)):
            assert (reply.answer, reply.text) == ("The sea.", f"The sea.{FENCE}")
            assert (reply.result.name, reply.result.stop) == ("", "fence")
        assert "".join(pieces) == f"The sea.{FENCE}"
        cut = client.say("Hello?", max_tokens=2)
        assert (cut.answer, cut.text) == ("The sea", "The sea")


def test_what_is_said_to_a_context_is_a_turn_of_its_transcript(sea: Cluster) -> None:
    with sea.client() as client:
        client.say("Hello?", to="blocking")
        assert client.say("(Turn 1) [USER]: me\n\nAgain?", to="talk:blocking").result.name == "blocking"
        found = turns_of(client.text("blocking"))
        assert [(turn.number, turn.role, turn.content) for turn in found] == [
            (1, "USER", "Hello?"),
            (2, "INTERFACE", "The sea."),
            (3, "USER", "(Turn 1) [USER]: me\n\nAgain?"),
            (4, "INTERFACE", "The sea."),
        ]
        with pytest.raises(NotFound):
            client.say("Hello?", to="tolk:blocking")


def test_the_async_client_says_the_same(sea: Cluster) -> None:
    async def speak() -> list[str]:
        async with AsyncClient(sea.endpoint, timeout_s=60) as client:
            pieces: list[str] = []
            first = await client.say("Hello?", to="async", on_text=pieces.append)
            second = await client.say("Hello?", to="async")
            return [first.answer, second.answer, "".join(pieces), await client.text("async")]

    first, second, streamed, text = asyncio.run(speak())
    assert (first, second, streamed) == ("The sea.", "The sea.", f"The sea.{FENCE}")
    assert [turn.number for turn in turns_of(text)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "lead", "number"),
    [
        ("", "", 1),
        ("no turn", "\n\n", 1),
        ("no turn\n", "", 1),
        (f"(Turn 4) [USER]: x{FENCE}", "", 5),
        (f"(Turn 4) [USER]: x{FENCE}then text", "\n\n", 5),
        ("(Turn 4) [USER]: x", FENCE, 5),
        ("(Turn 4) [USER]: ", FENCE, 5),
        (f"(Turn 4) [USER]: x{HALF_FENCE}", "end)~~~\n\n", 5),
        ("(Turn 4) [USER]: x\n", "\n~~~(end)~~~\n\n", 5),
        (f"(Turn 9) [USER]: x{FENCE}(Turn 2) [USER]: y{FENCE}", "", 10),
    ],
)
def test_the_next_turn_begins_after_a_closed_one(text: str, lead: str, number: int) -> None:
    assert next_turn(text) == (lead, number)
    *before, last = turns_of(text + lead + f"(Turn {number}) [USER]: z{FENCE}")
    assert (last.content, last.closed) == ("z", True)
    assert all(turn.closed for turn in before)
