"""What every runtime offers: tokens and states in, logits and states out, for a batch of independent contexts.

A runtime does not know about names, sockets or sampling. One thread uses it, except that any thread may call `tokenize`
and `piece`. A new runtime is a module with `open_runtime`, a function that takes a `Plan` and returns a `Runtime`, and
one entry point in the group `ssmprov.runtimes` that names it. If its models have options, the module also has a struct
`Options` (see `ssmprov.runtimes`), which `open_runtime` decodes from `Plan.options`.
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
    """How to load a model: what its table in the configuration says.

    `options` are the keys of its runtime. `processors` is how many this worker may keep busy, unless an option says
    otherwise.
    """

    path: Path
    slots: int
    device: str = "cpu"
    dtype: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    processors: int = 1
    cache: Path | None = None
    """Where a runtime may keep what it learned about files; it can be deleted at any time."""
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
    """The most tokens that a context may have read; None if there is no limit."""

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text; control strings are read as plain text."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token spells; b'' for end and control tokens."""

    def load(self, slot: int, arrays: Arrays) -> None:
        """Put a state into a slot; {} empties the slot. Raises Corrupt if names or shapes do not fit."""

    def save(self, slot: int) -> Arrays:
        """A copy of a slot's state."""

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        """Let each slot read its tokens; return the logits [len(feeds), V] after the last token of each."""


@runtime_checkable
class Tunable(Protocol):
    """A runtime whose numbers can be tuned: it accepts states that were computed rather than read, and reads a state
    with the weights that it names.
    """

    def check(self, arrays: Arrays) -> None:
        """Raise Corrupt for arrays that are not a state of this model. Any thread may call this."""

    def check_weights(self, weights: Arrays) -> None:
        """Raise Corrupt if names, shapes or types differ from those of this model. Any thread may call this."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A context of another program: its state, its logits [V] if there were any, and the tokens read."""

    arrays: Arrays
    logits: Logits | None
    tokens: int


@runtime_checkable
class Adopts(Protocol):
    """A runtime that can import a state which another program wrote with the same library."""

    def adopt(self, blob: bytes, tokens: int) -> Adopted:
        """The state in a foreign blob, for a model that has read `tokens`. Any thread may call this.

        Raises Corrupt if it is not a state of this model's shape. It cannot see which weights wrote it.
        """


@dataclass(frozen=True, slots=True)
class Reading:
    """How a probe lets slots be read: normally, by the heaviest alone, or without some of them.

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

    `weights` [H,K] are the read weights of the last token, `entropy` [H] their entropy in nats, `mean_entropy` [H] its
    mean over all tokens read. `gate`, `gamma` and `strength` are the layer's scalars: refinement, content read, ALiBi.
    """

    weights: NDArray[np.float32]
    entropy: NDArray[np.float32]
    mean_entropy: NDArray[np.float32]
    gate: float
    gamma: float
    strength: float


@runtime_checkable
class Probes(Protocol):
    """A runtime whose contexts have addressed slots that a probe can look at."""

    def probe(
        self, arrays: Arrays, tokens: Sequence[int], reading: Reading, reply_tokens: int, before: Sequence[int] = ()
    ) -> Probe:
        """Read tokens (at least one) after a state, beside everything else: it uses no slot. Any thread may call this.

        `before` leads from the state to where the tokens begin. It is read normally, and nothing is reported about it.
        Raises BadRequest for a reading that this model does not know, Corrupt if the arrays do not fit.
        """


@dataclass(frozen=True, slots=True)
class Probe:
    """What reading some tokens showed: a `LayerSeen` for each layer, the logits [V] after the last token, and the
    `reply_tokens` likeliest tokens that follow one another, up to an end token.
    """

    layers: Sequence[LayerSeen]
    logits: Logits
    reply: Sequence[int]


def load(name: str, plan: Plan) -> Runtime:
    """Load a model with the runtime of that name. Raises NotFound, and what the runtime raises."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        raise NotFound(f"there is no runtime {name!r}{nearest(name, known)}")
    opener: Callable[[Plan], Runtime] = known[name].load()
    return opener(plan)
