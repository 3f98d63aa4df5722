"""Draws a row of the branch tree: a mark for the current path, the turn, its names as chips, and an excerpt."""

from __future__ import annotations

from PyQt6.QtCore import QModelIndex, QPointF, QRectF, QSize, Qt
from PyQt6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPalette, QPen
from PyQt6.QtWidgets import QApplication, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from composer.branching.forest import Line, Node
from composer.branching.tree_model import WHAT, TreeModel
from composer.reading.plain import displayable
from composer.reading.theme import mix, readable

_MOST_CHIPS = 3
_CHIP_EMS = 14


class TreeDelegate(QStyledItemDelegate):
    """Draws the first column. The other columns are muted plain text."""

    def initStyleOption(self, option: QStyleOptionViewItem | None, index: QModelIndex) -> None:
        super().initStyleOption(option, index)
        if option is not None and index.column() != WHAT:
            muted = _muted(option.palette)
            option.palette.setColor(QPalette.ColorRole.Text, muted)

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        found = super().sizeHint(option, index)
        return QSize(found.width(), round(option.fontMetrics.height() * 1.75))

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        model = index.model()
        line = model.line(index) if isinstance(model, TreeModel) else None
        if painter is None or line is None or index.column() != WHAT:
            super().paint(painter, option, index)
            return
        row = QStyleOptionViewItem(option)
        self.initStyleOption(row, index)
        row.text = ""
        widget: QWidget | None = option.widget
        style = widget.style() if widget is not None else QApplication.style()
        if style is not None:
            style.drawControl(QStyle.ControlElement.CE_ItemViewItem, row, painter, widget)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        above = model.line(index.parent()) if isinstance(model, TreeModel) else None
        _Pen(painter, row, line, beside=above is not None and above.node is not None).draw()
        painter.restore()


class _Pen:
    """Draws one row from left to right. `beside`: the row belongs to a side branch of its parent row."""

    def __init__(self, painter: QPainter, option: QStyleOptionViewItem, line: Line, *, beside: bool) -> None:
        self.painter, self.line, self.beside, self.palette = painter, line, beside, option.palette
        self.rect = QRectF(option.rect)
        self.font = QFont(option.font)
        self.em = QFontMetricsF(self.font).horizontalAdvance("m")
        self.x = self.rect.left() + 0.4 * self.em
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        group = QPalette.ColorGroup.Active
        if not option.state & QStyle.StateFlag.State_Active:
            group = QPalette.ColorGroup.Inactive
        text, back = QPalette.ColorRole.Text, QPalette.ColorRole.Base
        if selected:
            text, back = QPalette.ColorRole.HighlightedText, QPalette.ColorRole.Highlight
        self.ink, self.back = self.palette.color(group, text), self.palette.color(group, back)
        self.accent = self.ink if selected else self.palette.color(group, QPalette.ColorRole.Highlight)
        self.muted = mix(self.ink, self.back, 0.15) if selected else readable(mix(self.ink, self.back, 0.3), self.back)
        self.on_accent = self.back if selected else self.palette.color(group, QPalette.ColorRole.HighlightedText)

    def draw(self) -> None:
        node = self.line.node
        self._mark(node)
        if node is None:
            self._text(f"{len(self.line.folded)} steps", self.muted, italic=True)
            return
        if node.title or not node.excerpt:
            self._text(node.label, self.ink, bold=node.on_path)
        if node.head:
            self._chip("here", self.accent, filled=True)
        for name in node.names[:_MOST_CHIPS]:
            self._chip(name, self.accent)
        if len(node.names) > _MOST_CHIPS:
            self._chip(f"+{len(node.names) - _MOST_CHIPS}", self.accent)
        if node.excerpt:
            plain = not node.title
            self._text(node.excerpt, self.ink if plain else self.muted, bold=plain and node.on_path)

    def _mark(self, node: Node | None) -> None:
        """Draw a disc on the current path, a ring elsewhere, three dots for folded steps, a hook for a new branch."""
        middle, radius = self.rect.center().y(), 0.28 * self.em
        if self.beside and self.line.starts:
            self.painter.setPen(QPen(self.muted, max(1.0, self.em / 10)))
            top = QPointF(self.x + 0.2 * self.em, middle - 0.6 * self.em)
            corner = QPointF(top.x(), middle)
            self.painter.drawPolyline(top, corner, QPointF(self.x + 0.7 * self.em, middle))
        if self.beside:
            self.x += 0.9 * self.em
        centre = QPointF(self.x + radius, middle)
        self.painter.setBrush(Qt.BrushStyle.NoBrush)
        if node is None:
            self.painter.setPen(Qt.PenStyle.NoPen)
            self.painter.setBrush(self.muted)
            for step in (-1, 0, 1):
                self.painter.drawEllipse(centre + QPointF(0, step * 0.38 * self.em), 0.1 * self.em, 0.1 * self.em)
        elif node.on_path:
            self.painter.setPen(Qt.PenStyle.NoPen)
            self.painter.setBrush(self.accent)
            self.painter.drawEllipse(centre, radius, radius)
        else:
            self.painter.setPen(QPen(self.muted, max(1.0, self.em / 10)))
            self.painter.drawEllipse(centre, radius * 0.9, radius * 0.9)
        self.x += 2 * radius + 0.55 * self.em

    def _text(self, text: str, colour: QColor, *, bold: bool = False, italic: bool = False) -> None:
        font = QFont(self.font)
        font.setBold(bold)
        font.setItalic(italic)
        room = self.rect.right() - 0.3 * self.em - self.x
        if room < 2 * self.em:
            return
        metrics = QFontMetricsF(font)
        shown = metrics.elidedText(displayable(text), Qt.TextElideMode.ElideRight, room)
        self.painter.setFont(font)
        self.painter.setPen(colour)
        box = QRectF(self.x, self.rect.top(), room, self.rect.height())
        self.painter.drawText(box, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)
        self.x += metrics.horizontalAdvance(shown) + 0.6 * self.em

    def _chip(self, text: str, accent: QColor, *, filled: bool = False) -> None:
        font = QFont(self.font)
        font.setPointSizeF(max(1.0, font.pointSizeF() * 0.88))
        metrics = QFontMetricsF(font)
        room = self.rect.right() - self.x - 1.5 * self.em
        if room < 2 * self.em:
            return
        shown = metrics.elidedText(text, Qt.TextElideMode.ElideMiddle, min(room, _CHIP_EMS * self.em))
        width, height = metrics.horizontalAdvance(shown) + self.em, metrics.height() * 1.18
        box = QRectF(self.x, self.rect.center().y() - height / 2, width, height)
        ground = accent if filled else mix(self.back, accent, 0.2)
        self.painter.setPen(Qt.PenStyle.NoPen)
        self.painter.setBrush(ground)
        self.painter.drawRoundedRect(box, height / 2, height / 2)
        self.painter.setFont(font)
        self.painter.setPen(self.on_accent if filled else self.ink)
        self.painter.drawText(box, Qt.AlignmentFlag.AlignCenter, shown)
        self.x += width + 0.45 * self.em


def _muted(palette: QPalette) -> QColor:
    base = palette.color(QPalette.ColorRole.Base)
    return readable(mix(palette.color(QPalette.ColorRole.Text), base, 0.3), base)
