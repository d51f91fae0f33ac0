"""Deformations of a section: what goes forward comes back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from restain.geometry import Size
from restain.phantom.deform import Deformation, Distortion, Tear, Wave, draw_deformation

SIZE = Size(4000, 3000)
MPP = 0.5


def circle(x: float, y: float, radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


OUTLINES = [circle(1000, 1400, 700), circle(2900, 1500, 600)]

distortions = st.builds(
    Distortion,
    rotation_deg=st.floats(-180, 180),
    mirror=st.booleans(),
    scale=st.floats(0.8, 1.25),
    shift_um=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
    elastic_um=st.floats(0, 25),
    tear_um=st.sampled_from([0.0, 10.0, 60.0, 150.0]),
    missing=st.booleans(),
)


def somewhere(seed: int, count: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).uniform((0, 0), (SIZE.width, SIZE.height), (count, 2))


@given(distortion=distortions, seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_forward_and_back(distortion: Distortion, seed: int) -> None:
    deformation = draw_deformation(distortion, SIZE, MPP, np.random.default_rng(seed), OUTLINES)
    points = somewhere(seed)
    assert np.abs(deformation.inverse(deformation.forward(points)) - points).max() < 0.01


@given(distortion=distortions, seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_back_and_forward_but_for_the_gap(distortion: Distortion, seed: int) -> None:
    deformation = draw_deformation(distortion, SIZE, MPP, np.random.default_rng(seed), OUTLINES)
    there = np.random.default_rng(seed).uniform((0, 0), deformation.target, (400, 2))
    source = deformation.inverse(there)
    known = ~np.isnan(source[:, 0])
    assert np.abs(deformation.forward(source[known]) - there[known]).max() < 0.02
    if distortion.tear_um == 0:
        assert known.all()


@given(distortion=distortions, seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_json_gives_the_same_deformation(distortion: Distortion, seed: int) -> None:
    deformation = draw_deformation(distortion, SIZE, MPP, np.random.default_rng(seed), OUTLINES)
    values = json.loads(json.dumps(asdict(deformation)))
    assert TypeAdapter(Deformation).validate_python(values) == deformation


@given(distortion=distortions, seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_target_holds_the_whole_slide_but_for_elastic_displacement(distortion: Distortion, seed: int) -> None:
    deformation = draw_deformation(distortion, SIZE, MPP, np.random.default_rng(seed), OUTLINES)
    corners = np.array([[0, 0], [SIZE.width, 0], [SIZE.width, SIZE.height], [0, SIZE.height]], float)
    there = deformation.forward(corners)
    furthest = sum(math.hypot(*wave.amplitude) for wave in deformation.waves) * deformation.scale + 1
    assert there.min() > -furthest
    assert (there < np.array(deformation.target) + furthest).all()


def test_identity_moves_nothing() -> None:
    identity = Deformation.identity(SIZE, MPP)
    points = somewhere(1)
    np.testing.assert_allclose(identity.forward(points), points, atol=1e-9)
    np.testing.assert_allclose(identity.inverse(points), points, atol=1e-9)
    assert identity.is_identity
    assert identity.target_size == SIZE
    assert draw_deformation(
        Distortion(0, False, 1, (0, 0), 0, 0, False), SIZE, MPP, np.random.default_rng(0), OUTLINES
    ) == Deformation.identity(SIZE, MPP)


def test_a_quarter_turn_is_clockwise_on_the_screen_and_swaps_the_sides() -> None:
    turn = Distortion(90, False, 1, (0, 0), 0, 0, False)
    deformation = draw_deformation(turn, SIZE, MPP, np.random.default_rng(0))
    assert deformation.target == (3000, 4000)
    # The upper left corner becomes the upper right one.
    corners = deformation.forward([[0, 0], [4000, 0], [0, 3000]])
    np.testing.assert_allclose(corners, [[3000, 0], [3000, 4000], [0, 0]], atol=1e-6)


def test_mirror_scale_and_shift() -> None:
    deformation = draw_deformation(Distortion(0, True, 2, (50, -10), 0, 0, False), SIZE, MPP, np.random.default_rng(0))
    middle = deformation.forward([[2000, 1500]])[0] - np.array(deformation.target) / 2
    np.testing.assert_allclose(middle, [100, -20])
    right = deformation.forward([[2010, 1500]]) - deformation.forward([[2000, 1500]])
    np.testing.assert_allclose(right, [[-20, 0]])


@pytest.mark.parametrize("rms", [5.0, 20.0])
def test_elastic_displacement_has_the_requested_rms(rms: float) -> None:
    deformation = draw_deformation(Distortion(0, False, 1, (0, 0), rms, 0, False), SIZE, MPP, np.random.default_rng(3))
    far = np.random.default_rng(0).uniform(-1e6, 1e6, (20_000, 2))
    moved = np.hypot(*(deformation.forward(far) - far).T) * MPP
    assert math.sqrt((moved**2).mean()) == pytest.approx(rms, rel=0.1)


def test_a_tear_opens_to_its_width_and_leaves_a_gap() -> None:
    tear = Tear((1000, 1500), (2000, 1500), opening=80, reach=300)
    torn = Deformation((4000, 3000), (4000, 3000), MPP, tear=tear)
    above, below = torn.forward([[1500, 1499.999], [1500, 1500.001]])
    assert below[1] - above[1] == pytest.approx(80, abs=0.01)
    gap = torn.inverse([[1500, 1461], [1500, 1500], [1500, 1539], [1500, 1459], [1500, 1541], [900, 1500]])
    assert np.isnan(gap[:3]).all()
    assert not np.isnan(gap[3:]).any()
    far = np.array([[1500.0, 2900.0], [2500.0, 1500.0]])
    np.testing.assert_allclose(torn.forward(far), far, atol=0.01)


def test_what_would_fold_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="fold"):
        Deformation((100, 100), (100, 100), 1.0, waves=(Wave((30, 0), (0.1, 0), 0),))
    with pytest.raises(ValueError, match="tear"):
        Deformation((100, 100), (100, 100), 1.0, tear=Tear((0, 0), (50, 0), opening=60, reach=10))
    with pytest.raises(ValueError, match="scale"):
        Deformation((100, 100), (100, 100), 1.0, scale=0)
    with pytest.raises(ValueError, match="points"):
        Deformation.identity(SIZE, 1.0).forward([1.0, 2.0])
