"""The demonstration: phantom and real H&E restained by the shipped model, measured, on one HTML page."""

from __future__ import annotations

from collections.abc import Callable
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
    pairs: int = 24,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Make phantom pairs, restain and evaluate them and the real pairs, and write one page of all.

    Args:
        out: folder of the demonstration; a second call keeps the phantom that is there.
        real: folder whose subfolders are looked through for data sets of real pairs; None or absent: phantom only.
        pairs: phantom pairs to make; a third of them are restained, the others fit the baselines.
        progress: called with pieces done and in all, anew for each part.
        say: told in one line what is going on.

    Returns:
        The path of the page.

    Raises:
        RestainError: if ``out`` cannot be written or a file of ``real`` is damaged.
    """
    model = load()
    card = model.bundle.card
    say(f"making {pairs} phantom pairs (seed {PHANTOM_SEED})")
    write_phantom(out / "phantom", pairs=pairs, seed=PHANTOM_SEED, mpp=card.mpp, test_share=1 / 3, progress=progress)
    sets = {"phantom": open_pairs(out / "phantom", val_share=0)} | _real_sets(real, say)
    sections = []
    for name, found in sets.items():
        say(f"restaining and measuring {name}: {found.describe()}")
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


def _real_sets(real: Path | None, say: Callable[[str], None]) -> dict[str, PairSet]:
    """The data sets directly in ``real`` that have a test split, by folder name."""
    if real is None or not real.is_dir():
        say("no folder of real images; phantom only")
        return {}
    found = {}
    for folder in sorted(p for p in real.iterdir() if p.is_dir()):
        try:
            pairs = open_pairs(folder, val_share=0)
        except RestainError as fault:
            say(f"left out: {fault}")
            continue
        if pairs.split("test"):
            found[f"real {folder.name}"] = pairs
    return found
