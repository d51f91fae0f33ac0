"""``restain explain --data PHANTOM``: how much of each map lies on the cause that the phantom's rule names.

By the rule (docs/phantom.md) the tumour cells alone decide the level. The tumour cells whose membranes lie in a disc decide
its DAB. The phantom's tissue is grown again from its seed, so classes and causes are truth.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from restain.explain import comparison, faithfulness, maps, page
from restain.explain.attention import AttentionFigures, overall_attention
from restain.explain.attribution import Baseline, Floats, counted
from restain.explain.classes import EMPTY, STROMA, Classes, ClassShare, class_of_kind, class_shares
from restain.explain.image import NO_LEVEL
from restain.explain.targets import DISC_UM, dab_map, disc_mask
from restain.files import make_folder
from restain.geometry import Point, Region, Size, same_mpp
from restain.images.nuclei import CellKind
from restain.models.blocks import channels_last
from restain.models.tensors import batch_of
from restain.phantom import Tissue, architecture, read_truth, regrow
from restain.progress import Progress, Steps, item
from restain.statistics import Interval

CHECK_EFFORT = maps.Effort(16, patch=32, step=24)
"""For the DAB of many images; coarser than for a single one."""
STEPS = {"level": 16, "dab": 8}
"""Number of equal parts of the deletion and insertion curves."""
PICTURED = 4
"""Number of images whose maps are shown."""


@dataclass(frozen=True)
class Row:
    """Measures of the maps of one ``target``, ``level`` or ``dab``, of one image.

    ``explained`` is the level or the mean DAB in OD, ``true`` its truth, ``error`` their absolute difference (0 or 1 for a
    level), ``cause_area`` the cause's share of the window, ``completeness`` that of integrated gradients.
    """

    name: str
    target: str
    explained: str | float
    true: str | float
    error: float
    cause_area: float
    completeness: float | None
    measures: dict[str, comparison.Measures]
    classes: dict[str, list[ClassShare]]
    pictures: dict[str, str]
    point_px: tuple[int, int] | None = None
    attention: tuple[AttentionFigures, ...] = ()


@dataclass(frozen=True)
class TargetResult:
    """Means over the images of one target."""

    images: int
    figures: dict[str, dict[str, Interval]]
    comparisons: list[comparison.Comparison]
    classes: comparison.ClassTable
    cause_area: float
    error: float

    @classmethod
    def of(cls, rows: list[Row], seed: int) -> TargetResult:
        measures = [row.measures for row in rows]
        return cls(
            images=len(rows),
            figures=comparison.mean_figures(measures, seed),
            comparisons=comparison.comparisons(measures, seed),
            classes=comparison.class_table([row.classes for row in rows], seed),
            cause_area=float(np.mean([row.cause_area for row in rows])),
            error=float(np.mean([row.error for row in rows])),
        )


@dataclass(frozen=True)
class CheckResult:
    """All that the page shows."""

    data: str
    split: str
    seed: int
    sentences: list[str]
    notes: list[str]
    targets: dict[str, TargetResult]
    rows: list[Row]


def check_phantom(
    data: Path,
    out: Path,
    *,
    model: str | Path | None = None,
    split: str = "test",
    images: int = 12,
    baseline: Baseline = "glass",
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> page.ExplainReport:
    """Measure attribution and attention against the phantom's known causes, beside baseline maps.

    Writes ``explain.html``, ``explain.json`` and overlays of the first images. Each image's level is explained on its
    middle window, and the DAB of one place: a random tumour cell whose disc has at least ``LEAST_DAB`` by the model.
    The first ``images`` of the split are taken; use held-out ones for a trained model. ``seed`` is of the places, the
    random map and ties; the other arguments are those of :func:`restain.explain.image.explain_image`.

    Raises RestainError if ``data`` is no phantom whose tissue can be grown again, or at another mpp than the model; if
    the split is empty or unknown; or if ``out`` cannot be written.
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
        calls = Steps(_calls_per_image(bundle), item(progress, number, len(pairs), 100))
        case = _Case.open(pair, number, data, bundle, baseline, seed, out, calls)
        rows += [row for row in (case.level_row(), case.dab_row()) if row is not None]
    if progress is not None:
        progress(len(pairs) * 100, len(pairs) * 100)
    by_target = {name: [row for row in rows if row.target == name] for name in STEPS}
    targets = {name: TargetResult.of(own, seed) for name, own in by_target.items() if own}
    sentences = [f"{name}: {one.sentence}" for name, target in targets.items() for one in target.comparisons]
    notes = list(_notes(by_target, len(pairs), bundle))
    result = CheckResult(str(data), split, seed, sentences, notes, targets, rows)
    facts = {"data": f"{data}, {split} split", "seed": str(seed)}
    title = "Do the explanations say what drives the result?"
    path = page.write_report(out, "check.html.j2", result, bundle, baseline, command, facts, title=title)
    return page.ExplainReport(path, (*sentences, *notes))


def _notes(by_target: dict[str, list[Row]], images: int, bundle: Bundle) -> Iterator[str]:
    for name, rows in by_target.items():
        sums = [row.completeness for row in rows if row.completeness is not None]
        if sums:
            yield (
                f"{name}: integrated gradients sums to {min(sums):.2f} to {max(sums):.2f} of the difference to the "
                "baseline; values near 1 show that the steps suffice."
            )
    if bundle.generator.expression is None:
        yield NO_LEVEL
    without = images - len(by_target["dab"])
    if without:
        yield (
            f"On {without} of {images} images the model gives no tumour cell {maps.LEAST_DAB} OD; they have no DAB to "
            "explain."
        )


def _calls_per_image(bundle: Bundle) -> int:
    level = 0
    if bundle.generator.expression is not None:
        level = maps.LEVEL_EFFORT.calls(Size(maps.LEVEL_WINDOW, maps.LEVEL_WINDOW)) + 8 * STEPS["level"]
    return level + CHECK_EFFORT.calls(Size(maps.DAB_WINDOW, maps.DAB_WINDOW)) + 12 * STEPS["dab"]


@dataclass(frozen=True)
class _Case:
    """One image with its truth and the model."""

    name: str
    number: int
    pair: Pair
    he: NDArray[np.uint8]
    dab: Floats
    tissue: Tissue
    bundle: Bundle
    baseline: Baseline
    seed: int
    out: Path
    calls: Steps

    @classmethod
    def open(cls, pair: Pair, number: int, data: Path, bundle: Bundle, *settings: Any) -> _Case:
        he, _ = pair.load()
        he = picture_normalizer(bundle.recipe)(he)
        file = pair.he_path.stem
        tissue, mpp = regrow(data, file), bundle.card.mpp
        if not same_mpp(tissue.mpp, mpp):
            raise RestainError(
                f"{data} is at {tissue.mpp:g} µm/px and the model at {mpp:g}; write a phantom with --mpp {mpp:g} for this "
                "check."
            )
        truth = read_truth(data / "truth" / pair.he_path.parent.name / f"{file}.tif")
        return cls(pair.name, number, pair, he, truth, tissue, bundle, *settings)

    @property
    def mpp(self) -> float:
        return self.tissue.mpp

    def level_row(self) -> Row | None:
        classifier, shape = self.bundle.generator.expression, self.he.shape
        if classifier is None:
            return None
        region = maps.window_around(shape, Point(shape[1] // 2, shape[0] // 2), maps.LEVEL_WINDOW)
        he = maps.cut(self.he, region)
        found = maps.explain_level(classifier, he, self.mpp, self.calls, baseline=self.baseline)
        level = self.pair.level
        answer = (found.level.text, "" if level is None else level.text, float(found.level != level))
        return self._row("level", answer, found, region, tumour_cells(self.tissue), {})

    def dab_row(self) -> Row | None:
        network, shape = self.bundle.generator, (self.he.shape[0], self.he.shape[1])
        with torch.inference_mode():
            density = dab_map(network(batch_of(self.he)))[0].float().numpy()
        points = [
            point
            for point in candidate_points(self.tissue, DISC_UM / 2 / self.mpp)
            if density[disc_mask(shape, point, self.mpp)].mean() >= maps.LEAST_DAB
        ]
        if not points:
            return None
        point = points[int(np.random.default_rng([self.seed, self.number]).integers(len(points)))]
        region = maps.window_around(shape, point, maps.DAB_WINDOW)
        local = Point(point.x - region.origin.x, point.y - region.origin.y)
        he = maps.cut(self.he, region)
        found = maps.explain_dab(network, he, local, self.mpp, self.calls, baseline=self.baseline, effort=CHECK_EFFORT)
        true = float(maps.cut(self.dab, region)[found.disc].mean())
        cause = tumour_cells_at(self.tissue, disc_mask(shape, point, self.mpp))
        answer = (found.dab, true, abs(found.dab - true))
        return self._row("dab", answer, found, region, cause, {"virtual DAB": found.density}, point)

    def _row(
        self,
        target: str,
        answer: tuple[str | float, str | float, float],
        found: maps.LevelMaps | maps.DabMaps,
        region: Region,
        whole_cause: NDArray[np.bool_],
        known: dict[str, Floats],
        point: Point | None = None,
    ) -> Row:
        """The row of ``(explained, true, error)``; ``known`` holds maps that are only summed per class."""
        cause, classes = maps.cut(whole_cause, region), maps.cut(true_classes(self.tissue), region)
        own = {one.method: one.values for one in found.attributions}
        attention = found.attention if isinstance(found, maps.DabMaps) else []
        if attention:
            own["attention"] = overall_attention(attention, (cause.shape[0], cause.shape[1]))
        local = found.point if isinstance(found, maps.DabMaps) else None
        smooth = {name: faithfulness.smoothed(values, self.mpp) for name, values in own.items()}
        summed = smooth | known | {"true DAB": maps.cut(self.dab, region)}
        return Row(
            self.name,
            target,
            *answer,
            cause_area=float(cause.mean()),
            completeness=found.attributions[0].completeness,
            measures=self._measures(own, found, cause, STEPS[target], local),
            classes={name: class_shares(values, classes) for name, values in summed.items()},
            pictures=self._pictures(target, smooth, found.he, cause, local),
            point_px=None if point is None else (point.x, point.y),
            attention=tuple(one.figures(local, self.mpp) for one in attention if local is not None),
        )

    def _measures(
        self, own: dict[str, Floats], found: maps.Maps, cause: NDArray[np.bool_], steps: int, point: Point | None
    ) -> dict[str, comparison.Measures]:
        """Every measure of every map and of the baseline maps.

        Areas are mean heights of the level's probability, or of the DAB over its value on the image.
        """
        seed, shape = self.seed * 100_003 + self.number, (cause.shape[0], cause.shape[1])
        every = own | {
            "random": faithfulness.random_map(shape, seed),
            "edge": faithfulness.edge_map(found.he, self.mpp),
        }
        if point is not None:
            every["nearness"] = faithfulness.nearness_map(shape, point, self.mpp)
        target = counted(found.target, self.calls)
        with torch.inference_mode():
            image, bare = (float(target(batch_of(x)).item()) for x in (found.he.astype(np.float32), found.baseline))
        scale = 1.0 if point is None else image
        measures: dict[str, comparison.Measures] = {}
        for name, values in every.items():
            deletion, insertion = (
                faithfulness.area_under(
                    faithfulness.curve(
                        target,
                        found.he,
                        found.baseline,
                        values,
                        insert=insert,
                        steps=steps,
                        seed=seed,
                        ends=(image, bare),
                    )
                )
                / scale
                for insert in (False, True)
            )
            measures[name] = {
                "pointing": faithfulness.pointing_hit(values, cause, self.mpp),
                "inside": faithfulness.share_inside(values, cause, self.mpp),
                "deletion": deletion,
                "insertion": insertion,
                "gap": insertion - deletion,
            }
        return measures

    def _pictures(
        self,
        target: str,
        smooth: dict[str, Floats],
        he: NDArray[np.uint8],
        cause: NDArray[np.bool_],
        point: Point | None,
    ) -> dict[str, str]:
        """Files of the H&E with the cause in full colour, and of the overlays, for the first images only."""
        if self.number >= PICTURED:
            return {}
        shown = {"cause": np.where(cause[..., None], he, he // 2 + 127).astype(np.uint8)} | {
            name: page.overlay(he, values, attention=name == "attention") for name, values in smooth.items()
        }
        return {
            name: page.save(self.out, f"{self.name}.{target}.{name}", page.picture(rgb, point, self.mpp))
            for name, rgb in shown.items()
        }


def true_classes(tissue: Tissue) -> Classes:
    """The true class of each pixel of grown tissue, ``(H, W)``."""
    result = np.full(tissue.compartment.shape, EMPTY, np.uint8)
    result[np.isin(tissue.compartment, (architecture.STROMA, architecture.VESSEL))] = STROMA
    of_cell = class_of_kind(tissue.cells.kind)
    for owner in (tissue.nucleus, tissue.territory):
        result[owner > 0] = of_cell[owner[owner > 0] - 1]
    return result


def tumour_cells(tissue: Tissue) -> NDArray[np.bool_]:
    """The pixels of all tumour cells, ``(H, W)``: the cause of the level."""
    is_tumour = np.append(False, tissue.cells.kind == CellKind.TUMOUR)
    return np.asarray(is_tumour[tissue.territory])


def tumour_cells_at(tissue: Tissue, disc: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of the tumour cells that reach into ``disc`` ``(H, W)``: the cause of its DAB."""
    tumour = tumour_cells(tissue)
    return tumour & np.isin(tissue.territory, np.unique(tissue.territory[disc & tumour]))


def candidate_points(tissue: Tissue, margin: float) -> list[Point]:
    """The nuclear centres of tumour cells at least ``margin`` px inside the image."""
    height, width = tissue.compartment.shape
    cells = tissue.cells.tumour
    x, y = np.rint(cells.x).astype(int), np.rint(cells.y).astype(int)
    keep = (x >= margin) & (y >= margin) & (x < width - margin) & (y < height - margin)
    return [Point(a, b) for a, b in zip(x[keep].tolist(), y[keep].tolist(), strict=True)]
