"""The asyncio client against the same small broker: the same answers, the same order, the same cancelling."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

from clients import Client
from clients.aio import AsyncClient
from ssmprov import ops, wire
from ssmprov.errors import Cancelled, NotFound, Unreachable


def run(router: Any, work: Any) -> Any:
    """Run a coroutine function with a client."""

    async def with_client() -> Any:
        async with AsyncClient(router.endpoint, agent="test") as client:
            return await asyncio.wait_for(work(client), 20)

    return asyncio.run(with_client())


def test_both_faces_have_the_same_methods_and_parameters() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(method).parameters == inspect.signature(getattr(AsyncClient, name)).parameters


def test_a_turn_returns_text_result_and_id(router: Any) -> None:
    reply = run(router, lambda client: client.turn("Say hello", context="a", save="b"))
    assert (reply.text, reply.result.stop) == ("Héllo 🌍", "end")
    assert router.requests("turn")[0].id == reply.id


def test_a_stream_gives_pieces_and_then_the_reply(router: Any) -> None:
    async def work(client: AsyncClient) -> None:
        stream = await client.stream("hi", model="m")
        assert [piece async for piece in stream] == ["Hé", "llo", " 🌍"]
        assert (await stream.reply()).text == "Héllo 🌍"

    run(router, work)


def test_a_long_stream_outlives_its_first_credit(router: Any) -> None:
    router.pieces = ["x"] * 1000
    seen: list[str] = []
    reply = run(router, lambda client: client.turn("hi", model="m", on_text=seen.append))
    assert len(reply.text) == len(seen) == 1000


def test_calls_go_out_in_the_order_in_which_they_begin(router: Any) -> None:
    async def work(client: AsyncClient) -> None:
        await asyncio.gather(*(client.turn(f"{n}", model="m") for n in range(50)))

    run(router, work)
    assert router.prompts == [str(n) for n in range(50)]


def test_cancelling_the_task_cancels_the_turn(router: Any) -> None:
    router.hold = True

    async def work(client: AsyncClient) -> str:
        task = asyncio.create_task(client.turn("hi", model="m"))
        while not router.turns:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while router.turns:
            await asyncio.sleep(0.01)
        router.hold = False
        return (await client.turn("hi", model="m")).text

    assert run(router, work) == "Héllo 🌍"
    assert [message.mode for message in router.seen if isinstance(message, wire.Cancel)] == ["drop"]


def test_a_stream_can_be_cancelled_or_left(router: Any) -> None:
    router.hold = True

    async def work(client: AsyncClient) -> None:
        with await client.stream("hi", model="m") as stream:
            assert await anext(stream) == "Hé"
            stream.cancel("keep")
            assert (await stream.reply()).result.stop == "cancelled"
        with await client.stream("hi", model="m") as left:
            await anext(left)
        with pytest.raises(Cancelled):
            await left.reply()

    run(router, work)


def test_a_killed_broker_that_comes_back_gets_the_same_request_again(router: Any) -> None:
    router.hold = True

    async def work(client: AsyncClient) -> str:
        stream = await client.stream("hi", model="m")
        while "".join(stream.pieces) != "Héllo 🌍":
            await anext(stream)
        await asyncio.to_thread(router.end)
        router.turns.clear()
        router.hold = False
        await asyncio.to_thread(router.begin)
        return (await stream.reply()).text

    assert run(router, work) == "Héllo 🌍"
    assert len({request.id for request in router.requests("turn")}) == 1


def test_without_a_broker_a_call_says_how_to_start_one(tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncClient(f"ipc://{tmp_path}/none.sock", timeout_s=0.3) as client:
            with pytest.raises(Unreachable, match="ssmprov up"):
                await client.status()

    asyncio.run(work())


def test_closing_ends_what_others_wait_for_and_says_bye(router: Any) -> None:
    router.hold = True

    async def work(client: AsyncClient) -> None:
        task = asyncio.create_task(client.turn("hi", model="m"))
        while not router.turns:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(Cancelled):
            await task
        with pytest.raises(Cancelled, match="closed"):
            await client.status()

    run(router, work)
    router.until(wire.Bye)


def test_files_come_and_go(router: Any, tmp_path: Path) -> None:
    router.contexts = {"m:a": "naïve " * 20, f"m:#{'ab' * 32}": "naïve " * 20}

    async def work(client: AsyncClient) -> ops.Row:
        assert await client.text("a") == "naïve " * 20
        await client.export("a", tmp_path / "a.ssm")
        with pytest.raises(NotFound):
            await client.show("gone")
        return await client.import_(tmp_path / "a.ssm", "new")

    assert run(router, work).bytes == len(router.file)
    assert bytes(router.imported) == (tmp_path / "a.ssm").read_bytes() == router.file
