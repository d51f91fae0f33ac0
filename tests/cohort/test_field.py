from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.cohort.field import FieldReading, fields, margin, read_fields, sampling_error
from restain.evaluation.her2_classifier import rule_level
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level, Her2Zero, level_of_counts
from restain.images import write_rgb
from restain.optics import DAB, HEMATOXYLIN, unit
from restain.slides import DensitySlide, TileStore, TissueMask, open_slide, write_ome_tiff

MPP = 0.5
counts = st.tuples(*[st.integers(0, 400)] * 4)


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    mpp=st.floats(0.1, 2),
    side=st.floats(100, 2000),
)
def test_fields_cover_a_slide_once_and_are_of_their_size(width, height, mpp, side):
    found = list(fields(Size(width, height), mpp, side))
    assert sum(box.size.width * box.size.height for box in found) == width * height
    assert {(box.origin.x, box.origin.y) for box in found} >= {(0, 0)}
    assert max(box.right for box in found) == width
    assert max(box.bottom for box in found) == height
    for box in found:
        assert max(box.size.width, box.size.height) * mpp <= side + 1.01 * mpp
        if box.right < width and box.bottom < height:
            assert min(box.size.width, box.size.height) * mpp >= side - 1.01 * mpp
    corners = sorted((box.origin.y, box.origin.x) for box in found)
    assert corners == [(box.origin.y, box.origin.x) for box in found]


def test_a_field_smaller_than_a_pixel_is_refused():
    with pytest.raises(ValueError, match="smaller"):
        list(fields(Size(4, 4), 1.0, 0.5))


@given(counts)
def test_the_margin_is_what_the_decisive_share_must_move_by(cells):
    total, level = sum(cells), level_of_counts(cells)
    if not total:
        assert (margin(cells), sampling_error(cells)) == (0, 0.5)
        return
    shares = [sum(cells[k:]) / total for k in range(4)]
    assert margin(cells) == pytest.approx(min(abs(share - 0.1) for share in shares[max(1, level) : level + 2]))
    assert 0 <= sampling_error(cells) <= 0.5
    # Ten times the cells of the same tissue leave a smaller sampling error.
    assert sampling_error(tuple(10 * n for n in cells)) <= sampling_error(cells)


def sheet(width: int, height: int, membrane) -> tuple[np.ndarray, np.ndarray]:
    """Hematoxylin and DAB density of round nuclei 8 µm apart, each in a square membrane; ``membrane(x)`` OD."""
    y, x = (np.indices((height, width)) + 0.5) * MPP
    far = np.hypot(y % 8 - 4, x % 8 - 4)
    edge = np.minimum(np.minimum(y % 8, 8 - y % 8), np.minimum(x % 8, 8 - x % 8))
    hematoxylin = 0.5 * np.clip(3.2 - far, 0, 1)
    dab = np.clip(1.6 - edge, 0, 1) * membrane(x)
    return hematoxylin.astype(np.float32), dab.astype(np.float32)


@pytest.fixture(scope="module")
def stained(tmp_path_factory):
    """A slide of 400 x 200 µm, unstained on the left and intensely stained on the right, its DAB as file and array."""
    folder = tmp_path_factory.mktemp("stained")
    hematoxylin, dab = sheet(800, 400, lambda x: np.where(x < 200, 0.0, 1.0))
    density = np.stack([hematoxylin, dab], axis=-1) @ unit(np.stack([HEMATOXYLIN, DAB]))
    rgb = np.rint(240 * 10**-density).astype(np.uint8)
    write_rgb(folder / "s.tif", rgb, mpp=MPP)
    with TileStore.open(folder / "d.part", {}, Size(800, 400), 256, "dab") as store:
        for row, column in np.ndindex(*store.grid):
            store.put(row, column, dab[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256])
        write_ome_tiff(store, folder / "d.ome.tiff", mpp=MPP, metadata={})
    return folder, hematoxylin, dab


def whole(width: int = 50, height: int = 25) -> TissueMask:
    return TissueMask(np.ones((height, width), bool), 8.0, np.full(3, 240, np.float32))


def test_fields_see_what_lies_in_them(stained):
    folder, hematoxylin, dab = stained
    with open_slide(folder / "s.tif") as ihc, DensitySlide(folder / "d.ome.tiff") as density:
        left, right = read_fields(ihc, whole(), dab=density, side_um=200)
    assert (left.level, right.level) == (Her2Level.ZERO, Her2Level.THREE)
    assert rule_level(dab[:, 400:], hematoxylin[:, 400:], MPP) == Her2Level.THREE
    assert left.region == Region(Point(0, 0), Size(400, 400))
    assert (right.row, right.column) == (0, 1)
    assert left.tissue_mm2 == pytest.approx(0.04)
    assert right.mean_od == pytest.approx(float(dab[:, 400:].mean()), abs=1e-3)
    assert right.stained_share == pytest.approx(float((dab[:, 400:] >= 0.05).mean()), abs=1e-3)
    assert sum(left.cells) == pytest.approx(25 * 25, rel=0.05)
    # 4 % of its cells touch the stained half.
    assert (left.zero, left.null_mm2) == (Her2Zero.ULTRALOW, 0)
    assert (right.zero, right.null_mm2) == (None, 0)


def test_a_field_without_any_staining_is_null(stained):
    with open_slide(stained[0] / "s.tif") as ihc, DensitySlide(stained[0] / "d.ome.tiff") as density:
        first, *_ = read_fields(ihc, whole(), dab=density, side_um=100)
    assert (first.level, first.zero, first.null_mm2) == (Her2Level.ZERO, Her2Zero.NULL, pytest.approx(0.01))


def test_area_is_of_the_squares_inside_a_field(stained):
    with open_slide(stained[0] / "s.tif") as ihc, DensitySlide(stained[0] / "d.ome.tiff") as density:
        (one,) = read_fields(ihc, whole(), dab=density, side_um=400)
    # The first square of 250 µm holds both halves, and is read as the higher.
    assert one.level == Her2Level.THREE
    assert one.areas == (0.0, 0.0, 0.0, pytest.approx(0.08))
    with open_slide(stained[0] / "s.tif") as ihc, DensitySlide(stained[0] / "d.ome.tiff") as density:
        mask = whole()
        mask.mask[:, 25:31] = False
        (one,) = read_fields(ihc, mask, dab=density, side_um=400)
    assert one.level == Her2Level.THREE
    assert one.areas == (pytest.approx(0.0404, rel=0.02), 0.0, 0.0, pytest.approx(0.03, rel=0.02))


def test_without_a_density_map_the_colours_are_unmixed(stained):
    with open_slide(stained[0] / "s.tif") as ihc:
        left, right = read_fields(ihc, whole(), side_um=200)
    assert (left.level, right.level) == (Her2Level.ZERO, Her2Level.THREE)
    assert right.mean_od == pytest.approx(float(stained[2][:, 400:].mean()), rel=0.1)


def test_cells_add_up_to_the_same_whatever_the_fields(stained):
    with open_slide(stained[0] / "s.tif") as ihc, DensitySlide(stained[0] / "d.ome.tiff") as density:
        sums = [
            np.sum([field.cells for field in read_fields(ihc, whole(), dab=density, side_um=side)], axis=0).tolist()
            for side in (400, 200, 100)
        ]
    assert sums[0] == sums[1] == sums[2]


def test_glass_is_not_counted_and_fields_with_little_tissue_are_left_out(stained):
    mask = whole()
    mask.mask[:, :25] = False  # the left field
    mask.mask[:, 40:] = False  # the right 80 µm
    mask.mask[12, 2] = True
    seen: list[tuple[int, int]] = []
    with open_slide(stained[0] / "s.tif") as ihc:
        found = read_fields(ihc, mask, side_um=200, progress=lambda *step: seen.append(step))
    assert [field.column for field in found] == [1]
    assert found[0].tissue_mm2 == pytest.approx(0.024, rel=0.02)
    assert sum(found[0].cells) == pytest.approx(15 * 25, rel=0.1)
    assert seen[-1] == (2, 2)


def test_a_reading_survives_json():
    one = FieldReading(
        2, 3, Region(Point(1, 2), Size(3, 4)), (0.5, 0.0, 0.0, 0.25), (1, 2, 3, 4), 0.2, 0.1, Her2Level.TWO, False, 0.25
    )
    assert FieldReading.from_dict(json.loads(json.dumps(one.as_dict()))) == one


def test_reasons_name_what_speaks_against_a_level():
    box = Region(Point(0, 0), Size(1, 1))
    sure = FieldReading(0, 0, box, (0, 0, 0, 1), (0, 0, 0, 900), 0.5, 0.5)
    assert (sure.level, sure.reasons) == (Her2Level.THREE, ())
    uncertain = FieldReading(0, 0, box, (0, 0, 0, 1), (0, 0, 0, 9), 0.5, 0.5, Her2Level.ONE, False)
    assert len(uncertain.reasons) == 3
    assert FieldReading(0, 0, box, (0, 0, 0, 1), (895, 105, 0, 0), 0.1, 0.1).reasons == ("close to another level",)
