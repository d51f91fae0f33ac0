"""The second kind of phantom: a real H&E picture keeps its pixels, and the IHC is rendered from the cells found in it.

Nuclei are found by classical means (hematoxylin density, distance transform, watershed) and named by shape, size and
company: slender ones are fibroblasts, small dark round ones lymphocytes, and the others, where they lie densely, tumour
cells. The cells' territories are the surroundings of their nuclei. The HER2 score follows the phantom's rule (see
:mod:`restain.phantom.cells`), read from the mean nuclear diameter of a focus by :data:`SCORE_BOUNDS_UM`: invented,
fixed, the same for every picture. Hematoxylin density is left out of the score, because it varies with the laboratory.
Normal epithelium is not told from tumour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import expand_labels, watershed

from restain import optics
from restain.errors import RestainError
from restain.phantom.cells import CellKind, Cells, Floats, Ints, stain_membranes
from restain.slides.find import SUFFIXES, split_number

TISSUE_SHARE = 0.3
"""Least share of a crop that is tissue."""
TISSUE_OD = 0.07
"""Least mean optical density of tissue, relative to glass."""
SCORE_BOUNDS_UM = np.array([7.0, 8.3, 9.5], dtype=np.float32)
"""Mean nuclear diameters of a focus, in µm as measured, at which the score becomes 1, 2 and 3."""
FOCUS_UM = 28.0
"""Standard deviation of the Gaussian over which a focus' mean diameter is taken."""
LARGEST_UM = 12.0
"""Diameters count up to this in a focus' mean: beyond it lie nuclei that were not parted."""
REACH_UM = 5.0
"""A territory ends this far from its nucleus: cells reach about 8 µm from their centre."""
NEST_COVER = 0.17
"""Least share of the surroundings that large nuclei cover in a nest."""
LEAST_NEST = 4
"""Fewer large nuclei than this within 20 µm, itself counted, are no nest."""
_DRAWS = 48


@dataclass(frozen=True)
class FoundTissue:
    """Cells found in a picture: ``territory`` (one plus the owning tumour cell's index, else 0), ``cover``
    (nucleus share of a pixel), ``counterstain`` (hematoxylin density of the IHC to render, OD units), each
    ``(H, W)``; and the cells."""

    territory: Ints
    cover: Floats
    counterstain: Floats
    cells: Cells


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The picture files among files and folders (searched through), sorted within each folder.

    Raises:
        RestainError: if a path does not exist or a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise RestainError(f"{path} holds no picture ({', '.join(sorted(SUFFIXES))}).")
            found += inside
        elif split_number(path)[0].is_file():
            found.append(path)
        else:
            raise RestainError(f"{path} does not exist.")
    return found


def draw_crop(
    picture: NDArray[np.uint8], name: str, rng: np.random.Generator, *, size: int, scale: float
) -> tuple[NDArray[np.uint8], list[int]]:
    """Cut a random square with enough tissue.

    Args:
        picture: ``(H, W, 3)`` ``uint8``.
        name: the picture's name, for errors.
        rng: source of randomness.
        size: height and width of the result in pixels.
        scale: result pixels per picture pixel; 1 keeps the pixels as they are.

    Returns:
        ``(size, size, 3)`` ``uint8`` and the crop's top-left corner ``[x, y]`` in the picture.

    Raises:
        RestainError: if the picture is smaller than the crop, or no crop has enough tissue.
    """
    side = size if scale == 1 else max(1, round(size / scale))
    h, w = picture.shape[:2]
    if min(h, w) < side:
        raise RestainError(f"{name} ({w}x{h} px) is smaller than the {side} px that one crop takes.")
    step = 4
    tissue = optics.optical_density(picture[::step, ::step], _white(picture)).mean(axis=-1) > TISSUE_OD
    best, corner = -1.0, (0, 0)
    for _ in range(_DRAWS):
        y, x = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        share = float(tissue[y // step : (y + side) // step + 1, x // step : (x + side) // step + 1].mean())
        if share > best:
            best, corner = share, (y, x)
        if share >= TISSUE_SHARE:
            break
    if best < TISSUE_SHARE:
        raise RestainError(f"{name} has no crop of which {TISSUE_SHARE:.0%} is tissue.")
    y, x = corner
    crop = np.ascontiguousarray(picture[y : y + side, x : x + side])
    if side != size or scale != 1:
        crop = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS))
    return crop, [x, y]


def _white(picture: NDArray[np.uint8]) -> Floats:
    """Glass, not darker than 200: a picture without glass shows only tissue at its brightest."""
    return np.maximum(optics.glass_white(picture[::2, ::2]), 200.0)


def _nuclei(hema: Floats, mpp: float) -> Ints:
    """Label nuclei, ``(H, W)``, in a hematoxylin density map."""
    smooth = ndimage.gaussian_filter(hema, 0.55 / mpp)
    around = ndimage.gaussian_filter(hema, 9.0 / mpp)
    floor = threshold_otsu(smooth)
    # In dark epithelium everything is above the picture's threshold: there a nucleus must stand out of its
    # surroundings.
    mask = (smooth > 0.72 * floor) & (smooth > np.maximum(0.45 * floor + 0.55 * around, 1.0 * around))
    mask = ndimage.binary_opening(mask, iterations=max(1, round(0.5 / mpp)))
    holes, _ = ndimage.label(~mask)
    mask |= (np.bincount(holes.ravel()) < 9.0 / mpp**2)[holes]
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 0.9 / mpp)
    # Where the outline does not part touching nuclei, their darker middles may.
    height = depth + 0.4 / mpp * smooth / max(floor, 1e-3)
    peaks = peak_local_max(
        height, min_distance=max(1, round(2.6 / mpp)), labels=mask.astype(np.int32), exclude_border=False
    )
    seeds = np.zeros(hema.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-height, seeds, mask=mask).astype(np.int32)


@dataclass(frozen=True)
class _Measured:
    """Per nucleus: centre, equivalent diameter in µm, length over width, mean hematoxylin density."""

    x: Floats
    y: Floats
    diameter_um: Floats
    slender: Floats
    hema: Floats


def _measure(labels: Ints, hema: Floats, mpp: float) -> tuple[Ints, _Measured]:
    """Drop what is too small or too large for a nucleus; number and measure the rest."""
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
    spread = np.hypot((yy - xx) / 2, xy)
    mean = (yy + xx) / 2 + 1 / 12
    slender = np.sqrt((mean + spread) / np.maximum(mean - spread, 1 / 12))
    density = total(hema[rows, cols].astype(float)) / n
    area_um = area * mpp**2
    keep = (area_um > 9) & (area_um < 260)
    keep[0] = False
    number = np.zeros(len(area), dtype=np.int32)
    number[keep] = np.arange(1, keep.sum() + 1)
    diameter = 2 * np.sqrt(area_um / np.pi)
    table = [a[keep].astype(np.float32) for a in (x, y, diameter, slender, density)]
    return number[labels], _Measured(*table)


def find_tissue(he: NDArray[np.uint8], mpp: float, rng: np.random.Generator) -> FoundTissue:
    """Find nuclei, name the cells, and score them by the phantom's rule.

    Args:
        he: ``(H, W, 3)`` ``uint8`` RGB of an H&E section.
        mpp: micrometres per pixel.
        rng: source of the randomness that the rule leaves (see
            :func:`restain.phantom.cells.stain_membranes`).
    """
    od = optics.optical_density(he, _white(he))
    hema = np.maximum(optics.unmix(od, (optics.HEMATOXYLIN, optics.EOSIN))[..., 0], 0.0)
    solid = ndimage.gaussian_filter(od.mean(axis=-1), 0.8 / mpp) > TISSUE_OD
    labels, seen = _measure(_nuclei(hema, mpp), hema, mpp)
    count = len(seen.x)
    pale = ndimage.gaussian_filter(hema, 0.4 / mpp)
    top = max(float(np.percentile(hema, 99)), 1e-3)
    cover = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.3 / mpp)
    stain = np.clip(pale / top, 0, 1.3)
    thick = ndimage.gaussian_filter(np.clip(od.mean(axis=-1) / 0.2, 0, 1), 0.5 / mpp)
    counter = (thick * (0.035 + 0.08 * stain) * (1 - cover) + 0.36 * stain * cover).astype(np.float32)
    if count == 0:
        nothing = np.zeros(0, dtype=np.float32)
        none = Cells(nothing, nothing, nothing.astype(np.int32), nothing.astype(np.int32), nothing, nothing, nothing)
        return FoundTissue(np.zeros(he.shape[:2], np.int32), cover, counter, none)

    kind, at = _kinds(labels, seen, mpp)
    score = _scores(kind, seen.diameter_um, at, he.shape[:2], mpp)
    completeness, dab_od = stain_membranes(rng, kind, score, seen.diameter_um)
    cells = Cells(seen.x, seen.y, kind, score, seen.diameter_um, completeness, dab_od)
    owner = expand_labels(labels, REACH_UM / mpp).astype(np.int32)
    tumour = (owner > 0) & (kind[np.maximum(owner - 1, 0)] == CellKind.TUMOUR) & (solid | (labels > 0))
    return FoundTissue(np.where(tumour, owner, 0).astype(np.int32), cover, counter, cells)


def _kinds(labels: Ints, seen: _Measured, mpp: float) -> tuple[Ints, tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Name each nucleus, and give the pixel (row, column) of its centre."""
    kind = np.full(len(seen.x), CellKind.TUMOUR, dtype=np.int32)
    dark = seen.hema > 1.1 * np.median(seen.hema)
    small = (seen.diameter_um < 5.4) | ((seen.diameter_um < 6.2) & dark & (seen.slender < 1.45))
    slender = seen.slender > 2.1
    kind[small] = CellKind.LYMPHOCYTE
    kind[slender] = CellKind.FIBROBLAST
    large = (labels > 0) & (kind[np.maximum(labels - 1, 0)] == CellKind.TUMOUR)
    crowding = ndimage.gaussian_filter(large.astype(np.float32), 11.0 / mpp)
    row, col = (np.clip(np.rint(c).astype(int), 0, n - 1) for c, n in zip((seen.y, seen.x), labels.shape, strict=True))
    company = crowding[row, col]
    lonely = (kind == CellKind.TUMOUR) & (company < NEST_COVER)
    kind[lonely] = np.where(seen.slender[lonely] > 1.6, CellKind.FIBROBLAST, CellKind.LYMPHOCYTE)
    # A small nucleus in the middle of a nest is a tumour cell that the section grazed.
    kind[small & ~slender & (company > 1.7 * NEST_COVER)] = CellKind.TUMOUR
    tumour = np.flatnonzero(kind == CellKind.TUMOUR)
    if len(tumour):
        where = np.stack([seen.x[tumour], seen.y[tumour]], axis=1)
        near = cKDTree(where).query_ball_point(where, 20.0 / mpp, return_length=True)
        kind[tumour[near < LEAST_NEST]] = CellKind.LYMPHOCYTE
    return kind, (row, col)


def _scores(
    kind: Ints,
    diameter_um: Floats,
    at: tuple[NDArray[np.int_], NDArray[np.int_]],
    shape: tuple[int, int],
    mpp: float,
) -> Ints:
    """Score of each cell: from the mean diameter of the tumour nuclei around it."""
    tumour = kind == CellKind.TUMOUR
    weight, total = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    np.add.at(weight, (at[0][tumour], at[1][tumour]), 1.0)
    np.add.at(total, (at[0][tumour], at[1][tumour]), np.minimum(diameter_um[tumour], LARGEST_UM))
    sigma = FOCUS_UM / mpp
    focus = ndimage.gaussian_filter(total, sigma) / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-9)
    return np.where(tumour, np.digitize(focus[at], SCORE_BOUNDS_UM), 0).astype(np.int32)
