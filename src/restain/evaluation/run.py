"""One evaluation: a model, or any other tool's pictures, and the baselines against a split of pairs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import restain
from restain.data import Pair, PairSet
from restain.data.layouts import image_files
from restain.errors import RestainError
from restain.evaluation import stain
from restain.evaluation.baselines import FIT_IMAGES, FITTED, baseline_answers, fit_baselines
from restain.evaluation.distribution import Distributions
from restain.evaluation.features import find_extractors
from restain.evaluation.readings import Readings
from restain.evaluation.reference import Reference, read_reference, with_dab
from restain.evaluation.results import ALIGNED, definitions, findings, fit_facts, save_panels, write_results
from restain.evaluation.score import Perceptual, Scorer
from restain.evaluation.splits import scored_pairs, unseen_training
from restain.evaluation.summary import EvaluationSummary, ImageRow
from restain.files import make_folder
from restain.images import write_png
from restain.prediction import Prediction, Predictor
from restain.report.pictures import DAB_TOP
from restain.report.plots import save_histogram
from restain.slides import read_image
from restain.stain.provenance import origin
from restain.statistics import json_ready

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
    baselines: bool = True,
    align: bool = True,
    features: str | Path | None = None,
    lpips: str | Path | None = None,
    classifier: Path | None = None,
    progress: Progress | None = None,
) -> EvaluationSummary:
    """Score a model on a split; write ``metrics.json``, ``per_image.csv``, ``report.html`` and pictures.

    The baselines stand beside the model in every table. What they learn, they learn on the training
    split of ``fit_on`` (or of the same data), from pairs and slides that are not scored; where there are
    none, their rows are absent with the reason.

    Args:
        predictor: the model; ``None`` with ``images``.
        pairs: the data.
        split: the split to score: ``train``, ``val`` or ``test``.
        out: folder of the results; made where needed, old results are replaced.
        images: a folder of virtual images made by any other tool, ``NAME.png`` (or .jpg, .tif, ...) for each
            pair's NAME.
        fit_on: other data whose training split the baselines are fitted on.
        mpp: micrometres per pixel of the images, for the size of the cells.
        seed: of the bootstrap and of the samples of the baseline fits.
        command: the command line, for the report.
        provenance: more about the model for the report, for example a bundle's hash.
        baselines: score the baselines too.
        align: measure the model and one baseline after alignment too (:mod:`restain.evaluation.align`).
        features: what FID, KID and Inception Score are computed with: ``efficientnet-lite0`` or a TorchScript file
            (:func:`restain.evaluation.features.find_extractors`); None leaves them out.
        lpips: the same for LPIPS; None takes ``features``.
        classifier: the classifier of HER2 levels; None for the shipped one.
        progress: called with the images done (those of the fits included) and the images in all.

    Raises:
        RestainError: if the split is empty, an image of ``images`` is missing or of another size than its
            pair, a file of ``features``, ``lpips`` or ``classifier`` is none, or a file cannot be read or written.
        ValueError: if not exactly one of ``predictor`` and ``images`` is given, or a predicted image has a
            wrong size.
    """
    if (predictor is None) == (images is None):
        raise ValueError("an evaluation takes a predictor or a folder of images, one of the two")
    scored = scored_pairs(pairs, split)
    pictures = None if images is None else _find_pictures(images, scored)
    label = predictor.label if predictor is not None else f"images in {images}"
    training, absent = _training(fit_on or pairs, scored) if baselines else ([], {})
    extractors = find_extractors(features, lpips)
    distributions = Distributions(extractors.distribution)
    readings = Readings(classifier)
    total = min(len(training), FIT_IMAGES) + len(scored)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    make_folder(out / "figures")
    fit = fit_baselines(training, seed=seed, progress=tick) if training else None

    rows: list[ImageRow] = []
    plot = CellHistogram()
    for pair in scored:
        he, real = pair.load()
        reference = read_reference(pair, real)
        if pictures is not None:
            given = Prediction(_picture(pictures[pair.name], real.shape))
        else:
            assert predictor is not None
            given = _predict(predictor, he, real.shape)
            make_folder(out / "images")
            write_png(
                out / "images" / f"{pair.name}.png",
                given.rgb,
                origin(pair.he_path, {"model": label, **(provenance or {})}),
                mpp,
            )
        answer = with_dab(given, reference)
        answers = {"model": answer}
        if baselines:
            answers |= baseline_answers(he, reference, fit, answer, mpp)
        rows += _score(pair, answers, reference, mpp, align, extractors.perceptual, readings)
        readings.read(pair, "real", Prediction(real, reference.dab), reference, mpp)
        distributions.add(pair.name, real, {method: given.rgb for method, given in answers.items()})
        save_panels(out / "figures", pair.name, he, answer, reference)
        _add_cells(plot, answer, reference, stain.cell_px(mpp))
        tick()
    plot.save(out / "figures" / "cells.png")

    summary = EvaluationSummary(
        out,
        json_ready(
            {
                "notice": restain.NOTICE,
                "model": {"label": label, **(provenance or {})},
                "data": pairs.describe(),
                "split": split,
                **findings(rows, seed),
                "reading": readings.agreement(seed),
                "distribution": distributions.findings(),
                "extractors": extractors.describe(),
                "absent": absent,
                "fit": None if fit is None else fit_facts(fit, fit_on or pairs),
                "definitions": definitions(mpp, seed),
                "command": command,
                "restain": restain.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": platform.platform(),
                "per_image": [row.flat() for row in rows],
            }
        ),
    )
    write_results(summary, rows)
    return summary


class CellHistogram:
    """Counts of cells by reference and virtual DAB, added up image by image."""

    BINS = 80

    def __init__(self) -> None:
        self._counts = np.zeros((self.BINS, self.BINS))

    def add(self, virtual: NDArray[np.float64], reference: NDArray[np.float64]) -> None:
        """Count the cells of one image: two arrays of means in OD, cut off at ``DAB_TOP``."""
        edges = np.linspace(0, DAB_TOP, self.BINS + 1)
        across, up = (np.clip(side.ravel(), 0, DAB_TOP) for side in (reference, virtual))
        self._counts += np.histogram2d(across, up, bins=(edges, edges))[0]

    def save(self, path: Path) -> None:
        """Plot the counts (:func:`restain.report.plots.save_histogram`)."""
        save_histogram(path, self._counts, DAB_TOP, "reference DAB, OD", "virtual DAB, OD")


def _predict(predictor: Predictor, he: Rgb, shape: tuple[int, ...]) -> Prediction:
    given = predictor.predict(he)
    if given.rgb.shape != shape or given.rgb.dtype != np.uint8:
        raise ValueError(f"{predictor.label} made {given.rgb.dtype} {given.rgb.shape} of an image of {shape}")
    return given


def _score(
    pair: Pair,
    answers: Mapping[str, Prediction],
    reference: Reference,
    mpp: float,
    align: bool,
    perceptual: Perceptual | None,
    readings: Readings,
) -> list[ImageRow]:
    """A row per answer; the answers are scored side by side."""
    scorer = Scorer(reference, mpp, perceptual)
    level = pair.level.text if pair.level is not None else ""
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            method: pool.submit(scorer, answer, aligned=align and method in ALIGNED)
            for method, answer in answers.items()
        }
        for method, answer in answers.items():
            read = readings.read(pair, method, answer, reference, mpp)
            values, moments = jobs[method].result()
            rows.append(ImageRow(pair.name, level, method, values, moments, reference.source, pair.slide or "", *read))
    return rows


def _training(source: PairSet, scored: Sequence[Pair]) -> tuple[list[Pair], dict[str, str]]:
    """Pairs to fit on, and why rows are absent where there are none."""
    if unseen := unseen_training(source, scored):
        return unseen, {}
    reason = "the training split is what is scored" if source.split("train") else "no training split"
    return [], dict.fromkeys(FITTED, reason)


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
    rgb: Rgb = read_image(path)
    if rgb.shape != shape:
        raise RestainError(f"{path} is {rgb.shape[1]}x{rgb.shape[0]} px, its real image {shape[1]}x{shape[0]}.")
    return rgb


def _add_cells(plot: CellHistogram, answer: Prediction, reference: Reference, cell: int) -> None:
    assert answer.dab is not None
    plot.add(stain.cell_means(answer.dab, cell), stain.cell_means(reference.dab, cell))
