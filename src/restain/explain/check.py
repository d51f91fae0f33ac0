"""``restain explain --data PHANTOM``: how much of each map lies on the cause that the phantom's rule names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from restain.bundle import Bundle, load_bundle
from restain.data import Pair, open_pairs
from restain.data.layouts import SPLITS
from restain.errors import RestainError
from restain.explain.attention import AttentionFigures, overall_attention
from restain.explain.attribution import Baseline, CallCounter, Floats
from restain.explain.classes import ClassShare, class_shares
from restain.explain.comparison import (
    ClassTable,
    Comparison,
    Measures,
    class_table,
    comparisons,
    mean_figures,
)
from restain.explain.faithfulness import (
    area_under,
    curve,
    edge_map,
    nearness_map,
    pointing_hit,
    random_map,
    share_inside,
    smoothed,
)
from restain.explain.image import NO_LEVEL
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
from restain.explain.page import ExplainReport, Provenance, overlay, picture, save, write_report
from restain.explain.phantom_causes import candidate_points, true_classes, tumour_cells, tumour_cells_at
from restain.explain.targets import DISC_UM, Target, dab_map, disc_mask, level_probability
from restain.files import make_folder
from restain.geometry import Point, Size
from restain.models.blocks import channels_last
from restain.models.tensors import batch_of
from restain.phantom import Tissue, read_truth, regrow
from restain.statistics import Interval

CHECK_EFFORT = Effort(16, patch=32, step=24)
"""For the DAB of many images; coarser than for a single one."""
LEVEL_STEPS, DAB_STEPS = 16, 8
"""Number of equal parts of the deletion and insertion curves."""
PICTURED = 4
"""Number of images whose maps are shown."""


@dataclass(frozen=True)
class Row:
    """Measures of the maps of one target of one image.

    ``target`` is ``level`` or ``dab``; ``explained`` the level or the mean DAB in OD, ``true`` its truth, ``error`` their
    absolute difference (0 or 1 for a level). ``cause_area`` is the cause's share of the window, ``completeness`` that of
    integrated gradients.
    """

    name: str
    target: str
    explained: str | float
    true: str | float
    error: float
    cause_area: float
    completeness: float | None
    measures: dict[str, Measures]
    classes: dict[str, list[ClassShare]]
    pictures: dict[str, str]
    point_px: tuple[int, int] | None = None
    attention: tuple[AttentionFigures, ...] = ()


@dataclass(frozen=True)
class TargetResult:
    """Means over the images of one target."""

    images: int
    figures: dict[str, dict[str, Interval]]
    comparisons: list[Comparison]
    classes: ClassTable
    cause_area: float
    error: float


@dataclass(frozen=True)
class CheckResult:
    """All that the page shows."""

    kind: str
    data: str
    split: str
    seed: int
    sentences: list[str]
    notes: list[str]
    targets: dict[str, TargetResult]
    rows: list[Row]


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
    calls: CallCounter

    @property
    def mpp(self) -> float:
        return self.tissue.mpp


@dataclass(frozen=True)
class _Window:
    """Maps of one target on a window, its cause and the baseline image; ``point`` for a DAB."""

    target: Target
    he: NDArray[np.uint8]
    baseline: Floats
    maps: dict[str, Floats]
    cause: NDArray[np.bool_]
    steps: int
    point: Point | None = None


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
) -> ExplainReport:
    """Measure attribution and attention against the phantom's known causes, beside baseline maps.

    Writes ``explain.html``, ``explain.json`` and overlays of the first images. Each image's level is explained on its
    middle window, and the DAB of one place: a random tumour cell whose disc has at least ``LEAST_DAB`` by the model.

    Args:
        data: a phantom as :func:`restain.phantom.write_phantom` wrote it.
        out: folder of the results.
        model: a bundle; None for the shipped one.
        split: ``train``, ``val`` or ``test``; use held-out images for a trained model.
        images: number of images, the first by name.
        baseline: image without evidence, for the maps and for the curves.
        seed: seed of the places, the random map and ties.
        command: the command line, for the report.
        progress: called with images done and in all, in hundredths of an image.

    Raises:
        RestainError: if ``data`` is no phantom whose tissue can be grown again, or at another mpp than the model; if the
            split is empty or unknown; or if ``out`` cannot be written.
    """
    bundle = load_bundle(model)
    channels_last(bundle.generator).eval()
    if split not in SPLITS:
        raise RestainError(f"Unknown split '{split}'; choose from {', '.join(SPLITS)}.")
    pairs = open_pairs(data, val_share=bundle.recipe.data.val_share, seed=bundle.recipe.seed).split(split)[:images]
    if not pairs:
        raise RestainError(f"{data} has no pairs in its {split} split.")
    make_folder(out)
    rows: list[Row] = []
    for number, pair in enumerate(pairs):
        report = None if progress is None else _in_hundredths(progress, number, len(pairs))
        case = _open(pair, number, data, bundle, baseline, seed, out, CallCounter(_calls_per_image(bundle), report))
        rows += [row for row in (_level_row(case), _dab_row(case)) if row is not None]
    if progress is not None:
        progress(len(pairs) * 100, len(pairs) * 100)
    targets = {name: _summary(own, seed) for name in ("level", "dab") if (own := [r for r in rows if r.target == name])}
    sentences = [f"{name}: {one.sentence}" for name, target in targets.items() for one in target.comparisons]
    notes = list(_notes(rows, len(pairs), bundle))
    result = CheckResult("check", str(data), split, seed, sentences, notes, targets, rows)
    facts = [("data", f"{data}, {split} split"), ("seed", str(seed))]
    by = Provenance.of(bundle, baseline, command)
    title = "Do the explanations say what drives the result?"
    path = write_report(out, "check.html.j2", result, by, facts, title=title)
    return ExplainReport(path, tuple(sentences + notes))


def _notes(rows: list[Row], images: int, bundle: Bundle) -> Iterable[str]:
    for name in ("level", "dab"):
        sums = [row.completeness for row in rows if row.target == name and row.completeness is not None]
        if sums:
            yield (
                f"{name}: integrated gradients sums to {min(sums):.2f} to {max(sums):.2f} of the difference to the "
                "baseline; values near 1 show that the steps suffice."
            )
    if bundle.generator.expression is None:
        yield NO_LEVEL
    without = images - sum(row.target == "dab" for row in rows)
    if without:
        yield (
            f"On {without} of {images} images the model gives no tumour cell {LEAST_DAB} OD; they have no DAB to explain."
        )


def _summary(rows: list[Row], seed: int) -> TargetResult:
    measures, classes = [row.measures for row in rows], [row.classes for row in rows]
    return TargetResult(
        images=len(rows),
        figures=mean_figures(measures, seed),
        comparisons=comparisons(measures, seed),
        classes=class_table(classes, seed),
        cause_area=float(np.mean([row.cause_area for row in rows])),
        error=float(np.mean([row.error for row in rows])),
    )


def _calls_per_image(bundle: Bundle) -> int:
    level = 0
    if bundle.generator.expression is not None:
        level = LEVEL_EFFORT.calls(Size(LEVEL_WINDOW, LEVEL_WINDOW)) + 8 * LEVEL_STEPS
    return level + CHECK_EFFORT.calls(Size(DAB_WINDOW, DAB_WINDOW)) + 12 * DAB_STEPS


def _in_hundredths(progress: Callable[[int, int], None], number: int, images: int) -> Callable[[int, int], None]:
    return lambda done, total: progress(100 * number + 100 * done // max(total, 1), 100 * images)


def _open(
    pair: Pair,
    number: int,
    data: Path,
    bundle: Bundle,
    baseline: Baseline,
    seed: int,
    out: Path,
    calls: CallCounter,
) -> _Case:
    he, _ = pair.load()
    name = pair.he_path.stem
    tissue = regrow(data, name)
    if abs(tissue.mpp / bundle.card.mpp - 1) > 0.01:
        raise RestainError(
            f"{data} is at {tissue.mpp:g} µm/px and the model at {bundle.card.mpp:g}; write a phantom with --mpp "
            f"{bundle.card.mpp:g} for this check."
        )
    truth = read_truth(data / "truth" / pair.he_path.parent.name / f"{name}.tif")
    return _Case(pair, number, he, truth, tissue, bundle, baseline, seed, out, calls)


def _level_row(case: _Case) -> Row | None:
    classifier = case.bundle.generator.expression
    if classifier is None:
        return None
    shape = case.he.shape
    region = window_around(shape, Point(shape[1] // 2, shape[0] // 2), LEVEL_WINDOW)
    found = explain_level(classifier, cut(case.he, region), case.mpp, case.calls, baseline=case.baseline)
    maps = {m.method: m.values for m in found.maps}
    cause = cut(tumour_cells(case.tissue), region)
    target = level_probability(classifier, found.level)
    window = _Window(target, found.he, found.baseline, maps, cause, LEVEL_STEPS)
    classes = cut(true_classes(case.tissue), region)
    return Row(
        name=case.pair.name,
        target="level",
        explained=found.level.text,
        true="" if case.pair.level is None else case.pair.level.text,
        error=float(found.level != case.pair.level),
        cause_area=float(cause.mean()),
        completeness=found.maps[0].completeness,
        measures=_measures(case, window),
        classes=_class_shares(case, maps, classes, {"true DAB": cut(case.dab, region)}),
        pictures=_pictures(case, window, "level"),
    )


def _dab_row(case: _Case) -> Row | None:
    network, shape = case.bundle.generator, (case.he.shape[0], case.he.shape[1])
    with torch.inference_mode():
        density = dab_map(network(batch_of(case.he)))[0].float().numpy()
    points = [
        point
        for point in candidate_points(case.tissue, DISC_UM / 2 / case.mpp)
        if density[disc_mask(shape, point, case.mpp)].mean() >= LEAST_DAB
    ]
    if not points:
        return None
    point = points[int(np.random.default_rng([case.seed, case.number]).integers(len(points)))]
    region = window_around(shape, point, DAB_WINDOW)
    local = Point(point.x - region.origin.x, point.y - region.origin.y)
    he = cut(case.he, region)
    found = explain_dab(network, he, local, case.mpp, case.calls, baseline=case.baseline, effort=CHECK_EFFORT)
    maps = {m.method: m.values for m in found.maps}
    if found.attention:
        maps["attention"] = overall_attention(found.attention, (he.shape[0], he.shape[1]))
    cause = cut(tumour_cells_at(case.tissue, disc_mask(shape, point, case.mpp)), region)
    window = _Window(found.target, he, found.baseline, maps, cause, DAB_STEPS, local)
    true_dab = cut(case.dab, region)
    truth = float(true_dab[found.disc].mean())
    known = {"virtual DAB": found.density, "true DAB": true_dab}
    return Row(
        name=case.pair.name,
        target="dab",
        explained=found.dab,
        true=truth,
        error=abs(found.dab - truth),
        cause_area=float(cause.mean()),
        completeness=found.maps[0].completeness,
        measures=_measures(case, window),
        classes=_class_shares(case, maps, cut(true_classes(case.tissue), region), known),
        pictures=_pictures(case, window, "dab"),
        point_px=(point.x, point.y),
        attention=tuple(one.figures(local, case.mpp) for one in found.attention),
    )


def _class_shares(
    case: _Case, maps: dict[str, Floats], classes: NDArray[np.uint8], known: dict[str, Floats]
) -> dict[str, list[ClassShare]]:
    shown = {name: smoothed(values, case.mpp) for name, values in maps.items()} | known
    return {name: class_shares(values, classes) for name, values in shown.items()}


def _measures(case: _Case, window: _Window) -> dict[str, Measures]:
    """Every measure of every map and of the baseline maps.

    Areas are mean heights of the level's probability, or of the DAB over its value on the image.
    """
    seed = case.seed * 100_003 + case.number
    he, shape = window.he, (window.he.shape[0], window.he.shape[1])
    maps = window.maps | {"random": random_map(shape, seed), "edge": edge_map(he, case.mpp)}
    if window.point is not None:
        maps |= {"nearness": nearness_map(shape, window.point, case.mpp)}
    target = case.calls.counted(window.target)
    with torch.inference_mode():
        image, bare = (float(target(batch_of(x)).item()) for x in (he.astype(np.float32), window.baseline))
    scale = 1.0 if window.point is None else image

    def area(values: Floats, insert: bool) -> float:
        heights = curve(
            target, he, window.baseline, values, insert=insert, steps=window.steps, seed=seed, ends=(image, bare)
        )
        return area_under(heights) / scale

    measures: dict[str, Measures] = {}
    for name, values in maps.items():
        deletion, insertion = area(values, False), area(values, True)
        measures[name] = {
            "pointing": pointing_hit(values, window.cause, case.mpp),
            "inside": share_inside(values, window.cause, case.mpp),
            "deletion": deletion,
            "insertion": insertion,
            "gap": insertion - deletion,
        }
    return measures


def _pictures(case: _Case, window: _Window, target: str) -> dict[str, str]:
    """Files of the overlays, and of the H&E with the cause in full colour, for the first images only."""
    if case.number >= PICTURED:
        return {}
    he = window.he
    shown = {"cause": np.where(window.cause[..., None], he, he // 2 + 127).astype(np.uint8)}
    for name, values in window.maps.items():
        shown[name] = overlay(he, smoothed(values, case.mpp), attention=name == "attention")
    return {
        name: save(case.out, f"{case.pair.name}.{target}.{name}", picture(rgb, window.point, case.mpp))
        for name, rgb in shown.items()
    }
