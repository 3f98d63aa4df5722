"""Facts that a model has to remember: the sentences that state one, ask for it and recall it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.words import Words, belongs, word_list

UNKNOWN = "I do not know."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact: its key and value, and the sentences that state it, acknowledge it, ask for it and recall it.

    The sentence that recalls it repeats the key before the value.
    """

    key: str
    value: str
    told: str
    noted: str
    asked: str

    @property
    def recalled(self) -> str:
        return self.noted


BEINGS = word_list(
    """
    cat dog horse parrot rabbit hamster sister brother friend teacher son daughter boat goldfish uncle
    aunt neighbour cousin doctor robot boss
    """
)
THINGS = word_list("key book hat phone map bag coat knife ticket umbrella cup hammer letter wallet watch camera lamp")
SECRETS = ["code word", "password", "magic word", "secret number", "room number"]
FAVOURITES = ["colour", "animal", "food", "number", "word", "place"]

Family = Callable[[Words, str | None], Fact]
"""Makes a fact of one kind, about the given key or a random one."""


def _common(words: Words, listed: list[str]) -> str:
    """A common noun: often one of a list, more often any word."""
    return words.one_of(listed) if words.rng.random() < 0.4 else words.word()


def being(words: Words, key: str | None = None) -> Fact:
    who, name = key or _common(words, BEINGS), words.name()
    called = f"is called {name}."
    return Fact(
        key=who,
        value=name,
        told=words.rng.choice((f"My {who} {called}", f"My {who} {called}", f"I have a {who} called {name}.")),
        noted=f"Your {who} {called}",
        asked=words.rng.choice(
            (f"What is my {who} called?", f"What is my {who} called?", f"What is the name of my {who}?")
        ),
    )


def thing(words: Words, key: str | None = None) -> Fact:
    what, place = key or _common(words, THINGS), words.place()
    said = f"The {what} is in the {place}."
    return Fact(key=what, value=place, told=said, noted=said, asked=f"Where is the {what}?")


def secret(words: Words, key: str | None = None) -> Fact:
    what = key or _common(words, SECRETS)
    value = str(words.number()) if "number" in what else words.rng.choice((words.word(), words.word(), words.code()))
    said = f"The {what} is {value}."
    return Fact(key=what, value=value, told=said, noted=said, asked=f"What is the {what}?")


def favourite(words: Words, key: str | None = None) -> Fact:
    what = key or _common(words, FAVOURITES)
    value = str(words.number()) if what == "number" else words.colour() if what == "colour" else words.noun()
    said = f"favourite {what} is {value}."
    return Fact(key=what, value=value, told=f"My {said}", noted=f"Your {said}", asked=f"What is my favourite {what}?")


def colour(words: Words, key: str | None = None) -> Fact:
    what, value = key or _common(words, THINGS), words.colour()
    said = f"The {what} is {value}."
    return Fact(key=what, value=value, told=said, noted=said, asked=f"What colour is the {what}?")


def owner(words: Words, key: str | None = None) -> Fact:
    what, name = key or _common(words, THINGS), words.name()
    said = f"The {what} belongs to {name}."
    return Fact(key=what, value=name, told=said, noted=said, asked=f"Who has the {what}?")


def home_of(words: Words, key: str | None = None) -> Fact:
    who, town = key or words.name(), words.word().capitalize()
    said = f"{who} lives in {town}."
    return Fact(key=who, value=town, told=said, noted=said, asked=f"Where does {who} live?")


def liking(words: Words, key: str | None = None) -> Fact:
    who, what = key or words.name(), words.noun()
    said = f"{who} likes {what}."
    return Fact(key=who, value=what, told=said, noted=said, asked=f"What does {who} like?")


def age(words: Words, key: str | None = None) -> Fact:
    who, years = key or words.name(), str(words.rng.randrange(2, 100))
    said = f"{who} is {years} years old."
    return Fact(key=who, value=years, told=said, noted=said, asked=f"How old is {who}?")


def own_name(words: Words, key: str | None = None) -> Fact:  # noqa: ARG001
    name = words.name()
    return Fact(
        key="name",
        value=name,
        told=words.rng.choice((f"My name is {name}.", f"My name is {name}.", f"I am called {name}.")),
        noted=f"Your name is {name}.",
        asked="What is my name?",
    )


def own_home(words: Words, key: str | None = None) -> Fact:  # noqa: ARG001
    town = words.word().capitalize()
    return Fact(
        key="home", value=town, told=f"I live in {town}.", noted=f"You live in {town}.", asked="Where do I live?"
    )


FAMILIES: dict[Family, float] = {
    being: 4.0,
    thing: 4.0,
    secret: 2.0,
    favourite: 2.0,
    colour: 1.0,
    owner: 1.0,
    home_of: 1.5,
    liking: 1.0,
    age: 1.0,
    own_name: 1.0,
    own_home: 0.7,
}
SINGLE: tuple[Family, ...] = (own_name, own_home)  # there is only one fact of these kinds


def any_family(words: Words) -> Family:
    return words.rng.choices(list(FAMILIES), list(FAMILIES.values()))[0]


def any_keyed(words: Words) -> Family:
    """A kind of facts of which there can be several, with different keys."""
    while (family := any_family(words)) in SINGLE:
        pass
    return family


def new_fact(words: Words) -> Fact:
    return any_family(words)(words, None)


def near(words: Words, key: str) -> str:
    """A key that differs from another in one letter or two."""
    letters = list(key)
    for _ in range(words.rng.randint(1, 2)):
        letters[words.rng.randrange(len(letters))] = words.rng.choice("abcdefghijklmnopqrstuvwxyz")
    found = "".join(letters)
    found = found[0].upper() + found[1:] if key[0].isupper() else found
    return found if belongs(found, words.split) else near(words, key)
