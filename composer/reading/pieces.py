"""Finds where growing content can be divided, so that the first part is rendered only once."""

from __future__ import annotations

import re

LONG = 3000
"""A growing paragraph longer than this (in characters) is divided after a sentence or a word."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_MATH = re.compile(r"(?<!\\)\$\$|\\\[|\\\]")
_BLOCK = re.compile(r"\s|[-+*>|#]|\d+[.)]")


def stable(content: str, begin: int = 0) -> int:
    """The offset up to which later text cannot change the rendering. `begin` is such an offset found earlier.

    It is after an empty line outside of fences and formulas, if the next line begins a new block. An indented line may
    belong to a list.
    """
    place = at = begin
    fence = ""
    open_math = after_blank = False
    while (end := content.find("\n", at)) >= 0:
        line = content[at:end]
        blank = not line.strip()
        if after_blank and not blank and not fence and not open_math and not line[0].isspace():
            place = at
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        elif mark and not open_math:
            fence = mark[1]
        else:
            for sign in _MATH.findall(line):
                open_math = not open_math if sign == "$$" else sign == "\\["
        after_blank = blank
        at = end + 1
    if fence or open_math:
        return place
    if after_blank and content[at : at + 1].strip():
        place = at
    return _sentence(content, place) if len(content) - place > LONG else place


def _sentence(content: str, begin: int) -> int:
    """The end of a late sentence or word in the paragraph at `begin`; `begin` if there is none."""
    if _BLOCK.match(content, begin):
        return begin
    for sign in (". ", " "):
        end = len(content) - LONG // 6
        for _ in range(20):
            end = content.rfind(sign, begin, end)
            if end <= begin:
                break
            if _divisible(content[begin:end]):
                return end + len(sign)
    return begin


def _divisible(said: str) -> bool:
    """Whether no bracket, formula or markup is left open."""
    pairs = said.count("\\(") == said.count("\\)") and said.count("[") == said.count("]") and "\n\n" not in said
    return pairs and not any(said.count(mark) % 2 for mark in ("$", "`", "*"))
