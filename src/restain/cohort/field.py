"""A stained slide, scored field by field: squares of 1 mm² with the patterns of their cells, their DAB and their sampling error.

Cells are found and scored as in :mod:`restain.evaluation.her2_classifier`. Every cell counts in the field of its nucleus,
so the counts of the fields add up to those of the slide, whatever the size of fields.

Tumour cells are not separated from others: *all nuclei in tissue* are cells, and *area* is the area of tissue. A field with
much stroma or many lymphocytes scores too low.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BeforeValidator, PlainSerializer, TypeAdapter

from restain.evaluation.her2_classifier import STAINED_OD, Her2Classifier, level_probabilities, pattern_counts
from restain.evaluation.membrane import CellMembranes, cell_membranes, ihc_hematoxylin
from restain.geometry import Point, Region, Size, um_to_px
from restain.her2 import CELL_SHARE, FAINT_OD, Her2Level, Her2Zero, level_of_counts, zero_of_counts
from restain.ood.detector import OodDetector
from restain.optics import DAB, HEMATOXYLIN, optical_density, unmix
from restain.progress import Progress
from restain.slides import DensitySlide, Slide, TissueMask

FIELD_UM = 1000.0
"""Side of a field: 1 mm², about five fields of view at 40x."""

LEAST_TISSUE = 0.1
"""Least share of tissue in a field; others are left out, because they have few cells."""

MARGIN_UM = 36.0
"""Margin around a field, so that the cells at its border are scored as in a larger one."""

SQUARE_UM = 250.0
"""Side of the squares of a field whose tissue counts as area of their own level. Borders between levels cross most fields,
and such a field would count as a whole for the higher level."""

LEAST_CELLS = 30
"""A square with fewer cells has the level of its field."""

FEW_CELLS = 100
"""With fewer cells the level of a field is uncertain."""

UNCERTAIN = 0.1
"""Least sampling error of an uncertain level."""

Counts = tuple[int, int, int, int]


class Scored:
    """What follows from the ``cells`` of a field, slide or patient."""

    if TYPE_CHECKING:

        @property
        def cells(self) -> Counts: ...

    @property
    def level(self) -> Her2Level:
        """By the rule, applied to all cells together, as in the guideline (:func:`restain.her2.level_of_counts`)."""
        return level_of_counts(self.cells)

    @property
    def zero(self) -> Her2Zero | None:
        """Null or ultralow, at level 0."""
        return zero_of_counts(self.cells)

    @property
    def level_text(self) -> str:
        return self.level.text if self.zero is None else self.zero.text

    @property
    def sampling_error(self) -> float:
        return sampling_error(self.cells)

    def facts(self) -> dict[str, Any]:
        """Ready for JSON."""
        zero = None if self.zero is None else self.zero.value
        return {"level": self.level.text, "zero": zero, "sampling_error": self.sampling_error}


def _region(sides: Region | Sequence[int]) -> Region:
    return sides if isinstance(sides, Region) else Region(Point(*sides[:2]), Size(*sides[2:]))


def _sides(region: Region) -> list[int]:
    return [region.origin.x, region.origin.y, region.size.width, region.size.height]


def _level(level: Her2Level | str) -> Her2Level:
    return level if isinstance(level, Her2Level) else Her2Level.parse(level)


@dataclass(frozen=True)
class FieldReading(Scored):
    """Scores of one field. ``region`` is in px of the stained slide, cut at its border."""

    row: int
    column: int
    region: Annotated[Region, BeforeValidator(_region), PlainSerializer(_sides)]
    areas: tuple[float, float, float, float]
    """Tissue in mm² in squares of ``SQUARE_UM`` at each level, 0 to 3+."""
    cells: Counts
    """Number of cells whose highest pattern is that of each level, 0 to 3+ (:func:`restain.her2.cell_levels`)."""
    stained_share: float
    """Share of the tissue's area whose DAB density is at least faint, in [0, 1]."""
    mean_od: float
    """Mean DAB density over the tissue in OD."""
    classifier: Annotated[Her2Level, BeforeValidator(_level), PlainSerializer(lambda one: one.text)] | None = None
    """Level by the HER2 classifier, if one was used."""
    in_distribution: bool | None = None
    """Whether the H&E is in the distribution of the training images; None if the bundle has no detector."""
    null_mm2: float = 0.0
    """The part of ``areas[0]`` without any staining; the rest is ultralow."""

    @property
    def tissue_mm2(self) -> float:
        return sum(self.areas)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the level is uncertain; empty if it is not."""
        found = []
        if sum(self.cells) < FEW_CELLS:
            found.append(f"only {sum(self.cells)} cells")
        elif self.sampling_error >= UNCERTAIN:
            found.append("close to another level")
        if self.classifier is not None and self.classifier != self.level:
            found.append(f"the classifier says {self.classifier.text}")
        if self.in_distribution is False:
            found.append("the H&E is unlike the training images")
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; :meth:`from_dict` reads it back."""
        return dict(_FIELD.dump_python(self, mode="json"))

    @staticmethod
    def from_dict(values: dict[str, Any]) -> FieldReading:
        """What :meth:`as_dict` gave; ValueError or RestainError if ``values`` is not a field."""
        return _FIELD.validate_python(values)


_FIELD = TypeAdapter(FieldReading)


def margin(cells: Counts) -> float:
    """Distance of the deciding share of cells from 10 %, in [0, 1]; 0 without cells.

    The smaller of two: of the share with at least the level's pattern, which must stay above 10 %, and of the share with
    the next pattern, which must not exceed it.
    """
    total, level = sum(cells), level_of_counts(cells)
    if not total:
        return 0.0
    gaps = [sum(cells[level:]) / total - CELL_SHARE] if level else []
    gaps += [CELL_SHARE - sum(cells[level + 1 :]) / total] if level < Her2Level.THREE else []
    return max(0.0, min(gaps))


def sampling_error(cells: Counts) -> float:
    """The probability that as many cells of the same tissue would give another level, in [0, 0.5].

    The normal tail of :func:`margin` over the standard error of a share of 10 %, for independent cells. It depends on the
    number of cells only, not on the quality of the stain.
    """
    total = sum(cells)
    if not total:
        return 0.5
    error = math.sqrt(CELL_SHARE * (1 - CELL_SHARE) / total)
    return 0.5 * math.erfc(margin(cells) / error / math.sqrt(2))


def fields(size: Size, mpp: float, side_um: float = FIELD_UM) -> Iterator[Region]:
    """Squares of ``side_um`` that cover a slide of ``size`` px without overlap, row by row; the last ones may be cut.

    Each border is rounded to whole px by itself, so that errors do not add up. Raises ValueError if ``mpp`` is not a
    positive number or a field is smaller than a px.
    """
    um_to_px(1.0, mpp)
    if not side_um >= mpp:
        raise ValueError(f"a field of {side_um} µm is smaller than a pixel of {mpp} µm")

    def edges(length: int) -> list[int]:
        count = math.ceil(length * mpp / side_um - 1e-9)
        return [*(round(k * side_um / mpp) for k in range(count)), length]

    rows, columns = edges(size.height), edges(size.width)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            if bottom > top and right > left:
                yield Region(Point(left, top), Size(right - left, bottom - top))


def read_fields(
    ihc: Slide,
    tissue: TissueMask,
    *,
    dab: DensitySlide | None = None,
    white: ArrayLike | None = None,
    he: Slide | None = None,
    ood: OodDetector | None = None,
    classifier: Her2Classifier | None = None,
    side_um: float = FIELD_UM,
    progress: Progress | None = None,
) -> list[FieldReading]:
    """Score a stained slide field by field at its own mpp; the fields with at least ``LEAST_TISSUE``, row by row.

    Args:
        ihc: virtual or real IHC slide.
        tissue: mask of the slide, from its corner.
        dab: its DAB densities on the same grid; default: colour deconvolution.
        white: ``(3,)`` white point of the IHC, RGB in [1, 255]; default: ``tissue.glass``.
        he: H&E slide on the same grid at ``ihc.mpp``, for ``ood``.
        classifier: HER2 classifier for a second score.

    Raises RestainError if pixels cannot be read; ValueError if ``dab`` is of another size.
    """
    if dab is not None and dab.size != ihc.size:
        raise ValueError(f"the DAB map is of {dab.size}, the slide of {ihc.size}")
    mpp, glass = ihc.mpp, np.asarray(tissue.glass if white is None else white, np.float32)
    boxes = list(fields(ihc.size, mpp, side_um))
    found = []
    for done, box in enumerate(boxes):
        if progress is not None:
            progress(done, len(boxes))
        area = box.size.width * box.size.height * mpp**2
        if tissue.covers(box, mpp) * area < LEAST_TISSUE * side_um**2:
            continue
        place = (round(box.origin.y * mpp / side_um), round(box.origin.x * mpp / side_um))
        inside = tissue.nearest(tissue.mask, box, mpp)
        cells, own = _stain(ihc, dab, box, mpp, glass, inside)
        rgb = None if classifier is None else ihc.read(box, mpp)
        score = None
        if classifier is not None and rgb is not None:
            scale = mpp / classifier.facts.mpp
            score = Her2Level(int(level_probabilities(classifier.network, rgb, scale, classifier.facts.tile).argmax()))
        in_distribution = None
        if he is not None and ood is not None:
            in_distribution = ood.judge(he.read(_fullest(inside, box), mpp)).in_distribution
        stained = own[inside]
        areas, null = _areas(cells, inside, mpp)
        found.append(
            FieldReading(
                *place,
                box,
                areas=areas,
                null_mm2=null,
                cells=pattern_counts(cells),
                stained_share=float(np.mean(stained >= FAINT_OD)) if stained.size else 0.0,
                mean_od=float(stained.mean(dtype=np.float64)) if stained.size else 0.0,
                classifier=score,
                in_distribution=in_distribution,
            )
        )
    if progress is not None:
        progress(len(boxes), len(boxes))
    return found


def _stain(
    ihc: Slide, dab: DensitySlide | None, box: Region, mpp: float, glass: NDArray[np.float32], inside: NDArray[np.bool_]
) -> tuple[CellMembranes, NDArray[np.float32]]:
    """The cells whose nucleus lies in the tissue of a field, and the field's DAB density."""
    pad = math.ceil(MARGIN_UM / mpp)
    wide = box.grown(pad)
    rgb = ihc.read(wide, mpp)
    if dab is None:
        densities = unmix(optical_density(rgb, glass), (HEMATOXYLIN, DAB))
        hematoxylin, density = np.maximum(densities[..., 0], 0), np.maximum(densities[..., 1], 0)
    else:
        hematoxylin, density = ihc_hematoxylin(rgb, glass), dab.read(wide)
    every = cell_membranes(density, hematoxylin, mpp, STAINED_OD)
    y, x = every.y.astype(int) - pad, every.x.astype(int) - pad
    here = (y >= 0) & (y < box.size.height) & (x >= 0) & (x < box.size.width)
    here[here] = inside[y[here], x[here]]
    return _select(every, here, pad), density[pad : pad + box.size.height, pad : pad + box.size.width]


def _select(cells: CellMembranes, which: NDArray[np.bool_], shift: int = 0) -> CellMembranes:
    """Some of the cells, moved up and left by ``shift`` px."""
    return CellMembranes(cells.y[which] - shift, cells.x[which] - shift, cells.completeness[which], cells.dab_od[which])


def _areas(
    cells: CellMembranes, inside: NDArray[np.bool_], mpp: float
) -> tuple[tuple[float, float, float, float], float]:
    """Tissue in mm² at each level, and that without any staining."""
    found, null = [0.0, 0.0, 0.0, 0.0], 0.0
    every = pattern_counts(cells)
    for square in fields(Size(inside.shape[1], inside.shape[0]), mpp, SQUARE_UM):
        within = (cells.y >= square.origin.y) & (cells.y < square.bottom)
        within &= (cells.x >= square.origin.x) & (cells.x < square.right)
        counts = pattern_counts(_select(cells, within))
        counts = counts if sum(counts) >= LEAST_CELLS else every
        area = float(np.count_nonzero(inside[square.slices])) * mpp**2 / 1e6
        found[level_of_counts(counts)] += area
        null += area if zero_of_counts(counts) is Her2Zero.NULL else 0.0
    return (found[0], found[1], found[2], found[3]), null


_WINDOW = 512
"""Side in px of the H&E window that represents a field for OOD detection."""


def _fullest(inside: NDArray[np.bool_], box: Region) -> Region:
    """The window of the field with the most tissue, on a grid of half windows."""
    side = Size(min(_WINDOW, box.size.width), min(_WINDOW, box.size.height))
    starts = [
        (y, x)
        for y in range(0, box.size.height - side.height + 1, max(1, side.height // 2))
        for x in range(0, box.size.width - side.width + 1, max(1, side.width // 2))
    ]
    y, x = max(starts, key=lambda at: np.count_nonzero(inside[at[0] : at[0] + side.height, at[1] : at[1] + side.width]))
    return Region(Point(box.origin.x + x, box.origin.y + y), side)
