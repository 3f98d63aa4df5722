"""The curves of a run: read with care, drawn within their frame."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from specialists.curves import FILE, HEIGHT, LEFT, WIDTH, chart, read_curves

POINTS = st.lists(st.tuples(st.floats(1, 1e6), st.floats(-1e9, 1e9)), min_size=1, max_size=20)


@given(st.dictionaries(st.sampled_from(["training", "validation", "reward"]), POINTS, min_size=1))
def test_every_line_lies_within_its_frame(curves: dict[str, list[tuple[float, float]]]) -> None:
    drawn = ElementTree.fromstring(f"<div>{chart(curves)}</div>")
    lines = [line.get("points", "") for line in drawn.iter("polyline")]
    assert sorted(len(line.split()) for line in lines) == sorted(map(len, curves.values()))
    for x, y in (point.split(",") for line in lines for point in line.split()):
        assert LEFT <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


def test_a_loss_that_fell_far_is_drawn_by_its_logarithm() -> None:
    drawn = chart({"training": [(1, 10.0), (2, 1.0), (3, 0.1)]})
    [line] = re.findall(r'points="([^"]*)"', drawn)
    high, middle, low = (float(point.split(",")[1]) for point in line.split())
    assert abs((middle - high) - (low - middle)) < 0.2
    assert "(logarithmic)" in drawn
    assert "(logarithmic)" not in chart({"training": [(1, 10.0), (2, 1.0)]})


def test_what_is_no_curve_is_none(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}
    for broken in ("", "{", '{"training": [[1]]}', '{"training": "x"}', "[]"):
        (tmp_path / FILE).write_text(broken)
        assert read_curves(tmp_path) == {}
    (tmp_path / FILE).write_text('{"training": [[1, 2.5]], "empty": [], "<b>": [[1, 1]]}')
    found = read_curves(tmp_path)
    assert found == {"training": [(1, 2.5)], "<b>": [(1, 1)]}
    assert "<b>" not in chart(found)
