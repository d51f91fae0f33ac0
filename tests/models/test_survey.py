from hypothesis import given
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
