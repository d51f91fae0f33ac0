"""The job: train without a slide, score that slide, for every slide; pool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import restain
from restain.bundle import load_bundle
from restain.crossval.folds import Fold, folds
from restain.crossval.limits import DESCRIPTIONS as LIMITS
from restain.crossval.limits import limits
from restain.data import Pair, open_pairs
from restain.errors import RestainError
from restain.evaluation import evaluate, load_evaluation
from restain.evaluation.baselines import DESCRIPTIONS as BASELINES
from restain.evaluation.metrics import BY_KEY
from restain.files import make_folder, write_json
from restain.optics import glass_white
from restain.progress import OpenBar, Warn
from restain.recipe import Recipe
from restain.report import save_pictures, write_page
from restain.slides import read_image
from restain.stain import Model, StainOptions
from restain.statistics import Interval, json_ready, mean_interval
from restain.training import train
from restain.training.prepare import prepare

Row = dict[str, Any]

FIGURES = ("dab_r16", "background_de", "background_db", "psnr", "ssim")
"""Metrics that are pooled, in the order of the tables."""


def crossval(
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    accelerator: str = "auto",
    command: str = "",
    bar: OpenBar = lambda what: nullcontext(lambda done, total: None),
    say: Warn = lambda line: None,
) -> Path:
    """Train ``recipe`` without each slide in turn, and score that slide; returns the page ``out/crossval.html``.

    A pair's slide is what its layout or the recipe's ``data.same_slide`` says; a pair of an unknown slide counts as a
    slide of its own. All splits of the data take part. Beside the page: ``crossval.json`` (figures, a row per pair and
    method), ``pictures/``, and a folder per slide with its run and its evaluation. The same call resumes an interrupted
    run.

    Raises RestainError if there are fewer than two slides, or the data, a training or a file has a fault; Interrupted
    on Ctrl-C or SIGTERM in a training, after a checkpoint was written.
    """
    pairs = open_pairs(data, val_share=0, same_slide=recipe.data.same_slide, swap=recipe.data.swap)
    by_name = {pair.name: pair for pair in pairs.pairs}
    chosen = folds(pairs.pairs)
    if len({fold.folder for fold in chosen}) < len(chosen):
        raise RestainError("two slides have the same name but for characters that a folder cannot have; rename one.")
    # A fault that would stop a later slide is raised before the first training.
    for fold in chosen:
        prepare(fold.recipe(recipe), data, accelerator=accelerator)
    make_folder(out)
    rows: list[Row] = []
    for fold in chosen:
        own = [by_name[name] for name in fold.names]
        rows += _fold(fold, own, fold.recipe(recipe), data, out / "slides" / fold.folder, accelerator, command, bar)
        r = [row["dab_r16"] for row in rows if row["slide"] == fold.slide and row["method"] == "model"]
        say(f"{fold.slide}: DAB r {', '.join('undefined' if v is None else f'{v:.2f}' for v in r)}")
    for pair in pairs.pairs:
        _picture(pair, out, next(f for f in chosen if pair.name in f.names))
    results = {
        "notice": restain.NOTICE,
        "recipe": recipe.model_dump(mode="json"),
        "data": pairs.describe(),
        "slides": [asdict(fold) for fold in chosen],
        "overall": _overall(rows, recipe.seed),
        "limits": LIMITS,
        "rows": rows,
        "command": command,
        "restain": restain.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    results = json_ready(results)
    write_json(out / "crossval.json", results)
    return _write_page(out, results)


def _fold(
    fold: Fold,
    pairs: Sequence[Pair],
    recipe: Recipe,
    data: Sequence[Path],
    folder: Path,
    accelerator: str,
    command: str,
    bar: OpenBar,
) -> list[Row]:
    bundle = train(recipe, data, folder / "run", accelerator=accelerator)
    evaluation = folder / "evaluation"
    if not (evaluation / "metrics.json").is_file():
        with bar(f"{fold.slide}: scoring") as progress:
            evaluate(bundle, data, "test", evaluation, swap=recipe.data.swap, command=command, progress=progress)
    kept = folder / "limits.json"
    if not kept.is_file():
        with bar(f"{fold.slide}: limits"):
            found = {pair.name: _limits(pair, bundle, recipe.mpp) for pair in pairs}
        write_json(kept, json_ready(found))
    try:
        bounds = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RestainError(f"{kept}: the file is damaged; delete it.") from None
    measured = load_evaluation(evaluation).metrics["per_image"]
    rows = [{key: row.get(key) for key in ("name", "level", "method", *FIGURES)} for row in measured]
    rows += [
        {"name": name, "level": "", "method": method, **dict.fromkeys(FIGURES), **values}
        for name, methods in bounds.items()
        for method, values in methods.items()
    ]
    return [{"slide": fold.slide, **row} for row in rows]


def _limits(pair: Pair, bundle: Path, mpp: float) -> dict[str, dict[str, float]]:
    he, real = pair.load()
    loaded, on_real_white = load_bundle(bundle), None
    if loaded.generator.stain_head is not None:
        red, green, blue = glass_white(real).tolist()
        on_real_white = Model(loaded, options=StainOptions(white=(red, green, blue))).predict(he).rgb
    return limits(real, on_real_white, mpp)


def _overall(rows: Sequence[Row], seed: int) -> dict[str, dict[str, Interval]]:
    """Mean, interval and n of each method's figures over all left-out pairs."""
    table: dict[str, dict[str, Interval]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        table[method] = {
            key: mean_interval([float("nan") if row[key] is None else row[key] for row in own], seed) for key in FIGURES
        }
    return table


def _picture(pair: Pair, out: Path, fold: Fold) -> None:
    he, real = pair.load()
    virtual = read_image(out / "slides" / fold.folder / "evaluation" / "images" / f"{pair.name}.png")
    save_pictures(make_folder(out / "pictures"), pair.name, {"he": he, "virtual": virtual, "real": real})


def _write_page(out: Path, results: Mapping[str, Any]) -> Path:
    rows = results["rows"]
    return write_page(
        out / "crossval.html",
        "crossval.html.j2",
        "restain.crossval",
        title=f"Leave-one-slide-out: {results['recipe']['name']}",
        results=results,
        columns=[BY_KEY[key] for key in FIGURES],
        words={"model": "what is evaluated"} | BASELINES | LIMITS,
        names=list(dict.fromkeys(row["name"] for row in rows)),
        by_pair={(row["name"], row["method"]): row for row in rows},
        facts={"Command": results["command"], "restain": results["restain"], "Date": results["created"]},
    )
