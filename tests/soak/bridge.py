"""The load of an old tool: requests on the bridge's port, one connection each.

Its names are its own, so what it was told can be held against the store: the live context of the port, which only
this client uses, and names that it saves to.
"""

from __future__ import annotations

import re
import socket
import threading
from random import Random

from soak.choices import ENDINGS, SCRIPTED
from soak.history import Order
from soak.player import Ending, Scribe
from ssmprov.errors import Problem

PATIENCE_S = 40.0
NAMES = 3


def run(port: int, scribe: Scribe, owner: str, mark: str, random: Random, stop: threading.Event) -> None:
    """Send requests one after the other until `stop` is set."""
    link = scribe.link()
    count = 0
    while not stop.is_set():
        count += 1
        order = _next(random, owner, f"{mark}.{count}")
        n = scribe.begin(link, order)
        hang_up = random.random() < 0.05
        scribe.end(n, say(port, text_of(order), hang_up=hang_up))
        if not _reachable(port):
            stop.wait(0.05)


def _next(random: Random, owner: str, mark: str) -> Order:
    """`op` bridge.say is a plain prompt, bridge.bang one with a bang line, bridge.command a slash command."""
    name = f"{owner}/b{random.randrange(NAMES)}"
    order = Order(random.randbytes(16).hex(), "bridge.say", SCRIPTED, how="bridge")
    order.prompt = f"<{mark}>{random.choice(['', 'words '])}{random.choice(ENDINGS)}"
    drawn = random.random()
    if drawn < 0.4:
        return order
    if drawn < 0.75:
        order.op, order.context = "bridge.bang", name
        order.args = {"save": name if random.random() < 0.7 else f"{owner}/b{random.randrange(NAMES)}"}
        return order
    order.op = "bridge.command"
    order.prompt = random.choice([f"/save {name}", f"/save {name}", f"/load {name}", "/t 0.5", "/t", "/?"])
    return order


def text_of(order: Order) -> str:
    if order.op != "bridge.bang":
        return order.prompt
    return f"!{order.context} greedy {order.args['save']}\n{order.prompt}"


def say(port: int, text: str, *, hang_up: bool = False) -> Ending:
    """One request; an error where the reply says so, or `unreachable` where none came."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.sendall(text.encode() + b"\0")
            if hang_up:
                return _lost("the soak hung up")
            data = bytearray()
            while part := connection.recv(65536):
                data += part
    except OSError as error:
        return _lost(str(error))
    if not data.endswith(b"\0"):
        return _lost(f"the connection ended after {len(data)} bytes")
    reply = data[:-1].decode()
    refused = re.match(r"\[([a-z_]+ )?error\] ", reply)
    return Ending({}, error=Problem("bridge", reply)) if refused else Ending({}, reply)


def _lost(why: str) -> Ending:
    return Ending({}, error=Problem("unreachable", why))


def _reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
