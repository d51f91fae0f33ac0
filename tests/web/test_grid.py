"""Tiles cover an image once, at every level."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.geometry import Size
from restain.web.errors import RequestError
from restain.web.grid import TILE, Grid

sizes = st.builds(Size, st.integers(1, 300_000), st.integers(1, 300_000))


@given(sizes)
def test_the_coarsest_level_is_one_tile_and_the_finest_is_the_image(size: Size):
    grid = Grid(size, 0.25)
    assert grid.size_of(grid.top) == size
    assert max(grid.size_of(0).width, grid.size_of(0).height) <= TILE
    assert grid.region(0, 0, 0).size == grid.size_of(0)


@given(st.builds(Size, st.integers(1, 4000), st.integers(1, 4000)), st.integers(0, 3))
def test_tiles_cover_a_level_without_overlap(size: Size, down: int):
    grid = Grid(size, 1.0)
    level = max(0, grid.top - down)
    of = grid.size_of(level)
    rows, columns = -(-of.height // TILE), -(-of.width // TILE)
    regions = [grid.region(level, x, y) for y in range(rows) for x in range(columns)]
    assert sum(one.size.width * one.size.height for one in regions) == of.width * of.height
    assert max(one.right for one in regions) == of.width
    assert max(one.bottom for one in regions) == of.height


@pytest.mark.parametrize("place", [(-1, 0, 0), (99, 0, 0), (1, 2, 0), (1, 0, 2), (0, 1, 0), (1, -1, 0), (1, 10**9, 0)])
def test_a_tile_out_of_range_is_refused(place: tuple[int, int, int]):
    with pytest.raises(RequestError) as caught:
        Grid(Size(1000, 1000), 1.0).region(*place)
    assert caught.value.status == 404
