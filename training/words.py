"""Words, names and sentences from which turns are composed. Each word is in exactly one of two splits.

A checksum of a word decides whether it belongs to the held-out split, so the splits are always disjoint.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]


def word_list(words: str) -> list[str]:
    return words.split()


NOUNS = word_list(
    """
    apple river stone cloud garden window basket lantern bridge engine forest harbour island jacket kettle
    ladder meadow needle orchard paper quarry ribbon saddle table umbrella valley wagon yard anchor bottle
    candle desert eagle feather glove hammer iron jungle kitchen letter mirror night ocean pencil queen
    rabbit silver tower uncle village winter zebra arrow button castle dragon elbow flower guitar honey
    insect jewel king lemon mountain notebook onion pepper question rocket shadow tiger train violin water
    yellow barrel cherry diamond evening fountain giant hill ink journal leaf marble number olive pocket
    road spoon thunder vessel wheel bread coin door egg flag grass horn ice jar knot lamp moon nest owl
    pearl ring sand tree wall wolf year bell cart drum
    """
)
VERBS = word_list(
    """
    finds takes keeps sees makes holds brings opens closes moves paints carries breaks hides counts follows
    washes likes needs wants sells turns lifts draws reads feeds
    """
)
ADJECTIVES = word_list(
    """
    small green old bright quiet heavy warm round blue empty narrow sweet cold deep early gentle hollow late
    new open plain red sharp tall white wooden broken clean dark fresh golden large
    """
)
PLACES = word_list(
    """
    kitchen garden attic cellar garage office barn library harbour station drawer cupboard hall tower shed
    market bakery school church museum theatre castle forest meadow tent boat wagon pantry studio workshop
    """
)
NAMES = word_list(
    """
    Anna Bob Carla David Emma Frank Greta Henry Iris Jack Karen Leo Maria Nina Oscar Paul Quinn Rosa Simon
    Tara Ulla Victor Wanda Xenia Yusuf Zoe Albert Berta Conrad Dora Emil Flora Gustav Helen Igor Julia Klaus
    Luna Max Nora Otto Petra Rex Sofia Tom Ursula Vera Walter Yara Zora Amir Bella Cesar Diana Elias Felix
    Gina Hugo Ida Jonas Kira Lars Mila Noah Olga Pia Rita Sam Tina Uwe Viola Will Ada Ben Clara Dan Eva Finn
    Gwen Hans Ines Jan Kim Lena Mark Nick Olaf Pablo Ruth Sara Theo Una Vito Wes Yan Alice Mary Peter Susan
    """
)
COLOURS = word_list("red green blue yellow white black brown grey pink purple orange golden silver violet")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
COMMON = "eeeeeeaaaaaiiiiooooouuttttnnnnrrrrsssslllldddcccmmpphhgbfywkv"
LISTED = word_list(Path(__file__).with_name("words.txt").read_text(encoding="utf-8"))
LONGEST = 10  # letters of a word
CONTROL = ["next", "go on", "again", "more", "continue", "and now?", "next one please", "count"]


# Words that no draw holds out, because all text may contain them: those of the known questions and of the fixed parts
# of sentences.
FIXED = frozenset(
    word_list(
        """
        again am an another as at be bool bytes can case count counter february file friday full go has have
        helper in is it june lost me my name not note of on or reply said saturday says speaking st the times to town
        two us use wednesday what when who with words you your
        """
    )
    + re.findall("[a-z]+", Path(__file__).with_name("questions.txt").read_text(encoding="utf-8").lower())
)


def letters_after(words: Iterable[str]) -> dict[str, list[str]]:
    """The letters that follow each two letters (at the start: fewer) in some words, each as often as it does.

    "" is the end of a word.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        for at, letter in enumerate([*word, ""]):
            found.setdefault(word[max(at - 2, 0) : at], []).append(letter)
    return found


FOLLOWING = letters_after(LISTED)


def belongs(word: str, split: Split) -> bool:
    """Whether a word is in a split. One word in six is held out."""
    word = word.lower()
    return (zlib.crc32(word.encode()) % 6 == 0 and word not in FIXED) == (split == "held_out")


class Words:
    """Random words of one split."""

    def __init__(self, rng: Random, split: Split) -> None:
        self.rng = rng
        self.split: Split = split

    def one_of(self, words: Sequence[str]) -> str:
        """One of the words of a list that are in this split; if there is none, any word."""
        found = [word for word in words if belongs(word, self.split)]
        return self.rng.choice(found) if found else self.word()

    def listed(self) -> str:
        return self._drawn(lambda: self.rng.choice(LISTED))

    def invented(self) -> str:
        """A word that is in no dictionary: it follows the letters of English words, or is random.

        With a few thousand words, a small model would learn them by heart and never learn to copy.
        """
        return self._drawn(self._likely if self.rng.random() < 0.54 else self._random)

    def _drawn(self, draw: Callable[[], str]) -> str:
        """A word of this split."""
        while True:
            word = draw()
            if belongs(word, self.split):
                return word

    def _likely(self) -> str:
        """Each letter is drawn by the two before it."""
        word = ""
        while len(word) < LONGEST:
            letter = self.rng.choice(FOLLOWING[word[-2:]])
            if not letter:
                break
            word += letter
        return word if len(word) > 1 else self._likely()

    def _random(self) -> str:
        letters = self.rng.choice((COMMON, LETTERS, LETTERS[: self.rng.randint(3, 26)]))
        return "".join(self.rng.choices(letters, k=self.rng.randint(2, LONGEST)))

    def word(self) -> str:
        return self.listed() if self.rng.random() < 0.35 else self.invented()

    def noun(self) -> str:
        return self.one_of(NOUNS) if self.rng.random() < 0.3 else self.word()

    def name(self) -> str:
        return self.one_of(NAMES) if self.rng.random() < 0.35 else self.word().capitalize()

    def place(self) -> str:
        return self.one_of(PLACES) if self.rng.random() < 0.4 else self.word()

    def colour(self) -> str:
        return self.one_of(COLOURS) if self.rng.random() < 0.5 else self.word()

    def number(self) -> int:
        return self.rng.randrange(10 ** self.rng.choice((1, 2, 2, 3, 4)))

    def plain(self, least: int, most: int) -> str:
        """Some unrelated words in lower case."""
        return " ".join(self.word() for _ in range(self.rng.randint(least, most)))

    def phrase(self, longest: int = 8) -> str:
        """A few unrelated words in lower case, sometimes with a number, a capital letter or a code among them."""
        words = self.plain(1, longest).split()
        draw = self.rng.random()
        if draw < 0.1:
            words[self.rng.randrange(len(words))] = str(self.number())
        elif draw < 0.2:
            words = [word.capitalize() for word in words]
        elif draw < 0.25:
            words[0] = self.code()
        return " ".join(words)

    def code(self) -> str:
        """Random letters and digits, as in passwords and file names."""
        letters = "abcdefghijklmnopqrstuvwxyz0123456789-_./ABCDEFGHXYZ"
        while True:
            code = "".join(self.rng.choices(letters, k=self.rng.randint(3, 9)))
            if belongs(code, self.split):
                return code

    def sentence(self) -> str:
        """A simple sentence or question, with its full stop or question mark."""
        pick, noun, verb = self.rng.choice, self.noun(), self.one_of(VERBS)
        place, name = self.place(), self.name()
        adjective = self.one_of(ADJECTIVES) if self.rng.random() < 0.7 else self.invented()
        return pick(
            (
                f"The {noun} {verb} the {self.noun()}.",
                f"The {adjective} {noun} {verb} the {self.noun()} in the {place}.",
                f"{name} {verb} a {adjective} {noun}.",
                f"{name} and {self.name()} are near the {place}.",
                f"It is {adjective} in the {place} today.",
                f"{name} {verb} the {noun} {self.number()} times.",
                f"Is the {noun} {adjective}?",
                f"Where did {name} put the {noun}?",
                f"We {pick(('saw', 'met', 'lost', 'found'))} {self.invented()} near the {noun}!",
                f"No {noun}, no {self.noun()}; {name} {verb} {self.number()}.",
            )
        )

    def text(self) -> str:
        """Text that a user might type: a phrase, a sentence, two sentences, rarely two lines."""
        draw = self.rng.random()
        if draw < 0.35:
            return self.phrase()
        if draw < 0.85:
            return self.sentence()
        if draw < 0.93:
            return f"{self.sentence()} {self.sentence()}"
        if draw < 0.97:
            return f"{self.sentence()}\n{self.phrase()}"
        return f"{self.phrase(3)} {self.rng.choice(('é', 'ü', '→', 'ñ', '€', 'ß'))} {self.word()}"
