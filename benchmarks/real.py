"""How a model trained on real pairs does on slides that its training left out, beside hematoxylin and smoothed densities.

    python benchmarks/real.py --data bci_sample --data mist_sample --model runs/fold-1/bundle --model runs/fold-2/bundle ...
    python benchmarks/real.py --quick

Each model is scored on the pairs that its recipe's ``data.holdout`` names, or on all where it names none: give no such model that was
trained on these pairs. The rows are pooled. ``--quick`` scores the shipped
bundle on four phantom pairs instead. The folds' trainings stand in recipes/real.yaml. Prints one JSON object last:

- ``methods``: for the models and each baseline, mean, interval and n of r per 16 µm cell, background ΔE₀₀ (as it is and relative
  to each picture's own glass), Δb*, sharpness, PSNR. Intervals are a bootstrap over slides.
- ``above``: r of the models minus r of each baseline on the same pair, with its interval.
- ``pairs``: r of each pair by method.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import restain
from restain.evaluation.held_out import open_as_trained
from restain.phantom import write_phantom
from restain.stain import load
from restain.statistics import json_ready, mean_interval

FIGURES = ("dab_r16", "background_de", "background_de_relative", "background_db", "sharpness", "psnr")


def numbers(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [float("nan") if row.get(key) is None else float(row[key]) for row in rows]


def pooled(rows: list[dict[str, Any]], slides: dict[str, str]) -> dict[str, Any]:
    """The tables of the docstring from the rows per pair and method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    names = list(dict.fromkeys(row["name"] for row in rows))
    clusters = [slides[name] for name in names]
    by = {(row["name"], row["method"]): row for row in rows}
    table = {
        method: {
            key: mean_interval(numbers([by[name, method] for name in names], key), clusters=clusters)
            for key in FIGURES
            if any(by[name, method].get(key) is not None for name in names)
        }
        for method in methods
    }
    r = {m: np.array(numbers([by[name, m] for name in names], "dab_r16")) for m in methods}
    above = {
        m: mean_interval((r["model"] - r[m]).tolist(), clusters=clusters)
        for m in methods
        if m != "model" and "dab_r16" in table[m]
    }
    pairs = {name: {m: by[name, m].get("dab_r16") for m in r if m in above or m == "model"} for name in names}
    return {"methods": table, "above": above, "pairs": pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", type=Path, default=[])
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.quick:
            write_phantom(Path(folder), pairs=8, size=256, test_share=0.5, seed=77)
            chosen.data, chosen.model = [Path(folder)], ["default"]
        rows: list[dict[str, Any]] = []
        slides: dict[str, str] = {}
        for model in chosen.model:
            loaded = load(model)
            pairs = open_as_trained(chosen.data, loaded.bundle.recipe)
            if not loaded.bundle.recipe.data.holdout:
                pairs = replace(pairs, pairs=tuple(replace(pair, split="test") for pair in pairs.pairs))
            slides |= {pair.name: pair.slide or pair.name for pair in pairs.pairs}
            done = restain.evaluate(loaded, pairs, features=None, align=False)
            rows += done.metrics["per_image"]
            print(f"{model}: {len({row['name'] for row in done.metrics['per_image']})} pairs", flush=True)
    print(json.dumps(json_ready(pooled(rows, slides))))


if __name__ == "__main__":
    main()
