"""What a terminal gets: no control characters from foreign text, and each message on a line of its own."""

from __future__ import annotations

import re
import sys

_STEERING = re.compile(r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters that move a terminal's cursor, set its title or make it answer. CRLF counts as a line end."""


def printable(text: str) -> str:
    """Text for one line, with control characters and line ends escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def harmless(text: str) -> str:
    """Text of many lines for a terminal: control characters except tab and line feed are escaped."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_line_is_open = False
"""Whether the last text on the terminal of standard output has left its line open."""


def note_written(text: str) -> None:
    """Remember where text that was written to standard output has left the cursor, if that is a terminal."""
    global _line_is_open  # noqa: PLW0603 (it is the state of the terminal, of which a process has one)
    if text:
        _line_is_open = sys.stdout.isatty() and not text.endswith("\n")


def begin_line() -> None:
    """End an open line before a message on standard error, so that the message does not stick to it."""
    global _line_is_open  # noqa: PLW0603
    if _line_is_open and sys.stderr.isatty():
        sys.stderr.write("\n")
        _line_is_open = False
