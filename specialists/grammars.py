"""The grammar of rows for each track: where the prompt ends, what the answer must look like, and which tags it has."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ssmprov.errors import BadRequest, nearest

TAG = re.compile(r"\[([a-z0-9][a-z0-9_-]*(?::[a-z0-9][a-z0-9_.+-]*)?)\]")
PAIR = "\t"


class Offended(Exception):
    """A row that is not valid, and the first wrong character (from 0)."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at
        self.why = why


Taken = tuple[str, str, tuple[str, ...]]
"""Prompt, answer and tags."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """`take_apart` splits a row, and raises Offended. `about` says in one line what a row looks like."""

    name: str
    about: str
    take_apart: Callable[[str], Taken]


def tags_of(text: str) -> tuple[tuple[str, ...], int]:
    """The tags at the beginning of a text, and where they end."""
    found, at = [], 0
    while match := TAG.match(text, at):
        found.append(match[1])
        at = match.end()
    return tuple(found), at


def element(name: str, text: str, at: int) -> tuple[str, int]:
    """The content of `<name>...</name>` at the position `at`, and where the element ends. Raises Offended."""
    opening, closing = f"<{name}>", f"</{name}>"
    if not text.startswith(opening, at):
        raise Offended(at, f"{opening} is expected here")
    end = text.find(closing, at)
    if end < 0:
        raise Offended(len(text), f"{closing} is missing")
    inside = text[at + len(opening) : end]
    if not inside.strip():
        raise Offended(at + len(opening), f"{opening} is empty")
    return inside, end + len(closing)


def _ended(text: str, at: int) -> None:
    if text[at:].strip():
        raise Offended(at, "the row must end here")


def _tagged(line: str, first: str = "") -> tuple[tuple[str, ...], int]:
    tags, at = tags_of(line)
    if not tags:
        raise Offended(0, "a row must begin with tags, such as [circle][palette:cool]")
    if first and tags[0] != first:
        raise Offended(0, f"the first tag of this row must be [{first}]")
    return tags, at


def _svg(line: str) -> Taken:
    tags, at = _tagged(line)
    if not line.startswith("<svg", at):
        raise Offended(at, "<svg must follow the tags")
    end = line.rfind("</svg>")
    if end < 0:
        raise Offended(len(line), "</svg> is missing")
    _ended(line, end + len("</svg>"))
    return line[:at], line[at:].rstrip(), tags


def _routing(line: str) -> Taken:
    tags, at = _tagged(line, "route")
    _, answer_at = element("query", line, at)
    _, after = element("plan", line, answer_at)
    _, after = element("final_agent", line, after)
    _ended(line, after)
    return line[:answer_at], line[answer_at:after], tags


def _code(line: str) -> Taken:
    tags, at = _tagged(line, "code")
    if not any(tag.startswith("lang:") for tag in tags):
        raise Offended(0, "a row of code must name its language, such as [lang:python]")
    _, answer_at = element("prompt", line, at)
    _, after = element("solution", line, answer_at)
    _ended(line, after)
    return line[:answer_at], line[answer_at:after], tags


def _pairs(line: str) -> Taken:
    prompt, tab, answer = line.partition(PAIR)
    if not tab:
        raise Offended(len(line), "a tab must separate prompt and answer")
    if PAIR in answer:
        raise Offended(len(prompt) + 1 + answer.index(PAIR), "a second tab: write \\t inside a text")
    for text, at in ((prompt, 0), (answer, len(prompt) + 1)):
        if not text.strip():
            raise Offended(at, "prompt and answer must not be empty")
    return prompt, answer, tags_of(prompt)[0]


GRAMMARS = {
    grammar.name: grammar
    for grammar in (
        Grammar("svg", "[tag]...<svg ...>...</svg>", _svg),
        Grammar("routing", "[route][tag]...<query>..</query><plan>..</plan><final_agent>..</final_agent>", _routing),
        Grammar("code", "[code][lang:x][tag]...<prompt>..</prompt><solution>..</solution>", _code),
        Grammar("pairs", "PROMPT, a tab, ANSWER", _pairs),
    )
}


def grammar_of(name: str) -> Grammar:
    """The grammar with this name. Raises BadRequest if there is none."""
    if name not in GRAMMARS:
        raise BadRequest(f"there is no kind of rows called {name!r}{nearest(name, GRAMMARS)}")
    return GRAMMARS[name]
