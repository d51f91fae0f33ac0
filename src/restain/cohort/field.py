"""A stained slide read field by field: squares of 1 mm², each with its cells' patterns, its DAB and its doubt.

HER2 is uneven within a tumour, so one level for a slide hides what its parts say. Cells are found and judged as in
:mod:`restain.evaluation.her2_classifier`; every cell counts in the field in which its nucleus lies, so that the counts of fields add
up to the slide's, whatever the size of fields.

What is tumour, nobody has told: no network here tells tumour cells from others, and neither does the rule, so *all nuclei
in tissue* are cells and *area* is the area of tissue. A field with much stroma or many lymphocytes is read too low.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.evaluation.her2_classifier import STAINED_OD, Her2Classifier, level_probabilities, pattern_counts
from restain.evaluation.membrane import CellMembranes, cell_membranes, ihc_hematoxylin
from restain.geometry import Point, Region, Size, um_to_px
from restain.her2 import CELL_SHARE, FAINT_OD, Her2Level, level_of_counts
from restain.ood.detector import OodDetector
from restain.optics import DAB, HEMATOXYLIN, optical_density, unmix
from restain.slides import DensitySlide, Slide, TissueMask

FIELD_UM = 1000.0
"""Side of a field: 1 mm², some five fields of view at 40x."""

LEAST_TISSUE = 0.1
"""A field with less tissue, as a share of a whole field's area, is left out: its few cells would say nothing."""

MARGIN_UM = 36.0
"""Read round a field, so that the cells at its border are judged as they would be in a larger one."""

SQUARE_UM = 250.0
"""Side of the squares, inside a field, whose tissue counts as area of their own level: borders between parts of different
level cross most fields, and such a field would count as a whole for the higher one."""

LEAST_CELLS = 30
"""A square with fewer cells has the level of its field."""

FEW_CELLS = 100
"""With fewer cells, more than 10 % of them is a matter of a handful."""

DOUBTFUL = 0.1
"""From this doubt on a field's level is called uncertain."""

Counts = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FieldReading:
    """What one field says. ``region`` is in px of the stained slide, cut at its border."""

    row: int
    column: int
    region: Region
    areas: tuple[float, float, float, float]
    """Tissue in mm² in squares of ``SQUARE_UM`` that are read at each level, 0 to 3+."""
    cells: Counts
    """How many cells show at most the pattern of each level, 0 to 3+ (:func:`restain.her2.cell_levels`)."""
    stained_share: float
    """Share of the tissue's area whose DAB density is at least faint, in [0, 1]."""
    mean_od: float
    """Mean DAB density over the tissue in OD."""
    classifier: Her2Level | None = None
    """The level by the classifier's network; None where none was asked."""
    in_distribution: bool | None = None
    """Whether the H&E here is like the model's training images; None where the bundle does not know."""

    @property
    def tissue_mm2(self) -> float:
        return sum(self.areas)

    @property
    def level(self) -> Her2Level:
        """By the rule (:func:`restain.her2.level_of_counts`)."""
        return level_of_counts(self.cells)

    @property
    def doubt(self) -> float:
        """The chance that the number of cells alone would give another level, in [0, 0.5]: :func:`restain.cohort.doubt`."""
        return doubt(self.cells)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the level is uncertain, in words; empty where nothing speaks against it."""
        found = []
        if sum(self.cells) < FEW_CELLS:
            found.append(f"only {sum(self.cells)} cells")
        elif self.doubt >= DOUBTFUL:
            found.append("close to another level")
        if self.classifier is not None and self.classifier != self.level:
            found.append(f"the classifier reads {self.classifier.text}")
        if self.in_distribution is False:
            found.append("the H&E is unlike the training images")
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; :meth:`from_dict` reads it back."""
        box = self.region
        return asdict(self) | {
            "region": [box.origin.x, box.origin.y, box.size.width, box.size.height],
            "areas": list(self.areas),
            "cells": list(self.cells),
            "classifier": None if self.classifier is None else self.classifier.text,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FieldReading:
        """Raises :class:`LookupError`, :class:`TypeError`, :class:`ValueError` or a :class:`RestainError` for what is no such reading."""
        x, y, width, height = values["region"]
        zero, one, two, three = (int(count) for count in values["cells"])
        of_zero, of_one, of_two, of_three = (float(area) for area in values["areas"])
        level = values["classifier"]
        return cls(
            **values
            | {
                "region": Region(Point(x, y), Size(width, height)),
                "areas": (of_zero, of_one, of_two, of_three),
                "cells": (zero, one, two, three),
                "classifier": None if level is None else Her2Level.parse(level),
            }
        )


def margin(cells: Counts) -> float:
    """How far the share of cells that decides the level is from the guideline's 10 %, in [0, 1]; 0 without cells.

    The nearer of two: the share of cells that show at least the level's pattern, which must not fall to 10 %, and that of
    those which show the next one's, which must not rise above.
    """
    total, level = sum(cells), level_of_counts(cells)
    if not total:
        return 0.0
    gaps = [sum(cells[level:]) / total - CELL_SHARE] if level else []
    gaps += [CELL_SHARE - sum(cells[level + 1 :]) / total] if level < Her2Level.THREE else []
    return max(0.0, min(gaps))


def doubt(cells: Counts) -> float:
    """The chance that as many cells of the same tissue would be read as another level, in [0, 0.5].

    The normal tail of :func:`margin` over the standard error of a share of 10 %, so cells are taken to be independent. It
    speaks of the number of cells alone: not of whether the stain is right, which ``in_distribution`` and the classifier hint at.
    """
    total = sum(cells)
    if not total:
        return 0.5
    error = math.sqrt(CELL_SHARE * (1 - CELL_SHARE) / total)
    return 0.5 * math.erfc(margin(cells) / error / math.sqrt(2))


def fields(size: Size, mpp: float, side_um: float = FIELD_UM) -> Iterator[Region]:
    """Squares of ``side_um`` that cover a slide without overlap, row by row; the last of a row or column may be cut.

    Args:
        size: of the slide in px at ``mpp``.
        mpp: micrometres per pixel.
        side_um: side of a field; borders are rounded to whole px, each by itself, so that they do not drift.

    Raises:
        ValueError: if ``mpp`` is not a positive number or a field is smaller than a px.
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
    progress: Callable[[int, int], None] | None = None,
) -> list[FieldReading]:
    """Read a stained slide field by field, at its own mpp, one field in memory at a time.

    Args:
        ihc: the virtual slide, or a real one.
        tissue: of the slide; its pixel 0 is at the slide's corner.
        dab: its DAB densities, on the same grid; None for colour deconvolution.
        white: ``(3,)`` RGB of the IHC's glass in [1, 255]; None for ``tissue.glass``.
        he: the H&E slide that it was made from, at whose places ``ood`` is asked; on the same grid at ``ihc.mpp``.
        ood: what the model knows of its training images.
        classifier: asked for the classifier's level, where it is given.
        side_um: side of a field.
        progress: called with fields done and in all.

    Returns:
        The fields with at least ``LEAST_TISSUE``, row by row.

    Raises:
        RestainError: if pixels cannot be read.
        ValueError: if ``dab`` is of another size.
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
        inside = _tissue_px(tissue, box, mpp)
        cells, own = _stain(ihc, dab, box, mpp, glass, inside)
        rgb = None if classifier is None else ihc.read(box, mpp)
        vote = None
        if classifier is not None and rgb is not None:
            scale = mpp / classifier.facts.mpp
            vote = Her2Level(int(level_probabilities(classifier.network, rgb, scale, classifier.facts.tile).argmax()))
        judged = None
        if he is not None and ood is not None:
            judged = ood.judge(he.read(_fullest(inside, box), mpp)).in_distribution
        stained = own[inside]
        found.append(
            FieldReading(
                *place,
                box,
                areas=_areas(cells, inside, mpp),
                cells=pattern_counts(cells),
                stained_share=float(np.mean(stained >= FAINT_OD)) if stained.size else 0.0,
                mean_od=float(stained.mean(dtype=np.float64)) if stained.size else 0.0,
                classifier=vote,
                in_distribution=judged,
            )
        )
    if progress is not None:
        progress(len(boxes), len(boxes))
    return found


def _stain(
    ihc: Slide,
    dab: DensitySlide | None,
    box: Region,
    mpp: float,
    glass: NDArray[np.float32],
    inside: NDArray[np.bool_],
) -> tuple[CellMembranes, NDArray[np.float32]]:
    """The cells whose nucleus lies in the tissue of a field, and the field's DAB density."""
    pad = math.ceil(MARGIN_UM / mpp)
    wide = Region(
        Point(box.origin.x - pad, box.origin.y - pad), Size(box.size.width + 2 * pad, box.size.height + 2 * pad)
    )
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
    return _chosen(every, here, pad), density[pad : pad + box.size.height, pad : pad + box.size.width]


def _chosen(cells: CellMembranes, which: NDArray[np.bool_], shift: int = 0) -> CellMembranes:
    """Some of the cells, their places moved up and left by ``shift`` px."""
    return CellMembranes(cells.y[which] - shift, cells.x[which] - shift, cells.completeness[which], cells.dab_od[which])


def _areas(cells: CellMembranes, inside: NDArray[np.bool_], mpp: float) -> tuple[float, float, float, float]:
    found = [0.0, 0.0, 0.0, 0.0]
    whole = level_of_counts(pattern_counts(cells))
    for square in fields(Size(inside.shape[1], inside.shape[0]), mpp, SQUARE_UM):
        within = (cells.y >= square.origin.y) & (cells.y < square.bottom)
        within &= (cells.x >= square.origin.x) & (cells.x < square.right)
        counts = pattern_counts(_chosen(cells, within))
        level = level_of_counts(counts) if sum(counts) >= LEAST_CELLS else whole
        found[level] += float(np.count_nonzero(inside[square.slices])) * mpp**2 / 1e6
    return found[0], found[1], found[2], found[3]


def _tissue_px(tissue: TissueMask, box: Region, mpp: float) -> NDArray[np.bool_]:
    """The mask at the field's pixels: each has the value of the mask's pixel in which its centre lies."""
    height, width = tissue.mask.shape
    scale = mpp / tissue.mpp
    rows = np.clip(((np.arange(box.origin.y, box.bottom) + 0.5) * scale).astype(int), 0, height - 1)
    columns = np.clip(((np.arange(box.origin.x, box.right) + 0.5) * scale).astype(int), 0, width - 1)
    return tissue.mask[np.ix_(rows, columns)]


_WINDOW = 512
"""Side in px of the H&E window that stands for a field where its likeness to the training images is asked."""


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
