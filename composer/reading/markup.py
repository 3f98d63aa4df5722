"""Converts Markdown to HTML for Qt. HTML in the source is escaped; no image or file is ever loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, fence
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin

from composer.reading.highlight import highlighted, language_of
from composer.reading.maths import Maths
from composer.reading.plain import displayable, escaped
from composer.reading.theme import Theme
from ssmprov.transcript import FENCE

MOST_CELLS = 1500
"""Tables with more cells are shown as source, because Qt needs seconds to draw them."""

QUICK = 3000
"""Longer code (in characters) gets its colours only when the turn is finished."""

LINKS = ("http", "https", "mailto")

_DIVIDER = FENCE.strip()

Rule = Callable[[Sequence[Token], int, Any, Any], str]
"""Renders one token: takes all tokens, the token's index, the parser's options and its environment."""


@dataclass(frozen=True, slots=True)
class Measures:
    """The line height in pixels and the name of the font for code."""

    em: int
    mono: str


class Markup:
    """Converts Markdown to HTML for one theme and one font."""

    def __init__(self, theme: Theme, measures: Measures, maths: Maths) -> None:
        self._theme = theme
        self._measures = measures
        self._maths = maths
        self._parser = _parser(
            {
                "fence": self._fence,
                "code_block": self._fence,
                "code_inline": self._code,
                "image": self._image,
                "link_open": self._link,
                "table_open": self._table,
                "math_inline": self._inline,
                "math_inline_double": self._shown,
                "math_block": self._shown,
                "math_block_label": self._shown,
                "math_block_eqno": self._shown,
            }
        )

    def html(self, source: str, *, quick: bool = False) -> str:
        """The HTML of a Markdown text. `quick` leaves long code plain, because the text is redrawn soon."""
        env = {"quick": quick}
        tokens = self._parser.parse(displayable(source), env)
        if sum(token.type in ("td_open", "th_open") for token in tokens) > MOST_CELLS:
            return self.box(source)
        return str(self._parser.renderer.render(tokens, self._parser.options, env))

    def box(self, code: str, language: str = "") -> str:
        """Code in a separate box."""
        inner = highlighted(code.removesuffix("\n"), language, self._theme)
        pad = self._measures.em // 2
        return (
            f'<table width="100%" cellspacing="0" cellpadding="{pad}" class="box"><tr><td bgcolor="{self._theme.code}">'
            f'<pre class="code">{inner}</pre></td></tr></table>'
        )

    def _fence(self, tokens: Sequence[Token], index: int, _options: Any, env: Any) -> str:
        token = tokens[index]
        if env.get("quick") and len(token.content) > QUICK:
            return self.box(token.content)
        return self.box(token.content, language_of(token.info))

    def _code(self, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
        return self.source(tokens[index].content)

    def source(self, text: str) -> str:
        """Inline code."""
        return f'<span class="code" style="background-color:{self._theme.code}">{escaped(text)}</span>'

    def _image(self, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
        return f'<span class="muted">[image: {escaped(tokens[index].content) or "no description"}]</span>'

    def _link(self, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
        address = str(tokens[index].attrs.get("href", ""))
        if not is_link(address):
            return "<a>"
        return f'<a href="{escaped(address)}" style="color:{self._theme.link};text-decoration:underline">'

    def _table(self, _tokens: Sequence[Token], _index: int, _options: Any, _env: Any) -> str:
        pad = max(2, self._measures.em // 3)
        colour = self._theme.rule
        style = f"border-collapse:collapse;border-style:solid;border-color:{colour}"
        return f'<table border="1" cellspacing="0" cellpadding="{pad}" class="box" style="{style}">\n'

    def _inline(self, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
        return self._formula(tokens[index].content, display=False)

    def _shown(self, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
        picture = self._formula(tokens[index].content, display=True)
        centred = f'<p align="center">{picture}</p>\n'
        if tokens[index].type != "math_inline_double":
            return centred
        return f"<br>{picture}<br>" if tokens[index].level else f"</p>{centred}<p>"

    def _formula(self, latex: str, *, display: bool) -> str:
        formula = self._maths.formula(latex, display)
        if formula is None:
            return self.source(latex.strip())
        style = ' style="vertical-align:middle"' if formula.middle else ""
        url = self._maths.url(latex, display)
        return f'<img src="{url}" width="{formula.width}" height="{formula.height}"{style}>'


def is_link(address: str) -> bool:
    """Whether the window may offer to open this address."""
    try:
        return urlsplit(address).scheme in LINKS
    except ValueError:
        return False


def _parser(rules: dict[str, Rule]) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
    parser.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True)
    parser.use(texmath_plugin, delimiters="brackets")
    parser.block.ruler.at("fence", _fence_unless_divider, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "display_in_line", _display_in_line)
    parser.inline.ruler.before("strikethrough", "divider_in_line", _divider_in_line)
    parser.validateLink = lambda url: True  # type: ignore[method-assign]  # noqa: ARG005 - `_link` decides
    cast(RendererHTML, parser.renderer).rules.update(cast(dict[str, Any], rules))
    return parser


def _fence_unless_divider(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Treat a divider too close to other text as text, although it looks like an unclosed code fence."""
    if state.src.startswith(_DIVIDER, state.bMarks[start] + state.tShift[start]):
        return False
    return fence(state, start, end, silent)


def _divider_in_line(state: StateInline, silent: bool) -> bool:
    """Such a divider is not strikethrough text either."""
    if not state.src.startswith(_DIVIDER, state.pos):
        return False
    if not silent:
        state.push("text", "", 0).content = _DIVIDER
    state.pos += len(_DIVIDER)
    return True


def _display_in_line(state: StateInline, silent: bool) -> bool:
    """`\\[..\\]` inside a paragraph. The plugin only handles blocks."""
    begin = state.pos + len("\\[")
    if not state.src.startswith("\\[", state.pos) or (end := state.src.find("\\]", begin)) <= begin:
        return False
    if not silent:
        token = state.push("math_inline_double", "math", 0)
        token.content = state.src[begin:end]
        token.markup = "\\["
    state.pos = end + len("\\]")
    return True
