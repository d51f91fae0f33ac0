"""The benchmark: train all, then measure and score all, then write one table and one page.

Finished work lies in the folder of each recipe. The same call therefore resumes an interrupted benchmark: trainings from
their checkpoint, evaluations from the first that is missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from restain.benchmark.budget import Budget
from restain.benchmark.cost import Cost, read_cost, staining_cost
from restain.benchmark.table import write_results
from restain.errors import RestainError
from restain.evaluation import evaluate, load_evaluation
from restain.evaluation.held_out import scored_pairs
from restain.files import make_folder, whole_file, write_json
from restain.progress import OpenBar, Warn
from restain.recipe import Recipe, parse_recipe
from restain.training import train
from restain.training.pace import steps_within
from restain.training.prepare import prepare


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the benchmark."""

    name: str
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def bundle(self) -> Path:
        return self.run / "bundle"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"


def benchmark(
    recipes: Sequence[Recipe],
    data: Sequence[Path],
    budget: Budget,
    out: Path,
    *,
    split: str = "test",
    accelerator: str = "auto",
    command: str = "",
    bar: OpenBar = lambda what: nullcontext(lambda done, total: None),
    say: Warn = lambda line: None,
) -> Path:
    """Train every recipe under the same budget and score it; returns the page ``out/benchmark.html``.

    Beside the page: ``benchmark.json``, ``benchmark.csv``, ``benchmark.md`` and a folder per recipe with its run and
    its evaluation; the same folder resumes. The first recipe is what the others are compared with, image by image.
    Recipes with the same stage one train it once, and each is charged for it. Their data, seed, crop and batch must be
    the same. Minutes of a budget are turned into steps by measuring a few, once.

    Raises RestainError if the recipes do not share what they must, the folder holds a benchmark of others, the data has
    faults, or a training fails; Interrupted on Ctrl-C or SIGTERM in a training, after a checkpoint was written.
    """
    _require_shared(recipes)
    for recipe in recipes:
        scored_pairs(prepare(recipe, data, accelerator=accelerator).pairs, split)
    make_folder(out)
    entries = [Entry(recipe.name, out / recipe.name.replace("/", "-")) for recipe in recipes]
    planned = [
        _plan(entry, recipe, data, budget, accelerator, bar) for entry, recipe in zip(entries, recipes, strict=True)
    ]
    stage_ones: dict[str, Path] = {}
    for entry, recipe in zip(entries, planned, strict=True):
        _share_stage_one(entry, recipe, stage_ones)
        train(recipe, data, entry.run, accelerator=accelerator, fit_ood=False)
        stage_ones.setdefault(_stage_one_key(recipe), entry.run / "expression.ckpt")
        say(f"{entry.name}: trained, {recipe.train.steps} steps of stage two")

    costs: dict[str, Cost] = {}
    for number, entry in enumerate(entries):
        with bar(f"{entry.name}: measuring the cost"):
            costs[entry.name] = _cost(entry)
        if not (entry.evaluation / "metrics.json").is_file():
            # The baselines are the same for all; they are scored beside the first.
            with bar(f"{entry.name}: scoring") as progress:
                evaluate(
                    entry.bundle,
                    data,
                    split,
                    entry.evaluation,
                    swap=recipes[0].data.swap,
                    baselines=number == 0,
                    align=False,
                    command=command,
                    progress=progress,
                )
            say(f"{entry.name}: scored")
    evaluations = {entry.name: load_evaluation(entry.evaluation) for entry in entries}
    return write_results(
        out,
        evaluations,
        {entry.name: recipe for entry, recipe in zip(entries, planned, strict=True)},
        costs,
        budget=str(budget),
        command=command,
    )


def _require_shared(recipes: Sequence[Recipe]) -> None:
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise RestainError(
            f"two recipes are named '{next(n for n in names if names.count(n) > 1)}'; names must differ."
        )
    first = recipes[0]
    for recipe in recipes[1:]:
        for key in ("crop", "batch", "val_share", "holdout", "swap"):
            one, other = getattr(first.data, key), getattr(recipe.data, key)
            if one != other:
                raise RestainError(
                    f"{recipe.name}: data.{key} is {other}, in {first.name} {one}; what is compared must share it "
                    f"(--set data.{key}=... sets it for all)."
                )
        for key in ("seed", "mpp"):
            if getattr(first, key) != getattr(recipe, key):
                raise RestainError(f"{recipe.name}: {key} is not that of {first.name}; what is compared must share it.")


def _plan(entry: Entry, recipe: Recipe, data: Sequence[Path], budget: Budget, accelerator: str, bar: OpenBar) -> Recipe:
    """The recipe with the budget's steps in it: of an earlier call where there was one, so that a resumed run is the same."""
    settings = {"recipe": recipe.model_dump(mode="json"), "budget": str(budget)}
    path = entry.folder / "plan.json"
    if path.is_file():
        try:
            before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            known, steps = before["settings"], int(before["steps"])
        except (OSError, ValueError, KeyError, TypeError):
            raise RestainError(
                f"{path}: the plan is damaged; delete {entry.folder} to train this recipe anew."
            ) from None
        if known != json.loads(json.dumps(settings)):
            raise RestainError(
                f"{entry.folder}: holds another recipe of this name or another budget; choose another folder."
            )
    else:
        steps = budget.steps or 0
        if budget.minutes is not None:
            with bar(f"{entry.name}: measuring the pace"):
                steps = steps_within(recipe, data, budget.minutes * 60, accelerator=accelerator)
        make_folder(entry.folder)
        write_json(path, {"settings": settings, "steps": steps})
    values = recipe.model_dump(mode="json")
    values["train"]["steps"] = steps
    return parse_recipe(values, entry.name)


def _stage_one_key(recipe: Recipe) -> str:
    """What stage one depends on; recipes that agree in it have the same classifier."""
    augment = recipe.data.augment.model_dump(mode="json")
    uses = recipe.peer is None and recipe.generator.label_feature and recipe.start_from is None
    return json.dumps([uses, recipe.expression.model_dump(mode="json"), augment, recipe.seed, recipe.data.val_share])


def _share_stage_one(entry: Entry, recipe: Recipe, known: Mapping[str, Path]) -> None:
    source, target = known.get(_stage_one_key(recipe)), entry.run / "expression.ckpt"
    if source is None or not source.is_file() or target.exists():
        return
    make_folder(entry.run)
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)


def _cost(entry: Entry) -> Cost:
    path = entry.folder / "cost.json"
    if path.is_file():
        return read_cost(path)
    seconds = {"wall": 0.0, "busy": 0.0}
    for checkpoint in ("expression.ckpt", "adversarial.ckpt"):
        if (entry.run / checkpoint).is_file():
            saved = torch.load(entry.run / checkpoint, map_location="cpu", weights_only=True)
            for key in seconds:
                seconds[key] += float(saved.get("seconds", {}).get(key, 0.0))
    return staining_cost(entry.bundle, path, train_seconds=seconds["busy"], train_wall_seconds=seconds["wall"])
