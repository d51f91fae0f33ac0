"""Robustness: how the virtual image changes with the staining and the scanner of the same H&E.

Every setting changes the H&E image alone, in optical density by the model of the training's augmentation
(:func:`restain.data.vary_he`), or by JPEG. The tissue is the same, so the virtual image should be too. The same model after
Macenko's and Reinhard's stain normalisation (the package ``torchstain``) is measured for comparison.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import restain
from restain.data import Pair, vary_he
from restain.errors import RestainError, needs
from restain.evaluation import stain
from restain.evaluation.background import background_de
from restain.evaluation.corruptions import jpeg
from restain.evaluation.held_out import HeldOut
from restain.evaluation.her2_classifier import Reading
from restain.evaluation.scoring import Reference, read_reference, with_dab
from restain.files import make_folder, write_json
from restain.her2 import Her2Level
from restain.prediction import Prediction
from restain.progress import Progress
from restain.report import save_picture, write_page
from restain.report.plots import Line, line_plot
from restain.stain import Model
from restain.statistics import json_ready, mean_interval

Rgb = NDArray[np.uint8]
Normaliser = Callable[[Rgb], Rgb]

GOAL = 0.05
"""Largest share of images whose reading may change over the stain strengths."""

HUE = ((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0))
"""Direction in which both stains' absorption (R, G, B) moves: less red and more blue absorbed looks redder."""

TINT = (0.0, -0.3, -1.0)
"""Direction of the white point's tint per unit: towards a warm lamp."""

TARGET_IMAGES = 40
"""Most training images among which the normalisers' target is chosen."""

STRENGTH = ("hematoxylin", "eosin", "both")
"""The families of settings that the goal is about."""


@dataclass(frozen=True, slots=True)
class Family:
    """One thing that is varied, and over which values."""

    key: str
    title: str
    unchanged: float
    values: tuple[float, ...]
    change: Callable[[Rgb, float], Rgb]


FAMILIES = (
    Family("hematoxylin", "hematoxylin strength", 1.0, (0.7, 0.85, 1.15, 1.3), lambda he, v: vary_he(he, (v, 1.0))),
    Family("eosin", "eosin strength", 1.0, (0.7, 0.85, 1.15, 1.3), lambda he, v: vary_he(he, (1.0, v))),
    Family("both", "strength of both stains", 1.0, (0.7, 0.85, 1.15, 1.3), lambda he, v: vary_he(he, (v, v))),
    Family(
        "hue", "hue, bluer to redder", 0.0, (-0.1, -0.05, 0.05, 0.1), lambda he, v: vary_he(he, shift=v * np.array(HUE))
    ),
    Family("white", "scanner white, brightness", 1.0, (0.85, 0.9, 0.95), lambda he, v: vary_he(he, dimmed=v)),
    Family("tint", "scanner white, cool to warm", 0.0, (-0.1, -0.05, 0.05, 0.1), lambda he, v: _tinted(he, v)),
    Family("jpeg", "JPEG quality", 100.0, (95, 80, 65, 50, 30), lambda he, v: jpeg(he, int(v))),
)
"""The range table."""


def _tinted(he: Rgb, warmth: float) -> Rgb:
    factors = 1 + warmth * np.array(TINT)
    return vary_he(he, dimmed=factors / factors.max())


FIGURES = {
    "dab_r16": ("DAB r, 16 µm cells, against the real image", 3),
    "dab_mean_change": ("change of mean DAB against the unswept answer, OD", 4),
    "de_unswept": ("background ΔE₀₀ against the unswept answer", 2),
    "de_real": ("background ΔE₀₀ against the real image", 2),
    "classifier_changed": ("HER2 reading changed (classifier)", 3),
    "rule_changed": ("HER2 reading changed (rule)", 3),
    "classifier_right": ("HER2 reading right (classifier)", 3),
    "rule_right": ("HER2 reading right (rule)", 3),
    "ood": ("flagged as out of distribution", 3),
}
"""Columns of the results with their digits; each is a mean over images."""


def normalisers(training: Sequence[Pair], seed: int = 0) -> tuple[dict[str, Normaliser], str]:
    """Macenko's and Reinhard's stain normalisation to a training image, and what they are fitted on, in words.

    The target is the training image whose mean optical density is the median one. M. Macenko et al., "A method for
    normalizing histology slides for quantitative analysis", ISBI 2009; E. Reinhard et al., "Color transfer between
    images", *IEEE Comput Graph Appl* 21:34, 2001.

    Returns:
        The functions by name; none, and the reason, without training images or without the extra ``restain[stain-norm]``.
    """
    if not training:
        return {}, "absent: there is no training split to take a target from"
    try:
        with needs("stain-norm", "it"):
            import torchstain
    except RestainError as fault:
        return {}, f"absent: {fault}"
    chosen = range(len(training))
    if len(training) > TARGET_IMAGES:
        drawn = np.random.default_rng([seed, 7]).choice(len(training), TARGET_IMAGES, replace=False)
        chosen = np.sort(drawn).tolist()
    images = [training[i].load()[0][::4, ::4] for i in chosen]
    means = [float(image.mean()) for image in images]
    middle = chosen[int(np.argsort(means)[(len(means) - 1) // 2])]
    target = training[middle].load()[0]
    macenko = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    reinhard = torchstain.normalizers.ReinhardNormalizer(backend="numpy")
    macenko.fit(target)
    reinhard.fit(target)

    def by_macenko(he: Rgb) -> Rgb:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                normal: Rgb = macenko.normalize(he, stains=False)[0]
            return normal
        except (np.linalg.LinAlgError, IndexError, ValueError):
            return he

    def by_reinhard(he: Rgb) -> Rgb:
        with np.errstate(all="ignore"):
            normal: Rgb = reinhard.normalize(he)
        return normal

    return {"macenko": by_macenko, "reinhard": by_reinhard}, f"target: {training[middle].name} of the training split"


TITLES = {"model": "the model", "macenko": "behind Macenko", "reinhard": "behind Reinhard"}


@dataclass(frozen=True, slots=True)
class _Answer:
    prediction: Prediction
    reading: Reading | None


def sweep(
    held_out: HeldOut,
    out: Path,
    *,
    images: int = 12,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Vary the H&E of some pairs, stain, and measure what changes; writes ``sweep.json`` and ``sweep.html``.

    Args:
        held_out: model and pairs; one of its training pairs is the normalisers' target.
        out: folder of the results; made where needed.
        images: most pairs, the first by name.
        seed: of the bootstrap and of the target's choice.
        command: the command line, for the page.
        progress: called with answers done and in all.

    Returns:
        The content of ``sweep.json``.

    Raises:
        RestainError: if there are no pairs, an image cannot be read, or a result cannot be written.
    """
    chosen = held_out.first(images)
    model, classifier, mpp = held_out.model, held_out.classifier, held_out.mpp
    lines, target = normalisers(held_out.training, seed)
    methods: dict[str, Normaliser] = {"model": lambda he: he} | lines
    settings = [(family, value) for family in FAMILIES for value in family.values]
    total, done = len(chosen) * len(methods) * (1 + len(settings)), 0
    values: dict[tuple[str, str, float], list[dict[str, float]]] = {}

    def answer(he: Rgb, reference: Reference) -> _Answer:
        nonlocal done
        given = with_dab(model.predict(he), reference)
        assert given.dab is not None
        reading = None if classifier is None else classifier.read(given.rgb, given.dab, mpp)
        done += 1
        if progress is not None:
            progress(done, total)
        return _Answer(given, reading)

    make_folder(out / "figures")
    strip: list[dict[str, str]] = []
    for number, pair in enumerate(chosen):
        he, real = pair.load()
        reference = read_reference(pair, real)
        plain = {method: answer(change(he), reference) for method, change in methods.items()}
        for method, own in plain.items():
            row = _figures(own, own, reference, pair.level, mpp) | _ood(model, he, method)
            values.setdefault((method, "unchanged", 0.0), []).append(row)
        for family, value in settings:
            swept = family.change(he, value)
            for method, change in methods.items():
                own = answer(change(swept), reference)
                row = _figures(own, plain[method], reference, pair.level, mpp) | _ood(model, swept, method)
                values.setdefault((method, family.key, value), []).append(row)
                if number == 0 and method == "model" and value in (family.values[0], family.values[-1]):
                    strip.append(_picture(out, f"{family.title} {value:g}", swept, own.prediction.rgb))

    rows = [
        {"method": method, "family": family, "value": value}
        | {key: mean_interval([row[key] for row in own], seed) for key in FIGURES if key in own[0]}
        for (method, family, value), own in values.items()
    ]
    result: dict[str, Any] = json_ready(
        {
            "notice": restain.NOTICE,
            "model": model.label,
            "images": [pair.name for pair in chosen],
            "classifier": held_out.classifier_label,
            "normalisation": target,
            "ranges": {f.key: {"title": f.title, "unchanged": f.unchanged, "values": list(f.values)} for f in FAMILIES},
            "strength": _strength(values, seed),
            "rows": rows,
            "command": command,
            "restain": restain.__version__,
        }
    )
    write_json(out / "sweep.json", result)
    _write_page(out, result, strip)
    return result


def _figures(
    own: _Answer, plain: _Answer, reference: Reference, level: Her2Level | None, mpp: float
) -> dict[str, float]:
    dab, before = own.prediction.dab, plain.prediction.dab
    assert dab is not None
    assert before is not None
    figures = {
        "dab_r16": stain.dab_r16(dab, reference.dab, mpp),
        "dab_mean_change": stain.dab_mean(dab) - stain.dab_mean(before),
        "de_unswept": background_de(own.prediction.rgb, plain.prediction.rgb, reference.background),
        "de_real": background_de(own.prediction.rgb, reference.real, reference.background),
    }
    if own.reading is None or plain.reading is None:
        return figures
    for reading in ("classifier", "rule"):
        now, then = getattr(own.reading, reading), getattr(plain.reading, reading)
        figures[f"{reading}_changed"] = float(now != then)
        figures[f"{reading}_right"] = float("nan") if level is None else float(now == level)
    return figures


def _ood(model: Model, he: Rgb, method: str) -> dict[str, float]:
    detector = model.bundle.ood
    return {} if detector is None or method != "model" else {"ood": float(not detector.judge(he).in_distribution)}


def _strength(values: dict[tuple[str, str, float], list[dict[str, float]]], seed: int) -> dict[str, Any]:
    """The goal's figure: the share of readings that change over all stain strengths, images being what is drawn."""
    found: dict[str, Any] = {"goal": GOAL, "families": list(STRENGTH), "methods": {}}
    for method in dict.fromkeys(method for method, _, _ in values):
        own = [rows for (m, family, _), rows in values.items() if m == method and family in STRENGTH]
        shares = {}
        for reading in ("classifier", "rule"):
            if f"{reading}_changed" in own[0][0]:
                per_image = np.mean([[row[f"{reading}_changed"] for row in rows] for rows in own], axis=0)
                shares[reading] = mean_interval(per_image, seed)
        found["methods"][method] = shares
    return found


def _picture(out: Path, caption: str, he: Rgb, virtual: Rgb) -> dict[str, str]:
    stem = "sweep-" + "".join(c if c.isalnum() else "-" for c in caption)
    save_picture(out / "figures" / f"{stem}.he.jpg", he, virtual=False)
    save_picture(out / "figures" / f"{stem}.virtual.jpg", virtual, virtual=True)
    return {"caption": caption, "he": f"figures/{stem}.he.jpg", "virtual": f"figures/{stem}.virtual.jpg"}


def _write_page(out: Path, result: dict[str, Any], strip: list[dict[str, str]]) -> None:
    by_setting = {(row["method"], row["family"], row["value"]): row for row in result["rows"]}
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    shown = [key for key in FIGURES if any(key in row for row in result["rows"])]
    families = []
    for family in FAMILIES:
        plots = []
        for key in ("classifier_changed", "rule_changed", "dab_mean_change", "dab_r16", "de_unswept", "ood"):
            if key not in shown:
                continue
            lines = []
            for method in methods:
                points = sorted(
                    [(family.unchanged, by_setting[method, "unchanged", 0.0])]
                    + [(value, by_setting[method, family.key, value]) for value in family.values],
                    key=lambda point: point[0],
                )
                points = [(x, row[key]) for x, row in points if key in row]
                if points:
                    ends = [[_number(p[1][end]) for p in points] for end in ("mean", "low", "high")]
                    lines.append(Line(TITLES[method], [p[0] for p in points], *ends))
            plots.append(
                line_plot(
                    lines,
                    family.title,
                    FIGURES[key][0],
                    from_zero=key not in ("dab_mean_change",),
                    goal=GOAL if key.endswith("_changed") else None,
                    marks=True,
                )
            )
        families.append({"title": family.title, "plots": plots, "key": family.key, "values": family.values})
    write_page(
        out / "sweep.html",
        "sweep.html.j2",
        "restain.evaluation",
        title=f"H&E stain sweep of {result['model']}",
        result=result,
        titles=TITLES,
        columns={key: FIGURES[key] for key in shown},
        families=families,
        strip=strip,
        facts={
            "Model": result["model"],
            "Images": f"{len(result['images'])}: {', '.join(result['images'])}",
            "HER2 classifier": result["classifier"],
            "Normalisation": result["normalisation"],
            "Command": result["command"],
        },
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
