"""The trust part of an evaluation: does doubt tell where the errors are, and are wrong inputs flagged?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import restain
from restain.data import Pair
from restain.errors import RestainError
from restain.evaluation import stain
from restain.evaluation.abstention import Abstention, abstention
from restain.evaluation.background import background_de
from restain.evaluation.corruptions import SPOILINGS
from restain.evaluation.her2_classifier import Her2Classifier
from restain.evaluation.reference import Reference, read_reference, with_dab
from restain.evaluation.trust import VIEWS, Trust, assess, confidence
from restain.files import make_folder, write_json
from restain.ood.detector import OodDetector
from restain.prediction import Prediction
from restain.report import colour_map, save_picture, write_page
from restain.report.plots import Line, line_plot
from restain.slides import read_image
from restain.stain import Model
from restain.statistics import json_ready, mean_interval, wilson_interval

Rgb = NDArray[np.uint8]

GOAL_FLAGGED, GOAL_FALSE = 0.95, 0.05
"""restain's own goals: of every kind of wrong input this share flagged, of good ones at most this share."""

PIXELS = 1000
"""Pixels of an image that are drawn for the curve over pixels."""

DOUBT_TOP, ERROR_TOP = 0.1, 0.5
"""OD at the bright end of the doubt and the error maps."""

ERRORS = {
    "cell_error": "mean DAB error per 16 µm cell, OD",
    "mean_error": "error of the mean DAB, OD",
    "background_de": "background ΔE₀₀",
    "classifier_wrong": "HER2 reading wrong (classifier)",
    "rule_wrong": "HER2 reading wrong (rule)",
}
"""Errors of an image; each is a number that should fall when doubtful images are withheld."""

ORDERS = {
    "doubt": "confidence (disagreement and OOD score)",
    "disagreement": "disagreement alone",
    "ood_score": "OOD score alone",
}


def measure_trust(
    models: Sequence[Model],
    pairs: Sequence[Pair],
    out: Path,
    *,
    ood: OodDetector | None,
    ood_note: str = "",
    classifier: Her2Classifier | None = None,
    classifier_note: str = "",
    foreign: Sequence[Path] = (),
    images: int = 24,
    mpp: float = 0.46,
    seed: int = 0,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Assess held-out pairs, and wrong inputs made from them; writes ``trust.json`` and ``trust.html`` into ``out``.

    Every image is assessed as it is, and once more spoiled in one of the ways that keep its place, so that its real image
    still says what the answer should be. Every kind of wrong input is made of every image and judged by the OOD detector.

    Args:
        models: the model; more are an ensemble.
        pairs: held-out pairs; the first ``images`` by name are used.
        out: folder of the results; made where needed.
        ood: what the training images looked like; without it nothing can be flagged, and the page says so.
        ood_note: where it comes from, or why it is absent.
        classifier: reads HER2 levels; without it the errors of reading are absent.
        classifier_note: why it is absent.
        foreign: pictures of other tissue at the model's mpp, which should be flagged.
        images: most pairs.
        mpp: micrometres per pixel.
        seed: of the spoiling, the sample of pixels and the bootstrap.
        command: the command line, for the page.
        progress: called with steps done and in all.

    Returns:
        What ``trust.json`` holds.

    Raises:
        RestainError: if there are no pairs, an image cannot be read, or a result cannot be written.
    """
    chosen = sorted(pairs, key=lambda pair: pair.name)[:images]
    if not chosen:
        raise RestainError("There are no pairs to measure trust on.")
    strangers = [(path, read_image(path)) for path in foreign]
    total, done = 3 * len(chosen) + len(strangers), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    views = VIEWS if len(models) == 1 else 1
    rows: list[dict[str, Any]] = []
    corrupted_rows: list[dict[str, Any]] = []
    cells: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    pixels: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    flagged: dict[str, list[bool]] = {}
    keeping = [number for number, kind in enumerate(SPOILINGS) if kind.keeps_place]
    gallery: list[dict[str, str]] = []
    make_folder(out / "figures")
    for number, pair in enumerate(chosen):
        he, real = pair.load()
        reference = read_reference(pair, real)
        trust = assess(models, he, views=views, ood=ood)
        answer = with_dab(trust.prediction, reference)
        rows.append(_row(pair, trust, answer, reference, classifier, mpp) | {"kind": "good"})
        cells.append(_cells(trust, answer, reference, mpp))
        pixels.append(_pixels(trust, answer, reference, np.random.default_rng([seed, 1, number])))
        _save_case(out / "figures", pair.name, he, trust, answer, reference)
        tick()
        which = keeping[number % len(keeping)]
        wrong = SPOILINGS[which].make(he, real, mpp, np.random.default_rng([seed, 2, number, which]))
        distrust = assess(models, wrong, views=views, ood=ood)
        row = _row(pair, distrust, with_dab(distrust.prediction, reference), reference, classifier, mpp)
        corrupted_rows.append(row | {"kind": SPOILINGS[which].key})
        tick()
        if ood is not None:
            flagged.setdefault("good", []).append(trust.in_distribution is False)
            for place, kind in enumerate(SPOILINGS):
                wrong = kind.make(he, real, mpp, np.random.default_rng([seed, 2, number, place]))
                verdict = ood.judge(wrong)
                flagged.setdefault(kind.key, []).append(not verdict.in_distribution)
                if number == 0:
                    gallery.append(_save_wrong(out / "figures", kind.key, kind.title, wrong, models[0], verdict.reason))
        tick()
    for number, (path, picture) in enumerate(strangers):
        if ood is not None:
            verdict = ood.judge(picture)
            flagged.setdefault("foreign", []).append(not verdict.in_distribution)
            if number == 0:
                title = f"other tissue: {path.name}"
                gallery.append(
                    _save_wrong(out / "figures", "foreign", title, picture[:512, :512], models[0], verdict.reason)
                )
        tick()

    curves = _curves(rows, "the held-out images", seed) + _curves(
        rows + corrupted_rows, "the held-out images and a spoiled copy of each", seed
    )
    for title, parts, words in (
        ("cells", cells, "DAB error of a 16 µm cell, OD"),
        ("pixels", pixels, "DAB error of a pixel, OD"),
    ):
        found = abstention([p[0] for p in parts], [p[1] for p in parts], seed)
        if found is not None:
            curves.append({"pool": title, "order": "disagreement", "error": title, "title": words, **asdict(found)})
    result: dict[str, Any] = json_ready(
        {
            "notice": restain.NOTICE,
            "model": ", ".join(model.label for model in models),
            "disagreement": f"{VIEWS} turned and mirrored views"
            if len(models) == 1
            else f"ensemble of {len(models)} models",
            "ood": ood_note,
            "classifier": classifier.label if classifier is not None else f"absent: {classifier_note}",
            "images": [pair.name for pair in chosen],
            "curves": curves,
            "flags": _flags(flagged),
            "goals": {"flagged": GOAL_FLAGGED, "false": GOAL_FALSE},
            "means": {
                key: asdict(mean_interval([row[key] for row in rows], seed))
                for key in (*ERRORS, "disagreement", "confidence")
                if key in rows[0]
            },
            "rows": rows + corrupted_rows,
            "command": command,
            "restain": restain.__version__,
        }
    )
    write_json(out / "trust.json", result)
    _write_page(out, result, gallery)
    return result


def _row(
    pair: Pair, trust: Trust, answer: Prediction, reference: Reference, classifier: Her2Classifier | None, mpp: float
) -> dict[str, Any]:
    assert answer.dab is not None
    row: dict[str, Any] = {
        "name": pair.name,
        "confidence": trust.confidence,
        "disagreement": trust.disagreement,
        "score": trust.score,
        "in_distribution": trust.in_distribution,
        "reason": trust.reason,
        "cell_error": float(_cell_error(answer, reference, mpp).mean()),
        "mean_error": abs(stain.dab_mean(answer.dab) - stain.dab_mean(reference.dab)),
        "background_de": background_de(answer.rgb, reference.real, reference.background),
    }
    if classifier is not None and pair.level is not None:
        reading = classifier.read(answer.rgb, answer.dab, mpp)
        row["classifier_wrong"] = float(reading.classifier != pair.level)
        row["rule_wrong"] = float(reading.rule != pair.level)
    return row


def _cell_error(answer: Prediction, reference: Reference, mpp: float) -> NDArray[np.float64]:
    assert answer.dab is not None
    side = stain.cell_px(mpp)
    error: NDArray[np.float64] = np.abs(stain.cell_means(answer.dab, side) - stain.cell_means(reference.dab, side))
    return error


def _cells(
    trust: Trust, answer: Prediction, reference: Reference, mpp: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    doubt = stain.cell_means(trust.doubt, stain.cell_px(mpp))
    return doubt.ravel(), _cell_error(answer, reference, mpp).ravel()


def _pixels(
    trust: Trust, answer: Prediction, reference: Reference, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert answer.dab is not None
    drawn = rng.choice(trust.doubt.size, min(PIXELS, trust.doubt.size), replace=False)
    error = np.abs(answer.dab - reference.dab).ravel()[drawn]
    return trust.doubt.ravel()[drawn].astype(np.float64), error.astype(np.float64)


def _curves(rows: Sequence[Mapping[str, Any]], pool: str, seed: int) -> list[dict[str, Any]]:
    curves = []
    for order in ORDERS:
        if order == "ood_score" and any(row["score"] is None for row in rows):
            continue
        doubt = [_doubt(row, order) for row in rows]
        for key, title in ERRORS.items():
            if key not in rows[0]:
                continue
            # Image and spoiled copy are one part of the bootstrap, because they show the same tissue.
            names = list(dict.fromkeys(row["name"] for row in rows))
            groups = [[i for i, row in enumerate(rows) if row["name"] == name] for name in names]
            found: Abstention | None = abstention(
                [np.array([doubt[i] for i in group]) for group in groups],
                [np.array([rows[i].get(key, np.nan) for i in group]) for group in groups],
                seed,
            )
            if found is not None:
                curves.append({"pool": pool, "order": order, "error": key, "title": title, **asdict(found)})
    return curves


def _doubt(row: Mapping[str, Any], order: str) -> float:
    if order == "disagreement":
        return float(row["disagreement"])
    if order == "ood_score":
        return float(row["score"])
    return 1 - confidence(row["disagreement"], row["score"])


def _flags(flagged: Mapping[str, Sequence[bool]]) -> list[dict[str, Any]]:
    """Share flagged of every kind with its 95 % interval (Wilson, *J Am Stat Assoc* 22:209, 1927)."""
    titles = {"good": "held-out images as they are"} | {kind.key: kind.title for kind in SPOILINGS}
    titles["foreign"] = "pictures of other tissue"
    found = []
    for key, flags in flagged.items():
        mean = sum(flags) / len(flags)
        reached = mean <= GOAL_FALSE if key == "good" else mean >= GOAL_FLAGGED
        found.append(
            {"key": key, "title": titles[key], **wilson_interval(sum(flags), len(flags)).plain(), "reached": reached}
        )
    return found


def _save_case(folder: Path, name: str, he: Rgb, trust: Trust, answer: Prediction, reference: Reference) -> None:
    assert answer.dab is not None
    error = np.abs(answer.dab - reference.dab)
    panels = {
        "trust_he": he,
        "trust_virtual": answer.rgb,
        "trust_real": reference.real,
        "trust_doubt": colour_map(trust.doubt, "difference", DOUBT_TOP),
        "trust_error": colour_map(error, "difference", ERROR_TOP),
    }
    for key, picture in panels.items():
        save_picture(folder / f"{name}.{key}.jpg", picture, virtual=key == "trust_virtual")


def _save_wrong(folder: Path, key: str, title: str, wrong: Rgb, model: Model, reason: str) -> dict[str, str]:
    save_picture(folder / f"wrong-{key}.he.jpg", wrong, virtual=False)
    save_picture(folder / f"wrong-{key}.virtual.jpg", model.predict(wrong).rgb, virtual=True)
    return {
        "title": title,
        "reason": reason,
        "he": f"figures/wrong-{key}.he.jpg",
        "virtual": f"figures/wrong-{key}.virtual.jpg",
    }


def _write_page(out: Path, result: dict[str, Any], gallery: Sequence[Mapping[str, str]]) -> None:
    good = sorted((row for row in result["rows"] if row["kind"] == "good"), key=lambda row: -row["confidence"])
    picks = {0: "most trusted", (len(good) - 1) // 2: "in the middle", len(good) - 1: "least trusted"}
    plots = []
    for curve in result["curves"]:
        if curve["order"] == "doubt" or curve["error"] in ("cells", "pixels"):
            lines = [
                Line("by doubt", curve["kept"], curve["risk"]),
                Line("oracle", curve["kept"], curve["oracle"]),
                Line("random", [curve["kept"][0], 1.0], [curve["random"]] * 2),
            ]
            plots.append(
                {"caption": f"{curve['title']}; {curve['pool']}", "svg": line_plot(lines, "share kept", curve["title"])}
            )
    write_page(
        out / "trust.html",
        "trust.html.j2",
        "restain.evaluation",
        title=f"Trust in {result['model']}",
        result=result,
        orders=ORDERS,
        plots=plots,
        cases=[{"words": words} | good[place] for place, words in picks.items()],
        gallery=gallery,
        tops={"doubt": DOUBT_TOP, "error": ERROR_TOP},
        facts=[
            ("Model", result["model"]),
            ("Images", f"{len(result['images'])}: {', '.join(result['images'])}"),
            ("Disagreement", result["disagreement"]),
            ("Out-of-distribution detection", result["ood"]),
            ("HER2 classifier", result["classifier"]),
            ("Command", result["command"]),
        ],
    )
