"""Arguments and results of a store's changes and loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from workers.context import Read, Snapshot, empty

T = TypeVar("T")


class Expect(Enum):
    """`ANY` as a commit's `expect`: move the name whatever its head is."""

    ANY = "any"


ANY: Final = Expect.ANY


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The key of a change: a change with a key takes effect once, however often it is requested."""

    id: bytes
    expires_s: float  # the outcome is kept at least this long, whatever the wall clock does


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A checkpoint ready to continue: first read `replay` into `snapshot`, unless it is empty.

    If `replay` is empty, `snapshot` is the checkpoint itself. Otherwise it is the nearest stored ancestor (or the empty
    context); after reading `replay` the state is that of `object`, with its `parent`, `seed` and `tokens`.
    """

    object: str
    snapshot: Snapshot
    replay: NDArray[np.int32]
    parent: str
    seed: int | None
    tokens: int

    @classmethod
    def empty(cls) -> Loaded:
        """The context that has read nothing."""
        return cls(object="", snapshot=empty(), replay=np.zeros(0, np.int32), parent="", seed=None, tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A context to make durable: `snapshot`, which came from its `parent` by reading `read`, as the head of `name`.

    `expect` is the head that the name must have; None means that the name must not exist. `answer` makes the outcome
    from the object's id. A root of kind 'import' without tokens is opaque.
    """

    snapshot: Snapshot
    read: Read
    name: str
    expect: str | Expect | None = ANY
    request: RequestKey | None = None
    answer: Callable[[str], bytes] = lambda _object: b""


@dataclass(frozen=True, slots=True)
class Committed:
    """`object` is '' for a duplicate; `answer` is then the answer that the request got before."""

    object: str
    answer: bytes
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A change's result and the valid answer. A duplicate has no result, only the earlier answer."""

    result: T | None
    answer: bytes
    duplicate: bool = False
