import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.geometry import Region, Size, SizeUm, tile_starts, tiles, um_to_px

lengths = st.integers(1, 5000)


@given(lengths, st.integers(2, 600), st.data())
def test_tiles_cover_every_pixel_and_share_the_overlap(length: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile // 2))
    starts = tile_starts(length, tile, overlap)
    side = min(tile, length)
    covered = np.zeros(length, int)
    for start in starts:
        covered[start : start + side] += 1
    assert covered.min() >= 1
    assert starts[0] == 0
    assert starts[-1] + side == length
    assert all(a + side - b >= overlap for a, b in itertools.pairwise(starts))
    assert starts == sorted(set(starts))


@given(lengths, lengths)
def test_tiles_stay_inside_the_image(width: int, height: int) -> None:
    for region in tiles(Size(width, height), 512, 64):
        assert isinstance(region, Region)
        assert 0 <= region.origin.x <= region.right <= width
        assert 0 <= region.origin.y <= region.bottom <= height


@given(st.integers(1, 100_000), st.floats(0.05, 20))
def test_pixels_to_micrometres_and_back(length: int, mpp: float) -> None:
    assert Size(length, 1).to_um(mpp).to_px(mpp).width == length


def test_bci_cell_is_35_px() -> None:
    assert um_to_px(16, 0.46) == 35
    assert SizeUm(471.04, 471.04).to_px(0.46) == Size(1024, 1024)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_mpp_must_be_a_positive_number(mpp: float) -> None:
    with pytest.raises(ValueError, match="mpp"):
        um_to_px(16, mpp)


def test_sizes_and_overlaps_are_checked() -> None:
    with pytest.raises(ValueError, match="positive"):
        Size(0, 5)
    with pytest.raises(ValueError, match="overlap"):
        tile_starts(100, 64, 64)
