"""What a client's core sends and gets, written to the history as it passes."""

from __future__ import annotations

from typing import Any

from clients.core import Action, Core, Send
from soak.history import Recorder
from ssmprov import wire


def tap(core: Core, recorder: Recorder, link: str) -> None:
    """Have every message of this core recorded under the name of its link, before the core sees it.

    The core is the one place through which the frames of both faces pass; it has no observer of its own, so two
    methods of this one object are wrapped.
    """
    received, take = core.received, core._take

    def recorded(frames: list[bytes], now: float) -> list[Action]:
        record(recorder, link, frames)
        return received(frames, now)

    def taken() -> list[Action]:
        actions = take()
        for action in actions:
            if isinstance(action, Send) and action.frames[0] == wire.MAGIC + b"REQUEST":
                record(recorder, link, action.frames)
        return actions

    anything: Any = core
    anything.received, anything._take = recorded, taken


def record(recorder: Recorder, link: str, frames: list[bytes]) -> None:
    """Write one message to the history, if it is of those that the checker looks at."""
    message, payloads = wire.decode(frames)
    match message:
        case wire.Request():
            recorder.write("sent", link=link, id=message.id.hex(), attempt=message.attempt, have=message.have)
        case wire.Accepted():
            recorder.write("got", link=link, id=message.id.hex(), kind="accepted", attempt=message.attempt)
        case wire.Partial():
            place = {"attempt": message.attempt, "seq": message.seq, "offset": message.offset}
            text = b"".join(payloads).hex()
            recorder.write("got", link=link, id=message.id.hex(), kind="partial", text=text, **place)
        case wire.Chunk():
            place = {"attempt": message.attempt, "seq": message.seq, "offset": message.offset}
            recorder.write("got", link=link, id=message.id.hex(), kind="chunk", size=sum(map(len, payloads)), **place)
        case wire.Final():
            place = {"attempt": message.attempt, "seq": message.seq, "offset": message.offset}
            text = wire.take_result(message, payloads)[1].hex()
            code = message.error.code if message.error else ""
            recorder.write("got", link=link, id=message.id.hex(), kind="final", text=text, code=code, **place)
