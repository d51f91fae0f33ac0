"""One evaluation: a model, or another tool's images, and the baselines against a split of pairs."""

from __future__ import annotations

import csv
import math
import os
import platform
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import restain
from restain.data import Pair, PairSet, open_pairs
from restain.data.layouts import image_files
from restain.errors import RestainError
from restain.evaluation import align as alignment
from restain.evaluation import background, membrane, stain
from restain.evaluation.agreement import ReadingRow, agreement
from restain.evaluation.baselines import DESCRIPTIONS, FIT_IMAGES, FIT_PIXELS, FITTED, BaselineFit, fit_baselines
from restain.evaluation.distribution import SetFeatures, find_distribution
from restain.evaluation.features import EFFICIENTNET, find_extractors
from restain.evaluation.held_out import Paths, as_paths, open_as_trained, require_data, scored_pairs, unseen_training
from restain.evaluation.pair_scorer import ALIGNED, BINS, KeptScores, ScoringOptions, load_classifier, score_pairs
from restain.evaluation.report import render_report
from restain.evaluation.summary import (
    CASE_RULE,
    CSV_COLUMNS,
    Evaluation,
    ImageRow,
    choose_cases,
    compare_methods,
    summarise,
    win_table,
)
from restain.files import digest, file_state, make_folder, read_kept, whole_file, write_json, write_kept
from restain.her2 import FAINT_OD
from restain.images import write_png
from restain.prediction import Prediction, Predictor
from restain.progress import Progress
from restain.recipe import Recipe
from restain.report.pictures import DAB_TOP
from restain.report.plots import save_histogram
from restain.slides import read_image
from restain.stain import Model, load
from restain.stain.provenance import image_metadata
from restain.statistics import RESAMPLES, json_ready

SCORES = "scores"
"""Folder of the finished images of an unfinished evaluation, in the evaluation's folder."""

FEW_IMAGES = 16
"""Fewer images are scored in this process by default: workers take seconds to start."""


def evaluate(
    model: Predictor | str | Path | None,
    data: PairSet | Paths,
    split: str = "test",
    out: str | Path | None = None,
    *,
    images: str | Path | None = None,
    fit_on: PairSet | Paths = (),
    mpp: float | None = None,
    swap: bool = False,
    seed: int = 0,
    command: str = "",
    baselines: bool = True,
    align: bool = True,
    features: str | Path | None = EFFICIENTNET,
    lpips: str | Path | None = None,
    classifier: Path | None = None,
    quick: bool = False,
    workers: int | None = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on a split; write ``metrics.json``, ``per_image.csv``, ``report.html`` and pictures.

    Finished images are kept in ``out/scores`` until the end: the same call after an interruption resumes with the next
    image, where a bundle or a folder of images is evaluated. A few images at a time are in memory.

    Folders are opened with the splits that the model was trained with: its recipe's held-out names, seed and validation
    share. Baselines learn from the training split only, never from a pair or slide that is scored.

    Args:
        model: a loaded model, a bundle's name or folder, or None for the shipped bundle (or with ``images``).
        data: folders of pairs, or pairs that are already open.
        split: ``train``, ``val`` or ``test``.
        out: folder of the results; None keeps no files.
        images: folder of virtual images by another tool, ``NAME.png`` (or .jpg, .tif, ...) for each pair's NAME.
        fit_on: data whose training split the baselines are fitted on; empty for ``data``.
        mpp: micrometres per pixel of the data; None for the model's.
        swap: H&E and IHC of all folders are exchanged.
        seed: of the bootstrap and of the baselines' samples.
        command: the command line, for the report.
        baselines: score the baselines too.
        align: score the model and one baseline after alignment too.
        features: network of FID, KID and Inception Score: ``efficientnet-lite0``, a TorchScript file, or None.
        lpips: the same for LPIPS; None takes ``features``.
        classifier: HER2 classifier; None for the shipped one.
        quick: PSNR, SSIM, DAB and colour of the model alone.
        workers: processes that score while this one stains; 0 scores in this one. None: one per core, at most 8, or 0
            for a few images. A script that asks for processes must guard its code by ``if __name__ == "__main__"``.
        progress: called with images done (those of the fits included) and in all.

    Raises:
        RestainError: if a file or folder cannot be opened or written, the split is empty, or an image of ``images`` is
            missing or of a wrong size.
        ValueError: if both ``model`` and ``images`` are given, or a predicted image has a wrong size.

    Example:
        >>> evaluate(None, "data/phantom", out="report").to_pandas()  # doctest: +SKIP
    """
    if model is not None and images is not None:
        raise ValueError("an evaluation takes a model or a folder of images, one of the two")
    if images is None and (model is None or isinstance(model, str | Path)):
        model = load(model)
    predictor = None if isinstance(model, str | Path) else model
    bundle = predictor.bundle if isinstance(predictor, Model) else None
    recipe = Recipe() if bundle is None else bundle.recipe
    mpp = mpp or recipe.mpp
    pairs = data if isinstance(data, PairSet) else open_as_trained(data, recipe, swap=swap)
    scored = scored_pairs(pairs, split)
    if not isinstance(data, PairSet):
        require_data(scored, mpp)
    source = pairs
    if isinstance(fit_on, PairSet) or fit_on:
        source = fit_on if isinstance(fit_on, PairSet) else open_pairs(as_paths(fit_on), val_share=0, swap=swap)
    answers = _Images(Path(images), scored) if images is not None else predictor
    assert answers is not None
    facts = {"label": answers.label}
    if bundle is not None:
        facts |= {"bundle": bundle.card.name, "bundle_hash": bundle.card.hash}
    options = ScoringOptions(
        mpp=mpp,
        baselines=baselines and not quick,
        align=align and not quick,
        quick=quick,
        features=None if quick else features,
        lpips=None if quick else lpips,
        classifier=classifier,
    )
    if workers is None:
        workers = 0 if len(scored) < FEW_IMAGES else min(os.cpu_count() or 1, 8)
    with _folder(out) as folder:
        run = _Run(answers, folder, facts, options, workers)
        training = _Training(source, scored) if options.baselines else None
        metrics, rows = run.score(scored, training, seed, progress)
        metrics = json_ready(
            {
                "notice": restain.NOTICE,
                "model": facts,
                "data": pairs.describe(),
                "split": split,
                **metrics,
                "definitions": definitions(mpp, seed),
                "command": command,
                "restain": restain.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": platform.platform(),
                "per_image": [row.flat() for row in rows],
            }
        )
        _write(Evaluation(folder, metrics), rows)
        shutil.rmtree(folder / SCORES, ignore_errors=True)
    return Evaluation(None if out is None else folder, metrics)


class _Images:
    """Another tool's images in place of a model."""

    def __init__(self, folder: Path, scored: Sequence[Pair]) -> None:
        if not folder.is_dir():
            raise RestainError(f"{folder}: there is no such folder of images.")
        self.label = f"images in {folder}"
        self.found: dict[str, Path] = {}
        for path in image_files(folder):
            if (other := self.found.get(path.stem)) is not None:
                raise RestainError(f"{folder} has two images named '{path.stem}': {other.name} and {path.name}.")
            self.found[path.stem] = path
        missing = [pair.name for pair in scored if pair.name not in self.found]
        if missing:
            more = f" (nor {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise RestainError(
                f"{folder} has no image {missing[0]}.png{more}; every pair of the split needs one by its name."
            )

    def read(self, pair: Pair, shape: tuple[int, ...]) -> Prediction:
        path = self.found[pair.name]
        rgb = read_image(path)
        if rgb.shape != shape:
            raise RestainError(f"{path} is {rgb.shape[1]}x{rgb.shape[0]} px, its real image {shape[1]}x{shape[0]}.")
        return Prediction(rgb)


class _Training:
    """Pairs that the baselines are fitted on, and why rows are absent where there are none."""

    def __init__(self, source: PairSet, scored: Sequence[Pair]) -> None:
        self.source = source
        self.pairs = unseen_training(source, scored)
        reason = "the training split is what is scored" if source.split("train") else "no training split"
        self.absent = {} if self.pairs else dict.fromkeys(FITTED, reason)


class _Run:
    def __init__(
        self,
        answers: Predictor | _Images,
        out: Path,
        facts: Mapping[str, str],
        options: ScoringOptions,
        workers: int,
    ) -> None:
        self.answers, self.out, self.facts, self.options, self.workers = answers, out, facts, options, workers

    def score(
        self, scored: Sequence[Pair], training: _Training | None, seed: int, progress: Progress | None
    ) -> tuple[dict[str, Any], list[ImageRow]]:
        """What follows from all images, for ``metrics.json``, and the rows."""
        options = self.options
        extractors, classifier = find_extractors(options.features, options.lpips), load_classifier(options)
        fit_pairs = training.pairs if training is not None else []
        total, done = min(len(fit_pairs), FIT_IMAGES) + len(scored), 0

        def tick() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, total)

        for name in ("figures", SCORES):
            make_folder(self.out / name)
        fit = self._fit(fit_pairs, seed, tick) if fit_pairs else None
        options = replace(options, fit=fit)
        answers = [(pair, partial(self._predict, pair)) for pair in scored]
        label = "" if classifier is None else classifier.label
        kept = KeptScores(self.out / SCORES, self._identity(options, label))
        rows: list[ImageRow] = []
        readings: list[ReadingRow] = []
        counts = np.zeros((BINS, BINS))
        features: list[Mapping[str, SetFeatures]] = []
        for found in score_pairs(answers, options, self.out, kept, self.workers):
            rows += found.rows
            readings += found.readings
            counts += found.cells
            if found.features:
                features.append(found.features)
            tick()
        _remove_large(self.out / "figures", {name for _, name in choose_cases(rows)})
        save_histogram(self.out / "figures" / "cells.png", counts, DAB_TOP, "reference DAB, OD", "virtual DAB, OD")
        reading = None if classifier is None else agreement(readings, seed) | {"label": label}
        fitted = None if fit is None or training is None else asdict(fit) | {"data": training.source.describe()}
        network = extractors.distribution
        return {
            **findings(rows, seed),
            "reading": reading,
            "real_readings": {
                row.name: {"classifier": row.classifier.text, "rule": row.rule.text}
                for row in readings
                if row.method == "real"
            },
            "distribution": None if network is None else find_distribution(features, network.name),
            "extractors": extractors.describe(),
            "absent": training.absent if training is not None else {},
            "fit": fitted,
        }, rows

    def _identity(self, options: ScoringOptions, classifier: str) -> str | None:
        """Identity of the model and of the metrics; None for a model that is not a bundle."""
        if isinstance(self.answers, _Images):
            source: list[Any] = sorted(file_state(path) for path in self.answers.found.values())
        elif "bundle_hash" in self.facts:
            source = [self.facts["bundle_hash"]]
        else:
            return None
        return digest([restain.__version__, source, options.identity(), classifier])

    def _fit(self, pairs: Sequence[Pair], seed: int, tick: Callable[[], None]) -> BaselineFit:
        """The baselines' fit, kept with the scores."""
        path = self.out / SCORES / "fit.json"
        identity = digest([seed, [file_state(path) for pair in pairs for path in (pair.he_path, pair.ihc_path)]])
        if (kept := read_kept(path, identity)) is not None:
            for _ in range(kept["images"]):
                tick()
            arrays = {key: np.array(kept[key]) for key in ("mean", "linear", "hematoxylin_lines", "white")}
            return BaselineFit(**arrays, images=kept["images"], of=kept["of"])
        fit = fit_baselines(pairs, seed=seed, progress=tick)
        write_kept(path, identity, json_ready(fit))
        return fit

    def _predict(self, pair: Pair) -> Prediction:
        he, real = pair.load()
        if isinstance(self.answers, _Images):
            return self.answers.read(pair, real.shape)
        given = self.answers.predict(he)
        if given.rgb.shape != real.shape or given.rgb.dtype != np.uint8:
            raise ValueError(
                f"{self.answers.label} made {given.rgb.dtype} {given.rgb.shape} of an image of {real.shape}"
            )
        model = {"model" if key == "label" else key: value for key, value in self.facts.items()}
        path = make_folder(self.out / "images") / f"{pair.name}.png"
        write_png(path, given.rgb, image_metadata(pair.he_path, model), self.options.mpp)
        return given


def _remove_large(figures: Path, shown: Collection[str]) -> None:
    """Remove the large pictures of all images but those that the report shows large."""
    for path in figures.glob("*.large.jpg"):
        if path.name.removesuffix(".large.jpg").rsplit(".", 1)[0] not in shown:
            path.unlink()


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield make_folder(Path(out))
        return
    with TemporaryDirectory(prefix="restain-") as folder:
        yield Path(folder)


def findings(rows: Sequence[ImageRow], seed: int) -> dict[str, Any]:
    """What follows from the rows alone."""
    own = [row for row in rows if row.method == "model"]
    comparison = compare_methods(rows, seed)
    levels = sorted({row.level for row in rows})
    return {
        "images": len(own),
        "overall": summarise(rows, seed),
        "levels": {
            level or "unknown": summarise([row for row in rows if row.level == level], seed) for level in levels
        },
        "comparison": comparison,
        "win_table": win_table(comparison),
        "cases": [{"case": case, "name": name} for case, name in choose_cases(rows)],
        "dab_reference": {kind: sum(r.dab_reference == kind for r in own) for kind in ("truth", "deconvolution")},
        "identical_images": sum(math.isinf(row.value("psnr")) for row in own),
    }


def definitions(mpp: float, seed: int) -> dict[str, Any]:
    """What the figures mean, in numbers and words."""
    return {
        "methods": {"model": "what is evaluated"} | DESCRIPTIONS,
        "case_rule": CASE_RULE,
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
        "align_largest_um": alignment.LARGEST_UM,
        "align_smooth_um": alignment.SMOOTH_UM,
        "background_od": stain.BACKGROUND_OD,
        "background_smooth_px": background.SMOOTH_SIGMA,
        "background_sigma_px": stain.BACKGROUND_SIGMA,
        "fit_images": FIT_IMAGES,
        "fit_pixels_per_image": FIT_PIXELS,
    }


def _write(evaluation: Evaluation, rows: Sequence[ImageRow]) -> None:
    """``per_image.csv``, ``report.html`` and, last, ``metrics.json``, whose presence marks a finished evaluation."""
    assert evaluation.out is not None
    with (
        whole_file(evaluation.out / "per_image.csv") as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, CSV_COLUMNS)
        writer.writeheader()
        for row in rows:
            flat = row.flat().items()
            writer.writerow({k: v if isinstance(v, str) else "" if math.isnan(v) else f"{v:.6g}" for k, v in flat})
    render_report(evaluation)
    write_json(evaluation.out / "metrics.json", evaluation.metrics)
