"""The demonstration: phantom and real H&E restained by the shipped model, measured, on one HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from restain.data import PairSet, open_pairs
from restain.errors import RestainError
from restain.evaluation import EvaluationSection, evaluate, write_page
from restain.phantom import write_phantom
from restain.stain import load

PHANTOM_SEED = 20_261
"""Not the seed of any data that the shipped model was trained on."""

Progress = Callable[[int, int], None]


def run_demo(
    out: Path,
    *,
    real: Path | None = None,
    pairs: int = 12,
    real_pairs: int = 3,
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
    sets = {"phantom": open_pairs(out / "phantom", val_share=0)} | _real_sets(real, real_pairs)
    sections = []
    for name, found in sets.items():
        say(f"staining and measuring {len(found.split('test'))} test pairs: {name}")
        scores = evaluate(
            model,
            found,
            "test",
            out / name.replace(" ", "-"),
            command="restain demo",
            features=None,
            progress=progress,
        )
        title = "Phantom: synthetic tissue with known truth" if name == "phantom" else f"Real pairs: {name}"
        sections.append(EvaluationSection(title, scores))
    note = (
        f"The model was trained on: {card.data} Phantom tissue is invented; that the model does well on it says nothing "
        "about real tissue. What it does on real pairs is shown as it is."
    )
    return write_page(out / "index.html", "restain demo", sections, note)


def _real_sets(real: Path | None, count: int) -> dict[str, PairSet]:
    """The data sets directly in ``real`` that have a test split, by folder name, with ``count`` test pairs each."""
    found = {}
    for folder in sorted(p for p in real.iterdir() if p.is_dir()) if real is not None and real.is_dir() else ():
        try:
            pairs = open_pairs(folder, val_share=0)
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
            found[f"real {folder.name}"] = replace(pairs, pairs=kept)
    return found
