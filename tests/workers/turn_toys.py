"""A runtime whose tokens may have any shape and whose model is a function of the text, and a driver for one turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ssmprov.settings import Settings
from workers.context import Arrays, Identity, Snapshot, empty
from workers.prompt import Prompt
from workers.runtimes.base import Feed, Logits
from workers.sampler import sample
from workers.turn import Limits, Turn
from workers.turns import vocabulary_of

END = 0
CONTROL = 1
FIRST_BYTE = 2
FIRST_PIECE = FIRST_BYTE + 256
GREEDY = Settings(temp=0.0)

Model = Callable[["ToyRuntime", bytes], Logits]


class ToyRuntime:
    """Token 0 ends, token 1 is a control token, then all bytes, then the pieces. The state is the ids read."""

    def __init__(self, pieces: Sequence[bytes], model: Model, slots: int = 1) -> None:
        self.pieces = [b"", b"", *(bytes([byte]) for byte in range(256)), *pieces]
        self.identity = Identity("f" * 64, "toy", "toy tokens", "fp32")
        self.vocabulary = len(self.pieces)
        self.slots = slots
        self.state_bytes = 0
        self.context_tokens: int | None = None
        self.end_tokens = frozenset({END})
        self.control_tokens = frozenset({CONTROL})
        self.read: list[list[int]] = [[] for _ in range(slots)]
        self._model = model
        self._longest = sorted(filter(None, set(pieces)), key=len, reverse=True)

    def id(self, piece: bytes) -> int:
        if piece in self.pieces[FIRST_PIECE:]:
            return self.pieces.index(piece, FIRST_PIECE)
        return self.pieces.index(piece, FIRST_BYTE) if piece else END

    def tokenize(self, text: str) -> list[int]:
        """The longest piece first, as tokenizers do."""
        return list(self._tokens(text.encode()))

    def _tokens(self, data: bytes) -> Iterator[int]:
        while data:
            found = next((piece for piece in self._longest if data.startswith(piece)), data[:1])
            yield self.id(found)
            data = data[len(found) :]

    def piece(self, token: int) -> bytes:
        return self.pieces[token]

    def load(self, slot: int, arrays: Arrays) -> None:
        self.read[slot] = [int(token) for token in arrays["tokens"]] if arrays else []

    def save(self, slot: int) -> Arrays:
        return {"tokens": np.array(self.read[slot], np.int32)}

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        for feed in feeds:
            assert feed.tokens, "a runtime reads at least one token"
            self.read[feed.slot] += feed.tokens
        return np.stack([self._model(self, self.text(feed.slot)) for feed in feeds]).astype(np.float32)

    def text(self, slot: int = 0) -> bytes:
        return b"".join(self.pieces[token] for token in self.read[slot])


def follow(rules: Mapping[bytes, Sequence[bytes]]) -> Model:
    """After a text that ends with the key the pieces are wanted, the likeliest first (b'' is the end token).

    The first one holds at least 63 % of the softmax.
    """

    def model(runtime: ToyRuntime, text: bytes) -> Logits:
        logits = np.full(runtime.vocabulary, -20.0, np.float32)
        wanted = next((pieces for suffix, pieces in rules.items() if text.endswith(suffix)), [b""])
        for rank, piece in enumerate(wanted):
            logits[runtime.id(piece)] = 10.0 - rank
        return logits

    return model


def toy(rules: Mapping[bytes, Sequence[bytes]], *more: bytes) -> ToyRuntime:
    """A toy whose pieces are those of the rules, and some more."""
    pieces = dict.fromkeys(piece for wanted in rules.values() for piece in wanted if len(piece) > 1)
    return ToyRuntime([*pieces, *more], follow(rules))


@dataclass
class Driver:
    """Steps one turn as the scheduler does, on slot 0 of a runtime, and looks at it after each step.

    `shown` is what a reader had been sent after each step.
    """

    runtime: ToyRuntime
    turn: Turn
    slice: int = 3
    shown: list[bytes] = field(default_factory=list)
    steps: int = 0

    def step(self) -> None:
        turn = self.turn
        if not turn.failed and (tokens := turn.upcoming(self.slice)):
            turn.fed(len(tokens), self.runtime.forward([Feed(0, tokens)])[0])
        turn.settle()
        while not (turn.done or turn.waiting or turn.stop):
            logits, draw = turn.draw()
            turn.judge(sample(logits[None], [draw])[0])
        if turn.moves and not turn.failed:
            turn.move(lambda: self.runtime.save(0), lambda arrays: self.runtime.load(0, arrays))
        self.shown.append(bytes(turn.reply[: turn.showable]))
        self.steps += 1
        assert self.steps < 10_000, "the turn does not end"

    def run(self) -> Turn:
        while not self.turn.done:
            self.step()
        return self.turn

    def snapshot(self) -> Snapshot:
        return self.turn.snapshot(self.runtime.save(0), "")


def begin(
    runtime: ToyRuntime,
    prompt: str | bytes,
    *,
    start: Snapshot | None = None,
    settings: Settings = GREEDY,
    tokens: int | None = None,
    chars: int = 1000,
    seed: int = 0,
    replay: Sequence[int] = (),
    context: int | None = None,
    headers: bool = False,
) -> Driver:
    """A turn at its beginning; its context is put into slot 0."""
    vocabulary = vocabulary_of(runtime)
    start = start or empty()
    runtime.load(0, start.arrays)
    data = prompt.encode() if isinstance(prompt, str) else prompt
    read = Prompt(data, vocabulary, heal=True)
    limits = Limits(tokens, chars, context)
    return Driver(runtime, Turn(vocabulary, start, read, settings, limits, seed, replay, headers=headers))


def primed(runtime: ToyRuntime, text: str) -> Snapshot:
    """The context after a text."""
    driver = begin(runtime, text, tokens=0)
    driver.run()
    return driver.snapshot()
