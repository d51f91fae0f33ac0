from __future__ import annotations

import pytest

from restain.cohort.table import read_table
from restain.errors import RestainError


def write(folder, text, slides=("a.svs", "b.svs"), encoding="utf-8"):
    for name in slides:
        (folder / name).touch()
    path = folder / "cohort.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_rows_are_read_with_their_line(tmp_path, mark):
    text = '\ufeffBlock,Slide,age,patient\r\nA1,a.svs,50,"Ä, 1"\r\n\r\nA2, b.svs ,50,2\r\n'
    text = text.replace('"Ä, 1"', "P1").replace(",", mark) if mark != "," else text
    first, second = read_table(write(tmp_path, text))
    assert first.slide == tmp_path / "a.svs"
    assert first.patient == ("Ä, 1" if mark == "," else "P1")
    assert (first.block, first.line, second.slide, second.patient, second.line) == ("A1", 2, tmp_path / "b.svs", "2", 4)


def test_every_fault_is_named_with_its_line(tmp_path):
    text = "slide,patient,block\na.svs,,A\nnone.svs,1,A\nb.svs,1,A\n./b.svs,1,B\nb.svs\n"
    with pytest.raises(RestainError) as caught:
        read_table(write(tmp_path, text))
    sentence = str(caught.value)
    for words in (
        "line 2 has no patient",
        "line 3 names none.svs, which does not exist",
        "line 5 names ./b.svs, which line 4 names already",
        "line 6 has no patient and no block",
    ):
        assert words in sentence


def test_a_column_mpp_is_read_where_it_is(tmp_path):
    first, second = read_table(write(tmp_path, "slide,patient,block,mpp\na.svs,1,A,0.25\nb.svs,1,A\n"))
    assert (first.mpp, second.mpp) == (0.25, None)
    with pytest.raises(RestainError, match="line 2 has the mpp 0,5, which is not a number"):
        read_table(write(tmp_path, "slide;patient;block;mpp\na.svs;1;A;0,5\n"))


def test_tables_that_are_none(tmp_path):
    with pytest.raises(RestainError, match=r"line 1.*block missing"):
        read_table(write(tmp_path, "slide,patient\na.svs,1\n"))
    with pytest.raises(RestainError, match="no slides"):
        read_table(write(tmp_path, "slide,patient,block\n"))
    with pytest.raises(RestainError, match="UTF-8"):
        read_table(write(tmp_path, "slide,patient,block\nä,1,1\n", encoding="latin-1"))
    with pytest.raises(RestainError, match="not exist"):
        read_table(tmp_path / "none.csv")
