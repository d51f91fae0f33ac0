from __future__ import annotations

import json

import numpy as np
import pytest

from restain.evaluation.agreement import ReadingRow, agreement, figures
from restain.her2 import Her2Level
from restain.statistics import confusion, json_ready, quadratic_kappa, wilson_interval

LEVELS = list(Her2Level)


def row(name: str, level: int | None, read: int, *, slide: str | None = None, method: str = "model") -> ReadingRow:
    known = None if level is None else LEVELS[level]
    return ReadingRow(name, slide, known, method, LEVELS[read], Her2Level.ZERO)


def test_full_agreement_and_its_opposite() -> None:
    right = figures([0, 1, 2, 3], [0, 1, 2, 3])
    assert right.accuracy.mean == 1
    assert right.kappa.mean == pytest.approx(1)
    assert right.confusion == np.eye(4, dtype=int).tolist()
    assert float(quadratic_kappa(confusion([0, 1, 2, 3], [3, 2, 1, 0], 4))) == pytest.approx(-1)


def test_sensitivity_and_specificity_take_1_and_2_for_one_group() -> None:
    found = figures([0, 0, 1, 1, 2, 3, 3], [0, 1, 2, 1, 0, 3, 2]).groups
    assert found["0"].sensitivity.mean == pytest.approx(1 / 2)
    assert found["0"].specificity.mean == pytest.approx(4 / 5)
    assert found["low"].sensitivity.mean == pytest.approx(2 / 3)
    assert found["low"].specificity.mean == pytest.approx(2 / 4)
    assert found["3+"].sensitivity == wilson_interval(1, 2)
    assert found["3+"].specificity.n == 5


def test_what_is_undefined_is_none_and_json_holds_it() -> None:
    one_level = agreement([row("a", 2, 2), row("b", 2, 2)])["model"]["classifier"].patch
    assert np.isnan(one_level.kappa.mean)
    assert one_level.groups["3+"].sensitivity.plain() == {"mean": None, "low": None, "high": None, "n": 0}
    unknown = agreement([row("a", None, 2)])
    assert unknown["model"]["classifier"].patch.n == 0
    json.dumps(json_ready(unknown), allow_nan=False)


def test_slides_are_read_as_most_of_their_patches() -> None:
    votes = {"A": (3, [3, 3, 0]), "B": (1, [1, 2]), "C": (0, [0])}
    rows = [
        row(f"{slide}{i}", level, read, slide=slide)
        for slide, (level, reads) in votes.items()
        for i, read in enumerate(reads)
    ]
    found = agreement(rows)["model"]["classifier"]
    assert found.patch.n == 6
    assert found.slide.n == 3
    assert np.nonzero(found.slide.confusion) == (pytest.approx([0, 1, 3]), pytest.approx([0, 2, 3]))
    rows.append(row("loose", 0, 0))
    assert agreement(rows)["model"]["classifier"].slide is None


def test_methods_and_readings_are_apart() -> None:
    found = agreement([row("a", 3, 3), row("a", 3, 0, method="real")])
    assert list(found) == ["model", "real"]
    assert found["model"]["classifier"].patch.accuracy.mean == 1
    assert found["model"]["rule"].patch.accuracy.mean == 0
    assert found["real"]["classifier"].patch.accuracy.mean == 0


def test_interval_follows_the_seed_and_draws_slides_whole() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 80)
    slide = np.repeat(np.arange(8), 10)
    # All patches of a slide are wrong together, so whole slides vary more than patches.
    read = np.where(slide % 4 == 0, (truth + 2) % 4, truth)
    single, again = (figures(truth.tolist(), read.tolist(), seed=5).kappa for _ in range(2))
    whole = figures(truth.tolist(), read.tolist(), [str(s) for s in slide], seed=5).kappa
    assert single == again
    assert single.low < single.mean < single.high
    assert whole.mean == single.mean
    assert whole.high - whole.low > single.high - single.low
    assert np.isnan(figures(truth.tolist(), read.tolist(), ["one"] * 80).kappa.low)
