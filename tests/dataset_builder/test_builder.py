"""The whole job on one small pair of slides."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from restain.cli import app
from restain.data import check_folder, open_pairs
from restain.dataset_builder import Built, Grid, Settings, SlidePair, build_dataset, parse_rules
from restain.dataset_builder.builder import names_of
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.images import write_png
from restain.slides import open_slide, read_image

pytestmark = pytest.mark.slow

GRID = Grid(mpp=1.0, size=192)
SETTINGS = Settings(GRID, parse_rules(["fold=off", "pen=0.05"]), val_share=0.0)


@pytest.fixture(scope="module")
def two(pair: SlidePair) -> list[SlidePair]:
    """The pair as that of two patients: links to files are other slides."""
    folder = pair.he.parent.parent / "other"
    folder.mkdir(exist_ok=True)
    for path in (pair.he, pair.ihc):
        if not (folder / path.name).exists():
            shutil.copy(path, folder / path.name)
    other = replace(pair, he=folder / pair.he.name, ihc=folder / pair.ihc.name, patient="P2", level=Her2Level.TWO)
    return [pair, other]


@pytest.fixture(scope="module")
def built(two: list[SlidePair], tmp_path_factory: pytest.TempPathFactory) -> Built:
    broken = replace(two[1], he=two[1].he.with_name("broken.tiff"), patient="P2", block="B")
    broken.he.write_bytes(b"II*\0 no slide")
    return build_dataset([*two, broken], tmp_path_factory.mktemp("set") / "data", SETTINGS, command="restain build <x>")


@pytest.fixture(scope="module")
def alone(pair: SlidePair, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_dataset([pair], tmp_path_factory.mktemp("alone") / "data", SETTINGS)


def copied(built: Built, out: Path) -> None:
    """A finished data set in another folder, so that what was measured there is not measured again."""
    shutil.copytree(built.out, out, dirs_exist_ok=True)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(out: Path) -> dict[str, str]:
    found = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in ("summary.csv", "build.json"))
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_the_result_is_a_data_set_in_which_patients_are_apart(built: Built) -> None:
    report = check_folder(built.out)
    # Both patients have the same slide here, which the check rightly finds; nothing else is wrong.
    assert all("same image" in fault.sentence for fault in report.faults)
    pairs = open_pairs(built.out, val_share=0)
    rows = table(built.out / "manifest.csv")
    assert sorted(pair.name for pair in pairs.pairs) == sorted(row["name"] for row in rows)
    sides = {split: {row["patient"] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert len(sides["train"]) == len(sides["test"]) == 1
    assert not sides["train"] & sides["test"]
    assert all(re.fullmatch(r"\d{5}_(train|test)_(2\+|3\+)", row["name"]) for row in rows)
    assert all(pair.level is not None and pair.level.text == pair.name.rpartition("_")[2] for pair in pairs.pairs)


def test_patches_are_what_the_manifest_says(built: Built, pair: SlidePair) -> None:
    rows = table(built.out / "manifest.csv")
    with open_slide(pair.he) as he, open_slide(pair.ihc) as ihc:
        for row in rows[:2]:
            region = Region(Point(int(row["x"]) // 2, int(row["y"]) // 2), Size(192, 192))
            paths = (built.out / stain / row["split"] / f"{row['name']}.png" for stain in ("HE", "IHC"))
            one, other = (read_image(path) for path in paths)
            assert np.array_equal(one, he.read(region, 1.0))
            assert np.abs(other.astype(int) - ihc.read(region, 1.0)).mean() < 3
            assert float(row["error_um"]) < 2
            assert 0 < float(row["weight"]) <= 1
            assert (row["mpp"], row["size"], row["transform"]) == ("1", "192", f"registration/{names_of([pair])[0]}-1")


def test_what_cannot_be_read_fails_and_stops_no_other(built: Built) -> None:
    rows = table(built.out / "summary.csv")
    assert [row["outcome"] for row in rows] == ["built", "built", "failed"]
    assert "broken.tiff" in rows[2]["fault"]
    for row, outcome in zip(rows, built.outcomes, strict=True):
        assert int(row["windows"]) == outcome.glass + sum(outcome.removed.values()) + outcome.kept
    assert [one.pair.block for one in built.failed] == ["B"]


def test_the_contact_sheet_shows_pairs_and_reasons(built: Built) -> None:
    page = built.page.read_text()
    links = re.findall(r'src="(contact-sheet/[^"]+)"', page)
    assert links
    assert all((built.out / link).is_file() for link in links)
    assert "Kept, worst match" in page
    assert f"Rejected: {next(iter(built.outcomes[0].removed))}" in page
    assert "restain build &lt;x&gt;" in page


def test_a_dry_run_counts_and_writes_no_pairs(pair: SlidePair, built: Built, tmp_path: Path) -> None:
    for folder in ("registration", "measured"):
        shutil.copytree(built.out / folder, tmp_path / folder)
    table_ = tmp_path / "slides.csv"
    table_.write_text(f"he,ihc,level,patient,block,transform\n{pair.he},{pair.ihc},3+,P,A,{pair.transform}\n")
    options = ["--mpp", "1", "--size", "192", "--rule", "fold=off", "--rule", "pen=0.05", "--dry-run"]
    said = CliRunner().invoke(app, ["build", "--csv", str(table_), "-o", str(tmp_path), *options])
    assert said.exit_code == 0
    kept = built.outcomes[0].kept
    assert f"{kept} pairs would be cut" in said.stdout
    assert not (tmp_path / "HE").exists()
    assert not (tmp_path / "manifest.csv").exists()
    assert (tmp_path / "contact-sheet.html").is_file()


def test_other_thresholds_measure_nothing_again_and_leave_no_old_pairs(
    pair: SlidePair, alone: Built, tmp_path: Path
) -> None:
    first = alone
    copied(alone, tmp_path)
    measured = tmp_path / "measured" / "he.jsonl"
    stamp, before = measured.stat().st_mtime_ns, first.outcomes[0].kept
    match = sorted(one.candidate.quality.match for one in first.patches if one.candidate.quality is not None)
    strict = replace(SETTINGS, thresholds=SETTINGS.thresholds | {"match": match[len(match) // 2]})
    second = build_dataset([pair], tmp_path, strict)
    assert 0 < second.outcomes[0].kept < before
    assert measured.stat().st_mtime_ns == stamp
    assert len(list((tmp_path / "HE" / "train").iterdir())) == second.outcomes[0].kept
    assert len(table(tmp_path / "manifest.csv")) == second.outcomes[0].kept


def test_a_folder_with_other_pictures_is_left_alone(pair: SlidePair, tmp_path: Path) -> None:
    (tmp_path / "HE" / "train").mkdir(parents=True)
    write_png(tmp_path / "HE" / "train" / "mine.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(RestainError, match=r"mine\.png was not written by restain build"):
        build_dataset([pair], tmp_path, SETTINGS)


def test_a_transform_of_other_slides_is_refused(pair: SlidePair, tmp_path: Path) -> None:
    file = tmp_path / "transform.json"
    side = {"name": "", "size": [10, 10], "mpp": 0.5}
    content = {"format": "restain transform 1", "matrix": np.eye(3).tolist(), "fixed": side, "moving": side}
    file.write_text(json.dumps(content))
    built = build_dataset([replace(pair, transform=file)], tmp_path / "out", SETTINGS)
    assert "is of slides of other sizes" in built.failed[0].fault


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--level", "2+"], "Give an H&E and an IHC slide"),
        (["{he}", "{ihc}"], "level of the slide is missing"),
        (["{he}", "{ihc}", "--level", "4"], "'4' is not a HER2 level"),
        (["{he}", "{ihc}", "--level", "2+", "--rule", "x=1"], "Unknown rule 'x'"),
        (["{he}", "{ihc}", "--level", "2+", "--overlap", "2000"], "overlap of 2000 px does not fit"),
    ],
)
def test_what_a_user_did_wrong_is_one_sentence(
    arguments: list[str], words: str, pair: SlidePair, tmp_path: Path
) -> None:
    filled = [word.format(he=pair.he, ihc=pair.ihc) for word in arguments]
    said = CliRunner().invoke(app, ["build", *filled, "-o", str(tmp_path / "out")])
    assert isinstance(said.exception, RestainError)
    assert words in str(said.exception)


def test_a_failed_pair_makes_the_exit_code_2(pair: SlidePair, tmp_path: Path) -> None:
    out = ["-o", str(tmp_path / "out"), "--size", "192", "--mpp", "1", "--rule", "tissue=1.1"]
    said = CliRunner().invoke(
        app, ["build", str(pair.he), str(pair.ihc), "--level", "3+", "--transform", str(pair.transform), *out]
    )
    assert said.exit_code == 2
    assert "leave no pair" in said.stderr


def test_the_manifest_as_parquet(
    pair: SlidePair, alone: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    copied(alone, tmp_path)
    build_dataset([pair], tmp_path, SETTINGS, parquet=True)
    rows: list[dict[str, Any]] = parquet.read_table(tmp_path / "manifest.parquet").to_pylist()
    assert [row["name"] for row in rows] == [row["name"] for row in table(tmp_path / "manifest.csv")]
    assert all(isinstance(row["match"], float) and isinstance(row["x"], int) for row in rows)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(RestainError, match=r"needs the package pyarrow: pip install 'restain\[parquet\]'"):
        build_dataset([pair], tmp_path, SETTINGS, parquet=True)


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is held on Windows")
def test_two_do_not_build_in_one_folder(pair: SlidePair, alone: Built, tmp_path: Path) -> None:
    out = tmp_path / "data"
    # The other process stops where it tells its progress for the first time, until its input ends.
    other = f"""
import sys
from pathlib import Path
from restain.dataset_builder import Grid, Settings, SlidePair, build_dataset
from restain.her2 import Her2Level
pair = SlidePair(Path({str(pair.he)!r}), Path({str(pair.ihc)!r}), Her2Level.THREE, "P1", "A")
build_dataset([pair], Path({str(out)!r}), Settings(Grid(1.0, 192)), progress=lambda *_: (print(flush=True), sys.stdin.read(), exit()))
"""
    with subprocess.Popen([sys.executable, "-c", other], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        before = files(out)
        with pytest.raises(RestainError, match=f"{re.escape(str(out))} is in use by another process"):
            build_dataset([pair], out, SETTINGS)
        assert files(out) == before
        process.communicate()
    copied(alone, out)
    assert not build_dataset([pair], out, SETTINGS).failed


@pytest.mark.parametrize("when", ["measured/he.jsonl", "HE/train/00001_train_3+.png"])
def test_killed_and_called_again_it_ends_with_the_same_files(
    when: str, pair: SlidePair, alone: Built, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "restain", "build", str(pair.he), str(pair.ihc), "--level", "3+"]
    command += ["--patient", "P1", "--block", "A", "--transform", str(pair.transform), "--mpp", "1", "--size", "192"]
    command += ["--rule", "fold=off", "--rule", "pen=0.05", "--val-share", "0", "-o", str(out)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    while process.poll() is None:
        path = out / when
        if path.is_file() and (path.suffix == ".png" or path.read_bytes().count(b"\n") > 2):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL, process.stderr and process.stderr.read()
    done = (out / "measured" / "he.jsonl").read_text().splitlines()
    build_dataset([pair], out, SETTINGS)
    assert (out / "measured" / "he.jsonl").read_text().splitlines()[: len(done) - 1] == done[:-1]
    assert files(out) == files(alone.out)
