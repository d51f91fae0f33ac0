from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from restain import NOTICE, RestainError
from restain.cli import app
from restain.cohort import run_cohort
from restain.images import write_rgb
from restain.stain import load

from ..samples import small_recipe, write_bundle

MPP = 0.5


def write_he(path: Path, seed: int) -> None:
    """700 x 520 px of pink and violet texture, with glass on the right."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers((140, 60, 120), (235, 150, 200), (45, 60, 3)).astype(np.uint8)
    rgb = np.array(Image.fromarray(coarse).resize((700, 520), Image.Resampling.BICUBIC))
    rgb[:, 500:] = (236, 234, 238)
    write_rgb(path, rgb, mpp=MPP)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "bundle", small_recipe(mpp=MPP))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, model) -> tuple[Path, Path, list[str]]:
    """The table, the finished page and the warnings."""
    folder = tmp_path_factory.mktemp("cohort")
    for seed, name in enumerate(("a.tif", "b.tif")):
        write_he(folder / name, seed)
    (folder / "c.svs").write_bytes(b"no slide at all")
    table = folder / "cohort.csv"
    table.write_text("slide,patient,block\na.tif,P/1,A\nb.tif,P/1,B\nc.svs,P2,A\n")
    warned: list[str] = []
    page = run_cohort(table, folder / "out", model=load(model), side_um=200, warn=warned.append)
    return table, page, warned


def test_slides_are_stained_read_and_put_together(cohort):
    _, page, warned = cohort
    result = json.loads((page.parent / "cohort.json").read_text())
    assert result["notice"] == NOTICE
    (patient,) = result["patients"]
    assert patient["patient"] == "P/1"
    assert [(slide["slide"], slide["block"]) for slide in patient["slides"]] == [("a.tif", "A"), ("b.tif", "B")]
    # 250 x 260 µm of each slide are tissue.
    assert patient["tissue_mm2"] == pytest.approx(2 * 0.065, rel=0.1)
    assert sum(patient["shares"].values()) == pytest.approx(1)
    assert sum(one["mean"] for one in patient["zero_shares"].values()) == pytest.approx(patient["shares"]["0"])
    for level, interval in patient["share_intervals"].items():
        assert interval["low"] <= patient["shares"][level] <= interval["high"]
    parts = patient["heterogeneity"]
    assert parts["within"] + parts["between"] == pytest.approx(parts["total"])
    cells = [field["cells"] for slide in patient["slides"] for field in slide["fields"]]
    assert np.sum(cells, axis=0).tolist() == patient["cells"]
    assert [entry["slide"] for entry in result["failed"]] == ["c.svs"]
    assert any("c.svs" in sentence for sentence in warned)


def test_the_page_has_its_pictures(cohort):
    page = cohort[1]
    text = page.read_text()
    assert NOTICE in text
    for name in ("a", "b"):
        for what in ("he", "virtual", "dab"):
            assert f"pictures/P%252F1/{name}.{what}.jpg" in text
            assert (page.parent / "pictures" / "P%2F1" / f"{name}.{what}.jpg").is_file()


def test_called_again_it_takes_what_is_there_and_reads_what_is_not(cohort, model):
    table, page, _ = cohort
    before = json.loads((page.parent / "cohort.json").read_text())
    folder = page.parent / "slides" / "P%2F1"
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "b.fields.json").write_text("{")
    run_cohort(table, page.parent, model=load(model), side_um=200)
    assert json.loads((page.parent / "cohort.json").read_text())["patients"] == before["patients"]
    changed = [path.name for path, when in kept.items() if path.stat().st_mtime_ns != when]
    assert changed == ["b.fields.json"]


def test_slides_whose_results_would_collide_and_cohorts_without_any_are_refused(tmp_path, model):
    (tmp_path / "x").mkdir()
    for name in ("a.tif", "x/a.tif"):
        (tmp_path / name).write_bytes(b"no slide at all")
    table = tmp_path / "cohort.csv"
    loaded = load(model)
    table.write_text("slide,patient,block\na.tif,1,A\nx/a.tif,1,B\n")
    with pytest.raises(RestainError, match="lines 2 and 3"):
        run_cohort(table, tmp_path / "out", model=loaded)
    table.write_text("slide,patient,block\na.tif,1,A\nx/a.tif,..,B\n")
    with pytest.raises(RestainError, match="none of its 2 slides"):
        run_cohort(table, tmp_path / "out", model=loaded)
    assert sorted(path.name for path in (tmp_path / "out" / "slides").iterdir()) == ["%2E%2E", "1"]


def test_the_command_prints_the_page(cohort, model, monkeypatch):
    table, page, _ = cohort
    call = ["cohort", str(table), "-o", str(page.parent), "--model", str(model), "--field", "250"]
    shown = CliRunner().invoke(app, [*call, "--rule-only", "--engine", "eager-fp32"])
    assert shown.exit_code == 0, shown.output
    assert str(page) in shown.stdout.replace("\n", "")
