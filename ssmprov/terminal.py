"""Text of others on a terminal or in a log: control characters escaped, so that it neither steers nor forges a line."""

from __future__ import annotations

import re

_STEERING = re.compile(r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""What moves a terminal's cursor, sets its title or asks it to answer. CRLF is a line end."""


def printable(text: str) -> str:
    """Text on one line, control characters escaped: what a model wrote never steers a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def harmless(text: str) -> str:
    """Text on many lines for a terminal: control characters but tab and line feed are escaped, as by `printable`."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
