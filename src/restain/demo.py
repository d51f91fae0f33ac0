"""The demonstration: phantom and real H&E restained by the shipped model, measured, on one HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from restain.data import PairSet, open_pairs
from restain.errors import RestainError
from restain.evaluation import Evaluation, EvaluationSection, evaluate, write_page
from restain.evaluation.held_out import open_as_trained
from restain.model_store import models_at_hand
from restain.optics import glass_white, hematoxylin_density
from restain.phantom import write_phantom
from restain.progress import Progress
from restain.recipe import Recipe
from restain.report.pictures import DAB_TOP, colour_map, save_pictures
from restain.stain import Model, load

PHANTOM_SEED = 20_261
"""Not the seed of any data that the shipped model was trained on."""

REAL = "real"
"""Name of the bundle that was trained on real pairs."""
_HEMATOXYLIN = {"hematoxylin": "hematoxylin of the H&E, as a DAB map"}


def run_demo(
    out: Path,
    *,
    real: Path | None = None,
    pairs: int = 12,
    real_pairs: int = 2,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Make phantom pairs, stain and evaluate them and real pairs, and write one page.

    Args:
        out: folder of the demonstration; a second call keeps the phantom that is there.
        real: folder whose subfolders may be data sets of real pairs; None or absent: phantom only.
        pairs: phantom pairs to make; a third of them are stained, the others fit the baselines.
        real_pairs: most pairs of a real data set that are stained, in turn from each HER2 level.
        progress: called with pieces done and in all, anew for each part.
        say: called with one line for each step.

    Returns:
        The path of the page.

    Raises:
        RestainError: if ``out`` cannot be written or a file of ``real`` is damaged.
    """
    model = load()
    card = model.bundle.card
    say(f"making {pairs} phantom pairs (seed {PHANTOM_SEED})")
    write_phantom(out / "phantom", pairs=pairs, seed=PHANTOM_SEED, mpp=card.mpp, test_share=1 / 3, progress=progress)
    path = models_at_hand().get(REAL)
    other = None if path is None else load(path)
    sections = []

    def measured(name: str, found: PairSet, one: Model, folder: str) -> Evaluation:
        say(f"staining and measuring {len(found.split('test'))} test pairs: {name}")
        command = "restain demo"
        return evaluate(one, found, "test", out / folder, command=command, features=None, progress=progress)

    scores = measured("phantom", open_pairs(out / "phantom", val_share=0), model, "phantom")
    sections.append(EvaluationSection("Phantom: synthetic tissue with known truth", scores))
    for name, found in _real_sets(real, real_pairs, None if other is None else other.bundle.recipe).items():
        scores = measured(f"real {name}", found, model, f"real-{name}")
        _add_hematoxylin(scores, found)
        about = "The shipped bundle has seen no real IHC."
        sections.append(EvaluationSection(f"Real pairs: {name}, shipped bundle", scores, about, _HEMATOXYLIN))
        if other is not None:
            scores = measured(f"real {name}, bundle '{REAL}'", found, other, f"real-{name}-{REAL}")
            about = f"Trained on other slides: {other.bundle.card.data}"
            sections.append(EvaluationSection(f"Real pairs: {name}, bundle '{REAL}'", scores, about))
    note = (
        f"The model was trained on: {card.data} Phantom tissue is invented; that the model does well on it says nothing "
        "about real tissue. What it does on real pairs is shown as it is."
    )
    return write_page(out / "index.html", "restain demo", sections, note)


def _add_hematoxylin(scores: Evaluation, pairs: PairSet) -> None:
    """Put a picture of the H&E's hematoxylin density beside those of an evaluation."""
    for pair in pairs.split("test"):
        he, _ = pair.load()
        density = colour_map(hematoxylin_density(he, glass_white(he)), "dab", DAB_TOP)
        save_pictures(scores.report.parent / "figures", pair.name, {"hematoxylin": density})


def _real_sets(real: Path | None, count: int, recipe: Recipe | None) -> dict[str, PairSet]:
    """The data sets directly in ``real`` that have a test split, by folder name, with ``count`` test pairs each.

    With the recipe of a bundle, the test split of a set that it was trained on is what its training left out.
    """
    found = {}
    for folder in sorted(p for p in real.iterdir() if p.is_dir()) if real is not None and real.is_dir() else ():
        try:
            pairs = open_pairs(folder, val_share=0) if recipe is None else open_as_trained(folder, recipe)
        except RestainError:
            continue
        if test := pairs.split("test"):
            seen: Counter[object] = Counter()
            turns = []
            for pair in test:
                turns.append((seen[pair.level], pair.name))
                seen[pair.level] += 1
            chosen = {name for _, name in sorted(turns)[:count]}
            kept = tuple(pair for pair in pairs.pairs if pair.split != "test" or pair.name in chosen)
            found[folder.name] = replace(pairs, pairs=kept)
    return found
