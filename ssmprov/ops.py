"""The arguments and results of the operations. What holds for each operation is in `ssmprov.operations`."""

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
"""The most bytes of a probe's text. A small model reads that within seconds, and reading it cannot be cancelled."""

MAX_PROBE_REPLY = 256
MAX_SLOT = 4095

ROUTINGS = ("softmax", "top1", "topk")
MASK_WHERES = ("read", "content_read_only", "slotspace_only")


class Turn(msgspec.Struct, omit_defaults=True):
    """Read the prompt (the payloads) into the context, then write until the fence, an end token or a limit.

    The reply also ends before a header of the transcript that the model writes at the beginning of a line. Then the
    fence closes it. With `headers` it does not.

    `save` is the name that moves to the new checkpoint; with '' nothing is kept. `if_head` makes it a compare-and-swap:
    the hash of the object where the name must be, or `none` for a name that must not exist yet. `create` starts a
    context that does not exist as an empty one. `settings` is a sampling set, and `values` overrides single settings of
    it. `seed` is drawn if it is not given. `max_tokens` and `max_chars` limit the reply; `max_tokens` 0 only reads the
    prompt. With `stream` the reply comes in PARTIALs.
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
    headers: bool = False


class TurnResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How a turn ended.

    `stop` is fence, header (the model began one, and the fence was added instead), end, limit, forced (a half step's
    completed fence), read (max_tokens 0) or cancelled. `name` and `object` are the new checkpoint and `parent` is the
    one before it, '' for none. `seed` is the one that was used. `tokens` counts what the context has read since its
    root, `prompt_tokens` and `reply_tokens` this turn's share, `reply_bytes` the bytes of the reply, and
    `prefill_tokens` what had to be read again to restore the context (0 unless an old step was replayed).
    `shared_tokens` counts those of `prompt_tokens` and `prefill_tokens` that the model did not have to read, because
    another turn had read the same from the same checkpoint. `restored` says where the context came from: empty, hot,
    disk or replay. `exact` is false if the state was rounded at some point. `worker` is the one that ran the turn.
    `restore_ms`, `prompt_ms`, `reply_ms` and `commit_ms` are in milliseconds.
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
    """Give the context further names, `targets`.

    `on` pins them to these workers, one after another, and `spread` to all workers of the model. `overwrite` moves
    names that already exist; with `if_head`, only those that are at that object.
    """

    targets: Names
    on: Names = []
    spread: bool = False
    overwrite: bool = False
    if_head: Annotated[str, Meta(max_length=64)] | None = None


class ForkResult(msgspec.Struct, omit_defaults=True):
    """The `object` that all `targets` now name. `pins` maps the pinned ones to their workers. It took `ms`."""

    object: Object
    targets: list[str]
    pins: dict[str, str] = {}
    ms: float = 0.0


class Move(msgspec.Struct, omit_defaults=True):
    """Load the context on `worker` and pin it there; '' removes the pin."""

    worker: Text = ""


class Remove(msgspec.Struct, omit_defaults=True):
    """Remove `names`. Later, `ckpt.gc` deletes what nothing else needs."""

    names: Names


class List(msgspec.Struct, omit_defaults=True):
    """A page of the names after `after`, at most `limit`, that begin with `prefix`.

    Names that begin with @ are only listed if `reserved` is true.
    """

    prefix: Text = ""
    after: Text = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    reserved: bool = False


class Row(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A named checkpoint: `name`, and the `object` with its state.

    `model` and `fingerprint` say what wrote it, and `parent` is the object of the step before it ('' for a root).
    `tokens` counts what it has read, in `steps`. `bytes` is the size of the object's file. `created` is in seconds
    since 1970. `pinned` is the worker that it is pinned to. `opaque` means that its root was imported, so nobody knows
    what that root has read. `exact` is false if a state was rounded at some point. `stored` is false if its state has
    to be computed again from an older step. `text_bytes` is the length of the text that it has read since its root, and
    `text_digest` the digest of that text in hexadecimal (see `ssmprov.textdigest`).
    """

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
    text_bytes: int = 0
    text_digest: str = ""


class Page(msgspec.Struct, omit_defaults=True):
    """`rows` of a listing. `more` says that there are further ones."""

    rows: list[Row]
    more: bool = False


class Show(msgspec.Struct, omit_defaults=True):
    """Show one checkpoint. With `text`, also send what it has read: up to 8 MiB from byte `offset`, as payloads.

    Nobody knows what an opaque root has read. With `since_root` you get the text that followed it.
    """

    text: bool = False
    offset: wire.Count = 0
    since_root: bool = False


class Shown(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A checkpoint: its `row`, the `seed` and sampling `settings` of the turn that made it, and all its `names`."""

    row: Row
    seed: int | None = None
    settings: dict[str, float] = {}
    names: list[str] = []


class Log(msgspec.Struct, omit_defaults=True):
    """List the steps of a lineage, newest first: at most `limit`, starting with the one before the object `before`."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    before: Annotated[str, Meta(max_length=64)] = ""


class Step(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One step of a lineage: its `object` and that of its `parent`.

    `tokens` counts what the context has read so far; `step_tokens` and `step_bytes` what this step read. `created` is
    in seconds since 1970. `kind` is turn, import or replay. `excerpt` is the beginning of what it read. `stored` is
    false if its state has to be computed again. `names` are those at this step.
    """

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
    """`steps` of a lineage or of a tree. `more` says that there are further ones."""

    steps: list[Step]
    more: bool = False


class Tree(msgspec.Struct, omit_defaults=True):
    """List named checkpoints and the steps between them, at most `limit`; with a context, only those of its root."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 400


class Verify(msgspec.Struct, omit_defaults=True):
    """Hash every object of the store again, and check every row of its catalogue."""


class Repair(msgspec.Struct, omit_defaults=True):
    """Repair what can be repaired while the store serves, then verify it."""


class Verified(msgspec.Struct, omit_defaults=True):
    """How many `objects` were checked, and how many `bytes` they have.

    `faults` has a sentence for each damaged object or row, which names the file. `repairs` has one for each repair.
    """

    objects: int
    bytes: int
    faults: list[str] = []
    repairs: list[str] = []


class BackedUp(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How many `objects` and `bytes` a backup has, and how many of them were copied now (`copied`, `copied_bytes`).

    `removed` counts the objects that it no longer needed. `faults` has a sentence for each object that the store lacks.
    """

    objects: int
    bytes: int
    copied: int = 0
    copied_bytes: int = 0
    removed: int = 0
    faults: list[str] = []


class Collect(msgspec.Struct, omit_defaults=True):
    """Delete the checkpoints that no name, history or pin needs. With `dry_run`, only count them."""

    dry_run: bool = False


class Collected(msgspec.Struct, omit_defaults=True):
    """How many `objects`, `bytes` and `steps` of the catalogue were deleted. `kept` counts the objects that remain."""

    objects: int
    bytes: int
    steps: int = 0
    kept: int = 0


class Replay(msgspec.Struct, omit_defaults=True):
    """Read a context's tokens again from its root and compare. Save the result as `save` if it is not ''.

    With `prime`, read the text in the payloads instead, for example that of another model's context.
    """

    save: Text = ""
    prime: bool = False


class Replayed(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`tokens` were read again in `ms` milliseconds. `object` and `name` are the new checkpoint, '' for none.

    `text_equal` says whether the text was the same. `largest_difference` compares the two states; it is nil if there
    was no second one.
    """

    tokens: int
    ms: float
    object: Object = ""
    name: str = ""
    text_equal: bool = True
    largest_difference: float | None = None


class Probe(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Read the text (the payloads) after the context and report how the addressed slots were read. It changes nothing.

    `routing` is softmax, top1, or topk with the `topk` heaviest slots. The slots in `masked` are left out in every
    head, at the place that `where` names. Both apply to this text and to the reply. `top` is how many slots per layer
    and how many next tokens are listed. `reply_tokens` is how many tokens are written after the text, always the
    likeliest one.
    """

    routing: Text = "softmax"
    topk: Annotated[int, Meta(ge=1, le=MAX_SLOT + 1)] = 2
    masked: Annotated[list[Annotated[int, Meta(ge=0, le=MAX_SLOT)]], Meta(max_length=MAX_SLOT + 1)] = []
    where: Text = "read"
    top: Annotated[int, Meta(ge=1, le=64)] = 5
    reply_tokens: Annotated[int, Meta(ge=0, le=MAX_PROBE_REPLY)] = 0

    @property
    def intervenes(self) -> bool:
        """Whether slots are read differently than in a turn."""
        return self.routing != "softmax" or bool(self.masked)


class SlotWeight(NamedTuple):
    """A read weight of the last token: `head`, `slot` and `weight`."""

    head: int
    slot: int
    weight: float


class NextToken(NamedTuple):
    """A `token` that may come next, its `text` and its `probability`.

    Bytes that are not text are escaped. An end token has no text.
    """

    token: int
    text: str
    probability: float


class LayerProbed(msgspec.Struct, kw_only=True):
    """How one layer read its slots.

    `entropy` is that of the last token's read weights in nats, a mean over heads; `mean_entropy` is also over the
    tokens read; `top` lists the heaviest weights of the last token. `gate`, `gamma` and `strength` are the layer's
    scalars: refinement, content read and ALiBi.
    """

    entropy: float
    mean_entropy: float
    top: list[SlotWeight]
    gate: float
    gamma: float
    strength: float


class Probed(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a probe saw. Its text is the reply (`reply_bytes`), then the plain reply (`plain_reply_bytes`).

    `layers` has one entry per layer, and `next` the likeliest next tokens. No entropy exceeds `max_entropy`, which is
    ln of the `slots` of each of `heads`. `tokens` are those of the text, after the `context_tokens` of the checkpoint
    `object`; `prefill_tokens` of these had to be read again first. `reply_tokens` and `plain_reply_tokens` count the
    tokens of the two replies. If slots were read differently than in a turn (`intervened`), `divergence` is
    KL(plain || intervened) of the next token in nats, and `plain_next` and the plain reply are what comes without the
    change. `worker` computed it, in `ms` milliseconds.
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
    """The file that was sent: its `sha256` (hex), its size in `bytes`, and how many `steps` it holds."""

    sha256: str
    bytes: int
    steps: int = 0


class Import(msgspec.Struct, omit_defaults=True):
    """Import an exported file, whose CHUNKs follow, under the name `save`.

    The file has `bytes` bytes with the hash `sha256` (hex; '' is not checked). With `trust`, it is the `kv.pkl` of an
    old runner. Such a file does not say which model wrote it, so the client must know.
    """

    save: Text
    bytes: wire.Count
    sha256: Annotated[str, Meta(max_length=64)] = ""
    trust: bool = False


class SettingsShow(msgspec.Struct, omit_defaults=True):
    """The sampling set `name`; '' is the model's default."""

    name: Text = ""


class SettingsSet(msgspec.Struct, omit_defaults=True):
    """Write the sampling set `name`: `values` over the set `base` ('' for the model's default)."""

    name: Text
    base: Text = ""
    values: dict[str, float] = {}


class SettingsSaved(msgspec.Struct, omit_defaults=True):
    """A sampling set: its `name`, all its `values`, and the `bytes` of its file (0 if it was only read)."""

    name: str
    values: dict[str, float]
    bytes: int = 0


class SettingsLs(msgspec.Struct, omit_defaults=True):
    """List the names of the sampling sets."""


class SettingsNames(msgspec.Struct, omit_defaults=True):
    """The `names` of the model's own sets and of the shipped ones. `default` is used if a turn names no set."""

    names: list[str]
    default: str = ""


class Settle(msgspec.Struct, omit_defaults=True):
    """Broker to worker: decide how the `request` of a lost worker ended, unless it has been committed.

    If it has not, it ends with `problem`. `save` is the name that it should have moved.
    """

    request: wire.Id
    problem: Raw
    save: Text = ""


class Settled(msgspec.Struct, omit_defaults=True):
    """If it was `committed`, `result` is its answer, with its text in the payloads. If not, the request is lost.

    `head` is the object where the request's name is now.
    """

    committed: bool
    result: Raw = Raw(b"\xc0")
    head: Object = ""


class Warm(msgspec.Struct, omit_defaults=True):
    """Broker to worker: load the context, so that its next turn starts at once."""


class Status(msgspec.Struct, omit_defaults=True):
    """Show what the broker, its models and its workers are doing. The broker answers this itself.

    With `story`, the answer also has the last steps of the requests whose ids, in hexadecimal, begin with it.
    """

    story: str = ""


class ModelStatus(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A served model: the fields of `ModelCard`, how many `workers` serve it and how many requests are `queued`.

    `name`, `runtime`, `fingerprint`, `architecture`, `dtype`, `settings`, `vocabulary` and `state_bytes` are as in
    `ModelCard`.
    """

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


class WorkerStatus(msgspec.Struct, omit_defaults=False, kw_only=True):
    """A worker: its `name`, its `model`, its process `pid` on `host`, and the `epoch` of its lease.

    `state` is ready, draining or stalled. `running` of its `slots` are in use. It holds `hot` states of `hot_bytes` in
    memory. `tokens_per_s` and `prefill_per_s` are rates over the last seconds.
    """

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


class BrokerStatus(msgspec.Struct, omit_defaults=False, kw_only=True):
    """The broker: its process `pid`, `uptime_s` in seconds, and how many `clients` are connected.

    `queued` requests are waiting and `running` ones are at workers. `accepted`, `answered` and `refused` count since
    the start. `requests_per_s` and `partials_per_s` are rates over the last seconds. `draining` means that it is
    shutting down.
    """

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
    """One step of a request: `what` happened `ago_s` seconds ago, and at which `worker` ('' for none)."""

    ago_s: float
    what: str
    worker: str = ""


class Story(msgspec.Struct, omit_defaults=False):
    """The last `steps` of a request, the oldest first. `id` is in hexadecimal; `op` and `model` are those it names."""

    id: str
    op: str
    model: str
    steps: list[StoryStep]


class StatusResult(msgspec.Struct, omit_defaults=False, kw_only=True):
    """What the broker knows: `broker`, `models` and `workers`.

    `default` is the model that is meant if none is named, even if it is not served now; '' if there is none.
    `not_served` has the configured models that cannot be served, and why.
    `contexts` maps MODEL:NAME to the worker where it was last hot, and `pins` to the worker where it is pinned.
    `story` has the requests that were asked for, if they are open or among the last that ended.
    """

    broker: BrokerStatus
    models: list[ModelStatus]
    workers: list[WorkerStatus]
    contexts: dict[str, str] = {}
    pins: dict[str, str] = {}
    story: list[Story] = []
    default: str = ""
    not_served: dict[str, str] = {}
