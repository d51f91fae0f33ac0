import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.evaluation.abstention import abstention, risk_coverage

ERRORS = [0.1, 0.5, 0.2, 0.9, 0.4, 0.3]


def test_the_curve_is_the_mean_error_of_what_is_kept() -> None:
    curve = risk_coverage(np.array([0.3, 0.1, 0.2]), np.array([9.0, 1.0, 2.0]))
    np.testing.assert_allclose(curve, [1.0, 1.5, 4.0])


def test_perfect_doubt_is_the_oracle_and_opposite_doubt_is_worse_than_chance() -> None:
    perfect = abstention(ERRORS, ERRORS)
    assert perfect is not None
    assert perfect.gain.mean == pytest.approx(1)
    assert perfect.area.mean == pytest.approx(perfect.oracle_area)
    assert perfect.risk[-1] == pytest.approx(perfect.random) == pytest.approx(np.mean(ERRORS))
    opposite = abstention([-e for e in ERRORS], ERRORS)
    assert opposite is not None
    assert opposite.gain.mean < 0


def test_equal_doubts_are_chance_whatever_the_order_of_the_file() -> None:
    flat = abstention([1.0] * len(ERRORS), sorted(ERRORS))
    assert flat is not None
    assert flat.gain.mean == pytest.approx(0)
    assert flat.risk == pytest.approx([np.mean(ERRORS)] * len(ERRORS))


def test_unrelated_doubt_ends_up_at_chance_on_average() -> None:
    rng = np.random.default_rng(0)
    areas = [risk_coverage(rng.random(50), rng.random(50)).mean() for _ in range(400)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_no_order_beats_the_oracle(pairs: list[tuple[float, float]]) -> None:
    doubt, error = np.array(pairs).T
    assert risk_coverage(doubt, error).mean() >= risk_coverage(error, error).mean() - 1e-9
    assert risk_coverage(doubt, error)[-1] == pytest.approx(error.mean())


def test_parts_count_by_image_and_unknown_errors_are_left_out() -> None:
    doubts = [np.array([0.1, 0.2]), np.array([0.3]), np.array([0.4, 0.5])]
    errors = [np.array([0.0, 0.1]), np.array([np.nan]), np.array([0.2, 0.3])]
    found = abstention(doubts, errors)
    assert found is not None
    assert found.gain.n == 2
    assert found.random == pytest.approx(0.15)
    assert found.kept == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert abstention([1.0, 2.0], [np.nan, 1.0]) is None
