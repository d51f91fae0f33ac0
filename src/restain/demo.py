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
from restain.phantom import write_phantom
from restain.progress import Progress, part
from restain.recipe import Recipe
from restain.stain import Model, load

PHANTOM_SEED = 20_261
"""Not the seed of any data that the shipped model was trained on."""

REAL = "real"
"""Name of the bundle that was trained on real pairs."""

_LEFT_OUT = (
    "To be quick, this page leaves out figures after alignment, FID, KID, LPIPS and, where the bundle 'real' is at hand, "
    "the shipped bundle on real pairs; restain evaluate has them all. A handful of images says little: read the intervals."
)


def run_demo(
    out: Path,
    *,
    real: Path | None = None,
    pairs: int = 8,
    real_pairs: int = 2,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Make phantom pairs, stain and evaluate them and real pairs, and write one page.

    Phantom pairs are stained by the shipped model, real pairs by the bundle ``real``, or by the shipped one without it.

    Args:
        out: folder of the demonstration; a second call keeps the phantom that is there.
        real: folder whose subfolders may be data sets of real pairs; None or absent: phantom only.
        pairs: phantom pairs to make; half of them are stained, the others fit the baselines.
        real_pairs: most pairs of a real data set that are stained, in turn from each HER2 level.
        progress: called with the thousandths of the whole that are done, and 1000.
        say: called with one line for each step.

    Returns:
        The path of the page.

    Raises:
        RestainError: if ``out`` cannot be written or a file of ``real`` is damaged.
    """
    shipped, path = load(), models_at_hand().get(REAL)
    model = shipped if path is None else load(path)
    sets = _real_sets(real, real_pairs, None if path is None else model.bundle.recipe)
    # In units of one phantom pair made: a real image has four times the pixels, in overlapping windows.
    weights = [pairs, 2 * pairs, *(30 * len(found.split("test")) for found in sets.values())]
    ends = [1000 * sum(weights[: k + 1]) // sum(weights) for k in range(len(weights))]
    steps = len(weights) + 1

    def begin(step: int, what: str) -> Progress:
        say(f"{step} of {steps}: {what}")
        return part(progress, 0 if step == 1 else ends[step - 2], ends[step - 1])

    def measured(step: int, what: str, found: PairSet, one: Model, folder: str) -> Evaluation:
        tell = begin(step, f"staining and measuring {len(found.split('test'))} {what}")
        return evaluate(
            one, found, "test", out / folder, command="restain demo", features=None, align=False, progress=tell
        )

    tell = begin(1, f"making {pairs} phantom pairs (seed {PHANTOM_SEED})")
    # Named after what is in it: a phantom of other settings would be refused.
    phantom, mpp = f"phantom-{pairs}", shipped.bundle.card.mpp
    write_phantom(out / phantom, pairs=pairs, seed=PHANTOM_SEED, mpp=mpp, test_share=1 / 2, progress=tell)
    scores = measured(2, "phantom pairs", open_pairs(out / phantom, val_share=0), shipped, phantom)
    about = "Invented tissue, whose truth is known, by the shipped bundle, which was trained on the phantom only: other seeds."
    sections = [EvaluationSection("Phantom", scores, f"{about} It says nothing about real tissue.")]
    for step, (name, found) in enumerate(sets.items(), start=3):
        scores = measured(step, f"real pairs of {name}", found, model, f"real-{name}")
        about = (
            "By the shipped bundle, which has seen no real IHC."
            if path is None
            else f"By the bundle '{REAL}', which was trained on pairs of other slides."
        )
        sections.append(EvaluationSection(f"Real pairs: {name}", scores, about))
    say(f"{steps} of {steps}: writing the page")
    trained = dict.fromkeys(
        f"Bundle '{one.bundle.card.name}' was trained on: {one.bundle.card.data}" for one in (shipped, model)
    )
    return write_page(out / "index.html", "restain demo", sections, f"{_LEFT_OUT} {' '.join(trained)}")


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
