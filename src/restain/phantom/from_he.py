"""The phantom on real H&E: the image keeps its pixels, and the IHC is rendered from the nuclei found in it.

The HER2 score follows from the mean nuclear diameter of a focus by :data:`SCORE_BOUNDS_UM`: invented, fixed, the same for
every image. Hematoxylin density does not count, because it varies between laboratories. Where mRNA was measured, the score
follows it instead (:mod:`restain.phantom.expression`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from restain import optics
from restain.errors import RestainError
from restain.images.nuclei import TISSUE_OD, CellKind, Nuclei, find_nuclei, glass_white, pixel_of
from restain.phantom.cells import Cells, Floats, Ints, stain_membranes
from restain.slides.find import SUFFIXES, split_number

TISSUE_SHARE = 0.3
"""Least share of a crop that is tissue."""
SCORE_BOUNDS_UM = np.array([7.0, 8.3, 9.5], dtype=np.float32)
"""Mean nuclear diameters of a focus, in µm as measured, at which the score becomes 1, 2 and 3."""
FOCUS_UM = 28.0
"""Standard deviation of the Gaussian over which the mean diameter of a focus is taken."""
LARGEST_UM = 12.0
"""Diameters count up to this value in the mean of a focus: larger objects are merged nuclei."""
_DRAWS = 48


@dataclass(frozen=True)
class FoundTissue:
    """Cells found in an image, and maps ``(H, W)``.

    ``territory`` is one plus the owning tumour cell's index, else 0; ``cover`` the nuclear share of a pixel;
    ``counterstain`` the hematoxylin density of the IHC to render, in OD units.
    """

    territory: Ints
    cover: Floats
    counterstain: Floats
    cells: Cells


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files among files and folders (with their subfolders), sorted within each folder.

    Raises RestainError if a path does not exist or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise RestainError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))}).")
            found += inside
        elif split_number(path)[0].is_file():
            found.append(path)
        else:
            raise RestainError(f"{path} does not exist.")
    return found


def draw_crop(
    image: NDArray[np.uint8], name: str, rng: np.random.Generator, *, size: int, scale: float
) -> tuple[NDArray[np.uint8], list[int]]:
    """Cut a random square with enough tissue out of ``image`` ``(H, W, 3)`` uint8, called ``name`` in errors.

    Returns:
        ``(size, size, 3)`` uint8 with ``scale`` px per px of the image, and the crop's corner ``[x, y]`` in the image.

    Raises RestainError if the image is smaller than the crop, or no crop has enough tissue.
    """
    side = size if scale == 1 else max(1, round(size / scale))
    h, w = image.shape[:2]
    if min(h, w) < side:
        raise RestainError(f"{name} ({w}x{h} px) is smaller than one crop of {side} px.")
    step = 4
    tissue = optics.optical_density(image[::step, ::step], glass_white(image)).mean(axis=-1) > TISSUE_OD
    best, corner = -1.0, (0, 0)
    for _ in range(_DRAWS):
        y, x = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        share = float(tissue[y // step : (y + side) // step + 1, x // step : (x + side) // step + 1].mean())
        if share > best:
            best, corner = share, (y, x)
        if share >= TISSUE_SHARE:
            break
    if best < TISSUE_SHARE:
        raise RestainError(f"{name} has no crop with at least {TISSUE_SHARE:.0%} tissue.")
    y, x = corner
    crop = np.ascontiguousarray(image[y : y + side, x : x + side])
    if side != size or scale != 1:
        crop = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS))
    return crop, [x, y]


Scorer = Callable[[NDArray[np.float64]], tuple[Ints, NDArray[np.bool_]]]
"""HER2 scores at places ``(N, 2)`` in px of an H&E image, and whether tumour may be there, ``(N,)`` each."""


def find_tissue(
    he: NDArray[np.uint8], mpp: float, rng: np.random.Generator, scorer: Scorer | None = None
) -> FoundTissue:
    """Find the cells of an H&E image ``(H, W, 3)`` at ``mpp`` µm per px, and score them.

    Scores follow the phantom's rule, or ``scorer``: then dark masses are divided into nuclei, and cells are of the tumour only
    where it allows them.
    """
    nuclei = find_nuclei(he, mpp, divide_masses=scorer is not None)
    if scorer is None:
        score = _scores(nuclei)
    else:
        score, allowed = scorer(np.stack([nuclei.x, nuclei.y], axis=1).astype(np.float64))
        tumour = nuclei.kind == CellKind.TUMOUR
        nuclei = nuclei.with_kind(np.where(tumour & ~allowed, CellKind.LYMPHOCYTE, nuclei.kind).astype(np.int32))
        score = np.where(tumour & allowed, score, 0).astype(np.int32)
    completeness, dab_od = stain_membranes(rng, nuclei.kind, score, nuclei.diameter_um)
    cells = Cells(nuclei.x, nuclei.y, nuclei.kind, score, nuclei.diameter_um, completeness, dab_od)
    return FoundTissue(nuclei.tumour_territory(), nuclei.cover, counterstain_of(nuclei), cells)


def counterstain_of(nuclei: Nuclei) -> Floats:
    """Hematoxylin density of the IHC to render, ``(H, W)`` in OD units."""
    hema, cover, mpp = nuclei.hematoxylin, nuclei.cover, nuclei.mpp
    top = max(float(np.percentile(hema, 99)), 1e-3)
    stain = np.clip(ndimage.gaussian_filter(hema, 0.4 / mpp) / top, 0, 1.3)
    thick = ndimage.gaussian_filter(np.clip(nuclei.density / 0.2, 0, 1), 0.5 / mpp)
    return (thick * (0.035 + 0.08 * stain) * (1 - cover) + 0.36 * stain * cover).astype(np.float32)


def _scores(nuclei: Nuclei) -> Ints:
    """Score of each cell: from the mean diameter of the tumour nuclei around it."""
    shape, tumour = nuclei.labels.shape, nuclei.kind == CellKind.TUMOUR
    row, col = pixel_of(nuclei.x, nuclei.y, shape)
    weight, total = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    np.add.at(weight, (row[tumour], col[tumour]), 1.0)
    np.add.at(total, (row[tumour], col[tumour]), np.minimum(nuclei.diameter_um[tumour], LARGEST_UM))
    sigma = FOCUS_UM / nuclei.mpp
    focus = ndimage.gaussian_filter(total, sigma) / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-9)
    return np.where(tumour, np.digitize(focus[row, col], SCORE_BOUNDS_UM), 0).astype(np.int32)
