"""The phantom data set: what is written, that it resumes, and that it refuses what it must."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.errors import RestainError
from restain.her2 import Her2Level, asco_cap_level
from restain.phantom import misalignment_field, read_record, read_truth, write_phantom

SIZE = 128


def pixels(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.suffix in (".png", ".tif")
    }


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "truth" / "cells.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "out"
    write_phantom(out, pairs=8, size=SIZE, seed=5, test_share=0.5)
    return out


def test_layout_is_bci_with_truth_beside_it(phantom: Path) -> None:
    he = {p.relative_to(phantom / "HE").with_suffix("") for p in (phantom / "HE").rglob("*.png")}
    ihc = {p.relative_to(phantom / "IHC").with_suffix("") for p in (phantom / "IHC").rglob("*.png")}
    truth = {p.relative_to(phantom / "truth").with_suffix("") for p in (phantom / "truth").rglob("*.tif")}
    assert he == ihc == truth
    assert Path("train/00000_train_0") in he
    assert Path("test/00003_test_3+") in he
    for path in (phantom / "HE" / "train").iterdir():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))
    described = json.loads((phantom / "phantom.json").read_text())
    assert described["complete"]
    assert len(described["pairs"]) == 8
    assert "ynthetic" in described["note"]


def test_levels_are_balanced_within_each_split(phantom: Path) -> None:
    for split, count in (("train", 4), ("test", 4)):
        levels = Counter(p.stem.rsplit("_", 1)[1] for p in (phantom / "HE" / split).iterdir())
        assert sum(levels.values()) == count
        assert set(levels) == {level.text for level in Her2Level}
        assert max(levels.values()) - min(levels.values()) <= 1


def test_truth_cells_have_the_level_of_the_name_by_the_guideline(phantom: Path) -> None:
    rows = table(phantom)
    for name in {row["name"] for row in rows}:
        tumour = [row for row in rows if row["name"] == name and row["cell_class"] == "tumour"]
        level = asco_cap_level(
            [float(row["membrane_completeness"]) for row in tumour],
            [float(row["membrane_dab_od"]) for row in tumour],
        )
        assert level.text == name.rsplit("_", 1)[1]


def test_cells_lie_in_the_image(phantom: Path) -> None:
    for row in table(phantom):
        assert 0 <= float(row["x_px"]) < SIZE
        assert 0 <= float(row["y_px"]) < SIZE
        assert row["her2_score"] in "0123"


def test_truth_is_read_in_od_units(phantom: Path) -> None:
    strong = read_truth(next((phantom / "truth" / "train").glob("*_3+.tif")))
    none = read_truth(next((phantom / "truth" / "train").glob("*_0.tif")))
    assert strong.shape == (SIZE, SIZE)
    assert strong.dtype == np.float32
    assert 0.6 < strong.max() < 1.6
    assert none.max() < 0.15


@pytest.mark.slow
def test_same_parameters_and_seed_give_the_same_pixels_with_any_number_of_workers(
    phantom: Path, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "again", pairs=8, size=SIZE, seed=5, test_share=0.5, workers=2)
    assert pixels(tmp_path / "again") == pixels(phantom)
    assert (tmp_path / "again" / "phantom.json").read_text() == (phantom / "phantom.json").read_text()


def test_another_seed_gives_other_pixels(phantom: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "other", pairs=1, size=SIZE, seed=6, test_share=0.0)
    name = "HE/train/00000_train_0.png"
    assert (tmp_path / "other" / name).read_bytes() != (phantom / name).read_bytes()


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_data_set(phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop_after_three(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(out, pairs=8, size=SIZE, seed=5, test_share=0.5, progress=stop_after_three)
    assert len(pixels(out)) == 9
    assert not json.loads((out / "phantom.json").read_text())["complete"]
    # A pair that lost one of its images is incomplete, and is made again.
    (out / "IHC" / "train" / "00001_train_1+.png").unlink()
    seen: list[tuple[int, int]] = []
    summary = write_phantom(out, pairs=8, size=SIZE, seed=5, test_share=0.5, progress=lambda *n: seen.append(n))
    assert (summary.kept, summary.written) == (2, 6)
    assert seen == [(n, 8) for n in range(2, 9)]
    assert pixels(out) == pixels(phantom)
    assert table(out) == table(phantom)
    assert not list(out.rglob("*.part"))


def test_other_parameters_are_refused(phantom: Path) -> None:
    before = pixels(phantom)
    with pytest.raises(RestainError, match="other parameters"):
        write_phantom(phantom, pairs=8, size=SIZE, seed=6, test_share=0.5)
    assert pixels(phantom) == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RestainError, match="not empty"):
        write_phantom(tmp_path, pairs=1, size=SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(RestainError, match=r"file.*cannot be made") as caught:
        write_phantom(blocked / "out", pairs=1, size=SIZE)
    assert "\n" not in str(caught.value)
    with pytest.raises(RestainError, match="cannot be made"):
        write_phantom(blocked, pairs=1, size=SIZE)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RestainError, match="cannot be made"):
        write_phantom(tmp_path / "out", pairs=1, size=SIZE)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pairs": 0},
        {"size": 16},
        {"mpp": 0.0},
        {"mpp": float("nan")},
        {"levels": ()},
        {"seed": -1},
        {"test_share": 1.5},
        {"misalign_um": -1.0},
        {"misalign_um": float("nan")},
        {"workers": 0},
        {"from_he_mpp": -0.5},
    ],
)
def test_parameters_out_of_range_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(RestainError):
        write_phantom(tmp_path / "out", **({"pairs": 1, "size": SIZE} | wrong))
    assert not (tmp_path / "out").exists()


def test_misaligned_data_set_records_its_field(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_phantom(out, pairs=1, size=SIZE, levels=[Her2Level.THREE], seed=2, test_share=0.0, misalign_um=5.0)
    record = read_record(out / "truth" / "train" / "00000_train_3+.tif")
    noted = record["misalignment"]
    field = misalignment_field(
        (SIZE, SIZE), mpp=record["mpp"], rms_um=noted["rms_um"], seed=noted["seed"], index=noted["index"]
    )
    rms_um = np.sqrt((field**2).sum(axis=0).mean()) * record["mpp"]
    assert rms_um == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize("content", [b"", b"II*\0 not a tiff", b"hello"])
def test_what_is_no_truth_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "00000_train_0.tif"
    path.write_bytes(content)
    with pytest.raises(RestainError, match=r"00000_train_0\.tif is not a truth file"):
        read_truth(path)
    with pytest.raises(RestainError, match="does not exist"):
        read_truth(tmp_path / "absent.tif")
