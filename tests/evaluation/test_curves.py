import itertools
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.evaluation.curves import Line, plot, ticks


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_cover_the_range_evenly(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + span * (1 - 1e-6)
    assert 2 <= len(found) <= 12
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def test_a_plot_is_well_formed_and_escapes_its_words() -> None:
    line = Line("<b>", [0, 1, 2], [1.0, math.nan, 3.0], [0.5, math.nan, 2.5], [1.5, math.nan, 3.5])
    svg = plot([line, Line("other", [0, 2], [2, 2])], "x & y", "z", goal=2.0, marks=True)
    root = ElementTree.fromstring(svg)
    words = [element.text for element in root.iter("text")]
    assert {"<b>", "x & y", "z"} <= set(words)
    assert len(list(root.iter("circle"))) == 4
    assert len(list(root.iter("polyline"))) == 1


def test_points_lie_where_their_values_are() -> None:
    root = ElementTree.fromstring(plot([Line("a", [0, 1], [0, 1])], "x", "y"))
    points = root.find("polyline").get("points").split()
    assert points == ["62.0,240.0", "442.0,15.0"]


def test_nothing_to_draw_is_said() -> None:
    assert "undefined" in plot([Line("a", [0], [math.nan])], "x", "y")
