"""Code in colour, with Pygments as the lexer and a small set of colours."""

from __future__ import annotations

import re
from functools import lru_cache

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Token
from pygments.util import ClassNotFound
from PyQt6.QtGui import QColor

from composer.reading.plain import displayable, escaped
from composer.reading.theme import Theme, readable

LONGEST = 40_000
"""Longer code (in characters) stays plain, because it would block the window."""

ROLES = {
    "BASH": "bash",
    "SH": "bash",
    "SHELL": "bash",
    "PYTHON": "python",
    "SQL": "sql",
    "JSON": "json",
    "YAML": "yaml",
    "TOML": "toml",
    "JAVASCRIPT": "javascript",
    "RUST": "rust",
    "C": "c",
    "PERL": "perl",
    "RUBY": "ruby",
}
"""Roles whose turns are code, and the language of that code."""

# The colour in a light and a dark theme, and the style, of a token type and its subtypes.
_STYLES: dict[object, tuple[str, str, str]] = {
    Token.Comment: ("#6a737d", "#8b949e", "font-style:italic"),
    Token.Keyword: ("#8a3ffc", "#c297ff", ""),
    Token.Operator.Word: ("#8a3ffc", "#c297ff", ""),
    Token.Literal.String: ("#0a7a3d", "#7ec98f", ""),
    Token.Literal.Number: ("#a6530a", "#e5a663", ""),
    Token.Name.Function: ("#0b5cad", "#79b8ff", ""),
    Token.Name.Class: ("#0b5cad", "#79b8ff", "font-weight:600"),
    Token.Name.Decorator: ("#a6530a", "#e5a663", ""),
    Token.Name.Builtin: ("#00707a", "#6cc7cf", ""),
    Token.Name.Variable: ("#9a3455", "#f097b0", ""),
    Token.Name.Tag: ("#0b5cad", "#79b8ff", ""),
    Token.Name.Attribute: ("#00707a", "#6cc7cf", ""),
    Token.Generic.Deleted: ("#b3261e", "#ff8f87", ""),
    Token.Generic.Inserted: ("#0a7a3d", "#7ec98f", ""),
    Token.Generic.Heading: ("#0b5cad", "#79b8ff", "font-weight:600"),
}


def highlighted(code: str, language: str, theme: Theme) -> str:
    """Code as HTML for a preformatted element. Plain if the language is unknown or the code is very long."""
    lexer = _lexer(language) if len(code) <= LONGEST else None
    if lexer is None:
        return escaped(code)
    return "".join(_spans(lexer, code, theme))


def language_of(info: str) -> str:
    """The language in the info string of a fence: its first word, as in `python title=x` or `{.python}`."""
    match = re.match(r"[\s{.]*([\w+#.-]+)", info)
    return match[1].lower() if match else ""


def _spans(lexer: Lexer, code: str, theme: Theme) -> list[str]:
    spans: list[str] = []
    last, run = "", ""
    for kind, text in lexer.get_tokens(displayable(code)):
        style = _style(kind, theme)
        if style != last and text.strip():
            spans.append(_span(last, run))
            last, run = style, ""
        run += text
    spans.append(_span(last, run))
    return spans


def _span(style: str, text: str) -> str:
    return f'<span style="{style}">{escaped(text)}</span>' if style and text else escaped(text)


@lru_cache(maxsize=512)
def _style(kind: object, theme: Theme) -> str:
    while kind is not None and kind not in _STYLES:
        kind = getattr(kind, "parent", None)
    if kind is None:
        return ""
    light, dark, more = _STYLES[kind]
    colour = readable(QColor(dark if theme.dark else light), QColor(theme.code)).name()
    return f"color:{colour};{more}"


@lru_cache(maxsize=64)
def _lexer(language: str) -> Lexer | None:
    if not language:
        return None
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None
