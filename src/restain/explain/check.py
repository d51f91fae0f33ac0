"""``restain explain --data PHANTOM``: how much of each map falls on the cause that the phantom's rule names.

Causes by the rule (docs/phantom.md): the level follows from the tumour cells alone (nuclear size, crowding, nucleoli,
chromatin), so its cause is the territory of all tumour cells; the DAB of a disc follows from the cells whose membranes
lie in it, so its cause is the territory of the tumour cells that reach into the disc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restain.bundle import Bundle, load_bundle
from restain.data import Pair, open_pairs
from restain.data.layouts import SPLITS
from restain.data.normalization import picture_normalizer
from restain.errors import RestainError
from restain.explain.attention import overall_attention
from restain.explain.attribution import Baseline, Calls, Floats
from restain.explain.faithful import (
    area_under,
    curve,
    edge_map,
    hits,
    nearness_map,
    random_map,
    share_inside,
    smoothed,
)
from restain.explain.figures import overlay, picture, save_picture
from restain.explain.maps import (
    DAB_WINDOW,
    LEAST_DAB,
    LEVEL_EFFORT,
    LEVEL_WINDOW,
    Effort,
    cut,
    explain_dab,
    explain_level,
    window_around,
)
from restain.explain.page import write_json, write_page
from restain.explain.targets import DISC_UM, Target, dab_map, disc_mask, level_probability
from restain.explain.tissue import candidate_points, classes_of, per_class, tumour_cells, tumour_cells_at
from restain.explain.verdict import class_table, figures_of, verdicts
from restain.files import make_folder
from restain.geometry import Point
from restain.models.blocks import channels_last
from restain.models.tensors import batch_of
from restain.phantom import Tissue, read_truth, regrow

CHECK_EFFORT = Effort(16, patch=32, step=24)
"""For the DAB; coarser than for a single image, since there are many."""
LEVEL_STEPS, DAB_STEPS = 16, 8
"""Equal parts in which the deletion and insertion curves go."""


@dataclass(frozen=True)
class CheckSummary:
    """What :func:`check_phantom` wrote, and its verdicts in words."""

    report: Path
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class _Case:
    """One image with its truth and the model."""

    pair: Pair
    number: int
    he: NDArray[np.uint8]
    dab: Floats
    tissue: Tissue
    bundle: Bundle
    baseline: Baseline
    seed: int
    out: Path
    calls: Calls

    @property
    def mpp(self) -> float:
        return self.tissue.mpp


def check_phantom(
    data: Path,
    out: Path,
    *,
    model: Path | None = None,
    split: str = "test",
    images: int = 12,
    baseline: Baseline = "glass",
    seed: int = 0,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> CheckSummary:
    """Measure attribution and attention against the phantom's known causes, beside baseline maps.

    Writes ``explain.html``, ``explain.json`` and overlays of the first images. Each image's level is explained on its
    middle window, and the DAB of one place: a tumour cell drawn by ``seed`` among those to whose disc the model gives at
    least ``LEAST_DAB``.

    Args:
        data: a phantom as :func:`restain.phantom.write_phantom` wrote it.
        out: folder of the results.
        model: a bundle; None for the shipped one.
        split: ``train``, ``val`` or ``test``; only held-out images say something of a trained model.
        images: how many, the first by name.
        baseline: what "nothing there" looks like, for the maps and for the curves.
        seed: of the places, the random map and ties.
        command: the command line, for the report.
        progress: called with images done in hundredths.

    Raises:
        RestainError: if ``data`` is no phantom whose tissue can be grown again, it is at another mpp than the model, the
            split is empty or unknown, or ``out`` cannot be written.
    """
    bundle = load_bundle(model)
    channels_last(bundle.generator).eval()
    if split not in SPLITS:
        raise RestainError(f"'{split}' is no split; there are {', '.join(SPLITS)}.")
    recipe = bundle.recipe.data
    pairs = open_pairs(data, val_share=recipe.val_share, seed=bundle.recipe.seed).split(split)[:images]
    if not pairs:
        raise RestainError(f"{data} has no pairs in its {split} split.")
    make_folder(out)
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(pairs):
        calls = Calls(_calls_per_image(bundle), _part_of(progress, number, len(pairs)))
        rows += _explained(pair, number, data, bundle, baseline, seed, out, calls)
    if progress is not None:
        progress(len(pairs) * 100, len(pairs) * 100)
    targets: dict[str, Any] = {
        target: {
            "images": len(own),
            "figures": figures_of(own, seed),
            "verdicts": verdicts(own, seed),
            "classes": class_table(own, seed),
            "cause": {key: float(np.mean([row[key] for row in own])) for key in ("cause_area", "agrees")},
        }
        for target in ("level", "dab")
        if (own := [row for row in rows if row["target"] == target])
    }
    sentences = [f"{t}: {line['sentence']}" for t, part in targets.items() for line in part["verdicts"]]
    notes = []
    for target in targets:
        sums = [row["accounted"] for row in rows if row["target"] == target and row["accounted"] is not None]
        if sums:
            notes.append(
                f"{target}: integrated gradients sums to {min(sums):.2f} to {max(sums):.2f} of the difference to the "
                "baseline; the nearer to 1, the better its steps follow the model."
            )
    if bundle.generator.expression is None:
        notes.append("The model has no label feature, so no level is explained, only the DAB.")
    without = len(pairs) - (targets["dab"]["images"] if "dab" in targets else 0)
    if without:
        notes.append(
            f"On {without} of {len(pairs)} images the model gives no tumour cell {LEAST_DAB} OD; they have no DAB to explain."
        )
    result = {
        "kind": "check",
        "data": str(data),
        "split": split,
        "model": f"{bundle.card.name} ({bundle.card.hash[:12]})",
        "trained_on": bundle.card.data,
        "baseline": baseline,
        "seed": seed,
        "command": command,
        "sentences": sentences,
        "notes": notes,
        "targets": targets,
        "rows": rows,
    }
    write_json(out, result)
    return CheckSummary(write_page(out, "check.html.j2", {"r": result}), tuple(sentences + notes))


def _calls_per_image(bundle: Bundle) -> int:
    side = LEVEL_WINDOW if bundle.generator.expression is not None else 0
    level = LEVEL_EFFORT.calls((side, side)) + 8 * LEVEL_STEPS if side else 0
    return level + CHECK_EFFORT.calls((DAB_WINDOW, DAB_WINDOW)) + 12 * DAB_STEPS


def _part_of(
    progress: Callable[[int, int], None] | None, number: int, images: int
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda done, total: report(100 * number + 100 * done // max(total, 1), 100 * images)


def _explained(
    pair: Pair, number: int, data: Path, bundle: Bundle, baseline: Baseline, seed: int, out: Path, calls: Calls
) -> list[dict[str, Any]]:
    he, _ = pair.load()
    normalize = picture_normalizer(bundle.recipe)
    he = he if normalize is None else normalize(he)
    name = pair.he_path.stem
    tissue = regrow(data, name)
    if abs(tissue.mpp / bundle.card.mpp - 1) > 0.01:
        raise RestainError(
            f"{data} is at {tissue.mpp:g} µm/px and the model at {bundle.card.mpp:g}; write a phantom with --mpp "
            f"{bundle.card.mpp:g} for this check."
        )
    truth = read_truth(data / "truth" / pair.he_path.parent.name / f"{name}.tif")
    case = _Case(pair, number, he, truth, tissue, bundle, baseline, seed, out, calls)
    return [row for row in (_level_row(case), _dab_row(case)) if row is not None]


def _level_row(case: _Case) -> dict[str, Any] | None:
    classifier = case.bundle.generator.expression
    if classifier is None:
        return None
    shape = case.he.shape
    region = window_around(shape, Point(shape[1] // 2, shape[0] // 2), LEVEL_WINDOW)
    found = explain_level(classifier, cut(case.he, region), case.mpp, case.calls, baseline=case.baseline)
    maps = {m.method: m.values for m in found.maps}
    cause = cut(tumour_cells(case.tissue), region)
    row = _measured(
        case, found.he, maps, cause, found.baseline, level_probability(classifier, found.level), LEVEL_STEPS
    )
    classes = cut(classes_of(case.tissue), region)
    return row | {
        "target": "level",
        "explained": found.level.text,
        "agrees": float(found.level == case.pair.level),
        "accounted": found.maps[0].accounted,
        "classes": {m: per_class(smoothed(values, case.mpp), classes) for m, values in maps.items()}
        | {"true DAB": per_class(cut(case.dab, region), classes)},
        "pictures": _pictures(case, found.he, maps, cause, "level"),
    }


def _dab_row(case: _Case) -> dict[str, Any] | None:
    network, shape = case.bundle.generator, (case.he.shape[0], case.he.shape[1])
    with torch.inference_mode():
        density = dab_map(network(batch_of(case.he)))[0].float().numpy()
    radius = DISC_UM / 2 / case.mpp
    points = [
        point
        for point in candidate_points(case.tissue, radius)
        if density[disc_mask(shape, point, case.mpp)].mean() >= LEAST_DAB
    ]
    if not points:
        return None
    point = points[int(np.random.default_rng([case.seed, case.number]).integers(len(points)))]
    region = window_around(shape, point, DAB_WINDOW)
    local = Point(point.x - region.origin.x, point.y - region.origin.y)
    he = cut(case.he, region)
    found = explain_dab(network, he, local, case.mpp, case.calls, baseline=case.baseline, effort=CHECK_EFFORT)
    maps: dict[str, Floats] = {m.method: m.values for m in found.maps}
    if found.attention:
        maps["attention"] = overall_attention(found.attention, (he.shape[0], he.shape[1]))
    cause = cut(tumour_cells_at(case.tissue, disc_mask(shape, point, case.mpp)), region)
    nearness = {"nearness": nearness_map(cause.shape, local, case.mpp)}
    row = _measured(case, he, maps, cause, found.baseline, found.target, DAB_STEPS, nearness)
    classes = cut(classes_of(case.tissue), region)
    true_dab = cut(case.dab, region)
    return row | {
        "target": "dab",
        "point_px": [point.x, point.y],
        "dab_od": found.dab,
        "true_dab_od": float(true_dab[found.disc].mean()),
        "agrees": abs(found.dab - float(true_dab[found.disc].mean())),
        "accounted": found.maps[0].accounted,
        "attention": [a.describe(local, case.mpp) for a in found.attention],
        "classes": {m: per_class(smoothed(values, case.mpp), classes) for m, values in maps.items()}
        | {"virtual DAB": per_class(found.density, classes), "true DAB": per_class(true_dab, classes)},
        "pictures": _pictures(case, he, maps, cause, "dab", local),
    }


def _measured(
    case: _Case,
    he: NDArray[np.uint8],
    maps: Mapping[str, Floats],
    cause: NDArray[np.bool_],
    baseline: Floats,
    target: Target,
    steps: int,
    more: Mapping[str, Floats] | None = None,
) -> dict[str, Any]:
    """Every measure of every map and of the baselines. The curves are heights of the target over its whole value
    (DAB), or of the level's probability."""
    seed = case.seed * 100_003 + case.number
    shape = (he.shape[0], he.shape[1])
    baselines = {"random": random_map(shape, seed), "edge": edge_map(he, case.mpp), **(more or {})}
    target = case.calls.counted(target)
    with torch.inference_mode():
        whole, bare = (float(target(batch_of(x)).item()) for x in (he.astype(np.float32), baseline))
    scale = whole if more is not None else 1.0
    measures: dict[str, dict[str, float]] = {}
    for name, values in {**maps, **baselines}.items():
        areas = {
            key: area_under(
                curve(target, he, baseline, values, insert=insert, steps=steps, seed=seed, ends=(whole, bare))
            )
            / scale
            for key, insert in (("deletion", False), ("insertion", True))
        }
        measures[name] = {
            "pointing": hits(values, cause, case.mpp),
            "inside": share_inside(values, cause, case.mpp),
            **areas,
            "gap": areas["insertion"] - areas["deletion"],
        }
    return {"name": case.pair.name, "cause_area": float(cause.mean()), "measures": measures}


def _pictures(
    case: _Case,
    he: NDArray[np.uint8],
    maps: Mapping[str, Floats],
    cause: NDArray[np.bool_],
    what: str,
    point: Point | None = None,
) -> dict[str, str]:
    """The overlays of one image, and its cause in plain colour, for the first images only."""
    if case.number >= 4:
        return {}
    shown = {"he": he, "cause": np.where(cause[..., None], he, he // 2 + 127).astype(np.uint8)}
    shown |= {
        name: overlay(he, smoothed(values, case.mpp), attention=name == "attention") for name, values in maps.items()
    }
    stem = f"{case.pair.name}.{what}"
    return {
        name: save_picture(case.out, f"{stem}.{name}", picture(rgb, point, case.mpp)) for name, rgb in shown.items()
    }
