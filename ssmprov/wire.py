"""The wire: ZeroMQ frames around MessagePack headers.

    [routing id]            added and removed by the broker's ROUTER socket
    b"SSP1" + KIND          the magic and the message's kind, such as b"SSP1REQUEST"
    header                  one MessagePack map, at most 64 KiB
    payload, payload, ...   at most 8 raw frames of at most 1 MiB: text or state bytes, never MessagePack

Kinds and who sends them (C client, B broker, W worker):

    HELLO      C>B W>B B>C B>W  version, heartbeat, credit; the broker's answer carries its own identity
    REGISTER   W>B, B>W         a worker offers itself and gets a lease with an epoch; payload: its pins
    REQUEST    C>B B>W          one operation; payloads are its text
    ACCEPTED   B>C              the request is accepted, with its place; left out if FINAL comes at once
    PARTIAL    W>B>C            streamed text, gapless `seq` from 1 for each attempt
    FINAL      W>B>C            the one answer that ends a request; its payload is the text not yet streamed
    CANCEL     C>B>W            end a request early: keep, drop or close what was read
    CREDIT     C>B>W, W>B>C     the reader grants that many more PARTIALs or CHUNKs
    PULSE      both ways        liveness, and a worker's progress
    CHUNK      W>B>C, C>B>W     a piece of an exported or imported file, under credit
    BYE        both ways        the sender leaves, or rejects its peer with an error

`decode` checks the magic, the number of frames and their sizes before it decodes anything. Unknown header keys are
ignored; unknown kinds are rejected. A field that has its default is left out of the header.

Every message about a request has its `id`, and most have the `attempt` that they belong to. A client that sends a
request again increases it, and pieces of older attempts are dropped. `epoch` is the number of the worker's lease:
messages with the epoch of an ended lease are ignored. It is 0 between client and broker.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta, Raw

from ssmprov.errors import BadRequest, Problem

MAGIC = b"SSP1"
VERSION = 1
MAX_HEADER = 64 * 1024
MAX_PAYLOAD = 1024 * 1024
MAX_PAYLOADS = 8
MAX_TEXT = MAX_PAYLOAD * MAX_PAYLOADS

NOBODY = b"\0" * 16
"""The client id of a request whose client is not known yet."""

HEARTBEAT_IVL_MS = 200
HEARTBEAT_TIMEOUT_MS = 600
DEFAULT_TTL_MS = 600_000
MAX_TTL_MS = 24 * 3600 * 1000
HIGH_WATER_MARK = 1000

Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
Name = Annotated[str, Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Credits = Annotated[int, Meta(ge=0, le=1_000_000)]


class WireError(BadRequest):
    """Frames that are not a message of this protocol, or arguments that do not fit their operation."""


class Message(msgspec.Struct, omit_defaults=True):
    """Base of the typed headers."""


class ModelCard(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a worker says about its model. `status` shows it, and all workers of one model must agree on it.

    `name` is the model's. `runtime` is scripted, rwkv, llama or asm; `fingerprint` is the SHA-256 of the weights in
    hex; `architecture` and `dtype` are for people. `vocabulary` counts tokens, `state_bytes` is the size of one
    context's state, and `settings` is the name of the default sampling set.
    """

    name: Name
    runtime: str = ""
    fingerprint: str = ""
    architecture: str = ""
    vocabulary: int = 0
    state_bytes: int = 0
    dtype: str = ""
    settings: str = ""


class Running(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Part of REGISTER: a request that a worker is still working on when it registers again.

    `client` is the client's id, `op` the operation, and `context` and `save` are the names that it holds ('' for none).
    """

    id: Id
    attempt: int = 1
    client: Id = NOBODY
    op: str = "turn"
    context: Name = ""
    save: Name = ""


class Process(msgspec.Struct, omit_defaults=True):
    """Part of HELLO: which process a client is. `ssmprov.process.this` fills it in.

    `pid` is its id. `started` is in clock ticks since the host's boot, and `host` names the host and its process
    namespace. With it, the broker does not wait for a client on its own host whose process has ended.
    """

    pid: Count
    started: Count
    host: Name


class Hello(Message):
    """Who the sender is. It comes first on each connection, and the broker answers with its own HELLO.

    `client` is the sender's id: 16 random bytes, which a client keeps when it reconnects. From the broker's id, a
    client knows whether it is still the same broker. `role` is client, worker or broker, and `versions` are those that
    the sender speaks. `heartbeat_ms` is the interval of its PULSE. `credit` is sent by the broker; clients ignore it.
    `agent` is a name for people. `process` is the client's process, or nil if it does not say.
    """

    client: Id
    role: str = "client"
    versions: tuple[int, ...] = (VERSION,)
    heartbeat_ms: Count = HEARTBEAT_IVL_MS
    credit: Credits = 0
    agent: Annotated[str, Meta(max_length=100)] = ""
    process: Process | None = None


class Register(Message, kw_only=True):
    """From a worker: it offers to serve. From the broker: the lease.

    `worker` is its name, MODEL/INDEX, and `model` what it serves. `store` is the id of its checkpoint store, which all
    workers of a model share. `slots` is how many turns it runs at once. `pid`, `started` (in clock ticks since boot)
    and `host` identify its process, so that a lost worker can be killed. `epoch` is the lease that it had (0 for none);
    the broker's answer has the new one. After `stall_ms` without progress it counts as hung. `running` are the requests
    that it is still working on. A worker sends its store's pins, a map from names to workers, as payload.
    """

    worker: Name
    model: ModelCard
    store: Annotated[str, Meta(max_length=64)] = ""
    slots: Annotated[int, Meta(ge=1, le=4096)] = 1
    pid: Count = 0
    started: Count = 0
    host: Annotated[str, Meta(max_length=256)] = ""
    epoch: Count = 0
    stall_ms: Count = 60_000
    running: list[Running] = []


class Request(Message):
    """One operation, from a client to the broker, and from the broker to a worker. Its payloads are its text.

    `op` is an operation of `ssmprov.operations` and `args` are its arguments, as a map. `model` may be '' if only one
    is served. `context` is a reference (NAME, NAME~STEPS or #OBJECT), or '' for none. The request must end within
    `ttl_ms` milliseconds. `credit` is how many PARTIALs or CHUNKs may come, and `have` how many bytes of the reply the
    client already has from earlier attempts. The broker fills in `client` and `epoch` for the worker.
    """

    id: Id
    op: Annotated[str, Meta(max_length=32)]
    model: Name = ""
    context: Name = ""
    attempt: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    ttl_ms: Annotated[int, Meta(ge=1, le=MAX_TTL_MS)] = DEFAULT_TTL_MS
    credit: Credits = 0
    have: Count = 0
    epoch: Count = 0
    client: bytes = b""
    args: Raw = Raw(b"\x80")


class Accepted(Message):
    """From the broker to a client: the request is accepted, and `place` others are waiting before it."""

    id: Id
    attempt: int = 1
    place: Count = 0


class Partial(Message):
    """From a worker through the broker to a client: a piece of the reply, or how much of the prompt has been read.

    The payload is text from byte `offset` of the reply. `seq` counts from 1 in each attempt, without gaps. `tokens` is
    how many were sampled up to its end. If `total` is above 0, `done` of `total` tokens of the prompt have been read.
    """

    id: Id
    seq: Count
    attempt: int = 1
    epoch: Count = 0
    offset: Count = 0
    tokens: Count = 0
    done: Count = 0
    total: Count = 0


class Final(Message):
    """The one answer that ends a request, from a worker through the broker, or from the broker itself.

    `seq` is that of the last piece before it. `offset` is the byte of the reply at which the payloads' text begins.
    `error` is set if the request failed; else `result` is the operation's. A result that is too large for the header
    fills the first `result_frames` payloads instead (`final`, `take_result`). `hot` and `pins` are for the broker: the
    names whose states the worker now holds in memory, and the names that were pinned to a worker ('' for no longer).
    """

    id: Id
    attempt: int = 1
    epoch: Count = 0
    seq: Count = 0
    offset: Count = 0
    error: Problem | None = None
    result: Raw = Raw(b"\xc0")
    result_frames: Annotated[int, Meta(ge=0, le=MAX_PAYLOADS)] = 0
    hot: list[Name] = []
    pins: dict[str, str] = {}


class Cancel(Message):
    """From a client through the broker to a worker: end the request early.

    `mode` is `keep` (keep and save what was read), `drop` (save nothing), or `close` (write the end fence first).
    """

    id: Id
    mode: str = "drop"


class Credit(Message):
    """The reader accepts `n` more PARTIALs or CHUNKs. A client reads a reply or an export, a worker an import.

    If the broker sends it to a worker with an `attempt` above 0, the reader came back. Stream again from byte `have`,
    with `n` as the whole credit and the next seq after `seq`.
    """

    id: Id
    n: Credits = 0
    attempt: int = 0
    have: Count = 0
    seq: Count = 0


class Pulse(Message, kw_only=True):
    """A sign of life. The broker and workers send it, and a client answers each one. Only workers fill in the fields.

    `progress` changes whenever the model has done something. `running` counts open requests, and `hot_bytes` is the
    size of the states in memory. `tokens` and `prefill_tokens` count all tokens sampled and read since the start.
    """

    progress: Count = 0
    running: Count = 0
    hot_bytes: Count = 0
    tokens: Count = 0
    prefill_tokens: Count = 0


class Chunk(Message, kw_only=True):
    """A piece of a file: an export goes from a worker to a client, an import from a client to a worker.

    Its one payload begins at byte `offset` of the file. `seq` counts from 1, and `last` marks the last one.
    """

    id: Id
    seq: Count
    attempt: int = 1
    epoch: Count = 0
    offset: Count = 0
    last: bool = False


ByeCode = Literal["", "leaving", "draining", "hello_first", "lease_ended", "refused", "not_served"]


class Bye(Message):
    """The sender leaves, or rejects its peer.

    `code` tells a program which: `leaving` (the sender ends), `draining` (a worker takes no more requests),
    `hello_first` (the sender does not know its peer), `lease_ended` (the worker's lease is no longer valid),
    `refused` (see `error`), or `not_served` (a configured model cannot be served: `error` says why, and its `details`
    have the `model`). It is empty if the sender is older than this field. `reason` is for people.
    """

    reason: Annotated[str, Meta(max_length=1000)] = ""
    error: Problem | None = None
    code: ByeCode = ""


KINDS: dict[bytes, type[Message]] = {
    MAGIC + cls.__name__.upper().encode(): cls
    for cls in (Hello, Register, Request, Accepted, Partial, Final, Cancel, Credit, Pulse, Chunk, Bye)
}
_FRAME_OF = {cls: frame for frame, cls in KINDS.items()}
_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[bytes, msgspec.msgpack.Decoder[Any]] = {
    frame: msgspec.msgpack.Decoder(cls) for frame, cls in KINDS.items()
}

Payloads = Sequence[bytes]


def encode(message: Message, payloads: Payloads = ()) -> list[bytes]:
    """The frames of a message, without a routing id. Raises WireError if a frame is too large."""
    header = _ENCODER.encode(message)
    frames = [_FRAME_OF[type(message)], header, *payloads]
    _check_sizes(frames)
    return frames


def decode(frames: Sequence[bytes]) -> tuple[Message, list[bytes]]:
    """The message and its payloads, of frames without a routing id. Raises WireError."""
    decoder = _check_sizes(frames)
    try:
        message = decoder.decode(frames[1])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(f"the header of {_kind(frames[0])} is wrong: {error}") from error
    return cast(Message, message), list(frames[2:])


def _check_sizes(frames: Sequence[bytes]) -> msgspec.msgpack.Decoder[Any]:
    if len(frames) < 2 or frames[0][:4] != MAGIC:
        raise WireError("this is not an ssmprov message: its first frame does not begin with SSP1")
    decoder = _DECODERS.get(frames[0])
    if decoder is None:
        raise WireError(f"there is no message {_kind(frames[0])} in version {VERSION}")
    if len(frames[1]) > MAX_HEADER:
        raise WireError(f"the header has {len(frames[1])} bytes: at most {MAX_HEADER} are allowed")
    if len(frames) - 2 > MAX_PAYLOADS:
        raise WireError(f"there are {len(frames) - 2} payloads: at most {MAX_PAYLOADS} are allowed")
    for payload in frames[2:]:
        if len(payload) > MAX_PAYLOAD:
            raise WireError(f"a payload has {len(payload)} bytes: at most {MAX_PAYLOAD} are allowed")
    return decoder


def _kind(frame: bytes) -> str:
    return frame[4:20].decode("ascii", "backslashreplace")


T = TypeVar("T")


def pack(value: Any) -> Raw:
    """A value as raw MessagePack, for a header's `args` or `result`."""
    return Raw(_ENCODER.encode(value))


def unpack(raw: Raw | bytes, kind: type[T]) -> T:
    """A header's `args` or `result` as its type. Raises WireError with the path of what is wrong."""
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(f"the arguments are wrong: {error}") from error


MAX_RESULT = 32 * 1024


def final(message: Final, result: Any, text: bytes = b"") -> tuple[Final, list[bytes]]:
    """A FINAL with its result and text in place, and its payloads. Raises WireError if they do not fit."""
    raw = _ENCODER.encode(result)
    if len(raw) <= MAX_RESULT:
        message.result = Raw(raw)
        return message, split_text(text)
    frames = split_text(raw)
    message.result_frames = len(frames)
    payloads = [*frames, *split_text(text)]
    if len(payloads) > MAX_PAYLOADS:
        raise WireError("the answer does not fit into one message: ask for a smaller page")
    return message, payloads


def take_result(message: Final, payloads: Sequence[bytes]) -> tuple[Raw, bytes]:
    """The raw result of a FINAL and its text."""
    n = message.result_frames
    raw = Raw(b"".join(payloads[:n])) if n else message.result
    return raw, b"".join(payloads[n:])


def split_text(data: bytes) -> list[bytes]:
    """Text as payloads. Raises WireError if it does not fit into one message."""
    if len(data) > MAX_TEXT:
        raise WireError(
            f"the text has {len(data)} bytes, but at most {MAX_TEXT} ({MAX_TEXT // 2**20} MiB) fit into one request: "
            "send it in several turns"
        )
    return [data[i : i + MAX_PAYLOAD] for i in range(0, len(data), MAX_PAYLOAD)]


def new_id() -> bytes:
    return secrets.token_bytes(16)
