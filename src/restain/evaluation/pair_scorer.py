"""All that an evaluation measures on one pair, in this process or in several, kept in a file until the evaluation ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from restain.data import Pair
from restain.evaluation import stain
from restain.evaluation.agreement import ReadingRow
from restain.evaluation.baselines import MAP_ONLY, BaselineFit, baseline_answers
from restain.evaluation.distribution import SetFeatures
from restain.evaluation.features import find_extractors
from restain.evaluation.her2_classifier import DEFAULT, Her2Classifier, load_her2_classifier
from restain.evaluation.image import absolute_difference
from restain.evaluation.scoring import Reference, Scorer, read_reference, with_dab
from restain.evaluation.stain import Moments
from restain.evaluation.summary import ImageRow
from restain.files import digest, file_state, whole_file
from restain.her2 import Her2Level
from restain.images import Rgb
from restain.optics import glass_white, hematoxylin_density
from restain.prediction import Prediction
from restain.report import colour_map, save_pictures
from restain.report.pictures import DAB_TOP, DIFFERENCE_TOP, LARGE_SIDE, LARGEST_SIDE, save_picture

ALIGNED = ("model", "baseline_hematoxylin")
"""Methods that are aligned too: a registration takes longer than all other metrics together."""

VIRTUAL = ("virtual", "dab_virtual")
"""Pictures of a virtual stain."""

LARGE = ("he", "virtual", "real", "dab_virtual", "dab_reference", "hematoxylin")
"""Pictures that are also written as ``figures/NAME.KEY.large.jpg`` where the image is larger than the others."""

BINS = 80
"""Bins of the histogram of cells along either axis."""


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """What is measured; arguments of :func:`restain.evaluation.evaluate`, as processes can be given them."""

    mpp: float
    baselines: bool = True
    fit: BaselineFit | None = None
    align: bool = True
    quick: bool = False
    features: str | Path | None = None
    lpips: str | Path | None = None
    classifier: Path | None = None

    def identity(self) -> str:
        """Another text where the figures would be others."""
        facts = {key: value for key, value in asdict(self).items() if key != "fit"}
        fit = None if self.fit is None else [np.asarray(value).tolist() for value in asdict(self.fit).values()]
        return digest([{key: str(value) for key, value in facts.items()}, fit])


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """The figures of one pair."""

    rows: list[ImageRow]
    readings: list[ReadingRow]
    cells: NDArray[np.float64]
    """``(BINS, BINS)``: cells by reference and virtual DAB, cut off at ``DAB_TOP``."""
    features: dict[str, SetFeatures]
    """Features of the real image (``real``) and of each method's answer; empty without a network."""


class PairScorer:
    """Scores the answers for one pair after another.

    Args:
        options: what is measured.
        folder: of the evaluation; pictures for its report are written to ``figures`` there.
        threads: methods that are scored side by side.

    Raises:
        RestainError: if a network cannot be loaded.
    """

    def __init__(self, options: ScoringOptions, folder: Path, threads: int = 1) -> None:
        self.options, self.folder, self.threads = options, folder, threads
        self.extractors = find_extractors(options.features, options.lpips)
        self.classifier = load_classifier(options)

    def __call__(self, pair: Pair, answer: Prediction) -> ScoredPair:
        """Score the model's answer for a pair and the baselines'."""
        options = self.options
        he, real = pair.load()
        reference = read_reference(pair, real)
        answer = with_dab(answer, reference)
        methods = {"model": answer}
        if options.baselines:
            others = baseline_answers(he, reference, options.fit, answer, options.mpp)
            methods |= {method: with_dab(one, reference) for method, one in others.items()}
        readings: list[ReadingRow] = []
        rows = self._rows(pair, methods, reference, readings)
        self._read(pair, "real", Prediction(real, reference.dab), readings)
        features = {}
        if (network := self.extractors.distribution) is not None:
            pictures = {method: one.rgb for method, one in methods.items() if method not in MAP_ONLY}
            features = {method: SetFeatures(*network(rgb)) for method, rgb in {"real": real, **pictures}.items()}
        _save_panels(self.folder / "figures", pair.name, he, answer, reference)
        return ScoredPair(rows, readings, _cell_counts(answer, reference, options.mpp), features)

    def _rows(
        self, pair: Pair, methods: dict[str, Prediction], reference: Reference, readings: list[ReadingRow]
    ) -> list[ImageRow]:
        scorer = Scorer(reference, self.options.mpp, self.extractors.perceptual, quick=self.options.quick)
        level = pair.level.text if pair.level is not None else ""
        rows = []
        with ThreadPoolExecutor(self.threads) as pool:
            jobs = {}
            for method, answer in methods.items():
                aligned = self.options.align and method in ALIGNED
                jobs[method] = pool.submit(scorer, answer, aligned=aligned, map_only=method in MAP_ONLY)
            for method, answer in methods.items():
                read = ("", "")
                if method not in MAP_ONLY:
                    read = self._read(pair, method, answer, readings)
                values, moments = jobs[method].result()
                rows.append(
                    ImageRow(pair.name, level, method, values, moments, reference.source, pair.slide or "", *read)
                )
        return rows

    def _read(self, pair: Pair, method: str, answer: Prediction, readings: list[ReadingRow]) -> tuple[str, str]:
        """The HER2 levels by classifier and rule, as text; empty without a classifier."""
        if self.classifier is None:
            return "", ""
        assert answer.dab is not None
        read = self.classifier.read(answer.rgb, answer.dab, self.options.mpp)
        readings.append(ReadingRow(pair.name, pair.slide, pair.level, method, read.classifier, read.rule))
        return read.classifier.text, read.rule.text


def load_classifier(options: ScoringOptions) -> Her2Classifier | None:
    """The classifier that reads levels; None in a quick evaluation, or where none is shipped."""
    if options.quick or (options.classifier is None and not DEFAULT.is_dir()):
        return None
    return load_her2_classifier(options.classifier)


def _save_panels(folder: Path, name: str, he: Rgb, answer: Prediction, reference: Reference) -> None:
    assert answer.dab is not None
    difference = absolute_difference(answer.rgb, reference.real)
    hematoxylin = hematoxylin_density(he, glass_white(he))
    panels = {
        "he": he,
        "virtual": answer.rgb,
        "real": reference.real,
        "difference": colour_map(difference, "difference", DIFFERENCE_TOP),
        "dab_virtual": colour_map(answer.dab, "dab", DAB_TOP),
        "dab_reference": colour_map(reference.dab, "dab", DAB_TOP),
        "hematoxylin": colour_map(hematoxylin, "dab", DAB_TOP),
    }
    save_pictures(folder, name, panels, VIRTUAL)
    if max(he.shape) > LARGEST_SIDE:
        for key in LARGE:
            save_picture(folder / f"{name}.{key}.large.jpg", panels[key], virtual=key in VIRTUAL, side=LARGE_SIDE)


def _cell_counts(answer: Prediction, reference: Reference, mpp: float) -> NDArray[np.float64]:
    assert answer.dab is not None
    maps = (stain.cell_means(dab, stain.cell_px(mpp)) for dab in (reference.dab, answer.dab))
    edges = np.linspace(0, DAB_TOP, BINS + 1)
    across, up = (np.clip(one.ravel(), 0, DAB_TOP) for one in maps)
    return np.histogram2d(across, up, bins=(edges, edges))[0]


@dataclass(frozen=True, slots=True)
class _Stored:
    """An array in a file, read each time it is asked for."""

    path: Path
    key: str

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        with np.load(self.path) as file:
            return np.asarray(file[self.key], dtype)


class KeptScores:
    """Scored pairs in a folder, one file each, so that a killed evaluation resumes.

    Args:
        folder: where the files lie.
        identity: of model and options; None where it is unknown, so that no file of an earlier run is used.
    """

    def __init__(self, folder: Path, identity: str | None) -> None:
        self.folder = folder
        self.identity = os.urandom(16).hex() if identity is None else identity

    def save(self, pair: Pair, scored: ScoredPair) -> None:
        arrays = {"identity": np.array(self._of(pair)), "cells": scored.cells}
        for method, found in scored.features.items():
            arrays[f"features {method}"] = found.features.astype(np.float32)
            if found.classes is not None:
                arrays[f"classes {method}"] = found.classes
        figures = {"rows": [asdict(row) for row in scored.rows], "readings": [asdict(row) for row in scored.readings]}
        with whole_file(self._path(pair)) as partial, partial.open("wb") as file:
            arrays["figures"] = np.array(json.dumps(figures))
            np.savez(file, allow_pickle=False, **arrays)

    def load(self, pair: Pair) -> ScoredPair | None:
        """What :meth:`save` wrote for the same pair, model and options; None where there is none."""
        path = self._path(pair)
        try:
            with np.load(path) as file:
                if str(file["identity"]) != self._of(pair):
                    return None
                figures, cells, keys = json.loads(str(file["figures"])), file["cells"], file.files
        except (OSError, ValueError, KeyError):
            return None
        rows = [
            ImageRow(**row | {"moments": {k: Moments(**m) for k, m in row["moments"].items()}})
            for row in figures["rows"]
        ]
        readings = [ReadingRow(**row | _levels(row)) for row in figures["readings"]]
        features = {}
        for method in [key.removeprefix("features ") for key in keys if key.startswith("features ")]:
            classes = _Stored(path, f"classes {method}") if f"classes {method}" in keys else None
            features[method] = SetFeatures(_Stored(path, f"features {method}"), classes)
        return ScoredPair(rows, readings, cells, features)

    def _path(self, pair: Pair) -> Path:
        return self.folder / f"{pair.name}.npz"

    def _of(self, pair: Pair) -> str:
        return digest([self.identity, [file_state(path) for path in (pair.he_path, pair.ihc_path)]])


def _levels(row: dict[str, Any]) -> dict[str, Her2Level | None]:
    found = {key: row[key] for key in ("level", "classifier", "rule")}
    return {key: None if value is None else Her2Level(value) for key, value in found.items()}


def score_pairs(
    answers: Iterable[tuple[Pair, Callable[[], Prediction]]],
    options: ScoringOptions,
    folder: Path,
    kept: KeptScores,
    workers: int,
) -> Iterator[ScoredPair]:
    """Score pairs in their order; those that ``kept`` holds are not answered again.

    Args:
        answers: pairs with what makes the answer, which runs in this process while others score.
        options: what is measured.
        folder: of the evaluation.
        kept: where figures are kept.
        workers: processes that score; 0 scores in this one. Twice as many images are in memory at most.

    Raises:
        RestainError: if an image cannot be read or written.
    """
    if workers == 0:
        scorer: PairScorer | None = None
        for pair, predict in answers:
            if (found := kept.load(pair)) is None:
                scorer = scorer or PairScorer(options, folder, os.cpu_count() or 1)
                kept.save(pair, scorer(pair, predict()))
                found = kept.load(pair)
            assert found is not None
            yield found
        return
    # Threads of OpenMP do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (options, folder, kept))
    waiting: deque[tuple[Pair, ScoredPair | Future[None]]] = deque()

    def first() -> ScoredPair:
        pair, found = waiting.popleft()
        if isinstance(found, ScoredPair):
            return found
        found.result()
        scored = kept.load(pair)
        assert scored is not None
        return scored

    try:
        for pair, predict in answers:
            waiting.append((pair, kept.load(pair) or pool.submit(_score_in_worker, pair, predict())))
            if len(waiting) > 2 * workers:
                yield first()
        while waiting:
            yield first()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_WORKER: list[tuple[PairScorer, KeptScores]] = []


def _start_worker(options: ScoringOptions, folder: Path, kept: KeptScores) -> None:
    # The main process ends workers after Ctrl-C; if it is killed, they end themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _WORKER.append((PairScorer(options, folder), kept))


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _score_in_worker(pair: Pair, answer: Prediction) -> None:
    ((scorer, kept),) = _WORKER
    kept.save(pair, scorer(pair, answer))
