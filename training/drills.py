"""Bare lines that practise one thing densely: to find the value of a key again among others, or to copy.

Most keys and values are random, and all lines of a drill have the same form, so only the key tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from training.facts import FAMILIES, SINGLE, UNKNOWN, Fact, near
from training.words import Words

Line = list[tuple[str, bool]]
"""Text in parts, and whether a part follows from what was read before."""

BETWEEN = (": ", ": ", " = ", " is ", " is in the ", " is called ", " -> ", " lives in ", ", ", " has ", "\t")


def _spelling(words: Words) -> Callable[[], str]:
    """How the keys or the values of a drill are spelt."""
    pick = words.rng.choice
    return pick(
        (
            lambda: pick("abcdefghijklmnopqrstuvwxyz"),
            lambda: "".join(words.rng.choices("abcdefghijklmnopqrstuvwxyz", k=2)),
            words.word,
            words.word,
            words.word,
            words.name,
            words.code,
            lambda: str(words.number()),
        )
    )


def _maker(words: Words) -> Callable[[str | None], Fact]:
    """Makes the facts of a drill: of a known kind, or of a form that is invented for the drill."""
    rng = words.rng
    if rng.random() < 0.45:
        family = rng.choice([family for family in FAMILIES if family not in SINGLE])
        return lambda key: family(words, key)
    keys, values = _spelling(words), _spelling(words)
    between = rng.choice(BETWEEN) if rng.random() < 0.6 else f" {words.plain(1, 3)} "
    before = rng.choice(("", "", "The ", f"{words.word()} "))
    again = rng.random() < 0.7  # whether the answer says the key again
    ask = rng.choice(("{}?", "{}?", before + "{}?", "where is {}?"))

    def make(key: str | None) -> Fact:
        key = key or keys()
        value = values()
        told = f"{before}{key}{between}{value}"
        return Fact(key=key, value=value, told=told, noted=told if again else value, asked=ask.format(key))

    return make


COPIES: tuple[Callable[[str], str], ...] = (str, str, str, str.upper, str.upper, str.lower, str.title)


def reversed_words(text: str) -> str:
    return " ".join(reversed(text.split()))


def copies(words: Words, size: int) -> Iterator[Line]:
    """Texts, each followed by its copy: unchanged, in another case, or with the last word first."""
    change = words.rng.choice((*COPIES, reversed_words, reversed_words))
    mark, between = words.rng.choice(("", "", "> ", "- ")), words.rng.choice(("\n", "\n", " -> ", " | "))
    written = 0
    while written < size:
        text = words.plain(2, 5) if change is reversed_words else words.plain(1, 10)
        yield [(f"{mark}{text}{between}", False), (f"{change(text)}\n", True)]
        written += 2 * len(text) + 4


def drill(words: Words, size: int) -> Iterator[Line]:
    """Lines of one of the two sorts."""
    return (facts if words.rng.random() < 0.6 else copies)(words, size)


def facts(words: Words, size: int) -> Iterator[Line]:
    """Lines of about `size` bytes: facts are told, asked for, told anew, and asked for without being told."""
    rng, make = words.rng, _maker(words)
    most = rng.choice((1, 2, 3, 4, 6, 8))
    bare = rng.random() < 0.25  # no questions: a key that comes again has its old value again
    told: dict[str, Fact] = {}
    written = 0
    while written < size:
        draw = rng.random()
        if not told or (len(told) < most and draw < 0.5):
            fact = make(None)
            if fact.key in told:
                continue
            told[fact.key] = fact
            line: Line = [(f"{fact.told}\n", False)]
        elif draw < 0.82 or bare:
            fact = rng.choice(list(told.values()))
            said = fact.told if bare else fact.recalled
            at = said.rindex(fact.value)
            line = [(said[:at], False), (f"{said[at:]}\n", True)]
            if not bare:  # the first letter says whether there is an answer
                line = [
                    (f"{fact.asked} ", False),
                    (said[:1], True),
                    (said[1:at], False),
                    (f"{said[max(at, 1) :]}\n", True),
                ]
        elif draw < 0.97:
            fact = make(None)
            if rng.random() < 0.4:
                fact = make(near(words, rng.choice(list(told))))
            if fact.key in told:
                continue
            line = [(f"{fact.asked} ", False), (UNKNOWN[:2], True), (f"{UNKNOWN[2:]}\n", False)]
        else:
            fact = make(rng.choice(list(told)))
            told[fact.key] = fact
            line = [(f"{fact.told}\n", False)]
        written += sum(len(text) for text, _ in line)
        yield line
