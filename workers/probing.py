"""Probes: how a model with addressed slots reads a text after a context. A probe changes nothing and uses no slot.

The text of a probe is tokenized on the `text` thread and its context is loaded on the store thread, as for a turn. A
thread for probes then computes them one at a time, beside the model thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssmprov import ops, wire
from ssmprov.errors import BadRequest, Cancelled, TimedOut, Unavailable, Unsupported
from ssmprov.names import parse_ref
from ssmprov.probes import check_text
from workers.answers import milliseconds
from workers.checkpoints import Loaded, Store
from workers.prompt import Prompt, Vocabulary
from workers.runtimes.base import LayerSeen, Logits, Probe, Probes, Reading, Runtime
from workers.turns import Turns

MAX_TOKENS = ops.MAX_PROBE_TEXT
"""Tokens that one probe may read, including those of a context whose state has to be read again."""


@dataclass(slots=True, eq=False, kw_only=True)
class Task:
    """A probe on its way through the threads. `cancelled` may be set at any time; times are of the monotonic clock."""

    request: wire.Request
    args: ops.Probe
    deadline: float
    arrived: float
    cancelled: bool = False


class Prober:
    """The steps of a probe for one model; each docstring names the thread that may call it."""

    def __init__(self, runtime: Runtime, name: str, store: Store, turns: Turns, vocabulary: Vocabulary) -> None:
        """`name` is the name of the runtime, for the error if it has no addressed slots."""
        self._runtime = runtime
        self._name = name
        self._store = store
        self._turns = turns
        self._vocabulary = vocabulary
        self._closed = False

    def tokens(self, data: bytes) -> list[int]:
        """The tokens of a probe's text. For the text thread. Raises Unsupported, then BadRequest for a bad text."""
        if not isinstance(self._runtime, Probes):
            raise Unsupported(
                f"the runtime {self._name!r} has no addressed slots: only models of the runtime 'asm' can be probed"
            )
        check_text(len(data))
        return Prompt(data, self._vocabulary, heal=False).tokens

    def load(self, task: Task) -> Loaded:
        """The context that a probe reads after. For the store thread. Raises what loading one for a turn raises."""
        if not task.request.context:
            return Loaded.empty()
        object_id = self._store.resolve(parse_ref(task.request.context))
        with self._store.hold(object_id):  # until it is in memory: nobody writes into it there
            return self._turns.load(None, object_id)

    def look(self, task: Task, loaded: Loaded, text: Sequence[int]) -> tuple[ops.Probed, bytes]:
        """Compute a probe, on a thread that may take its time: returns the result and the replies.

        Raises Cancelled and TimedOut between two readings of the text, and what the runtime raises.
        """
        args, runtime = task.args, self._runtime
        assert isinstance(runtime, Probes), "tokens() has rejected any other"
        arrays, again = loaded.snapshot.arrays, loaded.replay.tolist()
        if (total := len(again) + len(text)) > MAX_TOKENS:
            raise BadRequest(
                f"the context's state is not stored, and reading it and the text again takes {total} tokens, "
                f"but a probe reads at most {MAX_TOKENS}: probe after a later step"
            )
        reading = Reading(args.routing, args.topk, tuple(args.masked), args.where)
        self._check(task)
        seen = runtime.probe(arrays, text, reading, args.reply_tokens, again)
        result = self._result(seen, args.top)
        result.object, result.context_tokens = loaded.object, loaded.snapshot.tokens + len(again)
        result.tokens, result.prefill_tokens = len(text), len(again)
        replies = [self._reply(seen)]
        result.reply_tokens, result.reply_bytes = len(seen.reply), len(replies[0])
        if args.intervenes:
            self._check(task)
            plain = runtime.probe(arrays, text, Reading(), args.reply_tokens, again)
            result.intervened = True
            result.divergence = divergence(plain.logits, seen.logits)
            result.plain_next = self._next(plain.logits, args.top)
            replies.append(self._reply(plain))
            result.plain_reply_tokens, result.plain_reply_bytes = len(plain.reply), len(replies[1])
        result.ms = milliseconds(task.arrived, time.monotonic())
        return result, b"".join(replies)

    def close(self) -> None:
        """Begin no further readings."""
        self._closed = True

    def _check(self, task: Task) -> None:
        if task.cancelled:
            raise Cancelled("the probe was cancelled; it has changed nothing")
        if time.monotonic() >= task.deadline:
            raise TimedOut("the probe ran out of time: give it more, or send a shorter text")
        if self._closed:
            raise Unavailable("the worker is shutting down: probe again", retry_ms=500)

    def _result(self, seen: Probe, top: int) -> ops.Probed:
        heads, slots = seen.layers[0].weights.shape
        layers = [_layer(layer, top) for layer in seen.layers]
        return ops.Probed(
            layers=layers, next=self._next(seen.logits, top), heads=heads, slots=slots, max_entropy=math.log(slots)
        )

    def _next(self, logits: Logits, top: int) -> list[ops.NextToken]:
        chances = np.exp(_log_softmax(logits))
        return [ops.NextToken(n, self._shown(n), float(chances[n])) for n in _largest(chances, top)]

    def _shown(self, token: int) -> str:
        return self._vocabulary.piece(token).decode("utf-8", "backslashreplace")

    def _reply(self, seen: Probe) -> bytes:
        return b"".join(map(self._vocabulary.piece, seen.reply))


def divergence(plain: Logits, other: Logits) -> float:
    """KL(plain || other) of two next-token distributions given by their logits [V], in nats."""
    p, q = _log_softmax(plain), _log_softmax(other)
    held = p > -np.inf
    return max(0.0, float(np.sum(np.exp(p[held]) * (p[held] - q[held]))))


def _layer(seen: LayerSeen, top: int) -> ops.LayerProbed:
    slots = seen.weights.shape[1]
    flat = seen.weights.reshape(-1)  # [H*K]
    heaviest = [ops.SlotWeight(n // slots, n % slots, float(flat[n])) for n in _largest(flat, top) if flat[n]]
    return ops.LayerProbed(
        entropy=float(seen.entropy.mean()),
        mean_entropy=float(seen.mean_entropy.mean()),
        top=heaviest,
        gate=float(seen.gate),
        gamma=float(seen.gamma),
        strength=float(seen.strength),
    )


def _largest(values: NDArray[np.floating], count: int) -> list[int]:
    """The indices of the largest values, largest first; of equal ones the earlier first."""
    order: list[int] = np.argsort(-values, kind="stable")[:count].tolist()
    return order


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return found
