"""Formulas as images: ziamath turns LaTeX into SVG, Qt turns SVG into an image with the colour and size of the text.

Qt puts the bottom of an image on the baseline, or its middle (`vertical-align: middle`) half an x-height above it.
An image that reaches below the baseline is padded so that its middle is at that height.
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
    warnings.simplefilter("ignore", DeprecationWarning)  # ziamath finds its font with an API that Python has deprecated
    from ziamath.config import config
    from ziamath.zmath import Latex

SCHEME = "math"
LONGEST = 2000
"""Longer formulas (in characters) are shown as source."""

CACHE_BYTES = 48 << 20
FAILED_BYTES = 256
LARGEST = 8000
"""The maximum width and height of an image, in pixels."""

_VIEW_BOX = re.compile(r'viewBox="(\S+) (\S+) (\S+) (\S+)"')
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([^{}]*)\}")

config.svg2 = False  # QtSvg does not support SVG 2


@dataclass(frozen=True, slots=True)
class Formula:
    """An image, its size in the view's pixels, and whether it is aligned by its middle."""

    image: QImage
    width: int
    height: int
    middle: bool


class Maths:
    """The formulas of a view, with a cache of `CACHE_BYTES`."""

    def __init__(self, colour: str, font: QFont, ratio: float = 1.0) -> None:
        self._colour = colour
        self._size = QFontInfo(font).pixelSize() * 1.08  # its letters are smaller than those of most fonts
        self._x_height = QFontMetricsF(font).xHeight()
        self._ratio = ratio
        self._drawn: OrderedDict[tuple[str, bool], Formula | None] = OrderedDict()
        self._bytes = 0

    def formula(self, latex: str, display: bool) -> Formula | None:
        """The image of a formula; None if it cannot be drawn."""
        key = (latex.strip(), display)
        if key in self._drawn:
            self._drawn.move_to_end(key)
            return self._drawn[key]
        try:
            formula = self._draw(*key)
        except Exception:  # the source is shown instead
            formula = None
        self._drawn[key] = formula
        self._bytes += _bytes(formula)
        while self._bytes > CACHE_BYTES and len(self._drawn) > 1:
            self._bytes -= _bytes(self._drawn.popitem(last=False)[1])
        return formula

    def image(self, url: str) -> QImage | None:
        """The image for a URL made by `url`; None for any other URL."""
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
        """The URL of a formula's image. It contains the formula."""
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
        if middle:  # pad it so that its middle is half an x-height above its baseline
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
    """Put braces around each environment followed by `^` or `_`. Without them ziamath fails."""
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
