"""A dialog that compares two branches: shared turns are folded, different turns are shown side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PyQt6.QtCore import QEvent, Qt, QUrl, pyqtSignal
from PyQt6.QtGui import QKeySequence, QShortcut
from PyQt6.QtWidgets import QDialog, QGridLayout, QHBoxLayout, QLabel, QPushButton, QTextBrowser, QVBoxLayout, QWidget

from composer.branching.differences import Alike, Block, Pair, Span, compare, said_by, title_of
from composer.reading.plain import displayable, escaped
from composer.reading.theme import Theme, theme_of
from ssmprov.transcript import Item

SHOWN_AT_ONCE = 200
"""Rows laid out at first, and with each click on the link that shows more."""
MOST_SHOWN = 20_000
_BEFORE_CHANGE = 500


class CompareDialog(QDialog):
    """Not modal. Both sides scroll together, because they are cells of one table."""

    go_wanted = pyqtSignal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Compare two branches")
        self.setModal(False)
        self._blocks: list[Block] = []
        self._unfolded: set[int] = set()
        self._limit = SHOWN_AT_ONCE
        self._at = -1
        self._places: list[int] = []
        self._titles = {"left": QLabel(), "right": QLabel()}
        self.view = QTextBrowser()
        self.view.setOpenLinks(False)
        self.view.setAccessibleName("Differences")
        self.view.anchorClicked.connect(self._follow)
        self._count = QLabel()
        self._build()

    def show_texts(self, left_title: str, left_text: str, right_title: str, right_text: str) -> None:
        """Compare two transcripts."""
        for side, title in (("left", left_title), ("right", right_title)):
            self._titles[side].setText(displayable(title))
        self._blocks = compare(left_text, right_text)
        self._unfolded, self._limit, self._at = set(), SHOWN_AT_ONCE, -1
        self._draw()
        self.next_difference()

    def next_difference(self, by: int = 1) -> None:
        """Show the next difference, or with -1 the previous one. Wraps around at the ends."""
        if not self._places:
            return
        first = 0 if by > 0 else len(self._places) - 1
        self._at = first if self._at < 0 else (self._at + by) % len(self._places)
        while self._at >= self._limit:
            self._limit += SHOWN_AT_ONCE
        self._draw()
        self.view.scrollToAnchor(f"d{self._at}")

    @property
    def differences(self) -> int:
        return len(self._places)

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self._draw()

    # -- internals

    def _build(self) -> None:
        gap = self.fontMetrics().height() // 2
        heads = QGridLayout()
        heads.setHorizontalSpacing(2 * gap)
        for column, (side, title) in enumerate(self._titles.items()):
            font = title.font()
            font.setBold(True)
            title.setFont(font)
            title.setTextFormat(Qt.TextFormat.PlainText)
            title.setWordWrap(True)
            button = QPushButton("Continue with this one")
            button.setAutoDefault(False)
            button.setAccessibleName(f"Continue with the {side} one")
            button.setToolTip("Move the current context here. The branch that it leaves stays in the tree.")
            button.clicked.connect(lambda _checked, side=side: self.go_wanted.emit(side))
            cell = QHBoxLayout()
            cell.addWidget(title, 1)
            cell.addWidget(button)
            heads.addLayout(cell, 0, column)
            heads.setColumnStretch(column, 1)
        before, after = QPushButton("&Previous"), QPushButton("&Next")
        for button, by, key in ((before, -1, "Shift+F7"), (after, 1, "F7")):
            button.setAutoDefault(False)
            button.setToolTip(f"{'Previous difference' if by < 0 else 'Next difference'} ({key})")
            button.clicked.connect(lambda _checked, by=by: self.next_difference(by))
            QShortcut(QKeySequence(key), self, lambda by=by: self.next_difference(by))
        close = QPushButton("&Close")
        close.setAutoDefault(False)
        close.clicked.connect(self.close)
        foot = QHBoxLayout()
        foot.setSpacing(gap)
        foot.addWidget(self._count, 1)
        for button in (before, after, close):
            foot.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * gap, 2 * gap, 2 * gap, 2 * gap)
        layout.setSpacing(gap)
        layout.addLayout(heads)
        layout.addWidget(self.view, 1)
        layout.addLayout(foot)
        em = self.fontMetrics().horizontalAdvance("m")
        self.resize(90 * em, 55 * em)
        self.view.setFocus()

    def _draw(self) -> None:
        self._places = [index for index, block in enumerate(self._blocks) if isinstance(block, Pair)]
        bar = self.view.verticalScrollBar()
        place = bar.value() if bar is not None else 0
        self.view.setHtml("".join(self._html(theme_of(self.palette()))))
        if bar is not None:
            bar.setValue(place)
        self._tell()

    def _tell(self) -> None:
        count = len(self._places)
        if count == 0:
            self._count.setText("Both are the same." if self._blocks else "Both are empty.")
        else:
            self._count.setText(f"Difference {self._at + 1} of {count}" if self._at >= 0 else f"{count} differences")

    def _follow(self, link: QUrl) -> None:
        what, _, number = link.toString().partition(":")
        if what == "more":
            self._more()
        elif what == "fold" and number.isdecimal():
            self._unfolded ^= {int(number)}
            self._draw()

    def _more(self) -> None:
        self._limit += SHOWN_AT_ONCE
        self._draw()

    def _html(self, theme: Theme) -> Iterator[str]:
        shown = 0
        for index, block in enumerate(self._blocks):
            if isinstance(block, Alike):
                yield _alike(block, index, index in self._unfolded, theme)
                continue
            if shown == self._limit:
                left = len(self._places) - shown
                yield _note(f'<a href="more:" style="color:{theme.link}">Show more ({left} differences left)</a>')
                return
            yield _pair(block, f"d{shown}", theme, theme.frame if shown == self._at else theme.rule)
            shown += 1


def _note(inner: str) -> str:
    return f'<p align="center" style="margin-top:10px;margin-bottom:10px">{inner}</p>'


def _alike(block: Alike, index: int, unfolded: bool, theme: Theme) -> str:
    turns = f"{block.turns} turn{' is' if block.turns == 1 else 's are'} the same" if block.turns else "the same"
    mark = "\u25be" if unfolded else "\u25b8"
    line = f'<a href="fold:{index}" style="color:{theme.link};text-decoration:none">{mark} {turns}</a>'
    if not unfolded:
        return _note(line)
    items = block.items[:SHOWN_AT_ONCE]
    rest = len(block.items) - len(items)
    inner = "".join(_cell(item, (), theme.code, theme) for item in items)
    left = _note(f'<span style="color:{theme.muted}">and {rest} more</span>') if rest else ""
    return f'{_note(line)}<table width="100%" cellpadding="8" cellspacing="0"><tr><td>{inner}</td></tr></table>{left}'


def _pair(pair: Pair, anchor: str, theme: Theme, frame: str) -> str:
    other_titles = pair.left is None or pair.right is None or title_of(pair.left) != title_of(pair.right)
    sides = (
        (pair.left, None if pair.right is None else pair.left_spans, theme.removed),
        (pair.right, None if pair.left is None else pair.right_spans, theme.added),
    )
    cells = (
        f'<td width="50%">{_cell(item, spans, colour, theme, colour if other_titles else "")}</td>'
        if item is not None
        else f'<td width="50%" bgcolor="{theme.code}"><p style="color:{theme.muted}">Nothing on this side</p></td>'
        for item, spans, colour in sides
    )
    return (
        f'<a name="{anchor}"></a><table width="100%" cellpadding="8" cellspacing="0" border="1" '
        f'style="border-collapse:collapse;border-color:{frame};border-style:solid">'
        f"<tr>{''.join(cells)}</tr></table>"
    )


def _cell(item: Item, spans: Sequence[Span] | None, colour: str, theme: Theme, title_colour: str = "") -> str:
    """An item with the spans of its text coloured, or all of it if `spans` is None."""
    said = said_by(item)
    marked = [(0, len(said))] if spans is None else spans
    begin = 0
    if len(said) > MOST_SHOWN and marked and marked[0][0] > MOST_SHOWN - _BEFORE_CHANGE:
        begin = marked[0][0] - _BEFORE_CHANGE
    end = min(len(said), begin + MOST_SHOWN)
    parts = ["… " if begin else ""]
    at = begin
    for start, stop in marked:
        start, stop = max(start, at), min(stop, end)
        if start < stop:
            parts += [escaped(said[at:start]), f'<span style="background-color:{colour}">']
            parts += [escaped(said[start:stop]), "</span>"]
            at = stop
    parts += [escaped(said[at:end]), f" … ({len(said) - end:,} more characters)" if end < len(said) else ""]
    title = f'style="background-color:{title_colour}"' if title_colour else ""
    return (
        f'<p style="margin-bottom:4px;color:{theme.muted}"><b {title}>{escaped(title_of(item))}</b></p>'
        f'<p style="white-space:pre-wrap;margin-top:0;color:{theme.text}">{"".join(parts)}</p>'
    )
