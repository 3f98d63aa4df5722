"""The load of a blocking client: a few threads that share one connection."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from clients.blocking import Client
from soak.history import Order
from soak.player import Ending, Play, Scribe, Step, pause_s
from soak.raw import abandon, args_of
from soak.tap import tap
from ssmprov.errors import SsmprovError, problem_of

TIMEOUT_S = 25.0
OPTIONS = ("save", "if_head", "create", "settings", "values", "seed", "max_tokens", "max_chars")


def connect(endpoint: str, scribe: Scribe) -> tuple[Client, str]:
    """A client whose messages are recorded, and the name of its link."""
    link = scribe.link()
    client = Client(endpoint, timeout_s=TIMEOUT_S, agent=f"soak {link}")
    tap(client._core, scribe.recorder, link)
    return client, link


def run(endpoint: str, scribe: Scribe, plays: list[Play], random: Random, stop: threading.Event) -> None:
    """Drive every play in a thread of its own until `stop` is set; what is under way then is ended first."""
    client, link = connect(endpoint, scribe)
    threads = [
        threading.Thread(target=_drive, args=(endpoint, scribe, client, link, play, Random(random.random()), stop))
        for play in plays
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()


def _drive(
    endpoint: str, scribe: Scribe, client: Client, link: str, play: Play, random: Random, stop: threading.Event
) -> None:
    step = next(play)
    while not stop.is_set():
        if step.abandoned:
            ending = _abandon(endpoint, scribe, step.order, random)
        elif step.fresh:
            other, its_link = connect(endpoint, scribe)
            ending = _ask(other, its_link, scribe, step)
            other.close()
        else:
            ending = _ask(client, link, scribe, step)
        time.sleep(pause_s(ending))
        step = play.send(ending)


def _abandon(endpoint: str, scribe: Scribe, order: Order, random: Random) -> Ending:
    link = scribe.link()
    scribe.begin(link, order)
    abandon(endpoint, order, scribe.recorder, link, random)
    return Ending({})


def _ask(client: Client, link: str, scribe: Scribe, step: Step) -> Ending:
    n = scribe.begin(link, step.order)
    try:
        ending = perform(client, step.order)
    except (SsmprovError, OSError) as error:
        ending = Ending({}, error=problem_of(error))
    scribe.end(n, ending)
    return ending


def perform(client: Client, order: Order) -> Ending:
    """Ask one thing and wait for its end. Raises what the client raises."""
    if order.how == "stream":
        return _stream(client, order)
    if order.how == "export":
        return Ending(builtins(client.export(order.context, Path(order.file), model=order.model)))
    if order.how == "import":
        return Ending(builtins(client.import_(Path(order.file), order.args["save"], model=order.model)))
    raw, text = client.call(
        order.op,
        args_of(order),
        model=order.model,
        context=order.context,
        payload=order.prompt.encode(),
        ttl_s=order.ttl_s,
        request_id=bytes.fromhex(order.id),
    )
    return Ending(msgspec.msgpack.decode(raw) or {}, text.decode())


def _stream(client: Client, order: Order) -> Ending:
    with client.stream(order.prompt, **turn_options(order)) as stream:
        if order.cancel_after == 0:
            stream.cancel(order.cancel_mode)
        for count, _ in enumerate(stream, 1):
            time.sleep(order.pause_ms / 1000)
            if count == order.cancel_after:
                stream.cancel(order.cancel_mode)
        reply = stream.reply
    return Ending(builtins(reply.result), reply.text)


def turn_options(order: Order) -> Any:
    """A turn's order as the keyword arguments of `stream`."""
    options = {key: order.args[key] for key in OPTIONS if key in order.args}
    identity = {"model": order.model, "context": order.context, "ttl_s": order.ttl_s}
    return options | identity | {"request_id": bytes.fromhex(order.id)}


def builtins(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found
