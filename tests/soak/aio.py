"""The load of an asyncio client: a few tasks that share one connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import msgspec

from clients.aio import AsyncClient
from soak.blocking import TIMEOUT_S, builtins, turn_options
from soak.history import Order
from soak.player import Ending, Play, Scribe, Step, pause_s
from soak.raw import abandon, args_of
from soak.tap import tap
from ssmprov.errors import SsmprovError, problem_of


def connect(endpoint: str, scribe: Scribe) -> tuple[AsyncClient, str]:
    """A client whose messages are recorded, and the name of its link."""
    link = scribe.link()
    client = AsyncClient(endpoint, timeout_s=TIMEOUT_S, agent=f"soak {link}")
    tap(client._core, scribe.recorder, link)
    return client, link


async def run(endpoint: str, scribe: Scribe, plays: list[Play], random: Random, stop: asyncio.Event) -> None:
    """Drive every play in a task of its own until `stop` is set; what is under way then is ended first."""
    client, link = connect(endpoint, scribe)
    async with client:
        await asyncio.gather(
            *(_drive(endpoint, scribe, client, link, play, Random(random.random()), stop) for play in plays)
        )


async def _drive(
    endpoint: str, scribe: Scribe, client: AsyncClient, link: str, play: Play, random: Random, stop: asyncio.Event
) -> None:
    step = next(play)
    while not stop.is_set():
        if step.abandoned:
            lost = scribe.link()
            scribe.begin(lost, step.order)
            await asyncio.to_thread(abandon, endpoint, step.order, scribe.recorder, lost, random)
            ending = Ending({})
        elif step.fresh:
            other, its_link = connect(endpoint, scribe)
            async with other:
                ending = await _ask(other, its_link, scribe, step)
        else:
            ending = await _ask(client, link, scribe, step)
        await asyncio.sleep(pause_s(ending))
        step = play.send(ending)


async def _ask(client: AsyncClient, link: str, scribe: Scribe, step: Step) -> Ending:
    n = scribe.begin(link, step.order)
    try:
        ending = await perform(client, step.order)
    except (SsmprovError, OSError) as error:
        ending = Ending({}, error=problem_of(error))
    scribe.end(n, ending)
    return ending


async def perform(client: AsyncClient, order: Order) -> Ending:
    """Ask one thing and wait for its end. Raises what the client raises."""
    if order.how == "stream":
        return await _stream(client, order)
    if order.how == "export":
        return Ending(builtins(await client.export(order.context, Path(order.file), model=order.model)))
    if order.how == "import":
        return Ending(builtins(await client.import_(Path(order.file), order.args["save"], model=order.model)))
    raw, text = await client.call(
        order.op,
        args_of(order),
        model=order.model,
        context=order.context,
        payload=order.prompt.encode(),
        ttl_s=order.ttl_s,
        request_id=bytes.fromhex(order.id),
    )
    return Ending(msgspec.msgpack.decode(raw) or {}, text.decode())


async def _stream(client: AsyncClient, order: Order) -> Ending:
    with await client.stream(order.prompt, **turn_options(order)) as stream:
        if order.cancel_after == 0:
            stream.cancel(order.cancel_mode)
        count = 0
        async for _ in stream:
            count += 1
            await asyncio.sleep(order.pause_ms / 1000)
            if count == order.cancel_after:
                stream.cancel(order.cancel_mode)
        reply = await stream.reply()
    return Ending(builtins(reply.result), reply.text)
