"""What every runtime offers: tokens and states in, logits and states out, for a batch of independent contexts.

A runtime knows neither names nor sockets nor sampling. One thread uses it, but for `tokenize` and `piece`, which any
thread may call. A new runtime is a module with `open_runtime`, a function that takes a `Plan` and returns a `Runtime`,
and one entry point in the group `ssmprov.runtimes` that names it. If its models have options, the module also has a
struct `Options` (see `ssmprov.runtimes`), which `open_runtime` decodes from `Plan.options`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ssmprov.errors import NotFound, nearest
from ssmprov.runtimes import GROUP
from workers.context import Arrays, Identity

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a model is to be loaded: what its table in the configuration says.

    `options` are the keys that belong to its runtime. `processors` are those that this worker may keep busy, unless an
    option says otherwise.
    """

    path: Path
    slots: int
    device: str = "cpu"
    dtype: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    processors: int = 1
    cache: Path | None = None
    """Where a runtime may keep what it found out about files: it can be thrown away at any time."""
    weights: Path | None = None
    """The folder of the weights that states may name (see `workers.variants`)."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Tokens for one slot to read, at least one."""

    slot: int
    tokens: Sequence[int]


class Runtime(Protocol):
    """Slots 0 to slots - 1 hold one context each."""

    identity: Identity
    vocabulary: int
    slots: int
    state_bytes: int
    end_tokens: frozenset[int]
    """Tokens that end a turn and are never read."""
    control_tokens: frozenset[int]
    """Tokens that are never sampled."""
    context_tokens: int | None
    """Tokens that a context may have read at most; None where there is no end."""

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, control strings read as plain bytes."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token spells; b'' for end and control tokens."""

    def load(self, slot: int, arrays: Arrays) -> None:
        """Put a state into a slot; {} empties it. Raises Corrupt where names or shapes do not fit."""

    def save(self, slot: int) -> Arrays:
        """A copy of a slot's state."""

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        """Let each slot read its tokens; the logits [len(feeds), V] after the last one of each."""


@runtime_checkable
class Tunable(Protocol):
    """A runtime whose numbers can be tuned: it takes states that were not read but made, and reads a state that names
    weights with these."""

    def check(self, arrays: Arrays) -> None:
        """Raises Corrupt for arrays that are no state of this model. Any thread may call this."""

    def check_weights(self, weights: Arrays) -> None:
        """Raises Corrupt where names, shapes or types are not those of this model's. Any thread may call this."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A context that another program left: its state, its logits [V] where they came along, and the tokens read."""

    arrays: Arrays
    logits: Logits | None
    tokens: int


@runtime_checkable
class Adopts(Protocol):
    """A runtime that can take over a state which another program wrote with the same library."""

    def adopt(self, blob: bytes, tokens: int) -> Adopted:
        """The state in a foreign blob, for a model that has read `tokens`. Any thread may call this.

        Raises Corrupt for what is no state of this model's shape. Which weights wrote it cannot be seen.
        """


@dataclass(frozen=True, slots=True)
class Reading:
    """How a probe lets slots be read: as ever, by the heaviest alone, or without some of them.

    `routing` is softmax, top1, or topk with the `topk` heaviest. `masked` slots (of every head) take no part in what
    `where` says: read, content_read_only or slotspace_only.
    """

    routing: str = "softmax"
    topk: int = 2
    masked: tuple[int, ...] = ()
    where: str = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSeen:
    """What a probe saw in one layer.

    `weights` [H,K] are the read weights of the last token, `entropy` [H] theirs in nats, `mean_entropy` [H] the mean
    over all tokens read. `gate`, `gamma` and `strength` are the layer's scalars: refinement, content read, ALiBi.
    """

    weights: NDArray[np.float32]
    entropy: NDArray[np.float32]
    mean_entropy: NDArray[np.float32]
    gate: float
    gamma: float
    strength: float


@runtime_checkable
class Probes(Protocol):
    """A runtime whose contexts have addressed slots that can be looked at."""

    def probe(
        self, arrays: Arrays, tokens: Sequence[int], reading: Reading, reply_tokens: int, before: Sequence[int] = ()
    ) -> Probe:
        """Read tokens (at least one) after a state, beside everything else: no slot is used. Any thread may call this.

        `before` leads from the state to where they begin, and is read as ever: nothing is told of it.
        Raises BadRequest for a reading that this model does not know, Corrupt where the arrays do not fit.
        """


@dataclass(frozen=True, slots=True)
class Probe:
    """What reading some tokens showed: a `LayerSeen` for each layer, the logits [V] after the last token, and the
    `reply_tokens` likeliest tokens that follow one another, up to an end token."""

    layers: Sequence[LayerSeen]
    logits: Logits
    reply: Sequence[int]


def load(name: str, plan: Plan) -> Runtime:
    """Load a model with the runtime of that name. Raises NotFound, and what the runtime raises of its files."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        raise NotFound(f"there is no runtime {name!r}{nearest(name, known)}")
    opener: Callable[[Plan], Runtime] = known[name].load()
    return opener(plan)
