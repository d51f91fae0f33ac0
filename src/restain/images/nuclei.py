"""Nuclei in H&E by classical means: hematoxylin density, distance transform and watershed.

Cell kinds follow from shape, size and neighbours. Elongated nuclei are fibroblasts and small dark round ones lymphocytes.
The others are tumour cells where they lie densely. Normal epithelium is taken for tumour, and touching nuclei may merge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import expand_labels, watershed

from restain import optics

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TISSUE_OD = 0.07
"""Least mean optical density of tissue, relative to glass."""
REACH_UM = 5.0
"""A territory ends this far from its nucleus: cells reach about 8 µm from their centre."""
NEST_COVER = 0.17
"""Least share of the surroundings that large nuclei cover in a nest."""
LARGEST_UM2 = 260.0
"""Area in µm² from which an object is no nucleus."""
NUCLEUS_UM = 9.0
"""Distance between the nuclei into which a mass is divided."""
LEAST_NEST = 4
"""Least number of large nuclei within 20 µm of each other, the nucleus included, that form a nest."""


class CellKind(IntEnum):
    """The kind of a cell; the text form is the lower-case name."""

    TUMOUR = 0
    DUCT = 1
    FIBROBLAST = 2
    LYMPHOCYTE = 3


@dataclass(frozen=True)
class Nuclei:
    """Nuclei found in an H&E image, one array element per nucleus or ``(H, W)``.

    ``x``, ``y`` are the centre in px; ``kind`` is a :class:`CellKind`; ``labels`` is one plus the nucleus' index, else
    0; ``cover`` the nuclear share of a pixel; ``hematoxylin`` and ``density`` the stain's and the mean OD; ``tissue``
    whether a pixel is tissue.
    """

    x: Floats
    y: Floats
    diameter_um: Floats
    kind: Ints
    labels: Ints
    cover: Floats
    hematoxylin: Floats
    density: Floats
    tissue: NDArray[np.bool_]
    mpp: float

    def with_kind(self, kind: Ints) -> Nuclei:
        """These nuclei with other kinds, ``(N,)``."""
        return replace(self, kind=kind)

    def tumour_territory(self) -> Ints:
        """One plus the index of the tumour cell that owns a pixel, else 0: ``(H, W)``."""
        if not len(self.x):
            return np.zeros(self.labels.shape, np.int32)
        owner = expand_labels(self.labels, REACH_UM / self.mpp).astype(np.int32)
        tumour = (owner > 0) & (self.kind[np.maximum(owner - 1, 0)] == CellKind.TUMOUR)
        return np.where(tumour & (self.tissue | (self.labels > 0)), owner, 0).astype(np.int32)


def glass_white(he: NDArray[np.uint8]) -> Floats:
    """The white point, at least 200: an image without glass shows only tissue at its brightest."""
    return np.maximum(optics.glass_white(he[::2, ::2]), 200.0)


def find_nuclei(he: NDArray[np.uint8], mpp: float, divide_masses: bool = False) -> Nuclei:
    """Find the nuclei of an H&E image ``(H, W, 3)`` uint8 at ``mpp`` µm per px, and the kinds of their cells.

    Objects too large for a nucleus are left out, or with ``divide_masses`` divided: thick sections show dense tumour as
    masses without outlines of nuclei.
    """
    od = optics.optical_density(he, glass_white(he))
    hema = np.maximum(optics.unmix(od, (optics.HEMATOXYLIN, optics.EOSIN))[..., 0], 0.0)
    density = od.mean(axis=-1)
    labels = _segmented(hema, mpp)
    if divide_masses:
        labels = _divided(labels, mpp)
    rows, cols = np.nonzero(labels)
    owner = labels[rows, cols]

    def total(weights: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        return np.bincount(owner, weights=weights, minlength=int(labels.max()) + 1).astype(np.float64)

    area = total()
    n = np.maximum(area, 1)
    y, x = total(rows.astype(float)) / n, total(cols.astype(float)) / n
    yy = total((rows - y[owner]) ** 2) / n
    xx = total((cols - x[owner]) ** 2) / n
    xy = total((rows - y[owner]) * (cols - x[owner])) / n
    spread, mean = np.hypot((yy - xx) / 2, xy), (yy + xx) / 2 + 1 / 12
    elongation = np.sqrt((mean + spread) / np.maximum(mean - spread, 1 / 12))
    darkness = total(hema[rows, cols].astype(float)) / n
    area_um = area * mpp**2
    keep = (area_um > 9) & (area_um < LARGEST_UM2)
    keep[0] = False
    number = np.zeros(len(area), dtype=np.int32)
    number[keep] = np.arange(1, keep.sum() + 1)
    found = (x, y, 2 * np.sqrt(area_um / np.pi), elongation, darkness)
    x32, y32, diameter, elongation32, darkness32 = (values[keep].astype(np.float32) for values in found)
    labels = number[labels]
    return Nuclei(
        x=x32,
        y=y32,
        diameter_um=diameter,
        kind=_kinds(labels, x32, y32, diameter, elongation32, darkness32, mpp),
        labels=labels,
        cover=ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.3 / mpp),
        hematoxylin=hema,
        density=density,
        tissue=ndimage.gaussian_filter(density, 0.8 / mpp) > TISSUE_OD,
        mpp=mpp,
    )


def _segmented(hema: Floats, mpp: float) -> Ints:
    """Labels of nuclei, ``(H, W)``, in a hematoxylin density map."""
    smooth = ndimage.gaussian_filter(hema, 0.55 / mpp)
    around = ndimage.gaussian_filter(hema, 9.0 / mpp)
    floor = threshold_otsu(smooth)
    # In dark epithelium everything exceeds the image's threshold: there a nucleus must exceed its surroundings.
    mask = (smooth > 0.72 * floor) & (smooth > np.maximum(0.45 * floor + 0.55 * around, 1.0 * around))
    mask = ndimage.binary_opening(mask, iterations=max(1, round(0.5 / mpp)))
    holes, _ = ndimage.label(~mask)
    mask |= (np.bincount(holes.ravel()) < 9.0 / mpp**2)[holes]
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 0.9 / mpp)
    # Where the outline does not part touching nuclei, their darker centres may.
    height = depth + 0.4 / mpp * smooth / max(floor, 1e-3)
    least = max(1, round(2.6 / mpp))
    peaks = peak_local_max(height, min_distance=least, labels=mask.astype(np.int32), exclude_border=False)
    seeds = np.zeros(hema.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-height, seeds, mask=mask).astype(np.int32)


def _divided(labels: Ints, mpp: float) -> Ints:
    """``labels`` with each object too large for a nucleus divided among the points of a square lattice inside it."""
    mass = (np.bincount(labels.ravel()) >= LARGEST_UM2 / mpp**2)[labels] & (labels > 0)
    step = max(2, round(NUCLEUS_UM / mpp))
    seeds = np.zeros(labels.shape, dtype=np.int32)
    rows, cols = (
        grid.ravel() for grid in np.mgrid[step // 2 : labels.shape[0] : step, step // 2 : labels.shape[1] : step]
    )
    seeds[rows, cols] = np.arange(1, len(rows) + 1) + int(labels.max())
    pieces = watershed(np.zeros(labels.shape, dtype=np.uint8), seeds * mass, mask=mass)
    return np.where(mass, pieces, labels).astype(np.int32)


def _kinds(
    labels: Ints, x: Floats, y: Floats, diameter_um: Floats, elongation: Floats, darkness: Floats, mpp: float
) -> Ints:
    kind = np.full(len(x), CellKind.TUMOUR, dtype=np.int32)
    if not len(x):
        return kind
    dark = darkness > 1.1 * np.median(darkness)
    small = (diameter_um < 5.4) | ((diameter_um < 6.2) & dark & (elongation < 1.45))
    slender = elongation > 2.1
    kind[small] = CellKind.LYMPHOCYTE
    kind[slender] = CellKind.FIBROBLAST
    large = (labels > 0) & (kind[np.maximum(labels - 1, 0)] == CellKind.TUMOUR)
    crowding = ndimage.gaussian_filter(large.astype(np.float32), 11.0 / mpp)[pixel_of(x, y, labels.shape)]
    lonely = (kind == CellKind.TUMOUR) & (crowding < NEST_COVER)
    kind[lonely] = np.where(elongation[lonely] > 1.6, CellKind.FIBROBLAST, CellKind.LYMPHOCYTE)
    # A small nucleus in the middle of a nest is a tumour cell that the section grazed.
    kind[small & ~slender & (crowding > 1.7 * NEST_COVER)] = CellKind.TUMOUR
    tumour = np.flatnonzero(kind == CellKind.TUMOUR)
    if len(tumour):
        where = np.stack([x[tumour], y[tumour]], axis=1)
        near = cKDTree(where).query_ball_point(where, 20.0 / mpp, return_length=True)
        kind[tumour[near < LEAST_NEST]] = CellKind.LYMPHOCYTE
    return kind


def pixel_of(x: Floats, y: Floats, shape: tuple[int, ...]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Row and column of the pixel at each position, inside an image of ``shape``."""
    row, col = (np.clip(np.rint(c).astype(int), 0, n - 1) for c, n in zip((y, x), shape, strict=False))
    return row, col
