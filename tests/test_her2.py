"""HER2 levels and the guideline's reading of a set of tumour cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.errors import RestainError
from restain.her2 import Her2Level, Her2Zero, asco_cap_level, cell_levels, level_of_counts, zero_of_counts


def test_text_forms_are_those_of_bci_file_names() -> None:
    assert [level.text for level in Her2Level] == ["0", "1+", "2+", "3+"]
    assert [Her2Level.parse(level.text) for level in Her2Level] == list(Her2Level)


@pytest.mark.parametrize("text", ["", "1", "4+", "3 +", "+3"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(RestainError, match="is not a HER2 level"):
        Her2Level.parse(text)


@pytest.mark.parametrize(
    ("completeness", "dab_od", "level"),
    [
        (0.0, 0.0, Her2Level.ZERO),
        (0.4, 0.02, Her2Level.ZERO),
        (0.4, 0.12, Her2Level.ONE),
        (1.0, 0.12, Her2Level.ONE),
        (1.0, 0.30, Her2Level.TWO),
        (0.5, 0.50, Her2Level.TWO),
        (0.5, 0.90, Her2Level.TWO),
        (1.0, 0.90, Her2Level.THREE),
    ],
)
def test_a_pattern_decides_when_more_than_a_tenth_of_the_cells_shows_it(
    completeness: float, dab_od: float, level: Her2Level
) -> None:
    share, density = np.zeros(100), np.zeros(100)
    share[:10], density[:10] = completeness, dab_od
    assert asco_cap_level(share, density) == Her2Level.ZERO
    share[:11], density[:11] = completeness, dab_od
    assert asco_cap_level(share, density) == level


def test_no_cells_are_level_zero_and_shapes_must_agree() -> None:
    assert asco_cap_level([], []) == Her2Level.ZERO
    with pytest.raises(ValueError, match="same shape"):
        asco_cap_level([1.0, 1.0], [0.5])


cells = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), min_size=1, max_size=40)


@given(cells=cells, more=st.floats(0, 1))
def test_more_stain_never_lowers_the_level(cells: list[tuple[float, float]], more: float) -> None:
    share, density = np.array(cells).T
    before = asco_cap_level(share, density)
    assert asco_cap_level(share, density + more) >= before
    assert asco_cap_level(np.minimum(share + more, 1), density) >= before


@given(cells=cells, seed=st.integers(0, 99))
def test_the_order_of_cells_does_not_matter(cells: list[tuple[float, float]], seed: int) -> None:
    share, density = np.array(cells).T
    order = np.random.default_rng(seed).permutation(len(share))
    assert asco_cap_level(share[order], density[order]) == asco_cap_level(share, density)


cell = st.tuples(st.floats(0, 1), st.floats(0, 2))


@given(st.lists(st.lists(cell, max_size=30), max_size=4))
def test_counts_of_sets_of_cells_add_up_to_the_level_of_all(sets: list[list[tuple[float, float]]]) -> None:
    def counts(cells: list[tuple[float, float]]) -> np.ndarray:
        share, od = np.array(cells, float).reshape(-1, 2).T
        return np.bincount(cell_levels(share, od), minlength=4)

    everything = [one for cells in sets for one in cells]
    total = sum((counts(cells) for cells in sets), np.zeros(4, int))
    share, od = np.array(everything, float).reshape(-1, 2).T
    assert level_of_counts(total.tolist()) == asco_cap_level(share, od)


@given(cell)
def test_a_cell_alone_is_read_as_its_pattern(one: tuple[float, float]) -> None:
    assert asco_cap_level([one[0]], [one[1]]) == cell_levels(*([value] for value in one))[0]


def test_a_tenth_of_the_cells_is_not_more_than_a_tenth() -> None:
    assert level_of_counts((9, 0, 0, 1)) == Her2Level.ZERO
    assert level_of_counts((8, 0, 0, 1)) == Her2Level.THREE
    assert level_of_counts((90, 0, 9, 1)) == Her2Level.ZERO
    assert level_of_counts((79, 5, 5, 1)) == Her2Level.ONE


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        ((0, 0, 0, 0), Her2Zero.NULL),
        ((1000, 0, 0, 0), Her2Zero.NULL),
        ((990, 10, 0, 0), Her2Zero.NULL),  # single false detections
        ((980, 20, 0, 0), Her2Zero.ULTRALOW),
        ((900, 100, 0, 0), Her2Zero.ULTRALOW),
        ((899, 101, 0, 0), None),
        ((0, 0, 0, 1), None),
    ],
)
def test_level_zero_is_null_without_staining_and_ultralow_with_faint_staining(
    counts: tuple[int, ...], kind: Her2Zero | None
) -> None:
    assert zero_of_counts(counts) is kind
