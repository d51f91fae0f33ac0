"""Classes of cells and tissue in an H&E image, found or known, and what a map sums to per class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from restain import optics
from restain.images.nuclei import TISSUE_OD, CellKind, find_nuclei

Classes = NDArray[np.uint8]

CLASSES = ("tumour cells", "duct cells", "lymphocytes", "fibroblasts", "stroma", "glass, lumen, fat")
"""Names of the classes by their number. A tumour or duct cell is its whole territory, other cells are their nucleus."""
STROMA, EMPTY = 4, 5
_OF_KIND = {CellKind.TUMOUR: 0, CellKind.DUCT: 1, CellKind.LYMPHOCYTE: 2, CellKind.FIBROBLAST: 3}


@dataclass(frozen=True)
class ClassShare:
    """A class's share of the pixels (``area``), of a map's positive part (``share``) and of its negative part.

    None where the map has no such part. ``share`` above ``area``: the map prefers the class.
    """

    name: str
    area: float
    share: float | None
    against: float | None


def class_of_kind(kind: NDArray[np.integer]) -> Classes:
    """The class of cells of each :class:`restain.images.nuclei.CellKind`, ``(N,)``."""
    return np.array([_OF_KIND[CellKind(k)] for k in kind], np.uint8)


def find_classes(he: NDArray[np.uint8], mpp: float) -> Classes:
    """The class of each pixel of H&E ``(H, W, 3)`` uint8, as :mod:`restain.images.nuclei` finds it; no duct cells."""
    nuclei = find_nuclei(he, mpp)
    white = np.maximum(optics.glass_white(he), 200.0)
    solid = ndimage.gaussian_filter(optics.optical_density(he, white).mean(axis=-1), 0.8 / mpp) > TISSUE_OD
    result = np.where(solid, STROMA, EMPTY).astype(np.uint8)
    rows, cols = np.nonzero(nuclei.cover > 0.5)
    if len(nuclei.x) and len(rows):
        nearest = cKDTree(np.stack([nuclei.y, nuclei.x], axis=1)).query(np.stack([rows, cols], axis=1))[1]
        result[rows, cols] = class_of_kind(nuclei.kind)[nearest]
    result[nuclei.tumour_territory() > 0] = 0
    return result


def class_shares(values: NDArray[np.floating], classes: Classes) -> list[ClassShare]:
    """What a map ``(H, W)`` sums to in each class that occurs."""
    flat = classes.ravel()
    area = np.bincount(flat, minlength=len(CLASSES)) / flat.size

    def shares(part: NDArray[np.floating]) -> list[float] | list[None]:
        sums = np.bincount(flat, weights=part.ravel().astype(np.float64), minlength=len(CLASSES))
        return (sums / sums.sum()).tolist() if sums.sum() > 0 else [None] * len(CLASSES)

    columns = zip(CLASSES, area.tolist(), shares(np.maximum(values, 0)), shares(np.maximum(-values, 0)), strict=True)
    return [ClassShare(*column) for column in columns if column[1] > 0]
