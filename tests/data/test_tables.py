from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain import RestainError
from restain.data.tables import read_table
from restain.images.scale import positive_number


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_in_any_order_and_case_with_the_lines_numbers(tmp_path: Path, delimiter: str) -> None:
    text = "\ufeffPatient , Slide,note\n p1 ,a.svs,x\n\n,b.svs\n".replace(",", delimiter)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert read_table(tmp_path / "t.csv", ("slide", "patient"), ("mpp",)) == [
        (2, {"slide": "a.svs", "patient": "p1", "mpp": ""}),
        (4, {"slide": "b.svs", "patient": "", "mpp": ""}),
    ]


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(RestainError, match="does not exist"):
        read_table(path, ("slide",))
    path.write_bytes(b"slide\n\xff\xfe\n")
    with pytest.raises(RestainError, match="UTF-8"):
        read_table(path, ("slide",))
    path.write_text("")
    with pytest.raises(RestainError, match="slide missing"):
        read_table(path, ("slide",))


@given(st.text(max_size=12) | st.floats().map(str))
def test_a_positive_number_is_finite_and_above_0_or_nothing(text: str) -> None:
    value = positive_number(text)
    assert value is None or 0 < value < float("inf")


def test_a_positive_number_is_read() -> None:
    assert positive_number("0.25") == 0.25
    assert positive_number("0") is None
    assert positive_number("nan") is None
