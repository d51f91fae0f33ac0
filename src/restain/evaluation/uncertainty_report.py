"""Does uncertainty find the errors, and are corrupted inputs flagged? The ``--uncertainty`` part of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import restain
from restain.data import Pair
from restain.data.normalization import picture_normalizer
from restain.evaluation import stain
from restain.evaluation.abstention import abstention
from restain.evaluation.background import background_de
from restain.evaluation.corruptions import CORRUPTIONS
from restain.evaluation.held_out import HeldOut
from restain.evaluation.her2_classifier import Her2Classifier
from restain.evaluation.scoring import Reference, read_reference, with_dab
from restain.evaluation.uncertainty import VIEWS, Assessment, assess, confidence
from restain.files import make_folder, write_json
from restain.ood.detector import OodDetector, fit_ood_detector
from restain.prediction import Prediction
from restain.progress import Progress
from restain.report import colour_map, save_picture, save_pictures, write_page
from restain.report.plots import Line, line_plot
from restain.slides import read_image
from restain.stain import Model, expand
from restain.statistics import json_ready, mean_interval, wilson_interval

Rgb = NDArray[np.uint8]
Values = NDArray[np.float64]

GOAL_FLAGGED, GOAL_FALSE = 0.95, 0.05
"""restain's own goals: flagged share of every kind of corrupted input, and of good ones at most."""

PIXELS = 1000
"""Pixels of an image that are drawn for the curve over pixels."""

UNCERTAINTY_TOP, ERROR_TOP = 0.1, 0.5
"""OD at the bright end of the maps."""

ERRORS = {
    "cell_error": "mean DAB error per 16 µm cell, OD",
    "mean_error": "error of the mean DAB, OD",
    "background_de": "background ΔE₀₀",
    "classifier_wrong": "HER2 reading wrong (classifier)",
    "rule_wrong": "HER2 reading wrong (rule)",
}
"""Errors of an image, which should fall when uncertain images are withheld."""

ORDERS = {
    "confidence": "confidence (disagreement and OOD score)",
    "disagreement": "disagreement alone",
    "ood_score": "OOD score alone",
}
"""What images are ordered by."""


def evaluate_uncertainty(
    held_out: HeldOut,
    out: Path,
    *,
    ensemble: Sequence[Model] = (),
    foreign: Sequence[Path] = (),
    images: int = 24,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Assess held-out pairs, and corrupted copies of them; writes ``uncertainty.json`` and ``uncertainty.html``.

    Every image is assessed as it is, and once more with a corruption that keeps its place, so that its real image is
    still the right answer. The OOD detector judges every kind of corruption of every image. A bundle without a detector
    gets one for this page, fitted on ``held_out.training``.

    Args:
        held_out: model and pairs.
        out: folder of the results; made where needed.
        ensemble: more models, whose spread with the first is then the uncertainty.
        foreign: pictures of other tissue at the model's mpp, or folders of them, which should be flagged.
        images: most pairs, the first by name.
        seed: of the corruptions, the sample of pixels and the bootstrap.
        command: the command line, for the page.
        progress: called with steps done and in all.

    Returns:
        The content of ``uncertainty.json``.

    Raises:
        RestainError: if there are no pairs, an image cannot be read, or a result cannot be written.
    """
    strangers = [(path, read_image(path)) for path in expand(foreign)]
    chosen = held_out.first(images)
    make_folder(out / "figures")
    detector, note = _detector(held_out)
    run = _Run(held_out, [held_out.model, *ensemble], detector, out / "figures", seed)
    total = 3 * len(chosen) + len(strangers)
    done = 0
    for done, _ in enumerate(run.steps(chosen, strangers), 1):
        if progress is not None:
            progress(done, total)
    result: dict[str, Any] = json_ready(
        {
            "notice": restain.NOTICE,
            "model": ", ".join(model.label for model in run.models),
            "disagreement": f"ensemble of {len(run.models)} models"
            if ensemble
            else f"{VIEWS} turned and mirrored views",
            "ood": note,
            "classifier": held_out.classifier_label,
            "images": [pair.name for pair in chosen],
            "curves": run.curves(),
            "flags": _flags(run.flagged),
            "goals": {"flagged": GOAL_FLAGGED, "false": GOAL_FALSE},
            "means": {
                key: mean_interval([row[key] for row in run.rows], seed)
                for key in (*ERRORS, "disagreement", "confidence")
                if key in run.rows[0]
            },
            "rows": run.rows + run.corrupted_rows,
            "command": command,
            "restain": restain.__version__,
        }
    )
    write_json(out / "uncertainty.json", result)
    _write_page(out, result, run.gallery)
    return result


def _detector(held_out: HeldOut) -> tuple[OodDetector | None, str]:
    """The OOD detector and where it comes from, or why it is absent."""
    bundle = held_out.model.bundle
    if (known := bundle.ood) is not None:
        return known, f"The bundle's own, of {known.images} training images; the limit lets {known.quantile:.0%} pass."
    if not held_out.training:
        return None, "absent: the bundle has no detector, and there is no training split to fit one on."
    found = fit_ood_detector(
        held_out.training,
        bundle.recipe.data.augment,
        seed=bundle.recipe.seed,
        normalize=picture_normalizer(bundle.recipe),
    )
    return found, f"The bundle has none; fitted for this page on {found.images} training images."


class _Run:
    """Rows, curves and flags, gathered pair by pair."""

    def __init__(
        self, held_out: HeldOut, models: Sequence[Model], detector: OodDetector | None, folder: Path, seed: int
    ) -> None:
        self.held_out, self.models, self.detector, self.folder, self.seed = held_out, models, detector, folder, seed
        self.views = VIEWS if len(models) == 1 else 1
        self.rows: list[dict[str, Any]] = []
        self.corrupted_rows: list[dict[str, Any]] = []
        self.cells: list[tuple[Values, Values]] = []
        self.pixels: list[tuple[Values, Values]] = []
        self.flagged: dict[str, list[bool]] = {}
        self.gallery: list[dict[str, str]] = []

    def steps(self, pairs: Sequence[Pair], strangers: Sequence[tuple[Path, Rgb]]) -> Any:
        """Three steps for each pair and one for each stranger; yields after each."""
        mpp = self.held_out.mpp
        keeping = [number for number, kind in enumerate(CORRUPTIONS) if kind.keeps_place]
        for number, pair in enumerate(pairs):
            he, real = pair.load()
            reference = read_reference(pair, real)
            assessment = self._assess(he)
            answer = with_dab(assessment.prediction, reference)
            assert answer.dab is not None
            self.rows.append(self._row(pair, assessment, answer, reference) | {"kind": "good"})
            side = stain.cell_px(mpp)
            uncertainty = stain.cell_means(assessment.uncertainty, side).ravel()
            self.cells.append((uncertainty, _cell_error(answer, reference, mpp).ravel()))
            rng = np.random.default_rng([self.seed, 1, number])
            drawn = rng.choice(answer.dab.size, min(PIXELS, answer.dab.size), replace=False)
            error = np.abs(answer.dab - reference.dab)
            self.pixels.append(
                (assessment.uncertainty.ravel()[drawn].astype(np.float64), error.ravel()[drawn].astype(np.float64))
            )
            pictures = {
                "uncertainty_he": he,
                "uncertainty_virtual": answer.rgb,
                "uncertainty_real": reference.real,
                "uncertainty_spread": colour_map(assessment.uncertainty, "difference", UNCERTAINTY_TOP),
                "uncertainty_error": colour_map(error, "difference", ERROR_TOP),
            }
            save_pictures(self.folder, pair.name, pictures, ("uncertainty_virtual",))
            yield
            place = keeping[number % len(keeping)]
            assessed = self._assess(self._corrupted(place, he, real, number))
            row = self._row(pair, assessed, with_dab(assessed.prediction, reference), reference)
            self.corrupted_rows.append(row | {"kind": CORRUPTIONS[place].key})
            yield
            if self.detector is not None:
                self.flagged.setdefault("good", []).append(assessment.in_distribution is False)
            for place, kind in enumerate(CORRUPTIONS):
                self._flag(kind.key, kind.title, self._corrupted(place, he, real, number), show=number == 0)
            yield
        for number, (path, picture) in enumerate(strangers):
            self._flag("foreign", f"other tissue: {path.name}", picture, show=number == 0)
            yield

    def curves(self) -> list[dict[str, Any]]:
        """Risk-coverage curves of images by each order and error, and of cells and pixels by disagreement."""
        curves = self._curves(self.rows, "the held-out images") + self._curves(
            self.rows + self.corrupted_rows, "the held-out images and a corrupted copy of each"
        )
        for title, parts, words in (
            ("cells", self.cells, "DAB error of a 16 µm cell, OD"),
            ("pixels", self.pixels, "DAB error of a pixel, OD"),
        ):
            found = abstention([p[0] for p in parts], [p[1] for p in parts], self.seed)
            if found is not None:
                curves.append({"pool": title, "order": "disagreement", "error": title, "title": words, **asdict(found)})
        return curves

    def _assess(self, he: Rgb) -> Assessment:
        return assess(self.models, he, views=self.views, ood=self.detector)

    def _corrupted(self, place: int, he: Rgb, real: Rgb, number: int) -> Rgb:
        rng = np.random.default_rng([self.seed, 2, number, place])
        return CORRUPTIONS[place].make(he, real, self.held_out.mpp, rng)

    def _flag(self, key: str, title: str, picture: Rgb, *, show: bool) -> None:
        if self.detector is None:
            return
        judged = self.detector.judge(picture)
        self.flagged.setdefault(key, []).append(not judged.in_distribution)
        if show:
            crop = picture[:512, :512] if key == "foreign" else picture
            save_picture(self.folder / f"wrong-{key}.he.jpg", crop, virtual=False)
            save_picture(self.folder / f"wrong-{key}.virtual.jpg", self.models[0].predict(crop).rgb, virtual=True)
            self.gallery.append({"key": key, "title": title, "reason": judged.reason})

    def _row(self, pair: Pair, assessed: Assessment, answer: Prediction, reference: Reference) -> dict[str, Any]:
        assert answer.dab is not None
        row: dict[str, Any] = {
            "name": pair.name,
            "confidence": assessed.confidence,
            "disagreement": assessed.disagreement,
            "score": assessed.score,
            "in_distribution": assessed.in_distribution,
            "reason": assessed.reason,
            "cell_error": float(_cell_error(answer, reference, self.held_out.mpp).mean()),
            "mean_error": abs(stain.dab_mean(answer.dab) - stain.dab_mean(reference.dab)),
            "background_de": background_de(answer.rgb, reference.real, reference.background),
        }
        classifier: Her2Classifier | None = self.held_out.classifier
        if classifier is not None and pair.level is not None:
            reading = classifier.read(answer.rgb, answer.dab, self.held_out.mpp)
            row["classifier_wrong"] = float(reading.classifier != pair.level)
            row["rule_wrong"] = float(reading.rule != pair.level)
        return row

    def _curves(self, rows: Sequence[Mapping[str, Any]], pool: str) -> list[dict[str, Any]]:
        # An image and its corrupted copy are one unit of the bootstrap, because they show the same tissue.
        names = list(dict.fromkeys(row["name"] for row in rows))
        groups = [[row for row in rows if row["name"] == name] for name in names]
        curves = []
        for order in ORDERS:
            if order == "ood_score" and any(row["score"] is None for row in rows):
                continue
            uncertainty = [np.array([_uncertainty(row, order) for row in group]) for group in groups]
            for key, title in ERRORS.items():
                if key not in rows[0]:
                    continue
                errors = [np.array([row.get(key, np.nan) for row in group]) for group in groups]
                found = abstention(uncertainty, errors, self.seed)
                if found is not None:
                    curves.append({"pool": pool, "order": order, "error": key, "title": title, **asdict(found)})
        return curves


def _cell_error(answer: Prediction, reference: Reference, mpp: float) -> Values:
    assert answer.dab is not None
    side = stain.cell_px(mpp)
    error: Values = np.abs(stain.cell_means(answer.dab, side) - stain.cell_means(reference.dab, side))
    return error


def _uncertainty(row: Mapping[str, Any], order: str) -> float:
    if order == "confidence":
        return 1 - confidence(row["disagreement"], row["score"])
    return float(row["disagreement" if order == "disagreement" else "score"])


def _flags(flagged: Mapping[str, Sequence[bool]]) -> list[dict[str, Any]]:
    """Share flagged of every kind with Wilson's interval, and whether the goal is reached."""
    titles = {"good": "held-out images as they are"} | {kind.key: kind.title for kind in CORRUPTIONS}
    titles["foreign"] = "pictures of other tissue"
    found = []
    for key, flags in flagged.items():
        mean = sum(flags) / len(flags)
        reached = mean <= GOAL_FALSE if key == "good" else mean >= GOAL_FLAGGED
        share = wilson_interval(sum(flags), len(flags))
        found.append({"key": key, "title": titles[key], **share.plain(), "reached": reached})
    return found


def _write_page(out: Path, result: dict[str, Any], gallery: Sequence[Mapping[str, str]]) -> None:
    good = sorted((row for row in result["rows"] if row["kind"] == "good"), key=lambda row: -row["confidence"])
    picks = {0: "most certain", (len(good) - 1) // 2: "in the middle", len(good) - 1: "least certain"}
    plots = []
    for curve in result["curves"]:
        if curve["order"] == "confidence" or curve["error"] in ("cells", "pixels"):
            lines = [
                Line("by uncertainty", curve["kept"], curve["risk"]),
                Line("oracle", curve["kept"], curve["oracle"]),
                Line("random", [curve["kept"][0], 1.0], [curve["random"]] * 2),
            ]
            svg = line_plot(lines, "share kept", curve["title"])
            plots.append({"caption": f"{curve['title']}; {curve['pool']}", "svg": svg})
    write_page(
        out / "uncertainty.html",
        "uncertainty.html.j2",
        "restain.evaluation",
        title=f"Uncertainty of {result['model']}",
        result=result,
        orders=ORDERS,
        plots=plots,
        cases=[{"words": words} | good[place] for place, words in picks.items()],
        gallery=gallery,
        tops={"uncertainty": UNCERTAINTY_TOP, "error": ERROR_TOP},
        facts={
            "Model": result["model"],
            "Images": f"{len(result['images'])}: {', '.join(result['images'])}",
            "Disagreement": result["disagreement"],
            "Out-of-distribution detection": result["ood"],
            "HER2 classifier": result["classifier"],
            "Command": result["command"],
        },
    )
