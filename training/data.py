"""The training text of rwkv7-mini: composed transcripts as token streams.

A transcript is `(Turn 7) [USER]: text`, the fence, `(Turn 8) [INTERFACE]: reply`, the fence and so on. Programs write
the headers. A model writes everything between the colon of its header and the end of its fence, so the loss has most of
its weight there.

Each lane of a batch reads one bundle after another. A bundle starts from the zero state and contains documents, with
the end of text between them. It is cut to a whole number of windows, so windows follow each other without padding. The
state is carried from window to window, also inside a long document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor

from models.mini.tokenizer import ByteTokenizer
from training.filler import any_filler, prose
from training.skills import Exchange, Fact, Mode, any_skill, new_fact, new_mode, quoted
from training.words import Split, Words

FENCE = "\n\n~~~(end)~~~\n\n"
UNKNOWN = "I do not know."

# Loss weights of a byte, by its writer. Users and files are unpredictable, so with full weight they would dominate.
REPLY, RECALL, HEADER, USER, FILLER = 1.0, 2.0, 0.02, 0.02, 0.005

AGENTS = ("INTERFACE",) * 12 + ("ASSISTANT", "MODEL", "BOT", "HELPER", "ALICE", "AGENT", "CLERK", "GUIDE")
BY_ROLE: dict[str, Callable[[str], str]] = {"QUOTE": quoted, "ECHO": str, "SHOUT": str.upper}


@dataclass(slots=True)
class Transcript:
    """Text as a list of pieces, each with the loss weight of its bytes."""

    turn: int
    pieces: list[tuple[str, float]] = field(default_factory=list)

    def add(self, role: str, text: str, weight: float) -> None:
        """Adds a turn. `weight` applies to its text and fence; the header has a fixed weight."""
        self.pieces += [(f"(Turn {self.turn}) [{role}]:", HEADER), (f" {text}{FENCE}", weight)]
        self.turn += 1

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


@dataclass(slots=True, kw_only=True)
class Conversation:
    """A conversation between a user and an agent, with the facts mentioned so far and the current mode."""

    words: Words
    transcript: Transcript
    agent: str = "INTERFACE"
    facts: dict[str, Fact] = field(default_factory=dict)
    mode: Mode | None = None

    def exchange(self) -> None:
        """Adds one step: a change of mode, or a user turn with its reply."""
        rng = self.words.rng
        draw = rng.random()
        if draw < (0.10 if self.mode is None else 0.12):
            self.change_mode()
        elif draw < 0.18:
            self.by_role()
        elif self.mode is not None:
            self.say(self.mode.exchange(self.words))
        elif draw < 0.62:
            self.remember()
        else:
            self.say(any_skill(self.words))

    def say(self, exchange: Exchange, weight: float = REPLY) -> None:
        self.transcript.add("USER", exchange.text, USER)
        self.transcript.add(self.agent, exchange.reply, weight)

    def remember(self) -> None:
        """The user states a fact or asks for one, sometimes for one that was never mentioned."""
        rng = self.words.rng
        if self.facts and rng.random() < 0.5:
            fact = rng.choice(list(self.facts.values()))
            self.say(Exchange("recall", fact.asked, fact.recalled), RECALL)
            return
        fact = new_fact(self.words)
        if rng.random() < 0.06 and fact.key not in self.facts:
            self.say(Exchange("unknown", fact.asked, UNKNOWN))
            return
        self.facts[fact.key] = fact
        self.say(Exchange("note", fact.told, fact.noted))

    def change_mode(self) -> None:
        mode = new_mode(self.words)
        if self.mode is not None and self.words.rng.random() < 0.25:
            self.mode = None
            self.transcript.add("CONTEXT", "You are a helper.", USER)
            return
        self.mode = mode
        if self.words.rng.random() < 0.2:
            self.say(Exchange("mode order", mode.order, mode.confirmed))
        else:
            self.transcript.add(self.words.rng.choice(("CONTEXT", "CONTEXT", "SYSTEM")), mode.order, USER)

    def by_role(self) -> None:
        """A program asks for a role whose name says what to do with the user's last turn."""
        role = self.words.rng.choice(("QUOTE", "QUOTE", "ECHO", "SHOUT"))
        text = self.words.text()
        self.transcript.add("USER", text, USER)
        self.transcript.add(role, BY_ROLE[role](text), REPLY)


def conversation(rng: Random, split: Split) -> Conversation:
    """A new conversation with a random first turn number and agent, and sometimes a priming turn."""
    words = Words(rng, split)
    turn = rng.choice((0, 0, 1, 1, 1)) if rng.random() < 0.5 else rng.randrange(10 ** rng.randint(1, 5))
    talk = Conversation(words=words, transcript=Transcript(turn), agent=rng.choice(AGENTS))
    draw = rng.random()
    if draw < 0.15:
        talk.transcript.add("CONTEXT", prose(words, rng.choice((20, 100, 300))), FILLER)
    elif draw < 0.35:
        talk.mode = new_mode(words)
        talk.transcript.add("CONTEXT", talk.mode.order, USER)
    return talk


def document(rng: Random, split: Split, size: int) -> Transcript:
    """A transcript of at least `size` bytes. Long ones read files at the beginning, and sometimes later."""
    talk = conversation(rng, split)
    written = 0
    while written < size:
        before = len(talk.transcript.pieces)
        room = size - written
        if room > 600 and rng.random() < (0.3 if not written else 0.03):
            name, content = any_filler(talk.words, min(rng.choice((200, 500, 1500, 3000, 6000, 20000)), room * 2 // 3))
            role = rng.choice(("FILE", "FILE", "CONTEXT", "USER"))
            talk.transcript.add(role, rng.choice((f"{name}\n\n{content}", f"{name}\n{content}", content)), FILLER)
        else:
            talk.exchange()
        written += sum(len(text) for text, _ in talk.transcript.pieces[before:])
    return talk.transcript


def encode(transcript: Transcript) -> tuple[list[int], list[float]]:
    """The token ids and their loss weights, without the end of text."""
    tokenizer, tokens, weights = ByteTokenizer(), list[int](), list[float]()
    for text, weight in transcript.pieces:
        ids = tokenizer.encode(text)
        tokens += ids
        weights += [weight] * len(ids)
    return tokens, weights


def bundle(rng: Random, split: Split, length: int) -> tuple[list[int], list[float]]:
    """Exactly `length` tokens: documents, with the end of text between them."""
    tokens, weights = list[int](), list[float]()
    while len(tokens) < length:
        size = rng.choice((length // 4, length // 2, length, length))
        ids, their_weights = encode(document(rng, split, size))
        tokens += [*ids, ByteTokenizer.end]
        weights += [*their_weights, HEADER]
    return tokens[:length], weights[:length]


@dataclass(slots=True)
class Batch:
    """One window of every lane. Before you read it, reset the state of each lane whose `fresh` is true."""

    tokens: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64: the token after each
    weights: Tensor  # (B, T) fp32: loss weight of each target
    fresh: Tensor  # (B,) bool

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device) for tensor in (self.tokens, self.targets, self.weights, self.fresh)))


def lane(rng: Random, split: Split, window: int) -> Iterator[tuple[list[int], list[float], bool]]:
    """Windows of window + 1 tokens: tokens, weights, and whether the window begins a bundle.

    Each window begins with the last token of the previous one.
    """
    while True:
        windows = rng.choices((1, 2, 4, 8, 32, 80), (20, 10, 5, 3, 2, 1))[0]
        tokens, weights = bundle(rng, split, windows * window + 1)
        for start in range(0, windows * window, window):
            yield tokens[start : start + window + 1], weights[start : start + window + 1], start == 0


def batches(seed: int, split: Split, lanes: int, window: int) -> Iterator[Batch]:
    """An endless stream, the same for the same arguments. Each lane has its own random generator."""
    readers = [lane(Random(f"{seed} {split} {i}"), split, window) for i in range(lanes)]
    while True:
        rows = [next(reader) for reader in readers]
        tokens = torch.tensor([row[0] for row in rows])  # (B, T + 1)
        weights = torch.tensor([row[1] for row in rows])
        yield Batch(tokens[:, :-1], tokens[:, 1:], weights[:, 1:], torch.tensor([row[2] for row in rows]))
