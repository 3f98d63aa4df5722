"""What a store's changes and loads are asked with and give back."""

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
    """`ANY` as a commit's `expect`: whatever the name's head is, move it."""

    ANY = "any"


ANY: Final = Expect.ANY


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Whose change this is: a change with a key has one effect, however often it is asked for."""

    id: bytes
    expires_s: float  # the outcome is kept at least so long, whatever the wall clock does


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A checkpoint ready to continue: read `replay` into `snapshot` first, where there is any.

    With an empty `replay`, `snapshot` is the checkpoint itself. Otherwise it is its nearest stored ancestor (or the
    empty context), and after reading `replay` the state is that of `object`, with its `parent`, `seed` and `tokens`.
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
    """A context to be made durable: `snapshot` (whose `parent` it came from, by reading `read`) as the head of `name`.

    `expect` is the head that the name must have, None where it must not exist. `answer` makes the outcome of the
    object's id. A root of kind 'import' without tokens is opaque.
    """

    snapshot: Snapshot
    read: Read
    name: str
    expect: str | Expect | None = ANY
    request: RequestKey | None = None
    answer: Callable[[str], bytes] = lambda _object: b""


@dataclass(frozen=True, slots=True)
class Committed:
    """`object` is '' where `duplicate`: then `answer` is what the request was answered before."""

    object: str
    answer: bytes
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A change's result and the answer that stands; a duplicate has no result, only the former answer."""

    result: T | None
    answer: bytes
    duplicate: bool = False
