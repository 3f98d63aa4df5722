"""Escapes control characters, so that foreign text can neither control a terminal nor forge a line in a log."""

from __future__ import annotations

import re

_STEERING = re.compile(r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters that move a terminal's cursor, set its title or make it answer. CRLF counts as a line end."""


def printable(text: str) -> str:
    """Text for one line, with control characters and line ends escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def harmless(text: str) -> str:
    """Text of many lines for a terminal: control characters except tab and line feed are escaped."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
