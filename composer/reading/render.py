"""A turn as HTML for Qt: a chip for its header, its content rendered by role, and a thin rule at its end."""

from __future__ import annotations

import re

from PyQt6.QtGui import QFont, QFontDatabase, QFontMetricsF, QImage

from composer.reading.highlight import ROLES
from composer.reading.markup import Markup, Measures
from composer.reading.maths import Maths
from composer.reading.plain import escaped
from composer.reading.theme import Theme, role_colours
from ssmprov.transcript import Gap, Item, Turn

LARGEST = 200_000
"""Only the beginning of a turn longer than this (in characters) is shown, as plain text."""

BEGINNING = 20_000

PLAIN = frozenset({"OUTPUT", "FILE"})
"""Roles whose turns are shown as plain text."""

CURSOR = "\u258d"

_RUN = re.compile(r"\S{2000,}")


class Renderer:
    """Renders items in one theme and one font. Documents that show them need `stylesheet` as default style sheet."""

    def __init__(self, theme: Theme, font: QFont, ratio: float = 1.0) -> None:
        self.theme = theme
        em = max(8, round(QFontMetricsF(font).height()))
        mono = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont).family()
        self._maths = Maths(theme.text, font, ratio)
        self._markup = Markup(theme, Measures(em, mono), self._maths)
        self.em = em
        self.stylesheet = _stylesheet(theme, em, mono)

    def image(self, url: str) -> QImage | None:
        """The image of a formula; None for any other address."""
        return self._maths.image(url)

    def html(self, item: Item, *, streaming: bool = False) -> str:
        """An item as HTML, '' if there is nothing to show. It never raises."""
        if isinstance(item, Gap):
            return self._gap(item)
        return self.head(item) + self.body(item.content, item.role) + self.foot(item, streaming=streaming)

    def head(self, turn: Turn) -> str:
        """The header as a chip."""
        back, front = role_colours(turn.role, self.theme)
        return (
            f'<p class="head"><span style="background-color:{back};color:{front};font-weight:600">'
            f"\u00a0{escaped(turn.role)}\u00a0</span>"
            f'<span class="muted">\u00a0\u00a0{turn.number}</span></p>\n'
        )

    def body(self, content: str, role: str, *, quick: bool = False) -> str:
        """The content of a turn, or a part of it cut by `pieces.stable`. `quick` as in `Markup.html`."""
        if len(content) > LARGEST:
            return self._beginning(content)
        try:
            content = _RUN.sub(_breakable, content)
            if role in PLAIN:
                return self._plain(content)
            if role in ROLES and "```" not in content and "~~~" not in content:
                return self._markup.box(content, ROLES[role]) if content.strip() else ""
            return self._markup.html(content, quick=quick)
        except Exception:  # show a turn that cannot be rendered as plain text
            return self._plain(content)

    def foot(self, turn: Turn, *, streaming: bool = False) -> str:
        """The rule after a closed turn, or the mark of an open one."""
        if turn.closed:
            return '<hr class="rule">'
        mark = CURSOR if streaming else "open"
        return f'<p class="open">{mark}</p>'

    def link(self, address: str, text: str) -> str:
        """A link on a separate line."""
        return (
            f'<p class="earlier" align="center"><a href="{escaped(address)}" '
            f'style="color:{self.theme.link};text-decoration:none">{escaped(text)}</a></p>'
        )

    def _plain(self, content: str) -> str:
        return f'<pre class="plain">{escaped(content)}</pre>' if content.strip() else ""

    def _gap(self, gap: Gap) -> str:
        return f'<pre class="gap">{escaped(gap.text.strip())}</pre>' if gap.text.strip() else ""

    def _beginning(self, content: str) -> str:
        note = f"These are the first {BEGINNING:,} of {len(content):,} characters. The Raw tab shows all of them."
        return f'<p class="note">{note}</p>{self._plain(content[:BEGINNING])}'


def _breakable(run: re.Match[str]) -> str:
    """Add line break opportunities to a run without spaces: Qt needs seconds to find its own."""
    return "\u200b".join(run[0][at : at + 60] for at in range(0, len(run[0]), 60))


def _stylesheet(theme: Theme, em: int, mono: str) -> str:
    third, half = em // 3, em // 2
    return f"""
        p {{ margin-top: 0; margin-bottom: {half}px; }}
        p.head {{ margin-top: {half}px; margin-bottom: {third}px; }}
        p.open {{ color: {theme.muted}; font-style: italic; }}
        p.note {{ color: {theme.warning}; }}
        p.earlier {{ margin-top: {third}px; margin-bottom: {third}px; }}
        .muted {{ color: {theme.muted}; }}
        .code, code {{ font-family: '{mono}'; }}
        pre {{ font-family: '{mono}'; white-space: pre-wrap; margin-top: 0; margin-bottom: {half}px; }}
        pre.code {{ margin-bottom: 0; }}
        pre.gap {{ color: {theme.muted}; }}
        table.box {{ margin-top: {third}px; margin-bottom: {half}px; }}
        ul, ol {{ margin-top: 0; margin-bottom: {half}px; }}
        li {{ margin-bottom: {third // 2}px; }}
        h1, h2 {{ font-size: x-large; font-weight: 600; margin-top: {half}px; margin-bottom: {third}px; }}
        h3 {{ font-size: large; font-weight: 600; margin-top: {half}px; margin-bottom: {third}px; }}
        h4, h5, h6 {{ font-size: medium; font-weight: 600; margin-top: {third}px; margin-bottom: {third}px; }}
        blockquote {{ color: {theme.muted}; margin-top: 0; margin-bottom: {half}px; }}
        blockquote {{ margin-left: {em}px; margin-right: {em}px; }}
        hr.rule {{ background-color: {theme.rule}; margin-top: {third}px; margin-bottom: {third}px; }}
    """
