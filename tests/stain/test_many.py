import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restain import RestainError, cli
from restain.bundle import Bundle
from restain.stain import Model, Source, find_sources, slide_name, stain_many
from restain.stain.many import Outcome, write_summary


def names(sources: list[Source]) -> list[str]:
    return [source.path.name for source in sources]


@pytest.fixture
def folder(slide: Path, tmp_path: Path) -> Path:
    shutil.copy(slide, tmp_path / "a.ome.tiff")
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "c.svs").write_bytes(b"II*\0" + b"\0" * 60)
    (tmp_path / "notes.txt").write_text("not a slide")
    return tmp_path


def test_files_folders_patterns_and_tables_name_sources(folder: Path) -> None:
    assert names(find_sources([folder])) == ["a.ome.tiff", "b.png", "c.svs"]
    assert names(find_sources([folder / "*.svs", folder / "b.png"])) == ["c.svs", "b.png"]
    table = folder / "slides.csv"
    table.write_text("slide,mpp,patient\na.ome.tiff,,p1\nc.svs,0.25,p2\n")
    assert find_sources([table]) == [Source(folder / "a.ome.tiff"), Source(folder / "c.svs", 0.25)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("file\na.ome.tiff\n", "must name the columns slide"),
        ("slide\nz.svs\n", "line 2 names z.svs, which does not exist"),
        ("slide,mpp\na.ome.tiff,fine\n", "line 2 has the mpp fine, which is not a number above 0"),
        ("slide\n", "holds no slides"),
        ("slide\na.ome.tiff\na.ome.tiff\n", "would both become a"),
    ],
)
def test_a_table_that_is_none_is_told(folder: Path, text: str, fault: str) -> None:
    (folder / "slides.csv").write_text(text)
    with pytest.raises(RestainError, match=fault):
        find_sources([folder / "slides.csv"])


def test_a_pattern_or_folder_without_slides_is_told(folder: Path) -> None:
    with pytest.raises(RestainError, match="nothing matches this pattern"):
        find_sources([folder / "*.ndpi"])
    (folder / "empty").mkdir()
    with pytest.raises(RestainError, match="no picture or slide"):
        find_sources([folder / "empty"])


def test_a_series_in_a_folder_is_one_slide(folder: Path) -> None:
    series = folder / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    assert names(find_sources([series])) == ["series"]
    assert "series" in names(find_sources([folder]))
    assert slide_name(series) == "series"


def test_names_lose_their_suffixes_alone(tmp_path: Path) -> None:
    assert [slide_name(tmp_path / n) for n in ("a.b.svs", "x.OME.TIFF", "y.ome.tif", "z.ome.zarr", "w.tiff")] == [
        "a.b",
        "x",
        "y",
        "z",
        "w",
    ]


@pytest.mark.slow
def test_one_that_fails_stops_no_other_and_the_summary_says_what_happened(bundle: Bundle, folder: Path) -> None:
    out = folder / "out"
    outcomes = stain_many(find_sources([folder]), out, Model(bundle))
    assert [outcome.outcome for outcome in outcomes] == ["stained", "stained", "failed"]
    rows = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    assert [row["outcome"] for row in rows] == ["stained", "stained", "failed"]
    assert Path(rows[0]["result"]).is_file()
    assert float(rows[0]["tissue_mm2"]) > 0
    assert "c.svs" in rows[2]["fault"]
    again = stain_many(find_sources([folder]), out, Model(bundle))
    assert [outcome.outcome for outcome in again] == ["kept", "kept", "failed"]


def test_a_second_call_keeps_the_lines_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "summary.csv"
    write_summary(
        table, [Outcome(Path("a.svs"), "stained", seconds=2.0), Outcome(Path("b.svs"), "failed", fault="x, y")]
    )
    write_summary(table, [Outcome(tmp_path / "b.svs", "waiting"), Outcome(Path("c.tif#1"), "stained")])
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["source"], row["outcome"]) for row in rows] == [
        ("a.svs", "stained"),
        (str(tmp_path / "b.svs"), "waiting"),
        ("c.tif#1", "stained"),
    ]
    assert [(row["seconds"], row["fault"]) for row in rows] == [("2", ""), ("", ""), ("", "")]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "restain", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "300"},
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "abacus"], "abacus"),
        (["--region", "0", "0", "9", "9", "--roi", "x.json"], "exclude each other"),
        (["--region", "0", "0", "0", "9"], "--region"),
    ],
)
def test_wrong_options_are_one_sentence(
    bundle: Bundle, folder: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = ["restain", "stain", str(folder / "a.ome.tiff"), "-o", str(folder / "out"), "--model", str(bundle.path)]
    monkeypatch.setattr(sys, "argv", command + arguments)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_from_the_command_line(bundle: Bundle, folder: Path) -> None:
    given = ("--model", bundle.path, "--engine", "eager-fp32")
    result = run("stain", folder, "-o", folder / "out", *given, "--format", "dicom", "--region", 100, 100, 500, 500)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert str(folder / "out" / "a.dicom") in result.stdout
    assert "virtual stain, research use only" in result.stdout
    assert result.stderr.count("error:") == 2  # the picture lies outside the region, the other is no slide
    assert list((folder / "out" / "a.dicom").glob("*.dcm"))
