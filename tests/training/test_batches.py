"""Which pairs are drawn, and how often."""

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.data import Pair
from restain.recipe import AugmentRecipe
from restain.training.batches import Crops


def crops(weights: list[float] | None, count: int, seed: int = 0) -> Crops:
    pairs = [Pair(f"{i}", "train", None, Path(f"he{i}"), Path(f"ihc{i}")) for i in range(count)]
    drawn = None if weights is None else np.array(weights) / np.mean(weights)
    return Crops(pairs, 32, AugmentRecipe(), seed, weights=drawn)


def drawn(source: Crops, epochs: int) -> list[int]:
    return [source._drawn(epoch, place) for epoch in range(epochs) for place in range(len(source.pairs))]


@given(st.integers(1, 40), st.integers(0, 9), st.floats(0.01, 50))
@settings(max_examples=40, deadline=None)
def test_equal_weights_draw_what_no_weights_draw(count: int, seed: int, weight: float) -> None:
    assert drawn(crops([weight] * count, count, seed), 3) == drawn(crops(None, count, seed), 3)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=20).filter(lambda w: sum(w) > 0.1))
@settings(max_examples=40, deadline=None)
def test_an_epoch_draws_each_pair_as_often_as_its_weight_says_to_within_one(weights: list[float]) -> None:
    n = len(weights)
    counts = Counter(drawn(crops(weights, n), 1))
    for index, weight in enumerate(np.array(weights) / np.mean(weights)):
        assert np.floor(weight - 1e-6) <= counts[index] <= np.ceil(weight + 1e-6)


def test_over_many_epochs_shares_are_those_of_the_weights_and_a_weight_of_0_is_never_drawn() -> None:
    weights = [0.0, 1.0, 2.5, 0.5]
    counts = Counter(drawn(crops(weights, 4), 2000))
    assert counts[0] == 0
    shares = np.array([counts[i] for i in range(4)]) / 8000
    np.testing.assert_allclose(shares, np.array(weights) / 4, atol=0.01)


def test_a_draw_depends_on_its_number_alone() -> None:
    source = crops([3, 1, 2], 3)
    once = drawn(source, 4)
    assert [source._drawn(k // 3, k % 3) for k in reversed(range(12))] == once[::-1]
