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
from training.drills import drill
from training.facts import FAMILIES, SINGLE, UNKNOWN, Fact, Family, any_family, near
from training.filler import any_filler, prose
from training.questions import QUESTIONS
from training.skills import Exchange, Mode, answer, any_skill, new_mode, quoted
from training.words import Split, Words

FENCE = "\n\n~~~(end)~~~\n\n"

# Loss weights of a byte, by its writer. Users and files are unpredictable, so with full weight they would dominate.
# The rest of a fence follows from its first byte, and most of a recalled sentence from its question.
REPLY, RECALL, KEY, REST, HEADER, USER, FILLER = 1.0, 3.0, 0.5, 0.05, 0.01, 0.005, 0.002

AGENTS = ("INTERFACE",) * 12 + ("ASSISTANT", "MODEL", "BOT", "HELPER", "ALICE", "AGENT", "CLERK", "GUIDE")
TELLERS = ("CONTEXT", "CONTEXT", "CONTEXT", "SYSTEM", "NOTE", "FILE", "BOB", "TEACHER", "DIARY")
BY_ROLE: dict[str, Callable[[str], str]] = {"QUOTE": quoted, "ECHO": str, "SHOUT": str.upper}
SHARES = 0.58, 0.26, 0.16  # of conversations, drills and short transcripts in the text
MEMORY = 2500  # bytes after which a fact is not asked for any more


@dataclass(frozen=True, slots=True)
class Piece:
    """Text with the loss weight of its bytes. `value` is a part of it that weighs RECALL."""

    text: str
    weight: float
    value: str = ""


@dataclass(slots=True)
class Transcript:
    """Text as a list of pieces, with their loss weights."""

    turn: int
    pieces: list[Piece] = field(default_factory=list)
    size: int = 0

    def add(self, role: str, text: str, weight: float, value: str = "") -> None:
        """Adds a turn. `weight` applies to its text and fence; the header has a fixed weight."""
        self.pieces += [Piece(f"(Turn {self.turn}) [{role}]:", HEADER), Piece(f" {text}{FENCE}", weight, value)]
        self.turn += 1
        self.size += sum(len(piece.text) for piece in self.pieces[-2:])

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass(slots=True, kw_only=True)
class Conversation:
    """A conversation between a user and an agent, with the facts mentioned so far and the current mode."""

    words: Words
    transcript: Transcript
    agent: str = "INTERFACE"
    facts: dict[tuple[str, str], tuple[Fact, int]] = field(default_factory=dict)
    """The facts by kind and key, the newest of each, with the position of the end of the turn that told it."""
    mode: Mode | None = None

    def exchange(self) -> None:
        """Adds one step: a change of mode, or a user turn with its reply."""
        rng = self.words.rng
        draw = rng.random()
        if draw < (0.10 if self.mode is None else 0.12):
            self.change_mode()
        elif draw < 0.16:
            self.by_role()
        elif self.mode is not None:
            self.say(self.mode.exchange(self.words))
        elif draw < 0.5:
            self.remember()
        else:
            self.say(any_skill(self.words))

    def say(self, exchange: Exchange, weight: float = REPLY, value: str = "") -> None:
        self.transcript.add("USER", exchange.text, USER)
        self.transcript.add(self.agent, exchange.reply, weight, value)

    def remember(self) -> None:
        """A fact is told, or asked for, or one that was never told is asked for."""
        rng = self.words.rng
        draw = rng.random()
        told = self.told()
        if draw < 0.25 or (draw < 0.7 and not told):
            self.tell(any_family(self.words), rng.choices((1, 2, 3, 4), (6, 2, 2, 1))[0])
        elif draw < 0.75 and told:
            self.ask(rng.choice(told)[1])
        else:
            self.ask_unknown(told)

    def told(self) -> list[tuple[str, Fact]]:
        """The facts, with their kinds, that were told recently enough to be asked for."""
        oldest = self.transcript.size - MEMORY
        return [(kind, fact) for (kind, _), (fact, at) in self.facts.items() if at >= oldest]

    def tell(self, family: Family, count: int = 1) -> None:
        """Facts, most often of one kind, are told one by one or in one turn, by the user or by somebody else."""
        rng, facts = self.words.rng, list[tuple[str, Fact]]()
        mixed = rng.random() < 0.3
        for _ in range(count):
            family = any_family(self.words) if mixed else family
            fact = family(self.words, None)
            # Some facts are told anew: the newest counts.
            old = [key for kind, key in self.facts if kind == family.__name__]
            if old and rng.random() < 0.2 and family not in SINGLE:
                fact = family(self.words, rng.choice(old))
            if (family.__name__, fact.key) not in [(kind, other.key) for kind, other in facts]:
                facts.append((family.__name__, fact))
        by_user, apart = rng.random() < 0.45, rng.random() < 0.6
        teller = rng.choice(TELLERS)
        for some in [[fact] for _, fact in facts] if apart else [[fact for _, fact in facts]]:
            told = rng.choice((" ", " ", "\n")).join(fact.told for fact in some)
            if by_user:
                self.say(Exchange("note", told, " ".join(fact.noted for fact in some)))
            else:
                self.transcript.add(teller, told, USER)
        for kind, fact in facts:
            self.facts[kind, fact.key] = fact, self.transcript.size

    def ask(self, fact: Fact) -> None:
        self.say(Exchange("recall", fact.asked, fact.recalled), KEY, fact.value)

    def ask_unknown(self, told: list[tuple[str, Fact]]) -> None:
        """Asks for what was not told, often with a question like that for a fact that was."""
        rng, family, key = self.words.rng, any_family(self.words), None
        if told and rng.random() < 0.7:
            kind, fact = rng.choice(told)
            family = BY_NAME[kind]
            key = near(self.words, fact.key) if rng.random() < 0.3 else None
        other = family(self.words, key)
        if (family.__name__, other.key) not in self.facts and other.asked not in QUESTIONS:
            self.say(Exchange("unknown", other.asked, UNKNOWN))

    def quiz(self) -> None:
        """Facts, most often of one kind, and many questions about them."""
        rng = self.words.rng
        self.tell(any_family(self.words), rng.choice((1, 2, 3, 3, 4, 5)))
        for _ in range(rng.randint(2, 7)):
            draw = rng.random()
            told = self.told()
            if not told:
                break
            if draw < 0.6:
                self.ask(rng.choice(told[-6:])[1])
            elif draw < 0.85:
                self.ask_unknown(told)
            elif draw < 0.93:
                self.say(any_skill(self.words))
            else:
                self.tell(any_family(self.words))

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


BY_NAME = {family.__name__: family for family in FAMILIES}


def conversation(rng: Random, split: Split) -> Conversation:
    """A new conversation with a random first turn number and agent, and sometimes a priming turn."""
    words = Words(rng, split)
    turn = rng.choice((0, 0, 1, 1, 1)) if rng.random() < 0.5 else rng.randrange(10 ** rng.randint(1, 5))
    talk = Conversation(words=words, transcript=Transcript(turn), agent=rng.choice(AGENTS))
    draw = rng.random()
    if draw < 0.1:
        talk.transcript.add("CONTEXT", prose(words, rng.choice((20, 100, 300))), FILLER)
    elif draw < 0.3:
        talk.mode = new_mode(words)
        talk.transcript.add("CONTEXT", talk.mode.order, USER)
    elif draw < 0.4:
        talk.tell(any_family(words), rng.randint(1, 3))
    return talk


def document(rng: Random, split: Split, size: int) -> Transcript:
    """A transcript of at least `size` bytes. Long ones read files at the beginning, and sometimes later."""
    talk = conversation(rng, split)
    quiz = rng.random() < 0.4
    while (written := talk.transcript.size) < size:
        room = size - written
        if room > 600 and rng.random() < (0.2 if not written else 0.02):
            name, content = any_filler(talk.words, min(rng.choice((200, 500, 1500, 3000, 6000, 20000)), room * 2 // 3))
            role = rng.choice(("FILE", "FILE", "CONTEXT", "USER"))
            talk.transcript.add(role, rng.choice((f"{name}\n\n{content}", f"{name}\n{content}", content)), FILLER)
        elif quiz and talk.mode is None:
            talk.quiz()
        else:
            talk.exchange()
    return talk.transcript


def encode(transcript: Transcript) -> tuple[list[int], list[float]]:
    """The token ids and their loss weights, without the end of text."""
    tokenizer, tokens, weights = ByteTokenizer(), list[int](), list[float]()
    for piece in transcript.pieces:
        ids = tokenizer.encode(piece.text)
        found = [piece.weight] * len(ids)
        if piece.value:
            value = piece.value.encode()
            at = piece.text.encode().rindex(value)
            found[at : at + len(value)] = [RECALL] * len(value)
            found[1] = REPLY  # whether it knows an answer
        if piece.text.endswith(FENCE):
            end = len(ids) - len(FENCE) + 1
            found[end - 1] = max(found[end - 1], REPLY) if piece.weight >= KEY else piece.weight
            found[end:] = [min(weight, REST) for weight in found[end:]]
        tokens += ids
        weights += found
    return tokens, weights


def encoded_drill(words: Words, size: int) -> tuple[list[int], list[float]]:
    """The token ids of a drill and their loss weights."""
    tokenizer, tokens, weights = ByteTokenizer(), list[int](), list[float]()
    for line in drill(words, size):
        for text, follows in line:
            ids = tokenizer.encode(text)
            tokens += ids
            weights += [REPLY if follows else USER] * len(ids)
    return tokens, weights


def first_turns(words: Words) -> Transcript:
    """A short transcript: known questions, questions that nobody can answer, or a fact and the question for it."""
    talk = Conversation(words=words, transcript=Transcript(1))
    for _ in range(words.rng.randint(1, 2)):
        draw = words.rng.random()
        if draw < 0.4:
            talk.say(answer(words))
            continue
        if draw < 0.8:
            talk.tell(any_family(words))
        told = talk.told()
        if told and words.rng.random() < 0.5:
            talk.ask(words.rng.choice(told)[1])
        else:
            talk.ask_unknown(told)
    return talk.transcript


def bundle(rng: Random, split: Split, length: int) -> tuple[list[int], list[float]]:
    """Exactly `length` tokens: documents, with the end of text between them. Several small ones follow each other."""
    tokens, weights = list[int](), list[float]()

    def add(ids: list[int], their_weights: list[float]) -> None:
        tokens.extend((*ids, ByteTokenizer.end))
        weights.extend((*their_weights, HEADER))

    while len(tokens) < length:
        size = min(rng.choice((150, 600, 1200, 2500, 6000, 30000)), length)
        kind, end = rng.choices(("talk", "drill", "short"), SHARES)[0], len(tokens) + size
        if kind == "talk":
            add(*encode(document(rng, split, size)))
        while kind != "talk" and len(tokens) < end:
            words = Words(rng, split)
            if kind == "drill":
                add(*encoded_drill(words, rng.choice((150, 300, 500))))
            else:
                add(*encode(first_turns(words)))
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
        windows = rng.choices((1, 2, 4, 8, 32, 80), (20, 10, 5, 3, 1, 1))[0]
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
