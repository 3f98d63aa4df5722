"""Makes text safe for Qt: replaces characters that Qt uses as markers or cannot draw."""

from __future__ import annotations

import html
import re

REPLACEMENT = "\ufffd"

_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\u2028\u2029\ufdd0-\ufdef\ufffc\ufffe\uffff]"
)
_LINE_END = re.compile("\r\n?")


def displayable(text: str) -> str:
    """The text with LF line ends, symbols for control characters, and \ufffd for bytes that are not UTF-8."""
    if text.isascii() and text.isprintable():
        return text
    return _ODD.sub(_picture, _LINE_END.sub("\n", text))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code in (0x2028, 0x2029):
        return "\n"
    return "\u2421" if code == 0x7F else REPLACEMENT


def escaped(text: str) -> str:
    """A text escaped for an HTML element or attribute."""
    return html.escape(displayable(text))


def units(text: str) -> int:
    """The number of Qt positions in a text: UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
