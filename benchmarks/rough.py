"""What each option for rough pairs is worth, against how rough they are, on the phantom.

    python benchmarks/rough.py [--quick] [--folder DIR] [--steps N] [--only OPTION@UM,...]

Phantom sets of one seed are made with 0, 2, 5, 10 and 20 µm (RMS) of elastic misalignment between H&E and IHC. Each recipe
of ``recipes/rough`` is trained on each, and all are scored on the same held-out pairs *without* misalignment, which none
was trained on. All begin with the shipped bundle, as a laboratory with rough pairs would, so what is measured is what rough
pairs spoil or teach in a model that has seen the phantom's aligned pairs (of another seed); its own figures are
``beside.start``. ``weighted`` would do nothing where all pairs are equally rough, so it is trained, as ``pyramid`` is, on
mixtures: half of the pairs aligned, half misaligned, with weights measured on the pictures (the squared correlation of the
two hematoxylin patterns), not taken from the phantom's truth.

Every run lies in its own folder, and what is finished is not done again: killed and called again, the benchmark goes on.
Writes ``rough.json`` and ``rough.svg`` into the folder. Prints one JSON object last:

- ``runs``: for each option and set the quadratic kappa of the level read by the rule and by the classifier and the share of
  right levels, PSNR before and after alignment, SSIM, DAB r per 16 and 64 µm cell (mean of images and pooled), errors of mean
  DAB and of membrane completeness, and seconds of computing per step.
- ``beside``: the same of the bundle that all started from, of the baselines, and of the real images (readings only).
- ``registration``: the median error, in µm, of the registration network of ``deform`` on that bundle's outputs against the
  known fields; ``not_moved`` is what there was to find.

One seed, short trainings: see docs/rough-pairs.md for what that can show.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import block_reduce

from restain.bundle import load_bundle
from restain.data import Pair, open_pairs
from restain.evaluation import evaluate, load_evaluation
from restain.files import whole_file
from restain.models.deform import inside
from restain.phantom import read_record, write_phantom
from restain.phantom.noise import misalignment_field
from restain.recipe import DeformRecipe, Recipe, load_recipe, shipped_recipes
from restain.registration.features import feature_channels, measure_stain
from restain.report.plots import Line, line_plot
from restain.slides import read_image
from restain.training import train
from restain.training.checkpoint import load_checkpoint
from restain.training.deform import deformer, deformer_terms

UM = (0, 2, 5, 10, 20)
OPTIONS = ("pixel", "pyramid", "deform", "contextual", "together")
MIXED = ("pyramid", "weighted")
SEED = 21
QUALITY_PX = 2
"""The hematoxylin patterns are compared in blocks of this side: about 1 µm."""

FIGURES = (
    "psnr_aligned",
    "psnr",
    "ssim",
    "dab_r16",
    "dab_r64",
    "dab_r16_pooled",
    "dab_r64_pooled",
    "dab_mean_error",
    "completeness_error",
)

ORDER = (
    *((option, f"{um}") for um in (0, 5, 20) for option in ("pyramid", "deform", "contextual", "together", "pixel")),
    *((option, f"mixed-{um}") for um in (20,) for option in MIXED),
    *((option, f"{um}") for um in (10, 2) for option in ("pyramid", "deform", "contextual", "together", "pixel")),
    *((option, f"mixed-{um}") for um in (5,) for option in MIXED),
)
"""What says most comes first, so that an unfinished benchmark says something."""


def make_set(folder: Path, um: int, size: int, pairs: int) -> Path:
    out = folder / "sets" / f"{um}"
    write_phantom(out, pairs=pairs, size=size, seed=SEED, test_share=0.2, misalign_um=um)
    return out


def match_quality(pair: Pair) -> float:
    """The correlation of the two hematoxylin patterns, squared; 0 where it is negative."""
    planes = []
    for image in pair.load():
        small = np.rint(block_reduce(image, (QUALITY_PX, QUALITY_PX, 1), np.mean)).astype(np.uint8)
        planes.append(feature_channels(small, measure_stain(small))[1].ravel())
    return max(0.0, float(np.corrcoef(*planes)[0, 1])) ** 2


def make_mixture(folder: Path, um: int) -> Path:
    """Links to the aligned and the misaligned sets' training pairs by turns (each level on both sides), and their weights."""
    out = folder / "sets" / f"mixed-{um}"
    if (out / "weights.csv").is_file():
        return out
    sources = [folder / "sets" / "0", folder / "sets" / f"{um}"]
    for stain in ("HE", "IHC"):
        (out / stain / "train").mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(sorted(path.name for path in (sources[0] / stain / "train").iterdir())):
            link = out / stain / "train" / name
            link.unlink(missing_ok=True)
            link.symlink_to((sources[number // 4 % 2] / stain / "train" / name).resolve())
    with whole_file(out / "weights.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "weight"])
        for pair in open_pairs(out, val_share=0).split("train"):
            writer.writerow([pair.name, f"{match_quality(pair):.4f}"])
    return out


def read_recipe(option: str, steps: int) -> Recipe:
    return load_recipe(shipped_recipes()[f"rough/{option}"], [f"train.steps={steps}"])


def figures_of(evaluation: Path, method: str = "model") -> dict[str, Any]:
    summary = load_evaluation(evaluation)
    reading = summary.metrics["reading"].get(method)
    row: dict[str, Any] = {key: summary.mean(key, method) for key in FIGURES}
    if reading is not None:
        row |= {f"kappa_{how}": reading[how]["patch"]["kappa"]["mean"] for how in ("rule", "classifier")}
        row |= {f"right_{how}": reading[how]["patch"]["accuracy"]["mean"] for how in ("rule", "classifier")}
    return {key: round(value, 4) for key, value in row.items() if value is not None}


def score(evaluation: Path, aligned: Path, bundle: Path | None, baselines: bool) -> None:
    if not (evaluation / "metrics.json").is_file():
        evaluate(bundle, aligned, out=evaluation, baselines=baselines)


def measure(run: Path, option: str, data: Path, aligned: Path, steps: int) -> dict[str, Any]:
    bundle = train(read_recipe(option, steps), [data], run / "run", fit_ood=False)
    score(run / "evaluation", aligned, bundle, baselines=False)
    saved = load_checkpoint(run / "run" / "adversarial.ckpt")
    assert saved is not None
    pace = round(saved["seconds"]["busy"] / saved["step"], 3)
    return {"option": option, "set": data.name, **figures_of(run / "evaluation"), "seconds_per_step": pace}


def registration(folder: Path, um: int) -> dict[str, float]:
    """How far the registration network is off on the shipped bundle's outputs, µm: before and after learning on them alone."""
    names = sorted((folder / "sets" / f"{um}" / "HE" / "train").iterdir())[:24]
    window = (..., slice(96, 288), slice(96, 288))
    generator = load_bundle().generator
    virtual, real, truth = [], [], []
    for path in names:
        pair = folder / "sets" / f"{um}"
        made = read_record(pair / "truth" / "train" / f"{path.stem}.tif")["misalignment"]
        he, ihc = (_tensor(read_image(pair / stain / "train" / path.name))[window] for stain in ("HE", "IHC"))
        with torch.no_grad():
            virtual.append(generator(he).rgb)
        real.append(ihc)
        field = misalignment_field((384, 384), mpp=0.46, rms_um=um, seed=made["seed"], index=made["index"])
        truth.append(torch.from_numpy(field)[None][window])
    ours, theirs, known = (torch.cat(part) for part in (virtual, real, truth))
    recipe = DeformRecipe()
    torch.manual_seed(SEED)
    network = deformer(recipe, 0.46)
    adam = torch.optim.Adam(network.parameters(), recipe.optimiser.lr, recipe.optimiser.betas)

    def off(field: torch.Tensor) -> float:
        return round(float((field - known).norm(dim=1)[inside(known)[:, 0]].median()) * 0.46, 2)

    with torch.no_grad():
        figures = {"not_moved": off(0 * known), "untrained": off(network(ours, theirs))}
    for _ in range(60):
        chosen = torch.randint(0, len(ours), (4,))
        adam.zero_grad()
        terms = deformer_terms(recipe, network(ours[chosen], theirs[chosen]), ours[chosen], theirs[chosen])
        torch.stack(list(terms.values())).sum().backward()
        adam.step()
    with torch.no_grad():
        return figures | {"trained": off(network(ours, theirs))}


def _tensor(rgb: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Four plots of one column: the reading, aligned PSNR and DAB r against the misalignment."""
    shown = {
        "kappa_rule": "kappa, read by the rule",
        "kappa_classifier": "kappa, read by the classifier",
        "psnr_aligned": "PSNR after alignment, dB",
        "dab_r16": "DAB r, 16 µm cells",
    }
    figures = []
    for number, (key, title) in enumerate(shown.items()):
        lines = []
        for option in OPTIONS:
            own = {int(row["set"]): row[key] for row in rows if row["option"] == option and row["set"].isdigit()}
            at = [um for um in UM if own.get(um) is not None]
            if len(at) > 1:
                lines.append(Line(option, at, [own[um] for um in at]))
        if lines:
            svg = line_plot(lines, "misalignment of the training pairs, µm RMS", title, from_zero=False, marks=True)
            figures.append(f'<g transform="translate({number % 2 * 480} {number // 2 * 320})">{svg}</g>')
    style = "font: 11px sans-serif; color: #333; background: #fff"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 640" width="960" height="640" style="{style}">'
    body = "".join(figures).replace("<svg ", '<svg width="460" height="304" fill="#333" ')
    with whole_file(path) as partial:
        partial.write_text(f"{head}{body}</svg>\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a check that it runs: tiny sets, few steps, no result")
    parser.add_argument("--folder", type=Path, help="keeps sets and runs; finished ones are not made again")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", default="", help="for example pyramid@5,deform@5")
    arguments = parser.parse_args()
    size, pairs, steps = (256, 20, 4) if arguments.quick else (384, 100, arguments.steps)
    order = [(option, name) for option, name in ORDER if not arguments.quick or name in ("5", "mixed-20")]
    if arguments.only:
        order = [(option, name) for option, name in ORDER if f"{option}@{name}" in arguments.only.split(",")]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        aligned = make_set(folder, 0, size, pairs)
        start = folder / "runs" / "start"
        score(start, aligned, None, baselines=True)
        beside = {method: figures_of(start, method) for method in load_evaluation(start).metrics["overall"]}
        beside["start"] = beside.pop("model")
        beside["real"] = figures_of(start, "real")
        rows: list[dict[str, Any]] = []
        result: dict[str, Any] = {"steps": steps, "pairs": pairs, "size": size, "beside": beside, "runs": rows}
        for option, name in order:
            um = int(name.removeprefix("mixed-"))
            data = make_set(folder, um, size, pairs)
            if name.startswith("mixed"):
                data = make_mixture(folder, um)
            rows.append(measure(folder / "runs" / f"{option}@{name}", option, data, aligned, steps))
            print(json.dumps(rows[-1]), flush=True)
            with whole_file(folder / "rough.json") as partial:
                partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            draw(rows, folder / "rough.svg")
        if not arguments.quick and not arguments.only:
            result["registration"] = {f"{um}": registration(folder, um) for um in UM if um}
            with whole_file(folder / "rough.json") as partial:
                partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(result))


if __name__ == "__main__":
    main()
