"""The correction of one patch, against a phantom slide pair whose true transform is the identity."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from restain.dataset_builder import SlidePair
from restain.dataset_builder.masks import SlideMasks, find_masks
from restain.dataset_builder.refinement import Box, local_transform, refine_patch
from restain.geometry import Point, Region, Size
from restain.registration import Lattice, Transform
from restain.slides import open_slide

REGION, MPP = Region(Point(320, 420), Size(256, 256)), 1.0


@pytest.fixture(scope="module")
def maps(pair: SlidePair) -> Iterator[tuple[SlideMasks, SlideMasks]]:
    with open_slide(pair.he) as he, open_slide(pair.ihc) as ihc:
        yield find_masks(he, "he"), find_masks(ihc, "ihc")


def wrong_by(matrix: list[list[float]], maps: tuple[SlideMasks, SlideMasks]) -> Transform:
    he, ihc = (one.section.slide for one in maps)
    return Transform(np.array(matrix), he.size, ihc.size, he.mpp, ihc.mpp)


def errors_um(transform: Transform) -> np.ndarray:
    steps = np.linspace(0, 256, 9) / 0.5
    points = np.stack(np.meshgrid(640 + steps, 840 + steps), axis=-1).reshape(-1, 2)
    return np.asarray(np.hypot(*(transform.forward(points) - points).T) * 0.5)


@pytest.mark.parametrize(
    ("matrix", "corrections"),
    [
        ([[1, 0, 0], [0, 1, 0]], {"none"}),
        ([[1, 0, 30], [0, 1, -22]], {"shift", "affine"}),
        ([[1.01, 0.02, -25], [-0.02, 1.01, 8]], {"affine"}),
    ],
)
def test_a_patch_is_brought_where_it_belongs(
    matrix: list[list[float]], corrections: set[str], maps: tuple[SlideMasks, SlideMasks]
) -> None:
    given = wrong_by(matrix, maps)
    found = refine_patch(maps[0].section, maps[1].section, given, REGION, MPP)
    assert found.correction in corrections
    assert errors_um(found.transform).max() < 1.5
    assert np.percentile(found.blocks.misplacement(), 90) < 1.0
    assert found.blocks.mean > 0.4


def test_a_patch_without_a_partner_is_left_and_matches_badly(maps: tuple[SlideMasks, SlideMasks]) -> None:
    found = refine_patch(maps[0].section, maps[1].section, wrong_by([[1, 0, 500], [0, 1, 30]], maps), REGION, MPP)
    assert found.moved_um <= 40
    assert found.blocks.mean < 0.2


def test_a_patch_on_glass_has_no_blocks(maps: tuple[SlideMasks, SlideMasks]) -> None:
    given = wrong_by([[1, 0, 0], [0, 1, 0]], maps)
    found = refine_patch(maps[0].section, maps[1].section, given, Region(Point(0, 0), Size(64, 64)), MPP)
    assert (found.correction, len(found.blocks.correlation), found.blocks.mean) == ("none", 0, 0.0)


def test_a_local_transform_is_the_whole_one_after_the_correction() -> None:
    rng = np.random.default_rng(1)
    turn = np.array([[math.cos(0.3), -math.sin(0.3), 400], [math.sin(0.3), math.cos(0.3), -90]])
    whole = Transform(
        turn,
        Size(4000, 3000),
        Size(4000, 3000),
        0.5,
        0.5,
        Lattice(rng.normal(0, 6, (24, 32, 2)).astype(np.float32), 128.0),
    )
    step = np.array([[1.01, 0.01, -20], [-0.01, 0.99, 14], [0, 0, 1.0]])
    box = Box.of(Region(Point(600, 500), Size(200, 200)), 1.0, 0.5)
    local = local_transform(whole, box, step)
    points = rng.uniform((1200, 1000), (1600, 1400), (200, 2))
    goal = whole.forward(points @ step[:2, :2].T + step[:2, 2])
    assert np.hypot(*(local.forward(points) - goal).T).max() < 0.02
