from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.geometry import Size
from restain.models.survey import Survey


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 40))
def test_a_survey_spreads_windows_over_the_image(width: int, height: int, most: int) -> None:
    windows = Survey(window=256, most=most).windows(Size(width, height))
    columns, rows = -(-width // 256), -(-height // 256)
    assert len(windows) == min(most, columns * rows)
    assert len({(w.origin.x, w.origin.y) for w in windows}) == len(windows)
    assert all(w.right <= width and w.bottom <= height for w in windows)
    if most >= columns * rows:
        assert sum(w.size.width * w.size.height for w in windows) == width * height


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(256, 2000), st.integers(1, 5))
def test_each_cell_has_its_windows(width: int, height: int, spacing: int, per_cell: int) -> None:
    survey, size = Survey(window=256, spacing=spacing, per_cell=per_cell), Size(width, height)
    lattice, windows = survey.lattice(size), survey.windows(size)
    by_cell = Counter(lattice.cell_of(window) for window in windows)
    if lattice.rows * lattice.columns == 1:
        assert windows == Survey(window=256).windows(size)
    else:
        assert max(by_cell.values()) <= per_cell
        every = Survey(window=256, most=10**6).windows(size)
        assert set(by_cell) == {lattice.cell_of(window) for window in every}
    assert len({(w.origin.x, w.origin.y) for w in windows}) == len(windows)


def test_nodes_are_not_nearer_than_a_window() -> None:
    with pytest.raises(ValueError, match="nearer to one another than a window of 512 px"):
        Survey(spacing=511)
