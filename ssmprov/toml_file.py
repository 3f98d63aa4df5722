"""A TOML text that can say in which line something is."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ssmprov.errors import BadRequest

MAX_DOTS = 1000
"""The most dots in one line. Parsing takes quadratic time in the parts of a dotted key, and ours have at most two."""

MAX_TRIES = 200
"""How often a part of the text is parsed to find a line."""

Key = Sequence[str | int]
"""Where a value is: `("model", 0, "workers")`."""


class TomlFile:
    """Raises BadRequest, which names `where`, if the text is not valid TOML."""

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        self.where = where
        if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
            raise BadRequest(f"{where} has a line with more than {MAX_DOTS} dots, which are too many: shorten it")
        try:
            self.content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also raised for a number with more digits than Python accepts
            raise BadRequest(f"{where} is not valid TOML: {error}") from None

    def wrong(self, what: str, *key: str | int) -> BadRequest:
        """The error for the value at a key of the text; its `details` have the `file`, the `line` and the `key`."""
        line = self.line(key)
        place = f"{self.where}, line {line}" if line else self.where
        return BadRequest(f"{place}: {what}", file=self.where, line=line, key=".".join(map(str, key)))

    @contextmanager
    def checking(self, whose: str, *key: str | int) -> Iterator[None]:
        """Add to a BadRequest of the body whose value it is about, and where that is."""
        try:
            yield
        except BadRequest as error:
            raise self.wrong(f"{whose}: {error}", *key) from None

    def line(self, key: Key) -> int:
        """The line, counted from 1, where a value begins; 0 if that is unknown.

        tomllib does not say. So this looks for the shortest beginning of the text that has the value.
        """
        lines = self.text.splitlines(keepends=True)
        tries = MAX_TRIES

        def content(count: int) -> tuple[int, dict[str, Any]]:
            """The longest beginning of at most `count` lines that is TOML: a value may span several lines."""
            nonlocal tries
            while count and tries:
                tries -= 1
                try:
                    return count, tomllib.loads("".join(lines[:count]))
                except (ValueError, RecursionError):
                    count -= 1
            return 0, {}

        if not key or not _has(content(len(lines))[1], key):
            return 0
        low, high = 0, len(lines)  # the first `low` lines lack it, the first `high` lines have it
        while high - low > 1:
            middle = (low + high) // 2
            if _has(content(middle)[1], key):
                high = middle
            else:
                low = middle
        begin = content(high - 1)[0] + 1
        return begin if tries else 0


def _has(content: Any, key: Key) -> bool:
    for part in key:
        try:
            content = content[part]
        except (LookupError, TypeError):
            return False
    return True
