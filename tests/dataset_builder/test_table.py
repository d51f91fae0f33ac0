from __future__ import annotations

from pathlib import Path

import pytest

from restain.dataset_builder import read_table
from restain.errors import RestainError
from restain.her2 import Her2Level


def write(folder: Path, text: str, files: tuple[str, ...] = ("a.svs", "b.svs", "c.svs", "d.svs", "t.json")) -> Path:
    for name in files:
        (folder / name).touch()
    path = folder / "slides.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_pairs_are_read_with_their_line_and_what_is_optional(tmp_path: Path) -> None:
    text = "patient;he;ihc;level;block;mpp_he;transform;note\nP 1;a.svs;b.svs;2+;A;0.25;t.json;x\n\nP2;c.svs;d.svs;0;B;;;\n"
    first, second = read_table(write(tmp_path, text))
    assert (first.he, first.ihc, first.transform) == (tmp_path / "a.svs", tmp_path / "b.svs", tmp_path / "t.json")
    assert (first.level, first.patient, first.block, first.line) == (Her2Level.TWO, "P 1", "A", 2)
    assert (first.mpp_he, first.mpp_ihc) == (0.25, None)
    assert (second.level, second.line, second.mpp_he, second.transform) == (Her2Level.ZERO, 4, None, None)


def test_every_fault_is_named_with_its_line(tmp_path: Path) -> None:
    lines = [
        "he,ihc,level,patient,block,mpp_he",
        "a.svs,b.svs,2,P1,A,",
        "a.svs,,2+,,A,",
        "x.svs,b.svs,2+,P1,A,0",
        "a.svs,b.svs,1+,P1,A,",
        "./a.svs,b.svs,1+,P1,A,",
        "a.svs,d.svs,1+,P2,A,",
        "a.svs,c.svs,3+,P1,A,",
        "d.svs,d.svs,3+,P3,A,",
    ]
    with pytest.raises(RestainError) as caught:
        read_table(write(tmp_path, "\n".join(lines)))
    for words in (
        "line 2: '2' is not a HER2 level",
        "line 3 has no ihc and no patient",
        "line 4 names x.svs, which does not exist",
        "line 4 has the mpp_he 0, which is not a number above 0",
        "line 6 names the pair of line 5 again",
        "line 7 gives a.svs to patient P2, line 5 to P1",
        "line 8 gives a.svs the level 3+, line 5 1+",
        "line 9 names d.svs both as H&E and as IHC",
    ):
        assert words in str(caught.value)


def test_tables_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=r"line 1.*level, block missing"):
        read_table(write(tmp_path, "he,ihc,patient\na.svs,b.svs,P\n"))
    with pytest.raises(RestainError, match="names no slides"):
        read_table(write(tmp_path, "he,ihc,level,patient,block\n"))
    with pytest.raises(RestainError, match="does not exist"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "slides.csv").write_bytes("he,ihc,level,patient,block\nä".encode("latin-1"))
    with pytest.raises(RestainError, match="UTF-8"):
        read_table(tmp_path / "slides.csv")
