"""The operations that a REQUEST names: their arguments and their results. What holds for each: `ssmprov.rules`."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Raw

from ssmprov import wire

Text = Annotated[str, Meta(max_length=200)]
Names = Annotated[list[Text], Meta(max_length=256)]
Object = str

MAX_TOKENS = 1 << 20
MAX_CHARS = 1 << 20
MAX_PROBE_TEXT = 16 * 1024
"""Bytes of a probe's text: what a small model reads within seconds, since no reading is broken off in the middle."""

MAX_PROBE_REPLY = 256
MAX_SLOT = 4095

ROUTINGS = ("softmax", "top1", "topk")
MASK_WHERES = ("read", "content_read_only", "slotspace_only")


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
    `shared_tokens` of both did not have to be read, because another turn had read the same from the same checkpoint.
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
    shared_tokens: int = 0


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


class Probe(msgspec.Struct, omit_defaults=True):
    """Read the text (the payloads) after `context` and tell how the addressed slots were read. It changes nothing.

    `routing` softmax, top1, or topk with the `topk` heaviest slots, and the `masked` slots (of every head), which take
    no part in what `where` says, hold for this text and for what follows it. `top` bounds what is listed of slots, a
    layer, and of next tokens; `reply_tokens` of the likeliest tokens are written after it.
    """

    routing: Text = "softmax"
    topk: Annotated[int, Meta(ge=1, le=MAX_SLOT + 1)] = 2
    masked: Annotated[list[Annotated[int, Meta(ge=0, le=MAX_SLOT)]], Meta(max_length=MAX_SLOT + 1)] = []
    where: Text = "read"
    top: Annotated[int, Meta(ge=1, le=64)] = 5
    reply_tokens: Annotated[int, Meta(ge=0, le=MAX_PROBE_REPLY)] = 0

    @property
    def intervenes(self) -> bool:
        """Whether slots are read otherwise than a turn reads them."""
        return self.routing != "softmax" or bool(self.masked)


class SlotWeight(NamedTuple):
    """A read weight of the last token."""

    head: int
    slot: int
    weight: float


class NextToken(NamedTuple):
    """A token that may come next; of its bytes, those that are no text are escaped, and an end token has none."""

    token: int
    text: str
    probability: float


class LayerProbed(msgspec.Struct):
    """How one layer read its slots.

    `entropy` is that of the last token's read weights in nats, a mean over heads; `mean_entropy` also over the tokens
    read; `top` the heaviest weights of the last token. `gate`, `gamma` and `strength` are the layer's scalars:
    refinement, content read and ALiBi.
    """

    entropy: float
    mean_entropy: float
    top: list[SlotWeight]
    gate: float
    gamma: float
    strength: float


class Probed(msgspec.Struct, omit_defaults=True):
    """What a probe saw. Its text is the reply (`reply_bytes`), then the plain one.

    No entropy exceeds `max_entropy`, ln of the `slots` of each of `heads`. `tokens` are those of the text, after the
    `context_tokens` of the checkpoint `object`; `prefill_tokens` of these had to be read again first.
    Where slots were read otherwise than in a turn (`intervened`), `divergence` is KL(plain || intervened) of the next
    token in nats, and `plain_next` and the plain reply are what comes without that.
    """

    layers: list[LayerProbed]
    next: list[NextToken]
    heads: int = 0
    slots: int = 0
    max_entropy: float = 0.0
    tokens: int = 0
    context_tokens: int = 0
    prefill_tokens: int = 0
    object: Object = ""
    reply_tokens: int = 0
    reply_bytes: int = 0
    intervened: bool = False
    divergence: float = 0.0
    plain_next: list[NextToken] = []
    plain_reply_tokens: int = 0
    plain_reply_bytes: int = 0
    worker: str = ""
    ms: float = 0.0


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
    """Asked of the broker itself; with `story`, a request id in hexadecimal or its beginning, for that one's steps."""

    story: str = ""


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


class StoryStep(msgspec.Struct, omit_defaults=False):
    """What happened to a request, how many seconds ago, and at which worker."""

    ago_s: float
    what: str
    worker: str = ""


class Story(msgspec.Struct, omit_defaults=False):
    """The last steps of a request, the oldest first; `id` is in hexadecimal."""

    id: str
    op: str
    model: str
    steps: list[StoryStep]


class StatusResult(msgspec.Struct, omit_defaults=False):
    """What the broker knows; `contexts` maps MODEL:NAME to the worker where it was last hot.

    `story` is told if it was asked for, of requests under way and of those that ended last.
    """

    broker: BrokerStatus
    models: list[ModelStatus]
    workers: list[WorkerStatus]
    contexts: dict[str, str] = {}
    pins: dict[str, str] = {}
    story: list[Story] = []
