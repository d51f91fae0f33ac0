from __future__ import annotations

import math

import numpy as np
import pytest

from restain.evaluation.metrics import score
from restain.evaluation.stain import Moments, moments_of
from restain.evaluation.summary import ImageRow, compare_methods, win_table


def row(name: str, method: str, moments: Moments | None = None, **values: float) -> ImageRow:
    return ImageRow(name, "1+", method, values, {} if moments is None else {"dab_r16_pooled": moments}, "truth")


def test_methods_are_compared_image_by_image_where_both_have_a_figure() -> None:
    rows = [
        row("a", "model", psnr=20.0, background_de=4.0, background_db=-3.0),
        row("b", "model", psnr=10.0, background_de=4.0, background_db=3.0, dab_r16=0.5),
        row("a", "oracle_flat", psnr=19.0, background_de=6.0, background_db=2.0),
        row("b", "oracle_flat", psnr=15.0, background_de=3.0, background_db=2.0, dab_r16=0.0),
    ]
    result = compare_methods(rows)
    line = result["psnr"]["oracle_flat"]
    assert (line.model, line.other, line.beats_model, line.better_on, line.n) == (15.0, 17.0, True, 1, 2)
    assert line.gain == pytest.approx(2.0)
    assert (line.gain_low, line.gain_high) == (-1.0, 5.0)
    assert not result["background_de"]["oracle_flat"].beats_model
    assert result["background_db"]["oracle_flat"].better_on == 2, "a shift is judged by its size"
    assert result["dab_r16"]["oracle_flat"].n == 1
    assert "mae" not in result


def test_equal_figures_do_not_beat() -> None:
    rows = [row("a", "model", ssim=0.5), row("a", "baseline_he", ssim=0.5)]
    assert compare_methods(rows)["ssim"]["baseline_he"].beats_model is False


def test_a_ratio_is_best_at_one_and_twice_is_as_far_as_half() -> None:
    values = score([1.0, 2.0, 0.5, 0.1], "one")
    assert values[0] == 0
    assert values[1] == pytest.approx(values[2])
    assert values[3] < values[2]
    rows = [row("a", "model", sharpness=0.8), row("a", "blurred_model", sharpness=0.2)]
    assert not compare_methods(rows)["sharpness"]["blurred_model"].beats_model


def test_an_undefined_figure_is_not_compared() -> None:
    rows = [row("a", "model", psnr=math.nan), row("a", "oracle_flat", psnr=20.0)]
    assert "psnr" not in compare_methods(rows)


def test_correlations_of_the_split_are_compared_on_all_cells() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(50)
    good, bad = moments_of(truth, truth), moments_of(rng.random(50), truth)
    rows = [row("a", "model", bad), row("a", "baseline_hematoxylin", good)]
    line = compare_methods(rows)["dab_r16_pooled"]["baseline_hematoxylin"]
    assert line.beats_model
    assert line.other == pytest.approx(1)


def test_the_win_table_names_the_flat_answer_that_wins() -> None:
    rows = []
    for name in ("a", "b"):
        rows += [
            row(name, "model", psnr=20.0, sharpness=0.9, dab_r16=0.8),
            row(name, "baseline_mean", psnr=25.0, sharpness=0.01, dab_r16=0.0),
            row(name, "oracle_flat", psnr=22.0, sharpness=0.01, dab_r16=0.0),
            row(name, "blurred_model", psnr=19.0, sharpness=0.3, dab_r16=0.9),
        ]
    table = {line["metric"]: line for line in win_table(compare_methods(rows))}
    assert table["psnr"]["flat"]["verdict"] == "wins"
    assert table["psnr"]["flat"]["method"] == "baseline_mean"
    assert table["psnr"]["blur"]["verdict"] == "loses"
    assert table["dab_r16"]["blur"] == {
        "verdict": "wins",
        "method": "blurred_model",
        "model": pytest.approx(0.8),
        "other": pytest.approx(0.9),
        "better_on": 2,
        "n": 2,
    }
    assert table["sharpness"]["flat"]["verdict"] == "loses"
    assert table["sharpness"]["blur"]["verdict"] == "loses"


def test_without_baselines_there_is_no_win_table() -> None:
    assert win_table(compare_methods([row("a", "model", psnr=20.0)])) == []


def test_a_difference_within_its_interval_is_a_draw() -> None:
    rows = []
    for index in range(12):
        better = 0.01 if index % 2 else -0.009
        rows += [row(str(index), "model", ssim=0.5), row(str(index), "blurred_model", ssim=0.5 + better)]
    comparison = compare_methods(rows)
    assert comparison["ssim"]["blurred_model"].beats_model
    assert win_table(comparison)[0]["blur"]["verdict"] == "draws"


def test_a_pooled_gain_is_drawn_with_the_same_images_for_both() -> None:
    """Both vary from image to image, the other is always a little better: the paired gain knows."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(20):
        truth = rng.random(40) * rng.uniform(0.2, 1)
        noise = rng.normal(0, 0.2, 40)
        rows.append(row(str(index), "model", moments_of(truth + noise, truth)))
        rows.append(row(str(index), "blurred_model", moments_of(truth + 0.9 * noise, truth)))
    line = compare_methods(rows)["dab_r16_pooled"]["blurred_model"]
    assert 0 < line.gain_low < line.gain < line.gain_high
