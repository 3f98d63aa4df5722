"""The words of the demo, drawn anew for each seed. The embedded models have read none of them in training."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


def _words(text: str) -> list[str]:
    return text.split()


ADJECTIVES = _words(
    """
    gentle hungry lazy lively lonely lovely lucky merry muddy narrow nice noisy quiet shallow silent sleepy smart sour
    stiff tall wide wild wooden
    """
)
NOUNS = _words(
    """
    barn beach boat bush chalk crown cup desert diamond elbow fountain garden goose hut ink iron jewel kite lane lock
    nut oven paper plum pony queen ring shop snail spoon straw tea umbrella village water wolf
    """
)
VERBS = _words("dreams jumps spins")


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is said in one run: a fact with its key, and some sentences."""

    thing: str
    place: str
    sentences: tuple[str, str, str]

    @property
    def fact(self) -> str:
        return f"The {self.thing} is in the {self.place}."


def drawn(seed: int) -> Drawn:
    rng = Random(seed)
    thing, place = rng.sample(NOUNS, 2)

    def sentence() -> str:
        return f"the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.choice(VERBS)}"

    return Drawn(thing, place, (sentence(), sentence(), sentence()))
