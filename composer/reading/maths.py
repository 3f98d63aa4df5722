"""Formulas as pictures: LaTeX to SVG by ziamath, SVG to an image by Qt, in the colour and at the size of the text.

Qt puts the bottom of a picture on the baseline, or its middle (`vertical-align: middle`) half the height of an x above
it. A picture that reaches below the baseline is made so high that this middle is where it should be.
"""

from __future__ import annotations

import base64
import re
import warnings
from collections import OrderedDict
from dataclasses import dataclass

from PyQt6.QtCore import QByteArray, QRectF
from PyQt6.QtGui import QFont, QFontInfo, QFontMetricsF, QImage, QPainter
from PyQt6.QtSvg import QSvgRenderer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it finds its font in a way that Python 3.11 is leaving
    from ziamath.config import config
    from ziamath.zmath import Latex

SCHEME = "math"
LONGEST = 2000
"""Characters of a formula beyond which its source is shown."""

CACHE_BYTES = 48 << 20
FAILED_BYTES = 256
LARGEST = 8000
"""Pixels of a picture's side, at most."""

_VIEW_BOX = re.compile(r'viewBox="(\S+) (\S+) (\S+) (\S+)"')
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([^{}]*)\}")

config.svg2 = False  # QtSvg does not draw what SVG 2 has


@dataclass(frozen=True, slots=True)
class Formula:
    """A picture, its size in the view's pixels, and whether its middle goes on the line."""

    image: QImage
    width: int
    height: int
    middle: bool


class Maths:
    """The formulas of a view. What was drawn stays for a while: as much as `CACHE_BYTES` hold."""

    def __init__(self, colour: str, font: QFont, ratio: float = 1.0) -> None:
        self._colour = colour
        self._size = QFontInfo(font).pixelSize() * 1.08  # its letters are smaller than those of most text fonts
        self._x_height = QFontMetricsF(font).xHeight()
        self._ratio = ratio
        self._drawn: OrderedDict[tuple[str, bool], Formula | None] = OrderedDict()
        self._bytes = 0

    def formula(self, latex: str, display: bool) -> Formula | None:
        """A formula's picture; None where it cannot be drawn."""
        key = (latex.strip(), display)
        if key in self._drawn:
            self._drawn.move_to_end(key)
            return self._drawn[key]
        try:
            formula = self._draw(*key)
        except Exception:  # whatever a formula is made of, its source can be shown
            formula = None
        self._drawn[key] = formula
        self._bytes += _bytes(formula)
        while self._bytes > CACHE_BYTES and len(self._drawn) > 1:
            self._bytes -= _bytes(self._drawn.popitem(last=False)[1])
        return formula

    def image(self, url: str) -> QImage | None:
        """The picture that a URL of `url` names."""
        scheme, _, rest = url.partition(":")
        if scheme != SCHEME or rest[:1] not in ("i", "d"):
            return None
        try:
            latex = base64.urlsafe_b64decode(rest[1:].encode("ascii")).decode("utf-8")
        except ValueError:
            return None
        formula = self.formula(latex, rest[0] == "d")
        return formula.image if formula else None

    @staticmethod
    def url(latex: str, display: bool) -> str:
        """The name of a formula's picture: it holds the formula."""
        data = base64.urlsafe_b64encode(latex.strip().encode("utf-8", "replace"))
        return f"{SCHEME}:{'d' if display else 'i'}{data.decode()}"

    def _draw(self, latex: str, display: bool) -> Formula | None:
        if not latex or len(latex) > LONGEST:
            return None
        drawn = Latex(braced(latex), size=self._size, color=self._colour, inline=not display)
        svg = drawn.svg()
        box = _VIEW_BOX.search(svg)
        if box is None:
            return None
        _, top, width, height = (float(number) for number in box.groups())
        above, below = -top, height + top
        middle = not display and below > 1.5
        if middle:  # so high that the middle of the picture is half an x above its baseline
            half = self._x_height / 2
            whole = 2 * max(above - half / 2, below + half / 2)
            offset = (whole + half) / 2 - above
        else:
            whole, offset = height, 0.0
        wide, high = max(1, round(width + 0.5)), max(1, round(whole + 0.5))
        if max(wide, high) * self._ratio > LARGEST:
            return None
        renderer = QSvgRenderer(QByteArray(svg.encode()))
        if not renderer.isValid():
            return None
        image = QImage(round(wide * self._ratio), round(high * self._ratio), QImage.Format.Format_ARGB32_Premultiplied)
        image.fill(0)
        image.setDevicePixelRatio(self._ratio)
        painter = QPainter(image)
        renderer.render(painter, QRectF(0, offset, width, height))
        painter.end()
        return Formula(image, wide, high, middle)


def _bytes(formula: Formula | None) -> int:
    return formula.image.sizeInBytes() if formula else FAILED_BYTES


def braced(latex: str) -> str:
    """The formula with braces around each environment that `^` or `_` follows, which ziamath would refuse."""
    opened: list[tuple[str, int]] = []
    inserts: list[tuple[int, str]] = []
    for match in _ENVIRONMENT.finditer(latex):
        if match[1] == "begin":
            opened.append((match[2], match.start()))
        elif opened and opened[-1][0] == match[2]:
            _, begin = opened.pop()
            if latex[match.end() :].lstrip()[:1] in ("^", "_"):
                inserts += [(begin, "{"), (match.end(), "}")]
    for at, brace in sorted(inserts, reverse=True):
        latex = latex[:at] + brace + latex[at:]
    return latex
