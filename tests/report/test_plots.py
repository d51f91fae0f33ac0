import itertools
import math
from xml.etree import ElementTree

import matplotlib
import numpy as np
from PIL import Image

from restain.geometry import Point, Region, Size
from restain.report.plots import Gain, Line, forest_plot, line_plot, save_histogram
from restain.report.slide_map import Square, slide_map

SVG = "{http://www.w3.org/2000/svg}"


def texts(root: ElementTree.Element) -> set[str]:
    return {element.text or "" for element in root.iter() if element.tag.endswith("text")}


def test_a_plot_is_well_formed_and_escapes_its_labels() -> None:
    line = Line("<b>", [0, 1, 2], [1.0, math.nan, 3.0], [0.5, math.nan, 2.5], [1.5, math.nan, 3.5])
    svg = line_plot([line, Line("other $x$", [0, 2], [2, 2])], "x & y", "z", goal=2.0, marks=True)
    root = ElementTree.fromstring(svg)
    assert {"<b>", "other $x$", "x & y", "z"} <= texts(root)
    assert root.get("aria-label") == "z against x & y"
    assert "currentColor" in svg
    assert 'id="figure' not in svg


def test_a_plot_is_the_same_each_time_and_leaves_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    first, second = (line_plot([Line("a", [0, 1], [0, 1])], "x", "y") for _ in range(2))
    assert first == second
    assert dict(matplotlib.rcParams) == before


def test_an_undefined_plot_is_a_sentence() -> None:
    assert "undefined" in line_plot([Line("a", [0], [math.nan])], "x", "y")


def test_a_forest_has_a_sign_for_every_gain() -> None:
    gains = [Gain("better", 1.0, 0.5, 1.5), Gain("no difference shown", -1.0, math.nan, math.nan)]
    root = ElementTree.fromstring(forest_plot(gains, "gain in PSNR"))
    assert {"1 ▲", "2 ="} <= texts(root)


def test_a_histogram_is_darkest_where_most_cells_are(tmp_path) -> None:
    counts = np.zeros((10, 10))
    counts[8, 2] = 50
    save_histogram(tmp_path / "a.png", counts, 1.0, "x", "y")
    grey = np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(int)
    height, width = grey.shape
    parts = {
        (i, j): grey[i * height // 2 : (i + 1) * height // 2, j * width // 2 : (j + 1) * width // 2].mean()
        for i, j in itertools.product(range(2), repeat=2)
    }
    assert min(parts, key=parts.get) == (1, 1), "many at the right (x) and low (y)"


def test_a_slide_map_has_a_text_for_every_field() -> None:
    field = Region(Point(10, 20), Size(30, 40))
    svg = slide_map(Size(100, 80), [Square(field, "none", "a < b", "3+", dashed=True)], "map", "he.jpg", opacity=0.5)
    root = ElementTree.fromstring(svg)
    assert [element.text for element in root.iter("title")] == ["a < b"]
    assert root.find("image").get("href") == "he.jpg"
    assert texts(root) == {"3+"}
