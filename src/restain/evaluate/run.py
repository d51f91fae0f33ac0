"""One evaluation: a model, or any other tool's pictures, and the trivial answers against a split of pairs."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import restain
from restain.data import Pair, PairSet, read_rgb, whole_file, write_png
from restain.data.layouts import SPLITS, image_files
from restain.errors import RestainError
from restain.evaluate import figures, stain
from restain.evaluate.image import absolute_difference
from restain.evaluate.report import render_report
from restain.evaluate.score import Reference, read_reference, score, trivial_answers, with_dab
from restain.evaluate.summary import (
    CSV_COLUMNS,
    RESAMPLES,
    EvaluationSummary,
    ImageRow,
    choose_cases,
    compare,
    finite,
    summarise,
)
from restain.evaluate.trivial import DESCRIPTIONS, FIT_IMAGES, FIT_PIXELS, TrivialFit, fit_trivial
from restain.prediction import Prediction, Predictor
from restain.stain import provenance as origin

Rgb = NDArray[np.uint8]
Progress = Callable[[int, int], None]


def evaluate(
    predictor: Predictor | None,
    pairs: PairSet,
    split: str,
    out: Path,
    *,
    images: Path | None = None,
    fit_on: PairSet | None = None,
    mpp: float = 0.46,
    seed: int = 0,
    command: str = "",
    provenance: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> EvaluationSummary:
    """Score a model on a split; write ``metrics.json``, ``per_image.csv``, ``report.html`` and pictures.

    The trivial answers stand beside the model in every table. What they learn, they learn on the training
    split of ``fit_on`` (or of the same data), from pairs and slides that are not scored; where there are
    none, their rows are absent with the reason.

    Args:
        predictor: the model; ``None`` with ``images``.
        pairs: the data.
        split: the split to score: ``train``, ``val`` or ``test``.
        out: folder of the results; made where needed, old results are replaced.
        images: a folder of virtual images made by any other tool, ``NAME.png`` (or .jpg, .tif, ...) for each
            pair's NAME.
        fit_on: other data whose training split the trivial answers are fitted on.
        mpp: micrometres per pixel of the images, for the size of the cells.
        seed: of the bootstrap and of the samples of the trivial fits.
        command: the command line, for the report.
        provenance: more about the model for the report, for example a bundle's hash.
        progress: called with the images done (those of the fits included) and the images in all.

    Raises:
        RestainError: if the split is empty, an image of ``images`` is missing or of another size than its
            pair, or a file cannot be read or written.
        ValueError: if not exactly one of ``predictor`` and ``images`` is given, or a predicted image has a
            wrong size.
    """
    if (predictor is None) == (images is None):
        raise ValueError("an evaluation takes a predictor or a folder of images, one of the two")
    scored = _scored(pairs, split)
    pictures = None if images is None else _find_pictures(images, scored)
    label = predictor.label if predictor is not None else f"images in {images}"
    training, absent = _training(fit_on or pairs, scored)
    total = min(len(training), FIT_IMAGES) + len(scored)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    _make(out / "figures")
    fit = fit_trivial(training, seed=seed, progress=tick) if training else None

    rows: list[ImageRow] = []
    plot = figures.CellPlot()
    for pair in scored:
        he, real = pair.load()
        reference = read_reference(pair, real)
        if pictures is not None:
            given = Prediction(_picture(pictures[pair.name], real.shape))
        else:
            assert predictor is not None
            given = predictor(he)
            if given.rgb.shape != real.shape or given.rgb.dtype != np.uint8:
                raise ValueError(f"{label} made {given.rgb.dtype} {given.rgb.shape} of an image of {real.shape}")
            _make(out / "images")
            write_png(
                out / "images" / f"{pair.name}.png",
                given.rgb,
                origin(pair.he_path, {"model": label, **(provenance or {})}),
                mpp,
            )
        answer = with_dab(given, reference)
        answers = {"model": answer} | trivial_answers(he, reference, fit)
        level = pair.level.text if pair.level is not None else ""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            scores = pool.map(partial(score, reference=reference, mpp=mpp), answers.values())
            for method, (values, moments) in zip(answers, scores, strict=True):
                rows.append(ImageRow(pair.name, level, method, values, moments, reference.source))
        _save_panels(out / "figures", pair.name, he, answer, reference)
        _add_cells(plot, answer, reference, stain.cell_px(mpp))
        tick()
    plot.save(out / "figures" / "cells.png")

    summary = EvaluationSummary(
        out,
        finite(
            {
                "notice": restain.NOTICE,
                "model": {"label": label, **(provenance or {})},
                "data": pairs.describe(),
                "split": split,
                **_findings(rows, seed),
                "absent": absent,
                "fit": None if fit is None else _fit_facts(fit, fit_on or pairs),
                "definitions": _definitions(mpp, seed),
                "command": command,
                "restain": restain.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": platform.platform(),
                "per_image": [row.flat() for row in rows],
            }
        ),
    )
    _write_results(summary, rows)
    return summary


def _scored(pairs: PairSet, split: str) -> tuple[Pair, ...]:
    by_split = {name: pairs.split(name) for name in SPLITS}
    scored = {str(name): found for name, found in by_split.items()}.get(split, ())
    if not scored:
        there = [f"{name} ({len(found)})" for name, found in by_split.items() if found]
        roots = ", ".join(map(str, pairs.roots))
        raise RestainError(f"{roots} has no pairs in the split '{split}'; it has {' and '.join(there) or 'none'}.")
    return scored


def _training(source: PairSet, scored: Sequence[Pair]) -> tuple[list[Pair], dict[str, str]]:
    """Pairs to fit on, none of them nor of their slides scored, and why rows are absent."""
    training = source.split("train")
    seen = {path.resolve() for pair in scored for path in (pair.he_path, pair.ihc_path)}
    slides = {pair.slide for pair in scored if pair.slide is not None}
    unseen = [
        pair
        for pair in training
        if not seen & {pair.he_path.resolve(), pair.ihc_path.resolve()} and pair.slide not in slides
    ]
    if unseen:
        return unseen, {}
    reason = "the training split is what is scored" if training else "no training split"
    return [], {"trivial_mean": reason, "trivial_linear": reason}


def _find_pictures(folder: Path, scored: Sequence[Pair]) -> dict[str, Path]:
    if not folder.is_dir():
        raise RestainError(f"{folder}: there is no such folder of images.")
    found: dict[str, Path] = {}
    for path in image_files(folder):
        if path.stem in found:
            raise RestainError(f"{folder} has two images named '{path.stem}': {found[path.stem].name} and {path.name}.")
        found[path.stem] = path
    missing = [pair.name for pair in scored if pair.name not in found]
    if missing:
        more = f" (nor {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise RestainError(
            f"{folder} has no image {missing[0]}.png{more}; every pair of the split needs one by its name."
        )
    return found


def _picture(path: Path, shape: tuple[int, ...]) -> Rgb:
    rgb: Rgb = read_rgb(path)
    if rgb.shape != shape:
        raise RestainError(f"{path} is {rgb.shape[1]}x{rgb.shape[0]} px, its real image {shape[1]}x{shape[0]}.")
    return rgb


def _add_cells(plot: figures.CellPlot, answer: Prediction, reference: Reference, cell: int) -> None:
    assert answer.dab is not None
    plot.add(stain.cell_means(answer.dab, cell), stain.cell_means(reference.dab, cell))


def _save_panels(folder: Path, name: str, he: Rgb, answer: Prediction, reference: Reference) -> None:
    assert answer.dab is not None
    difference = absolute_difference(answer.rgb, reference.real)
    panels = {
        "he": he,
        "virtual": answer.rgb,
        "real": reference.real,
        "difference": figures.colour_map(difference, "difference", figures.DIFFERENCE_TOP),
        "dab_virtual": figures.colour_map(answer.dab, "dab", figures.DAB_TOP),
        "dab_reference": figures.colour_map(reference.dab, "dab", figures.DAB_TOP),
    }
    for panel, rgb in panels.items():
        figures.save_figure(folder / f"{name}.{panel}.jpg", rgb, virtual=panel in ("virtual", "dab_virtual"))


def _fit_facts(fit: TrivialFit, source: PairSet) -> dict[str, Any]:
    return {key: np.asarray(value).tolist() for key, value in asdict(fit).items()} | {"data": source.describe()}


def _findings(rows: Sequence[ImageRow], seed: int) -> dict[str, Any]:
    """What follows from the rows alone."""
    own = [row for row in rows if row.method == "model"]
    levels = sorted({row.level for row in rows})
    return {
        "images": len(own),
        "overall": _plain(summarise(rows, seed)),
        "levels": {
            level or "unknown": _plain(summarise([row for row in rows if row.level == level], seed)) for level in levels
        },
        "comparison": compare(rows),
        "cases": [{"case": case, "name": name} for case, name in choose_cases(rows)],
        "dab_reference": {kind: sum(r.dab_reference == kind for r in own) for kind in ("truth", "deconvolution")},
        "identical_images": sum(math.isinf(row.values["psnr"]) for row in own),
    }


def _plain(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    return {method: {key: asdict(value) for key, value in line.items()} for method, line in table.items()}


def _definitions(mpp: float, seed: int) -> dict[str, Any]:
    return {
        "methods": {"model": "what is evaluated"} | DESCRIPTIONS,
        "case_rule": "mean absolute RGB error over the whole image, background included",
        "interval": f"95 % percentile bootstrap over images, {RESAMPLES} resamples, seed {seed}",
        "seed": seed,
        "mpp": mpp,
        "cell_um": stain.CELL_UM,
        "cell_px": stain.cell_px(mpp),
        "min_spread_od": stain.MIN_SPREAD_OD,
        "background_od": stain.BACKGROUND_OD,
        "background_sigma_px": stain.BACKGROUND_SIGMA,
        "fit_images": FIT_IMAGES,
        "fit_pixels_per_image": FIT_PIXELS,
    }


def _write_results(summary: EvaluationSummary, rows: Sequence[ImageRow]) -> None:
    with (
        whole_file(summary.out / "per_image.csv") as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, CSV_COLUMNS)
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.flat().items()} for row in rows)
    render_report(summary)
    with whole_file(summary.out / "metrics.json") as partial:
        text = json.dumps(summary.metrics, indent=1, allow_nan=False, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise RestainError(f"{folder}: the folder cannot be made ({fault.strerror}).") from None
