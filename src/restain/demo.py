"""The demonstration: phantom and real H&E restained by the shipped model, measured, on one HTML page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from restain.data import PairSet, open_pairs
from restain.errors import RestainError
from restain.evaluation import Evaluation, EvaluationSection, evaluate, write_page
from restain.model_store import models_at_hand
from restain.optics import glass_white, hematoxylin_density
from restain.phantom import write_phantom
from restain.report.pictures import DAB_TOP, colour_map, save_pictures
from restain.stain import Model, load

PHANTOM_SEED = 20_261
"""Not the seed of any data that the shipped model was trained on."""

REAL = "real"
"""Name of the bundle that was trained on real pairs."""
LEFT_OUT = "left-out.json"
"""File in that bundle's folder: the figures of benchmarks/real.py and the command that gave them."""
_MORE = {
    "hematoxylin": "H&E's hematoxylin, as a DAB map",
    "trained": "bundle 'real'; it was trained on this pair, so this is no result",
}

Progress = Callable[[int, int], None]


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
        if name == "phantom":
            sections.append(EvaluationSection("Phantom: synthetic tissue with known truth", scores))
        else:
            sections.append(_real_section(name, scores, found))
    note = (
        f"The model was trained on: {card.data} Phantom tissue is invented; that the model does well on it says nothing "
        "about real tissue. What it does on real pairs is shown as it is."
    )
    return write_page(out / "index.html", "restain demo", sections, note)


def _real_section(name: str, scores: Evaluation, pairs: PairSet) -> EvaluationSection:
    """The shipped bundle's evaluation, with pictures of hematoxylin and of the bundle that was trained on real pairs."""
    path = models_at_hand().get(REAL)
    trained = None if path is None else load(path)
    more = {key: title for key, title in _MORE.items() if key != "trained" or trained is not None}
    for pair in pairs.split("test"):
        he, _ = pair.load()
        density = hematoxylin_density(he, glass_white(he))
        pictures = {"hematoxylin": colour_map(density, "dab", DAB_TOP)}
        if trained is not None:
            pictures["trained"] = trained.predict(he).rgb
        save_pictures(scores.report.parent / "figures", pair.name, pictures, ("trained",))
    return EvaluationSection(f"Real pairs: {name}", scores, _about_real(trained), more)


def _about_real(trained: Model | None) -> str:
    """What the figures of a section are of, and what the other bundle has on slides that its training left out."""
    text = "The figures are of the shipped bundle, which has seen no real IHC."
    if trained is None:
        return text
    text += " The last picture of each pair is by the bundle 'real', which was trained on these pairs: it is no result."
    try:
        found = json.loads((trained.bundle.path / LEFT_OUT).read_text(encoding="utf-8"))
        r = {method: found["methods"][method]["dab_r16"] for method in ("model", "baseline_hematoxylin_smooth")}
        own, smooth = (f"{one['mean']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" for one in r.values())
        count, command = r["model"]["n"], found["command"]
    except (OSError, ValueError, LookupError, TypeError):
        return text
    return (
        f"{text} Trained without a pair's slide, it has DAB r {own} per 16 µm cell on {count} pairs, where smoothed hematoxylin, "
        f"without any model, has {smooth} ({command})."
    )


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
