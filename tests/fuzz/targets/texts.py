"""What people and their programs write: transcripts, names, requests of the bridge, settings, configurations."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge_tcp.framing import Unwelcome, read_request
from bridge_tcp.replies import Refusal
from bridge_tcp.session import Session
from fuzz.engine import Target
from fuzz.mutate import speaking
from ssmprov import commands, configuration, names, settings, transcript
from ssmprov.commands import Command
from ssmprov.errors import BadRequest, NotFound, SsmprovError
from ssmprov.names import RULE, Ref
from ssmprov.probes import Look
from ssmprov.settings import Settings, parse_set

LIMIT = 4000
SECTIONS = (
    "(Turn 3) [USER]: ",
    transcript.FENCE,
    transcript.HALF_FENCE,
    "~~~(end)~~~",
    "\r\n\r\n",
    "\\",
    "\n\\(Turn 1) [A]:",
)


def transcripts(data: bytes) -> None:
    """The items are the text, in one piece or in many; any content comes back as it was written."""
    text = data.decode("utf-8", "surrogateescape")
    items = transcript.parse(text)
    assert transcript.written(items) == text
    grown = transcript.Transcript()
    for at in range(0, len(text), max(1, len(text) // 7)):
        grown.append(text[at : at + max(1, len(text) // 7)])
    assert grown.items == items
    for oddity in transcript.oddities(items):
        str(oddity)
    for turn in transcript.turns_of(text):
        transcript.quote(turn)
        written = transcript.turn(turn.number, "USER", turn.content)
        (again,) = transcript.parse(written)
        assert isinstance(again, transcript.Turn)
        assert (again.content, again.tail) == (turn.content, transcript.FENCE)
    written = transcript.turn(7, "USER", text)
    (whole,) = transcript.parse(written)
    assert isinstance(whole, transcript.Turn)
    assert whole.content == text


def transcript_seeds() -> list[bytes]:
    one = transcript.turn(1, "USER", "hello\n(Turn 2) [X]: no\n\n~~~(end)~~~\n\nnor this")
    two = transcript.full_step(2, "A", "wörld\r\n", "MODEL") + "said" + transcript.FENCE + "gap\n"
    half = transcript.half_step(5, "USER", "and")
    texts = (one, two, half, one + two + half, (one + two).replace("\n", "\r\n"), "no turn at all")
    return [text.encode() for text in texts]


def name(data: bytes) -> None:
    """What passes as a name is a path below its folder, and means the same when it is read again."""
    text = data.decode("utf-8", "surrogateescape")
    checks: tuple[Callable[[str], Any], ...] = (
        names.check_name,
        names.check_model,
        names.split_model,
        names.parse_worker,
        lambda text: names.parse_worker(text, "talk"),
        settings.set_name,
        transcript.check_role,
    )
    refused = 0
    for check in checks:
        try:
            check(text)
        except BadRequest as error:
            refused += 1
            str(error).encode("utf-8", "strict")
    try:
        ref = names.parse_ref(text)
        assert names.parse_ref(str(ref)) == ref
        _stays_below(ref)
    except BadRequest:
        refused += 1
    if refused > len(checks):
        raise BadRequest(RULE)


def _stays_below(ref: Ref) -> None:
    folder = Path("/store/names")
    if ref.name:
        path = folder / f"{ref.name}.json"
        assert "\0" not in ref.name
        assert path.is_relative_to(folder)
        assert not {"..", ".", ""} & set(ref.name.split("/"))


class _Loop:
    """One event loop for all runs: making one takes longer than a request."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Any) -> Any:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()


LOOP = _Loop()


async def _arrived(data: bytes) -> Command:
    """The parts of the first request in the bytes that come on a connection; of all of them, where it has no end."""
    reader = asyncio.StreamReader()
    third = len(data) // 3 + 1
    for at in range(0, len(data), third):
        reader.feed_data(data[at : at + third])
    reader.feed_eof()
    request = await read_request(reader, LIMIT, 60.0)
    assert request == (data[: data.index(0)] if 0 in data else None)
    ticket, command = Session(None).arrive(data if request is None else request)  # type: ignore[arg-type]
    ticket.end("drop")
    if isinstance(command, Refusal):
        raise command
    return command


def bridge(data: bytes) -> None:
    """A request ends at its first NUL, within its size; whatever it holds has a place in the order, and its parts."""
    command = LOOP.run(_arrived(data))
    assert command.prompt.encode() in data
    if command.bang is not None:
        names.split_model(command.bang.load)
    slash = command.slash
    if slash is not None and slash.word in commands.KNOBS and slash.argument:
        key, _ = commands.KNOBS[slash.word]
        settings.apply(Settings(), {key: settings.parse_value(key, slash.argument)})
    if slash is not None and slash.word in commands.LOOKS and slash.argument:
        look = Look().turned(slash.word, slash.argument)
        assert look.turned(slash.word, look.shown(slash.word).partition(" = ")[2]) == look


BRIDGE_SEEDS = [
    b"(Turn 1) [USER]: hello\n\n~~~(end)~~~\n\n(Turn 2) [MODEL]:\0",
    b"!kv.pkl set.json !other\n/save name\0rest",
    b"!talk:a b\nprompt\0",
    *(f" {word} {value}\0".encode() for word in commands.KNOBS for value in ("0.5", "3", "nan", "1e999", "9" * 5000)),
    *(f"{word} NAME\0".encode() for word in (*commands.STORES, commands.PROBE, commands.HELP)),
    *(f"{word} {value}\0".encode() for word in commands.LOOKS for value in ("topk:4", "0 3,5", "off", "9" * 5000)),
]


def sampling(data: bytes) -> None:
    """A set is refused or within its ranges, and reads back as it was."""
    text = data.decode("utf-8", "replace")
    found = parse_set(text, Settings(), "set")
    for key, value in settings.as_values(found).items():
        low, high = settings.RANGES[key]
        assert math.isfinite(value)
        assert low <= value <= high
    assert parse_set(settings.dump_set(found), Settings(temp=9.0), "again") == found


SAMPLING_SEEDS = [
    settings.dump_set(Settings()).encode(),
    b'{"temp": 0.5, "top_k": 40, "max": 100}',
    b'{"pen_rep": 1e308, "top_p": -0.0}',
    b"{}",
]
_CONFIGURATION = """
[broker]
listen = ["ipc://run/broker.sock", "tcp://127.0.0.1:5555"]
queue = 10
queue_bytes = "256 MiB"
[[model]]
name = "talk"
runtime = "rwkv"
path = "~/talk.pth"
checkpoints = "sub/store"
devices = ["cpu", "cuda:0"]
hot_bytes = "1.5 gib"
stall_s = 60.0
threads = 2
[[bridge]]
port = 6502
model = "talk"
host = "127.0.0.1"
request_bytes = "8 MiB"
"""


def toml(data: bytes) -> None:
    """A configuration is refused with the key that is wrong, or all of it can be used."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    tables = configuration.parse(text, "ssmprov.toml")
    found = configuration.Configuration(Path("/home"), tables)
    found.endpoints()
    for model in tables.model:
        assert found.model(model.name) is not None
        for path in (found.store(model), found.path(model.path)):
            assert path.is_absolute()
            with contextlib.suppress(OSError):  # too long for a file system: opening it says so
                path.exists()
        assert configuration.parse_size(model.hot_bytes) >= 0


def size(data: bytes) -> None:
    """A size is a whole number of bytes."""
    found = configuration.parse_size(data.decode("utf-8", "replace"))
    assert found >= 0


TARGETS = [
    Target("transcript", transcripts, transcript_seeds, (BadRequest,), speaking(*SECTIONS), runs=1500),
    Target(
        "names",
        name,
        lambda: [b"a", b"a/b.c~2", b"#" + b"ab" * 32, b"@bridge/6502", b"talk:a", b"talk/0", b"w1", b"set.json"],
        (BadRequest,),
        speaking("@", "~1", "#", ":", "/", "..", ".json", "~" + "9" * 30, "٣"),
        runs=10_000,
    ),
    Target(
        "bridge",
        bridge,
        lambda: list(BRIDGE_SEEDS),
        (SsmprovError, Refusal, Unwelcome),
        speaking("!", "/t", "\0"),
        runs=3000,
    ),
    Target(
        "settings",
        sampling,
        lambda: list(SAMPLING_SEEDS),
        (BadRequest,),
        speaking(
            *settings.KEYS, "Infinity", "NaN", "-1", "1e309", "9" * 5000, "[" * 3000, '{"a":' * 2000, "true", "null"
        ),
        runs=6000,
    ),
    Target(
        "toml",
        toml,
        lambda: [_CONFIGURATION.encode(), b'[[model]]\nname="a"\nruntime="b"\npath="c"\n', b"broker.queue = 7\n", b""],
        (BadRequest, NotFound),
        speaking(
            "[[model]]\n",
            "[broker]\n",
            "\nlisten = ",
            "9" * 5000,
            "1979-05-27T07:32:00Z",
            "inf",
            "nan",
            '"\\u0000"',
            "~nobody/x",
            '"""',
            "{a=",
            "[" * 2000,
            "a." * 3000,
            "5 kı",
            "ipc://",
            "tcp://",
            "=",
        ),
        runs=4000,
    ),
    Target(
        "size",
        size,
        lambda: [b"512 MiB", b"2GB", b"4096", b"1.5 gib", b" 7 k "],
        (BadRequest,),
        speaking("KiB", "TI", "ı", "K", "9" * 30, ".", "e9"),
        runs=10_000,
    ),
]
