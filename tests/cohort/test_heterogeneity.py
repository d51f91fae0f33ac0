from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.cohort.heterogeneity import MOST, heterogeneity, quadratic_entropy

area = st.one_of(st.just(0.0), st.floats(1e-3, 100))
block = st.tuples(area, area, area, area)


@given(st.integers(0, 3), st.floats(0.01, 100))
def test_one_level_is_even(level, amount):
    areas = np.zeros(4)
    areas[level] = amount
    assert quadratic_entropy(areas) == 0
    assert heterogeneity([areas, areas]).total == 0


def test_the_expected_difference_of_two_places():
    assert quadratic_entropy([1, 0, 0, 1]) == pytest.approx(MOST)
    assert quadratic_entropy([3, 1, 0, 0]) == pytest.approx(2 * 0.75 * 0.25)
    rng = np.random.default_rng(1)
    shares = np.array([0.4, 0.1, 0.2, 0.3])
    first, second = rng.choice(4, (2, 200_000), p=shares)
    assert quadratic_entropy(shares) == pytest.approx(np.abs(first - second).mean(), abs=0.01)


@given(st.lists(block, min_size=1, max_size=6))
def test_the_parts_add_up_and_neither_is_negative(blocks):
    found = heterogeneity(blocks)
    assert found.total == pytest.approx(quadratic_entropy(np.sum(blocks, axis=0)), abs=1e-9)
    assert 0 <= found.within <= MOST + 1e-9
    assert 0 <= found.between <= MOST + 1e-9


@given(st.lists(block, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_blocks_does_not_matter(blocks, rng):
    mixed = blocks[:]
    rng.shuffle(mixed)
    one, other = heterogeneity(blocks), heterogeneity(mixed)
    assert (one.within, one.between) == (pytest.approx(other.within, abs=1e-9), pytest.approx(other.between, abs=1e-9))


@given(block)
def test_alike_blocks_differ_only_within_and_pure_ones_only_between(areas):
    assert heterogeneity([areas, np.multiply(areas, 3)]).between == pytest.approx(0, abs=1e-9)
    assert heterogeneity(np.diag(areas)).within == 0


def test_nothing_is_even():
    assert heterogeneity([]).total == heterogeneity([[0, 0, 0, 0]]).total == 0
