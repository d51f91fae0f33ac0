"""True classes and causes on the phantom, from tissue grown again from its seed.

By the phantom's rule (docs/phantom.md) the tumour cells alone decide the level. The tumour cells whose membranes lie in a
disc decide its DAB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restain.explain.classes import EMPTY, STROMA, Classes, class_of_kind
from restain.geometry import Point
from restain.images.nuclei import CellKind
from restain.phantom import Tissue, architecture


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
