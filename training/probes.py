"""Held-out prompts. Each has exactly one correct reply."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from training.data import BY_ROLE, UNKNOWN, Conversation, Transcript
from training.skills import MODES, SKILLS, Exchange, any_skill, new_fact, new_mode
from training.words import Split, Words


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt that ends with the colon of a header, and the bytes that should follow, including the fence."""

    prompt: str
    expected: str


Make = Callable[[Conversation], None]


def begin(rng: Random, split: Split) -> Conversation:
    turn = rng.randrange(10 ** rng.randint(1, 5))
    return Conversation(words=Words(rng, split), transcript=Transcript(turn))


def chat(talk: Conversation, exchanges: int) -> None:
    for _ in range(exchanges):
        talk.say(any_skill(talk.words))


def skill(make: Callable[[Words], Exchange]) -> Make:
    """Asks for a skill after up to two exchanges of any kind."""

    def write(talk: Conversation) -> None:
        chat(talk, talk.words.rng.randint(0, 2))
        talk.say(make(talk.words))

    return write


def recall(between: int) -> Make:
    """States a fact, which is acknowledged, and asks for it after some other exchanges."""

    def write(talk: Conversation) -> None:
        chat(talk, talk.words.rng.randint(0, 1))
        fact = new_fact(talk.words)
        talk.say(Exchange("note", fact.told, fact.noted))
        chat(talk, between)
        talk.say(Exchange("recall", fact.asked, fact.recalled))

    return write


def choose(others: int) -> Make:
    """States several facts of different kinds, then asks for one of them."""

    def write(talk: Conversation) -> None:
        facts = {fact.key: fact for fact in (new_fact(talk.words) for _ in range(others * 4))}
        told = list(facts.values())[: others + 1]
        for fact in told:
            talk.say(Exchange("note", fact.told, fact.noted))
        fact = talk.words.rng.choice(told)
        talk.say(Exchange("recall", fact.asked, fact.recalled))

    return write


def unknown(talk: Conversation) -> None:
    chat(talk, 1)
    talk.say(Exchange("unknown", new_fact(talk.words).asked, UNKNOWN))


def mode(kind: str, before: int = 0) -> Make:
    """Sets a mode in a context turn, perhaps after plain exchanges, and asks for one of the next three replies."""

    def write(talk: Conversation) -> None:
        chat(talk, before)
        order = new_mode(talk.words, kind)
        talk.transcript.add("CONTEXT", order.order, 0.0)
        for _ in range(talk.words.rng.randint(1, 3)):
            talk.say(order.exchange(talk.words))

    return write


def switch(talk: Conversation) -> None:
    """Replaces one mode with another."""
    first, second = talk.words.rng.sample(MODES, 2)
    for kind in (first, second):
        order = new_mode(talk.words, kind)
        talk.transcript.add("CONTEXT", order.order, 0.0)
        for _ in range(2):
            talk.say(order.exchange(talk.words))


def role(name: str) -> Make:
    def write(talk: Conversation) -> None:
        chat(talk, talk.words.rng.randint(0, 2))
        text = talk.words.text()
        talk.transcript.add("USER", text, 0.0)
        talk.transcript.add(name, BY_ROLE[name](text), 0.0)

    return write


def library_source(size: int) -> str:
    """Real Python code, which no training text contains: the start of a standard library module, as a file turn."""
    source = Path(argparse.__file__).read_text()[:size]
    transcript = Transcript(0)
    transcript.add("CONTEXT", "We work on a program.", 0.0)
    transcript.add("FILE", f"argparse.py\n\n{source}", 0.0)
    return transcript.text


CATEGORIES: dict[str, Make] = (
    {make.__name__: skill(make) for make in SKILLS}
    | {f"role {name}": role(name) for name in BY_ROLE}
    | {f"mode {kind}": mode(kind) for kind in MODES}
    | {f"recall, {n} between": recall(n) for n in (0, 1, 3, 6)}
    | {"recall, one of 3": choose(2), "unknown": unknown}
    | {"mode switch": switch, "mode echo, after 3 others": mode("echo", before=3)}
)
AFTER_SOURCE = (
    "repeat",
    "answer",
    "recall, 0 between",
    "recall, 3 between",
    "mode echo",
    "mode shouter",
    "mode greeter",
)


def probes(category: str, seed: int, count: int, split: Split = "held_out") -> list[Probe]:
    """The prompts of a category. They are the same for the same arguments."""
    found = []
    for i in range(count):
        talk = begin(Random(f"probe {category} {seed} {i}"), split)
        CATEGORIES[category](talk)
        expected = talk.transcript.pieces.pop()[0]
        found.append(Probe(talk.transcript.text, expected))
    return found
