"""The colours of rendered text for light and dark themes, mixed from the desktop's palette."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from PyQt6.QtGui import QColor, QPalette

CONTRAST = 4.5
"""The least contrast between text and background: WCAG 2, level AA."""


_START = 177_653  # keeps USER, INTERFACE and CONTEXT 87 degrees of hue apart, and all shipped roles at least 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours in CSS notation. `dark` says whether this is a dark theme."""

    dark: bool
    text: str
    muted: str
    background: str
    code: str
    rule: str
    link: str
    frame: str
    chosen: str
    found: str
    warning: str
    added: str
    removed: str
    changed: str
    chip_text: str


def theme_of(palette: QPalette) -> Theme:
    """The colours for a palette. It is dark if its text is lighter than its window."""
    window, text = palette.color(QPalette.ColorRole.Window), palette.color(QPalette.ColorRole.WindowText)
    dark = text.lightness() > window.lightness()
    base, ink = palette.color(QPalette.ColorRole.Base), palette.color(QPalette.ColorRole.Text)

    def tint(colour: str, part: float) -> str:
        return mix(base, QColor(colour), part).name()

    muted = readable(mix(ink, base, 0.4), base)
    return Theme(
        dark=dark,
        text=ink.name(),
        muted=muted.name(),
        background=base.name(),
        code=mix(base, ink, 0.07 if dark else 0.045).name(),
        rule=mix(base, ink, 0.16).name(),
        link=readable(palette.color(QPalette.ColorRole.Link), base).name(),
        frame=palette.color(QPalette.ColorRole.Highlight).name(),
        chosen=mix(base, palette.color(QPalette.ColorRole.Highlight), 0.16 if dark else 0.09).name(),
        found=tint("#e0a800", 0.5),
        warning=readable(QColor("#b35900"), base).name(),
        added=tint("#2da44e", 0.25 if dark else 0.18),
        removed=tint("#e5534b", 0.28 if dark else 0.18),
        changed=tint("#d4a72c", 0.26 if dark else 0.22),
        chip_text=ink.name(),
    )


def role_colours(role: str, theme: Theme) -> tuple[str, str]:
    """The background and text colour of a role's chip: always the same hue, readable in both themes."""
    hue = zlib.crc32(role.encode("utf-8", "replace"), _START) % 360
    if theme.dark:
        back, front = QColor.fromHsl(hue, 85, 66), QColor.fromHsl(hue, 150, 205)
    else:
        back, front = QColor.fromHsl(hue, 120, 226), QColor.fromHsl(hue, 150, 72)
    return back.name(), readable(front, back).name()


def mix(one: QColor, other: QColor, part: float) -> QColor:
    """`one` with this part of `other` mixed in."""
    a, b = ((c.red(), c.green(), c.blue()) for c in (one, other))
    return QColor(*(round(x + (y - x) * part) for x, y in zip(a, b, strict=True)))


def readable(colour: QColor, behind: QColor) -> QColor:
    """The colour, moved away from the background until the contrast is sufficient."""
    away = QColor("#ffffff") if luminance(behind) < 0.18 else QColor("#000000")
    for step in range(21):
        moved = mix(colour, away, step / 20)
        if contrast(moved, behind) >= CONTRAST:
            return moved
    return away


def contrast(one: QColor, other: QColor) -> float:
    """The contrast ratio of WCAG 2, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: QColor) -> float:
    """The relative luminance of WCAG 2, 0 to 1."""

    def linear(part: float) -> float:
        return float(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)

    red, green, blue = (linear(part) for part in (colour.redF(), colour.greenF(), colour.blueF()))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
