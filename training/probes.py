"""Held-out prompts. Each has exactly one correct reply."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from training.data import BY_ROLE, Conversation, Transcript
from training.facts import UNKNOWN, Fact, Family, any_family, any_keyed, new_fact
from training.questions import QUESTIONS
from training.skills import MODES, SKILLS, Exchange, any_skill, new_mode
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


def echo(words: Words) -> Exchange:
    text = words.plain(3, 8)
    return Exchange("echo", f"Repeat: {text}", text)


def capitals(words: Words) -> Exchange:
    text = words.plain(1, 8)
    return Exchange("capitals", f"Upper: {text}", text.upper())


def recall(between: int, by: str = "USER") -> Make:
    """States a fact, which a user hears acknowledged, and asks for it after some other exchanges."""

    def write(talk: Conversation) -> None:
        chat(talk, talk.words.rng.randint(0, 1))
        fact = new_fact(talk.words)
        tell(talk, fact, by)
        chat(talk, between)
        talk.say(Exchange("recall", fact.asked, fact.recalled))

    return write


def tell(talk: Conversation, fact: Fact, by: str = "USER") -> None:
    if by == "USER":
        talk.say(Exchange("note", fact.told, fact.noted))
    else:
        talk.transcript.add(by, fact.told, 0.0)


def several(talk: Conversation, count: int) -> list[Fact]:
    """Facts with different keys, half of the time all of one kind, told by anybody."""
    words, kind, facts = talk.words, any_keyed(talk.words), dict[str, Fact]()
    mixed = words.rng.random() < 0.5
    while len(facts) < count:
        fact = (any_keyed(words) if mixed else kind)(words, None)
        facts.setdefault(fact.key, fact)
    for fact in facts.values():
        tell(talk, fact, words.rng.choice(("USER", "CONTEXT")))
    return list(facts.values())


def one_of_three(talk: Conversation) -> None:
    fact = talk.words.rng.choice(several(talk, 3))
    talk.say(Exchange("recall", fact.asked, fact.recalled))


def newest(talk: Conversation) -> None:
    """States a fact, then another value for the same key, which is the one that counts."""
    words, family = talk.words, any_keyed(talk.words)
    old = family(words, None)
    fact = family(words, old.key)
    tell(talk, old)
    tell(talk, fact)
    talk.say(Exchange("recall", fact.asked, fact.recalled))


def nothing_told(talk: Conversation) -> None:
    chat(talk, 1)
    talk.say(Exchange("unknown", _untold(talk.words, any_family(talk.words)).asked, UNKNOWN))


def another_told(talk: Conversation) -> None:
    """States a fact and asks for another one, half of the time of the same kind."""
    words, family = talk.words, any_keyed(talk.words)
    told = family(words, None)
    tell(talk, told, words.rng.choice(("USER", "CONTEXT")))
    other = _untold(words, family if words.rng.random() < 0.5 else any_keyed(words), told.key)
    talk.say(Exchange("unknown", other.asked, UNKNOWN))


def _untold(words: Words, family: Family, *told: str) -> Fact:
    """A fact with another key than those told, and no question that the model can answer anyway."""
    while (fact := family(words, None)).key in told or fact.asked in QUESTIONS:
        pass
    return fact


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
    | {"echo": skill(echo), "capitals": skill(capitals)}
    | {f"recall, {n} between": recall(n) for n in (0, 1, 3, 6)}
    | {"recall, told by CONTEXT": recall(0, "CONTEXT"), "recall, one of 3": one_of_three, "recall, the newest": newest}
    | {"unknown, nothing told": nothing_told, "unknown, another told": another_told}
    | {"mode switch": switch, "mode echo, after 3 others": mode("echo", before=3)}
)
AFTER_SOURCE = (
    "echo",
    "capitals",
    "reverse",
    "carry_on",
    "json_fields",
    "answer",
    "recall, 0 between",
    "recall, 3 between",
    "recall, 6 between",
    "recall, one of 3",
    "unknown, nothing told",
    "unknown, another told",
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
        expected = talk.transcript.pieces.pop().text
        found.append(Probe(talk.transcript.text, expected))
    return found
