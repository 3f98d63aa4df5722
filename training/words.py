"""Words, names and sentences from which turns are composed. Each word is in exactly one of two splits.

A checksum of a word decides whether it belongs to the held-out split, so the splits are always disjoint.
"""

from __future__ import annotations

import zlib
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
SYLLABLES = word_list(
    """
    ba be bi bo bu da de di do du fa fe fi ga go gu ha he hi ka ke ki ko ku la le li lo lu ma me mi mo mu na
    ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi wa we za ze zo sha tri plo
    gra bre
    """
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
COMMON = "eeeeeeaaaaaiiiiooooouuttttnnnnrrrrsssslllldddcccmmpphhgbfywkv"
ENDINGS = ["", "", "n", "r", "s", "l", "t", "x", "m", "k"]
CONTROL = ["next", "go on", "again", "more", "continue", "and now?", "next one please", "count"]


def belongs(word: str, split: Split) -> bool:
    """Whether a word is in a split. One word in six is held out."""
    return (zlib.crc32(word.lower().encode()) % 6 == 0) == (split == "held_out")


class Words:
    """Random words of one split."""

    def __init__(self, rng: Random, split: Split) -> None:
        self.rng = rng
        self.split: Split = split
        self.nouns, self.verbs, self.adjectives, self.places, self.names = (
            [word for word in words if belongs(word, split)] for words in (NOUNS, VERBS, ADJECTIVES, PLACES, NAMES)
        )
        self.colours = [word for word in COLOURS if belongs(word, split)]

    def invented(self) -> str:
        """A word that is in no dictionary: syllables, random letters, or a noun with a few letters changed.

        With only a few hundred words, a small model would learn them by heart and never learn to copy.
        """
        while True:
            draw = self.rng.random()
            if draw < 0.35:
                syllables = self.rng.choices(SYLLABLES, k=self.rng.choice((1, 2, 2, 2, 3, 3, 4)))
                word = "".join(syllables) + self.rng.choice(ENDINGS)
            elif draw < 0.65:
                letters = self.rng.choice((COMMON, COMMON, LETTERS))
                word = "".join(self.rng.choices(letters, k=self.rng.randint(2, 8)))
            else:
                word = self._misspelt(self.rng.choice(NOUNS + ADJECTIVES))
            if belongs(word, self.split):
                return word

    def _misspelt(self, word: str) -> str:
        for _ in range(self.rng.randint(1, 3)):
            at = self.rng.randrange(len(word))
            kept = self.rng.choice((word[at:], word[at + 1 :]))
            word = word[:at] + self.rng.choice((self.rng.choice(COMMON), "", self.rng.choice(LETTERS))) + kept
            word = word or self.rng.choice(LETTERS)
        return word

    def word(self) -> str:
        if self.rng.random() < 0.65:
            return self.invented()
        return self.rng.choice(self.rng.choice((self.nouns, self.nouns, self.verbs, self.adjectives)))

    def noun(self) -> str:
        return self.rng.choice(self.nouns) if self.rng.random() < 0.5 else self.invented()

    def name(self) -> str:
        return self.rng.choice(self.names) if self.rng.random() < 0.35 else self.invented().capitalize()

    def number(self) -> int:
        return self.rng.randrange(10 ** self.rng.choice((1, 2, 2, 3, 4)))

    def phrase(self, longest: int = 5) -> str:
        """A few unrelated words in lower case, sometimes with a number, a capital letter or a code among them."""
        words = [self.word() for _ in range(self.rng.randint(1, longest))]
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
        pick, noun, verb = self.rng.choice, self.noun(), self.rng.choice(self.verbs)
        place, name = pick(self.places), self.name()
        adjective = pick(self.adjectives) if self.rng.random() < 0.7 else self.invented()
        return pick(
            (
                f"The {noun} {verb} the {self.noun()}.",
                f"The {adjective} {noun} is in the {place}.",
                f"{name} {verb} a {adjective} {noun}.",
                f"{name} and {self.name()} are in the {place}.",
                f"It is {adjective} in the {place} today.",
                f"There are {self.number()} {noun}s, and {name} {verb} them.",
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
