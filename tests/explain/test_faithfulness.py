"""Where a map lies, what its order does, and its comparison with baseline maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.explain.comparison import comparisons
from restain.explain.faithfulness import (
    PATCH,
    area_under,
    curve,
    edge_map,
    nearness_map,
    pointing_hit,
    random_map,
    share_inside,
)
from restain.geometry import Point

CAUSE = np.zeros((64, 64), bool)
CAUSE[16:32, 16:32] = True


def test_a_map_on_the_cause_hits_it_and_one_beside_it_does_not() -> None:
    on, beside = (np.zeros((64, 64)) for _ in range(2))
    on[20:28, 20:28] = 1
    beside[40:48, 40:48] = 1
    assert pointing_hit(on, CAUSE, 1.0) == 1
    assert pointing_hit(beside, CAUSE, 1.0) == 0
    assert share_inside(on, CAUSE, 1.0) > 0.95
    assert share_inside(beside, CAUSE, 1.0) < 0.01
    assert math.isnan(share_inside(-on, CAUSE, 1.0))
    assert math.isnan(pointing_hit(np.zeros((64, 64)), CAUSE, 1.0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 63), st.integers(1, 64), st.floats(0.01, 100))
def test_an_even_map_has_the_causes_area_on_it(top: int, rows: int, height: float) -> None:
    cause = np.zeros((64, 64), bool)
    cause[top : top + rows] = True
    assert share_inside(np.full((64, 64), height), cause, 0.5) == pytest.approx(cause.mean(), rel=1e-3)


@pytest.fixture
def dark_patch() -> tuple[np.ndarray, np.ndarray]:
    he = np.full((64, 64, 3), 240, np.uint8)
    he[CAUSE] = 40
    return he, np.full(he.shape, 240, np.float32)


def darkness(x: torch.Tensor) -> torch.Tensor:
    return (240 / 255 - x).flatten(1).mean(1) / (200 / 255) * 16


def test_the_true_order_takes_all_away_at_once_and_gives_all_back_at_once(dark_patch: tuple) -> None:
    he, bare = dark_patch
    for insert, best in ((False, 1 / 32), (True, 31 / 32)):
        areas = [
            area_under(curve(darkness, he, bare, m, insert=insert, steps=16, seed=0, ends=(1.0, 0.0)))
            for m in (CAUSE.astype(float), -CAUSE.astype(float))
        ]
        assert areas[0] == pytest.approx(best, abs=1e-4)
        assert areas[1] == pytest.approx(1 - best, abs=1e-4)


def test_an_image_that_is_no_multiple_of_the_patch_is_taken_away_whole() -> None:
    he = np.zeros((70, 50, 3), np.uint8)
    bare = np.full(he.shape, 255, np.float32)
    heights = curve(
        lambda x: x.flatten(1).mean(1),
        he,
        bare,
        random_map((70, 50), 1),
        insert=False,
        steps=5,
        seed=0,
        ends=(0.0, 1.0),
    )
    assert len(heights) == 6
    assert (np.diff(heights) > 0).all()


def test_baseline_maps() -> None:
    assert np.array_equal(random_map((40, 50), 3), random_map((40, 50), 3))
    assert not np.array_equal(random_map((40, 50), 3), random_map((40, 50), 4))
    assert np.ptp(random_map((40, 50), 3)[:PATCH, :PATCH]) == 0
    step = np.zeros((32, 32, 3), np.uint8)
    step[:, 16:] = 200
    assert edge_map(step, 0.5).mean(axis=0).argmax() in (15, 16)
    assert np.unravel_index(nearness_map((30, 40), Point(7, 20), 0.5).argmax(), (30, 40)) == (20, 7)


def row(good: float, edge: float, near: float | None = None) -> dict:
    def measures(x: float) -> dict[str, float]:
        return {"pointing": x, "inside": x, "deletion": 1 - x, "insertion": x, "gap": 2 * x - 1}

    maps = {"occlusion": measures(good), "random": measures(0.2), "edge": measures(edge)}
    return maps | ({} if near is None else {"nearness": measures(near)})


def test_only_a_map_that_exceeds_both_baseline_maps_is_informative() -> None:
    better = comparisons([row(0.8 + 0.01 * i, 0.5) for i in range(8)], 0)[0]
    assert better.informative
    assert better.gains["deletion"]["edge"].mean > 0
    like_edge = comparisons([row(0.5 + 0.1 * (-1) ** i, 0.5) for i in range(8)], 0)[0]
    assert not like_edge.informative
    assert "occlusion is uninformative on these 8 images" in like_edge.sentence
    assert "edge map" in like_edge.sentence
    assert "random map" not in like_edge.sentence
    single = comparisons([row(0.9, 0.5)], 0)[0]
    assert not single.informative


def test_nearness_is_named_where_it_does_as_well() -> None:
    found = comparisons([row(0.8 + 0.01 * i, 0.5, near=0.9) for i in range(8)], 0)[0]
    assert found.informative
    assert "no more than nearness" in found.sentence
