import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.geometry import Point, Region, Size
from restain.slides import Polygon, TissueMask
from restain.stain.area import FADE_UM, MARGIN_UM, Area, everywhere, rectangle

GLASS = np.array([240, 238, 241], np.float32)


def mask(height: int = 60, width: int = 80) -> TissueMask:
    found = np.zeros((height, width), bool)
    found[20:40, 30:50] = True
    return TissueMask(found, 8.0, GLASS)


@given(x=st.integers(0, 1200), y=st.integers(0, 800), width=st.integers(2, 300), height=st.integers(2, 300))
def test_a_part_has_the_weights_of_the_whole_and_glass_is_where_there_are_none(
    x: int, y: int, width: int, height: int
) -> None:
    area = Area(mask(), 0.25, 0.5)
    whole = area.weight(Region(Point(0, 0), Size(1280, 960)))
    part = Region(Point(x, y), Size(min(width, 1280 - x), min(height, 960 - y)))
    np.testing.assert_allclose(area.weight(part), whole[part.slices], atol=1e-5)
    assert area.is_glass(part) <= (not whole[part.slices].any())
    assert area.is_stained(part) >= bool(whole[part.slices].any())


def test_tissue_is_shown_with_a_margin_and_fades_into_glass() -> None:
    weight = Area(mask(), 0.25, 0.5).weight(Region(Point(0, 0), Size(1280, 960)))
    inside = weight[20 * 16 : 40 * 16, 30 * 16 : 50 * 16]
    assert (inside == 1).all()
    row = weight[30 * 16, : 30 * 16]
    reach = int((MARGIN_UM + FADE_UM + 8) / 0.5)
    assert (row[:-reach] == 0).all()
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 0.05


def test_a_region_of_interest_is_in_px_of_level_0() -> None:
    area = Area(mask(), 0.25, 0.5, [rectangle(Region(Point(1000, 700), Size(200, 100)))])
    tile = Region(Point(480, 320), Size(200, 100))
    inside = area.inside(tile)
    assert inside is not None
    rows, columns = np.nonzero(inside)
    assert (columns.min() + 480, columns.max() + 481, rows.min() + 320, rows.max() + 321) == (500, 600, 350, 400)
    assert area.is_stained(tile)
    assert not area.is_stained(Region(Point(700, 320), Size(50, 50)))
    assert area.inside(Region(Point(510, 355), Size(20, 20))) is None


def test_outlines_may_be_many_and_have_holes() -> None:
    ring = rectangle(Region(Point(0, 0), Size(400, 400))).exterior
    hole = rectangle(Region(Point(100, 100), Size(200, 200))).exterior
    area = Area(mask(), 0.5, 0.5, [Polygon(ring, [hole]), rectangle(Region(Point(600, 0), Size(10, 10)))])
    inside = area.inside(Region(Point(0, 0), Size(700, 500)))
    assert inside is not None
    assert inside.sum() == 400**2 - 200**2 + 100


@pytest.mark.parametrize("tissue", [True, False])
def test_everywhere_is_all(tissue: bool) -> None:
    empty = TissueMask(np.zeros((30, 40), bool), 8.0, GLASS)
    area = Area(everywhere(Size(40, 30), empty) if tissue else empty, 0.5, 0.5)
    region = Region(Point(0, 0), Size(640, 480))
    assert area.is_glass(region) is not tissue
    assert (area.weight(region) == float(tissue)).all()


def test_under_a_pen_nothing_is_stained() -> None:
    found = mask()
    ink = np.zeros_like(found.mask)
    ink[30:34, 20:60] = True
    area = Area(TissueMask(found.mask & ~ink, 8.0, GLASS, ink), 0.5, 0.5)
    inside = area.inside(Region(Point(0, 0), Size(1280, 960)))
    assert inside is not None
    assert not inside[31 * 16 : 33 * 16, 21 * 16 : 59 * 16].any()
    assert inside[: 29 * 16].all()
    assert area.weight(Region(Point(35 * 16, 31 * 16), Size(100, 20))).min() == 1
