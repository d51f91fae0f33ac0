"""What an evaluation leaves behind: the findings of its rows, its definitions, and its files."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.data import PairSet
from restain.evaluation import align, background, membrane, stain
from restain.evaluation.baselines import DESCRIPTIONS, FIT_IMAGES, FIT_PIXELS, BaselineFit
from restain.evaluation.image import absolute_difference
from restain.evaluation.reference import Reference
from restain.evaluation.report import render_report
from restain.evaluation.rivals import compare, win_table
from restain.evaluation.summary import CSV_COLUMNS, EvaluationSummary, ImageRow, choose_cases, summarise
from restain.files import whole_file, write_json
from restain.her2 import FAINT_OD
from restain.prediction import Prediction
from restain.report import colour_map, save_pictures
from restain.report.pictures import DAB_TOP, DIFFERENCE_TOP
from restain.statistics import RESAMPLES

ALIGNED = ("model", "baseline_hematoxylin")
"""The answers that are aligned: a registration takes longer than all other figures together."""


def save_panels(folder: Path, name: str, he: NDArray[np.uint8], answer: Prediction, reference: Reference) -> None:
    """Write the pictures of one image for the report."""
    assert answer.dab is not None
    difference = absolute_difference(answer.rgb, reference.real)
    panels = {
        "he": he,
        "virtual": answer.rgb,
        "real": reference.real,
        "difference": colour_map(difference, "difference", DIFFERENCE_TOP),
        "dab_virtual": colour_map(answer.dab, "dab", DAB_TOP),
        "dab_reference": colour_map(reference.dab, "dab", DAB_TOP),
    }
    save_pictures(folder, name, panels, ("virtual", "dab_virtual"))


def fit_facts(fit: BaselineFit, source: PairSet) -> dict[str, Any]:
    """A fit and what it was made on, ready for JSON."""
    return {key: np.asarray(value).tolist() for key, value in asdict(fit).items()} | {"data": source.describe()}


def findings(rows: Sequence[ImageRow], seed: int) -> dict[str, Any]:
    """What follows from the rows alone."""
    own = [row for row in rows if row.method == "model"]
    comparison = compare(rows, seed)
    levels = sorted({row.level for row in rows})
    return {
        "images": len(own),
        "overall": _plain(summarise(rows, seed)),
        "levels": {
            level or "unknown": _plain(summarise([row for row in rows if row.level == level], seed)) for level in levels
        },
        "comparison": comparison,
        "win_table": win_table(comparison),
        "cases": [{"case": case, "name": name} for case, name in choose_cases(rows)],
        "dab_reference": {kind: sum(r.dab_reference == kind for r in own) for kind in ("truth", "deconvolution")},
        "identical_images": sum(math.isinf(row.value("psnr")) for row in own),
    }


def _plain(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    return {method: {key: asdict(value) for key, value in line.items()} for method, line in table.items()}


def definitions(mpp: float, seed: int) -> dict[str, Any]:
    """What the figures mean, in numbers and words."""
    return {
        "methods": {"model": "what is evaluated"} | DESCRIPTIONS,
        "case_rule": "mean absolute RGB error over the whole image, background included",
        "interval": f"95 % percentile bootstrap over images, {RESAMPLES} resamples, seed {seed}",
        "seed": seed,
        "mpp": mpp,
        "cell_um": stain.CELL_UM,
        "cell_px": stain.cell_px(mpp),
        "min_spread_od": stain.MIN_SPREAD_OD,
        "wide_cell_um": stain.WIDE_CELL_UM,
        "positive_od": stain.POSITIVE_OD,
        "weak_od": list(stain.WEAK_OD),
        "membrane_od": FAINT_OD,
        "membrane_rays": membrane.RAYS,
        "aligned": list(ALIGNED),
        "align_largest_um": align.LARGEST_UM,
        "align_smooth_um": align.SMOOTH_UM,
        "background_od": stain.BACKGROUND_OD,
        "background_smooth_px": background.SMOOTH_SIGMA,
        "background_sigma_px": stain.BACKGROUND_SIGMA,
        "fit_images": FIT_IMAGES,
        "fit_pixels_per_image": FIT_PIXELS,
    }


def write_results(summary: EvaluationSummary, rows: Sequence[ImageRow]) -> None:
    """Write ``per_image.csv``, ``report.html`` and ``metrics.json`` into the evaluation's folder.

    Raises:
        RestainError: if a file cannot be written.
    """
    with (
        whole_file(summary.out / "per_image.csv") as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, CSV_COLUMNS)
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.flat().items()} for row in rows)
    render_report(summary)
    write_json(summary.out / "metrics.json", summary.metrics)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
