"""Which class of cell a pixel belongs to, and what a map sums to per class.

On the phantom the classes are truth: the tissue is grown again from its seed. On any other H&E they are found by a rule
(:func:`restain.phantom.from_he.find_tissue`), which takes normal epithelium for tumour and merges nuclei that touch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from restain import optics
from restain.geometry import Point
from restain.phantom import CellKind, Tissue
from restain.phantom.architecture import STROMA, VESSEL
from restain.phantom.from_he import TISSUE_OD, find_tissue

Classes = NDArray[np.uint8]

CLASSES = ("tumour cells", "duct cells", "lymphocytes", "fibroblasts", "stroma", "glass, lumen, fat")
"""Names of the classes, in the order of their numbers in a class map. A tumour or duct cell is its whole territory; of
lymphocytes and fibroblasts it is the nucleus."""

_EMPTY = len(CLASSES) - 1
_OF_KIND = {CellKind.TUMOUR: 0, CellKind.DUCT: 1, CellKind.LYMPHOCYTE: 2, CellKind.FIBROBLAST: 3}


def classes_of(tissue: Tissue) -> Classes:
    """The true class of each pixel of grown tissue, ``(H, W)`` indices into ``CLASSES``."""
    result = np.full(tissue.compartment.shape, _EMPTY, np.uint8)
    result[np.isin(tissue.compartment, (STROMA, VESSEL))] = 4
    kind = np.array([_OF_KIND[CellKind(k)] for k in tissue.cells.kind] or [_EMPTY], np.uint8)
    for owner in (tissue.nucleus, tissue.territory):
        there = owner > 0
        result[there] = kind[owner[there] - 1]
    return result


def classes_found(he: NDArray[np.uint8], mpp: float) -> Classes:
    """The class of each pixel as a rule finds it in H&E, ``(H, W, 3)`` uint8 to ``(H, W)``; it knows no duct cells."""
    found = find_tissue(he, mpp, np.random.default_rng([0]))
    white = np.maximum(optics.glass_white(he), 200.0)
    solid = ndimage.gaussian_filter(optics.optical_density(he, white).mean(axis=-1), 0.8 / mpp) > TISSUE_OD
    result = np.where(solid, 4, _EMPTY).astype(np.uint8)
    rows, cols = np.nonzero(found.cover > 0.5)
    if len(found.cells) and len(rows):
        nearest = cKDTree(np.stack([found.cells.y, found.cells.x], axis=1)).query(np.stack([rows, cols], axis=1))[1]
        kind = np.array([_OF_KIND[CellKind(k)] for k in found.cells.kind], np.uint8)
        result[rows, cols] = kind[nearest]
    result[found.territory > 0] = 0
    return result


def tumour_cells(tissue: Tissue) -> NDArray[np.bool_]:
    """The pixels of all tumour cells, ``(H, W)``: by the phantom's rule alone these decide the level."""
    is_tumour = np.append(False, tissue.cells.kind == CellKind.TUMOUR)
    return np.asarray(is_tumour[tissue.territory])


def tumour_cells_at(tissue: Tissue, disc: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of the tumour cells of which any part lies in ``disc``: their membranes and scores make its DAB."""
    tumour = tumour_cells(tissue)
    return tumour & np.isin(tissue.territory, np.unique(tissue.territory[disc & tumour]))


def candidate_points(tissue: Tissue, margin: float) -> list[Point]:
    """The tumour cells' nuclear centres at least ``margin`` px inside the image, as pixels."""
    height, width = tissue.compartment.shape
    cells = tissue.cells.tumour
    x, y = np.rint(cells.x).astype(int), np.rint(cells.y).astype(int)
    keep = (x >= margin) & (y >= margin) & (x < width - margin) & (y < height - margin)
    return [Point(int(a), int(b)) for a, b in zip(x[keep], y[keep], strict=True)]


def per_class(values: NDArray[np.floating], classes: Classes) -> list[dict[str, Any]]:
    """What a map ``(H, W)`` sums to in each class that is there.

    Per class ``area``, its share of the pixels; ``share``, of the map's positive part; ``against``, of its negative part
    (None where the map has none). ``share`` above ``area`` says that the map prefers the class.
    """
    flat = classes.ravel()
    area = np.bincount(flat, minlength=len(CLASSES)) / flat.size
    sums = [
        np.bincount(flat, weights=part.ravel().astype(np.float64), minlength=len(CLASSES))
        for part in (np.maximum(values, 0), np.maximum(-values, 0))
    ]
    positive, negative = ((part / part.sum() if part.sum() > 0 else None) for part in sums)
    return [
        {
            "class": name,
            "area": float(area[i]),
            "share": None if positive is None else float(positive[i]),
            "against": None if negative is None else float(negative[i]),
        }
        for i, name in enumerate(CLASSES)
        if area[i] > 0
    ]
