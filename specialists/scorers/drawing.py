"""Checks whether the elements of an SVG show what the tags of a drawing ask for.

[circle] [rect] [ellipse] [line] [polygon] [triangle] [star]   at least one such shape
[bar-chart] with [bars:N], [ascending], [descending], [axes]    rectangles side by side, their order, two lines
[palette:NAME]                                                   at least one colour, and all from that palette
[style:filled|outline|minimal]                                   how shapes are painted
[count:N]                                                        exactly N of the shape
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from specialists.scorers.base import Hit

PALETTES: Mapping[str, frozenset[str]] = {
    "warm": frozenset({"#d94", "#e63", "#c22", "#fb5", "#a31"}),
    "cool": frozenset({"#28c", "#3af", "#156", "#6cd", "#249"}),
    "green": frozenset({"#283", "#4a5", "#7c4", "#163", "#9d8"}),
    "gray": frozenset({"#222", "#555", "#888", "#bbb", "#eee"}),
}
NEUTRAL = frozenset({"none", "#000", "#fff"})
"""Colours that belong to every palette."""

ELEMENTS = {"circle": "circle", "rect": "rect", "ellipse": "ellipse", "line": "line"} | dict.fromkeys(
    ("polygon", "triangle", "star"), "polygon"
)
CORNERS = {"triangle": 3, "star": 10}
MAX_MINIMAL = 2
"""The largest number of shapes in a minimal drawing."""


def drawing_hits(tags: tuple[str, ...], root: Element | None) -> list[Hit]:
    """Each tag that asks for something, and whether the drawing shows it. `root` is None if there is no drawing."""
    known = {tag.partition(":")[0]: tag.partition(":")[2] for tag in tags}
    elements = list(_shapes(root)) if root is not None else []
    return [
        Hit(f"[{tag}]", root is not None and found)
        for tag in tags
        if (found := _shown(tag, known, elements)) is not None
    ]


def _shapes(root: Element) -> Iterator[tuple[str, Element]]:
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if name in ELEMENTS.values():
            yield name, element


def _shown(tag: str, known: Mapping[str, str], elements: list[tuple[str, Element]]) -> bool | None:
    """Whether a drawing shows what a tag asks for; None if the tag asks for nothing."""
    name, _, value = tag.partition(":")
    if name in ELEMENTS:
        return any(_is(name, *element) for element in elements)
    if name == "bar-chart":
        return len(_bars(elements)) >= 2
    if name == "bars":
        return value.isdecimal() and len(_bars(elements)) == int(value)
    if name in ("ascending", "descending"):
        heights = [height for _, height in sorted(_bars(elements))]
        return len(heights) >= 2 and heights == sorted(heights, reverse=name == "descending") and len(set(heights)) > 1
    if name == "axes":
        return sum(element == "line" for element, _ in elements) >= 2
    if name == "palette":
        return (
            value in PALETTES
            and _paints(elements) - NEUTRAL != set()
            and (_paints(elements) <= PALETTES[value] | NEUTRAL)
        )
    if name == "style":
        return _painted(value, elements)
    if name == "count":
        shape = next((shape for shape in ELEMENTS if shape in known), "")
        return value.isdecimal() and sum(_is(shape, *element) for element in elements) == int(value)
    return None


def _is(shape: str, name: str, element: Element) -> bool:
    if ELEMENTS.get(shape) != name:
        return False
    corners = CORNERS.get(shape)
    return corners is None or len(element.get("points", "").split()) == corners


def _bars(elements: list[tuple[str, Element]]) -> list[tuple[float, float]]:
    """The left edge and the height of each rectangle that has both."""
    return [
        (left, height)
        for name, element in elements
        if name == "rect"
        and (left := _number(element.get("x", "0"))) is not None
        and (height := _number(element.get("height"))) is not None
    ]


def _paints(elements: list[tuple[str, Element]]) -> set[str]:
    return {paint for _, element in elements for key in ("fill", "stroke") if (paint := element.get(key))}


def _painted(style: str, elements: list[tuple[str, Element]]) -> bool:
    shapes = [element for name, element in elements if name != "line"]
    fills = [element.get("fill", "") for element in shapes]
    if style == "filled":
        return bool(shapes) and all(fill not in ("", "none") for fill in fills)
    if style == "outline":
        return bool(shapes) and all(
            fill == "none" and element.get("stroke") for fill, element in zip(fills, shapes, strict=True)
        )
    return style == "minimal" and 1 <= len(elements) <= MAX_MINIMAL


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
