from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.slides import DensitySlide, TileStore, write_ome_tiff

MPP = 0.46


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("density")
    density = np.random.default_rng(3).random((700, 1100)).astype(np.float32) * 2
    with TileStore.open(folder / "d.part", {}, Size(1100, 700), 256, "dab") as store:
        for row, column in itertools.product(range(3), range(5)):
            store.put(row, column, density[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256])
        write_ome_tiff(store, folder / "d.ome.tiff", mpp=MPP, metadata={})
    return folder / "d.ome.tiff", density


def test_facts_and_levels(written):
    with DensitySlide(written[0]) as slide:
        assert slide.levels == (Size(1100, 700), Size(550, 350), Size(275, 175))
        assert slide.mpp == pytest.approx(MPP)
        whole = slide.read(Region(Point(0, 0), slide.size))
        assert np.abs(whole - written[1]).max() < 0.6e-4
        means = whole.reshape(350, 2, 550, 2).mean(axis=(1, 3))
        assert np.abs(slide.overview(512) - means).max() < 1.1e-4


@settings(max_examples=40, deadline=None)
@given(x=st.integers(-40, 1150), y=st.integers(-40, 750), width=st.integers(1, 300), height=st.integers(1, 300))
def test_any_region_is_that_part_of_the_whole_and_nothing_beyond(written, x, y, width, height):
    padded = np.pad(written[1], 400)
    with DensitySlide(written[0]) as slide:
        got = slide.read(Region(Point(x, y), Size(width, height)))
    assert np.abs(got - padded[y + 400 : y + 400 + height, x + 400 : x + 400 + width]).max() < 0.6e-4


def test_other_files_and_cut_ones_are_one_sentence(written, tmp_path):
    with TileStore.open(tmp_path / "s.part", {}, Size(40, 40), 64, "rgb") as store:
        store.put_blank(0, 0)
        write_ome_tiff(store, tmp_path / "rgb.tiff", mpp=MPP, metadata={})
    data = written[0].read_bytes()
    (tmp_path / "cut.tiff").write_bytes(data[: len(data) // 2])
    for name, words in (("rgb.tiff", "no pyramid"), ("cut.tiff", "truncated"), ("none.tiff", "not exist")):
        with pytest.raises(RestainError, match=words):
            DensitySlide(tmp_path / name)
