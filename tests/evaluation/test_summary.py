from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from restain.errors import RestainError
from restain.evaluation.metrics import METRICS, SPLIT_METRICS
from restain.evaluation.stain import Moments
from restain.evaluation.summary import SHOWN, ImageRow, choose_cases, load_evaluation, pooled_interval, summarise


def row(name: str, method: str, moments: Moments | None = None, **values: float) -> ImageRow:
    every = {metric.key: math.nan for metric in METRICS} | values
    sums = {} if moments is None else {"dab_r16_pooled": moments}
    return ImageRow(name, "1+", method, every, sums, "deconvolution")


def moments(x: list[float], y: list[float]) -> Moments:
    a, b = np.array(x), np.array(y)
    return Moments(len(x), a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum())


def test_pooled_correlation_sees_differences_between_images() -> None:
    """Flat within each image, right between them: no r per image, a perfect one pooled."""
    low, high = moments([0.1] * 4, [0.1, 0.1, 0.1, 0.1]), moments([0.9] * 4, [0.9, 0.9, 0.9, 0.9])
    result = pooled_interval([low, high, low, high])
    assert result.mean == pytest.approx(1.0)
    assert result.n == 4


def test_the_pooled_interval_draws_images_and_not_cells() -> None:
    rng = np.random.default_rng(1)
    good, bad = rng.random(500), rng.random(500)
    images = [moments(good.tolist(), good.tolist()), moments(bad.tolist(), rng.random(500).tolist())]
    result = pooled_interval(images)
    assert result.low < 0.2
    assert result.high == pytest.approx(1.0)


def test_cases_are_ranked_by_where_dab_is_and_then_by_mean_absolute_error() -> None:
    rows = [
        row(str(i), "model", dab_r16=r, mae=20.0 - i) for i, r in enumerate([0.3, 0.9, 0.5, math.nan, math.nan, 0.1])
    ]
    rows.append(row("0", "oracle_flat", dab_r16=1.0))
    # Of the four with an r, the worse of the two middle ones is the median; an undefined r is last, the larger error last.
    assert choose_cases(rows) == [("best", "1"), ("", "2"), ("median", "0"), ("", "5"), ("", "4"), ("worst", "3")]
    assert choose_cases(rows[:2]) == [("best", "1"), ("worst", "0")]
    assert choose_cases(rows[:1]) == [("only", "0")]
    assert choose_cases([]) == []


@pytest.mark.parametrize("undefined", [0, 30, 57, 59, 60])
def test_of_many_images_the_first_median_and_last_rank_are_among_those_shown(undefined: int) -> None:
    values = [math.nan if i >= 60 - undefined else 1 - i / 100 for i in range(60)]
    cases = choose_cases([row(f"{i:02}", "model", dab_r16=r, mae=float(i)) for i, r in enumerate(values)])
    by_case = {case: name for case, name in cases if case}
    assert len(cases) == len(set(cases)) == SHOWN
    assert by_case["median"] == f"{((60 - undefined) or 60) // 2:02}"
    assert by_case["worst"] == "59"
    assert [name for _, name in cases] == sorted(name for _, name in cases)


def test_summary_has_every_metric_and_those_of_the_split_for_every_method() -> None:
    table = summarise([row("a", "model", psnr=1.0), row("a", "baseline_he", psnr=2.0)])
    assert list(table) == ["model", "baseline_he"]
    assert set(table["model"]) == {metric.key for metric in (*METRICS, *SPLIT_METRICS)}


def test_a_folder_without_an_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=r"metrics\.json cannot be read"):
        load_evaluation(tmp_path)
    (tmp_path / "metrics.json").write_text("no")
    with pytest.raises(RestainError, match="is not JSON"):
        load_evaluation(tmp_path)
