from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import restain
from restain.cli import main
from restain.errors import RestainError
from restain.evaluation.comparison import compare_runs

NAMES = [f"{n:05d}_test_{n % 4}+".replace("0+", "0") for n in range(12)]


def write_run(folder: Path, values: dict[str, list[float | None]], label: str = "", **extra: list[Any]) -> Path:
    """An evaluation with one row per image and a baseline that is always worse in PSNR."""
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(NAMES):
        own = {key: column[i] for key, column in (values | extra).items()}
        rows.append({"name": name, "level": name.split("_")[2], "method": "model", **own})
        rows.append({"name": name, "level": name.split("_")[2], "method": "baseline_mean", "psnr": 1.0 + 0.01 * i})
    folder.mkdir(parents=True)
    metrics = {"model": {"label": label or folder.name}, "per_image": rows}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def draw(seed: int, shift: float = 0.0) -> list[float | None]:
    base, own = np.random.default_rng(0), np.random.default_rng(seed)
    return [float(x) for x in 25 + base.normal(0, 4, 12) + own.normal(shift, 0.3, 12)]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path, Path]:
    return (
        write_run(tmp_path / "first", {"psnr": draw(1), "background_de": draw(1), "dab_r16": [None] * 12}),
        write_run(tmp_path / "better <b>", {"psnr": draw(2, 2.0), "background_de": draw(2, -2.0)}),
        write_run(tmp_path / "same", {"psnr": draw(3), "background_de": draw(3)}),
    )


def line(comparison: Any, run: str, metric: str) -> dict[str, Any]:
    return next(d for d in comparison.result["differences"] if (d["run"], d["metric"]) == (run, metric))


def test_a_difference_is_found_where_there_is_one_and_has_a_sign(runs: tuple[Path, ...], tmp_path: Path) -> None:
    found = compare_runs(runs, tmp_path / "out")
    for metric in ("psnr", "background_de"):
        better, same = line(found, "better <b>", metric), line(found, "same", metric)
        assert better["verdict"] == "better"
        assert 1.5 < better["low"] < better["gain"] < better["high"] < 2.5
        assert better["better_on"] == better["n"] == 12
        assert same["verdict"] == "no difference shown"
        assert same["low"] < 0 < same["high"]
    back = compare_runs(runs[1::-1], tmp_path / "back")
    assert line(back, "first", "psnr")["gain"] == pytest.approx(-line(found, "better <b>", "psnr")["gain"])
    assert line(back, "first", "psnr")["verdict"] == "worse"
    assert "DAB r, 16 µm cells" in found.result["absent"]


def test_files_say_the_same_and_the_page_is_safe(runs: tuple[Path, ...], tmp_path: Path) -> None:
    found = compare_runs(runs, tmp_path / "out", baselines=True, command="restain compare x")
    stored = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert stored == found.result
    with (tmp_path / "out" / "compare.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(r["metric"], r["run"], r["verdict"]) for r in table] == [
        (d["metric"], d["run"], d["verdict"]) for d in stored["differences"]
    ]
    assert line(found, "baseline_mean", "psnr")["verdict"] == "worse"
    page = found.report.read_text(encoding="utf-8")
    assert restain.NOTICE in page
    assert "<script" not in page
    assert "better <b>" not in page
    assert page.count("<svg") == len({d["metric"] for d in stored["differences"]})
    assert "better <b>: better in background ΔE₀₀, PSNR (2 figures)" in found.describe()


def test_right_levels_are_compared(tmp_path: Path) -> None:
    levels = [name.split("_")[2] for name in NAMES]
    right = write_run(tmp_path / "right", {}, reading_rule=levels)
    wrong = write_run(tmp_path / "wrong", {}, reading_rule=["0"] * 12)
    found = line(compare_runs([wrong, right], tmp_path / "out"), "right", "reading_rule")
    assert (found["mean_baseline"], found["mean_run"], found["better_on"]) == (0.25, 1.0, 9)
    assert found["gain"] == 0.75


def test_a_sign_and_a_ratio_are_judged_by_their_distance_from_the_best(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"background_db": [-3.0] * 12, "sharpness": [0.5] * 12})
    two = write_run(tmp_path / "two", {"background_db": [1.0] * 12, "sharpness": [2.0] * 12})
    found = compare_runs([one, two], tmp_path / "out")
    assert line(found, "two", "background_db")["gain"] == 2.0
    assert line(found, "two", "sharpness")["gain"] == pytest.approx(0)


def test_patches_of_one_slide_are_not_independent(tmp_path: Path) -> None:
    slides = [f"slide {n // 4}" for n in range(12)]
    gains = [1.0] * 4 + [0.2] * 4 + [0.6] * 4
    base = draw(1)
    one = write_run(tmp_path / "one", {"psnr": base}, slide=slides)
    two = write_run(tmp_path / "two", {"psnr": [b + g for b, g in zip(base, gains, strict=True)]}, slide=slides)
    found = compare_runs([one, two], tmp_path / "out")
    first = line(found, "two", "psnr")
    assert (first["n"], first["units"], found.result["slides"]) == (12, 3, 3)
    assert first["p"] == pytest.approx(0.25)
    assert (first["low"], first["high"]) == (pytest.approx(0.2), pytest.approx(1.0))
    assert first["verdict"] == "no difference shown"


def test_only_what_can_be_compared_is(runs: tuple[Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RestainError, match="at least two evaluations"):
        compare_runs(runs[:1], out)
    with pytest.raises(RestainError, match="given twice"):
        compare_runs([runs[0], runs[0]], out)
    with pytest.raises(RestainError, match=r"'beauty' is not a figure with a better side; those are .*psnr"):
        compare_runs(runs, out, metrics=["beauty"])
    with pytest.raises(RestainError, match=r"metrics\.json cannot be read"):
        compare_runs([runs[0], tmp_path], out)
    rows = json.loads((runs[2] / "metrics.json").read_text(encoding="utf-8"))
    del rows["per_image"][0]
    (runs[2] / "metrics.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(RestainError, match=f"not of the same pairs: {NAMES[0]} is in one of them only\\.$"):
        compare_runs(runs, out)
    (runs[2] / "metrics.json").write_text('{"model": 3}', encoding="utf-8")
    with pytest.raises(RestainError, match="not the result of an evaluation"):
        compare_runs(runs, out)
    assert not out.exists()
    assert {d["metric"] for d in compare_runs(runs[:2], out, metrics=["psnr"]).result["differences"]} == {"psnr"}


def test_equal_names_of_other_pictures_are_noticed(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"dab_mean_real": [0.1] * 12})
    two = write_run(tmp_path / "two", {"dab_mean_real": [0.1] * 11 + [0.2]})
    with pytest.raises(RestainError, match=f"the real image of {NAMES[11].replace('+', '.')} differs"):
        compare_runs([one, two], tmp_path / "out")


def test_equal_labels_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / name, {"psnr": draw(1)}, label="model x") for name in ("one", "two"))
    labels = [run["label"] for run in compare_runs([one, two], tmp_path / "out").result["runs"]]
    assert labels == [f"model x in {one}", f"model x in {two}"]


def test_command(
    runs: tuple[Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["restain", "compare", *map(str, runs), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert "12 images; baseline: first" in capsys.readouterr().out
    assert "restain compare" in (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [*command, "--metric", "x"])
    with pytest.raises(SystemExit) as fault:
        main()
    assert (fault.value.code, capsys.readouterr().err.count("\n")) == (2, 1)
