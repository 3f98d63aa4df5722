"""The operations that a REQUEST names: their arguments, their results, and the names that each one holds.

Locks: an operation takes the names that it reads shared and the names that it moves exclusive, all of them
queued at once in order of arrival (`locks`), so that no two deadlock or overtake.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from ssmprov import wire
from ssmprov.errors import BadRequest
from ssmprov.keys import Role
from ssmprov.names import check_name, parse_ref

Text = Annotated[str, Meta(max_length=200)]
Names = Annotated[list[Text], Meta(max_length=256)]
Object = str

MAX_TOKENS = 1 << 20
MAX_CHARS = 1 << 20


class Turn(msgspec.Struct, omit_defaults=True):
    """Read the prompt (the payloads) into `context`, then write until the fence, an end token or a limit.

    `save` names what moves to the new checkpoint; '' leaves no trace. `if_head` makes it a compare-and-swap:
    an object's hash, or 'none' for a name that must not exist yet. `create` starts a missing context empty.
    `settings` names a sampling set and `values` overrides single ones. `max_tokens` 0 only reads the prompt.
    """

    save: Text = ""
    if_head: Annotated[str, Meta(max_length=64)] | None = None
    create: bool = False
    settings: Text = ""
    values: dict[str, float] = {}
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    max_chars: Annotated[int, Meta(ge=0, le=MAX_CHARS)] | None = None
    stream: bool = False


class TurnResult(msgspec.Struct, omit_defaults=True):
    """How a turn ended.

    `stop` is fence, end, limit, forced (a half step's completed fence), read (max_tokens 0) or cancelled.
    `tokens` counts what the context has read since its root, `prompt_tokens` and `reply_tokens` this turn's
    share, `prefill_tokens` what had to be read again to restore it (0 unless an old step was replayed).
    `restored` tells from where the context came: empty, hot, disk or replay. Times are in milliseconds.
    """

    stop: str
    name: str = ""
    object: Object = ""
    parent: Object = ""
    seed: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    reply_bytes: int = 0
    prefill_tokens: int = 0
    restored: str = "empty"
    exact: bool = True
    worker: str = ""
    restore_ms: float = 0.0
    prompt_ms: float = 0.0
    reply_ms: float = 0.0
    commit_ms: float = 0.0


class Fork(msgspec.Struct, omit_defaults=True):
    """Give `context` further names. `on` pins them to workers in turn; `spread` to all workers in turn.

    `overwrite` moves names that exist; with `if_head` only where each stands at that object.
    """

    targets: Names
    on: Names = []
    spread: bool = False
    overwrite: bool = False
    if_head: Annotated[str, Meta(max_length=64)] | None = None


class ForkResult(msgspec.Struct, omit_defaults=True):
    object: Object
    targets: list[str]
    pins: dict[str, str] = {}
    ms: float = 0.0


class Move(msgspec.Struct, omit_defaults=True):
    """Make a context hot on `worker` and pin it there; '' takes the pin away."""

    worker: Text = ""


class Remove(msgspec.Struct, omit_defaults=True):
    names: Names


class List(msgspec.Struct, omit_defaults=True):
    """A page of names after `after`, at most `limit`, that begin with `prefix`."""

    prefix: Text = ""
    after: Text = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    reserved: bool = False


class Row(msgspec.Struct, omit_defaults=True):
    """A named checkpoint. `created` is in seconds since 1970; `bytes` is the size of the object's file."""

    name: str
    object: Object
    model: str = ""
    fingerprint: str = ""
    parent: Object = ""
    tokens: int = 0
    bytes: int = 0
    created: float = 0.0
    steps: int = 0
    pinned: str = ""
    opaque: bool = False
    exact: bool = True
    stored: bool = True


class Page(msgspec.Struct, omit_defaults=True):
    rows: list[Row]
    more: bool = False


class Show(msgspec.Struct, omit_defaults=True):
    """One checkpoint; with `text`, up to 8 MiB of what it has read from byte `offset`, as payloads.

    Nobody knows what an opaque root has read: only with `since_root` is the text told that followed it.
    """

    text: bool = False
    offset: wire.Count = 0
    since_root: bool = False


class Shown(msgspec.Struct, omit_defaults=True):
    row: Row
    seed: int | None = None
    settings: dict[str, float] = {}
    text_bytes: int = 0
    names: list[str] = []


class Log(msgspec.Struct, omit_defaults=True):
    """The steps of a lineage, newest first, from the one before object `before`."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    before: Annotated[str, Meta(max_length=64)] = ""


class Step(msgspec.Struct, omit_defaults=True):
    """One step of a lineage; `excerpt` is the beginning of what it read."""

    object: Object
    parent: Object = ""
    tokens: int = 0
    step_tokens: int = 0
    step_bytes: int = 0
    created: float = 0.0
    kind: str = "turn"
    excerpt: str = ""
    stored: bool = True
    names: list[str] = []


class Steps(msgspec.Struct, omit_defaults=True):
    steps: list[Step]
    more: bool = False


class Tree(msgspec.Struct, omit_defaults=True):
    """The forest of named checkpoints, or the part of it that shares a root with `context`."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 400


class Verify(msgspec.Struct, omit_defaults=True):
    pass


class Repair(msgspec.Struct, omit_defaults=True):
    """Mend what can be mended while the store serves, then verify it."""


class Verified(msgspec.Struct, omit_defaults=True):
    """`faults` has a sentence for each object or row that is wrong, naming the file; `repairs` one for each repair."""

    objects: int
    bytes: int
    faults: list[str] = []
    repairs: list[str] = []


class BackedUp(msgspec.Struct, omit_defaults=True):
    """A backup that stands: what it holds, how much of it was copied now, and what the store itself lacks."""

    objects: int
    bytes: int
    copied: int = 0
    copied_bytes: int = 0
    removed: int = 0
    faults: list[str] = []


class Collect(msgspec.Struct, omit_defaults=True):
    dry_run: bool = False


class Collected(msgspec.Struct, omit_defaults=True):
    objects: int
    bytes: int
    steps: int = 0
    kept: int = 0


class Replay(msgspec.Struct, omit_defaults=True):
    """Read a context's tokens again from its root, compare, and save under `save` where one is given.

    With `prime` the payloads are a text to read instead: how a context of another model is re-primed.
    """

    save: Text = ""
    prime: bool = False


class Replayed(msgspec.Struct, omit_defaults=True):
    tokens: int
    ms: float
    object: Object = ""
    name: str = ""
    text_equal: bool = True
    largest_difference: float | None = None


class Export(msgspec.Struct, omit_defaults=True):
    """Send a context with its lineage as one file, in CHUNKs."""


class Exported(msgspec.Struct, omit_defaults=True):
    sha256: str
    bytes: int
    steps: int = 0


class Import(msgspec.Struct, omit_defaults=True):
    """Take an exported file, whose CHUNKs follow, under the name `save`.

    With `trust` the file is the `kv.pkl` of an old runner, which does not say which model wrote it: the client does.
    """

    save: Text
    bytes: wire.Count
    sha256: Annotated[str, Meta(max_length=64)] = ""
    trust: bool = False


class SettingsShow(msgspec.Struct, omit_defaults=True):
    name: Text = ""


class SettingsSet(msgspec.Struct, omit_defaults=True):
    """Write a sampling set: `values` over the set `base` (the model's default where it is '')."""

    name: Text
    base: Text = ""
    values: dict[str, float] = {}


class SettingsSaved(msgspec.Struct, omit_defaults=True):
    name: str
    values: dict[str, float]
    bytes: int = 0


class SettingsLs(msgspec.Struct, omit_defaults=True):
    pass


class SettingsNames(msgspec.Struct, omit_defaults=True):
    names: list[str]
    default: str = ""


class Settle(msgspec.Struct, omit_defaults=True):
    """Broker to worker: decide the outcome of a lost worker's request, unless it has committed."""

    request: wire.Id
    problem: Raw
    save: Text = ""


class Settled(msgspec.Struct, omit_defaults=True):
    """`result` is the committed answer (its text in the payloads), or none where the loss was decided.

    `head` is the object that the request's name stands at.
    """

    committed: bool
    result: Raw = Raw(b"\xc0")
    head: Object = ""


class Warm(msgspec.Struct, omit_defaults=True):
    """Broker to worker: make a context hot."""


class Status(msgspec.Struct, omit_defaults=True):
    """Asked of the broker itself."""


class ModelStatus(msgspec.Struct, omit_defaults=True):
    name: str
    runtime: str = ""
    fingerprint: str = ""
    architecture: str = ""
    dtype: str = ""
    settings: str = ""
    vocabulary: int = 0
    state_bytes: int = 0
    workers: int = 0
    queued: int = 0


class WorkerStatus(msgspec.Struct, omit_defaults=False):
    """`state` is ready, draining or stalled; rates are tokens a second over the last seconds."""

    name: str
    model: str
    pid: int
    host: str
    epoch: int
    state: str
    slots: int
    running: int
    hot_bytes: int
    hot: int = 0
    tokens_per_s: float = 0.0
    prefill_per_s: float = 0.0


class BrokerStatus(msgspec.Struct, omit_defaults=False):
    pid: int
    uptime_s: float
    clients: int
    queued: int
    running: int
    accepted: int
    answered: int
    refused: int
    requests_per_s: float
    partials_per_s: float
    draining: bool


class StatusResult(msgspec.Struct, omit_defaults=False):
    """What the broker knows; `contexts` maps MODEL:NAME to the worker where it was last hot."""

    broker: BrokerStatus
    models: list[ModelStatus]
    workers: list[WorkerStatus]
    contexts: dict[str, str] = {}
    pins: dict[str, str] = {}


ARGS: dict[str, type[msgspec.Struct]] = {
    "turn": Turn,
    "ckpt.ls": List,
    "ckpt.show": Show,
    "ckpt.log": Log,
    "ckpt.tree": Tree,
    "ckpt.fork": Fork,
    "ckpt.move": Move,
    "ckpt.rm": Remove,
    "ckpt.export": Export,
    "ckpt.import": Import,
    "ckpt.verify": Verify,
    "ckpt.repair": Repair,
    "ckpt.gc": Collect,
    "ckpt.replay": Replay,
    "settings.ls": SettingsLs,
    "settings.show": SettingsShow,
    "settings.set": SettingsSet,
    "status": Status,
    "settle": Settle,
    "warm": Warm,
}
INTERNAL = frozenset({"settle", "warm"})
NEEDS_CONTEXT = frozenset({"ckpt.show", "ckpt.log", "ckpt.fork", "ckpt.move", "ckpt.export", "ckpt.replay"})
SAVES = frozenset({"ckpt.fork", "ckpt.move", "ckpt.rm", "ckpt.import", "settings.set"})

READS = frozenset(
    {"status", "ckpt.ls", "ckpt.show", "ckpt.log", "ckpt.tree", "ckpt.export", "settings.ls", "settings.show"}
)
CARE = frozenset({"ckpt.verify", "ckpt.repair", "ckpt.gc"})
"""What reads or writes the whole store."""


def decode_args(request: wire.Request) -> Any:
    """The typed arguments of a request, names checked. Raises BadRequest."""
    kind = ARGS.get(request.op)
    if kind is None:
        raise BadRequest(f"{request.op!r} is no operation of this version")
    args: Any = wire.unpack(request.args, kind)
    if request.context:
        parse_ref(request.context)
    elif request.op in NEEDS_CONTEXT and not (isinstance(args, Replay) and args.prime):
        raise BadRequest(f"{request.op} needs a context: name one")
    for name in (*_targets(args), getattr(args, "save", "")):
        if name:
            check_name(name, reserved=True)
    if isinstance(args, Fork | Remove) and not _targets(args):
        raise BadRequest(f"{request.op} needs at least one name")
    if isinstance(args, Import | SettingsSet) and not (args.save if isinstance(args, Import) else args.name):
        raise BadRequest(f"{request.op} needs a name")
    if isinstance(args, Move) and str(parse_ref(request.context)) != parse_ref(request.context).name:
        raise BadRequest(f"{request.context!r} is no name: only a name can be moved; fork it first")
    return args


def _targets(args: Any) -> list[str]:
    if isinstance(args, Fork):
        return args.targets
    if isinstance(args, Remove):
        return args.names
    return []


def locks(request: wire.Request, args: Any) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a request reads (shared) and moves (exclusive)."""
    shared = set()
    exclusive = set(_targets(args))
    if isinstance(args, Turn | Import | Replay) and args.save:
        exclusive.add(args.save)
    if request.context:
        name = parse_ref(request.context).name
        if isinstance(args, Move):
            exclusive.add(name)
        elif isinstance(args, Turn | Fork | Replay | Export) and name:
            shared.add(name)
    return frozenset(shared - exclusive), frozenset(exclusive)


def saves(request: wire.Request, args: Any) -> bool:
    """Whether the request has a durable effect, so that it is finished even when its client is gone."""
    return request.op in SAVES or bool(getattr(args, "save", ""))


def right(request: wire.Request, args: Any) -> Role:
    """The role that a request needs."""
    if request.op in READS:
        return Role.READ
    if request.op in CARE:
        return Role.ADMIN
    return Role.WRITE if saves(request, args) else Role.GENERATE
