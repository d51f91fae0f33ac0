"""One synthetic pair: both images and the truth behind them, from a seed and an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.her2 import Her2Level, asco_cap_level
from restain.phantom.cells import Cells, Floats
from restain.phantom.from_he import draw_crop, find_tissue
from restain.phantom.noise import FIELD_BUMP_UM, misalignment_field
from restain.phantom.render import (
    Appearance,
    as_seen,
    counterstain,
    expose,
    he_appearance,
    he_densities,
    ihc_appearance,
    luminal_dab,
    membrane_dab,
)
from restain.phantom.tissue import Tissue, grow_tissue

LEAST_CELLS = 25
"""A grown pair has at least this many tumour cells, so that its level can be told."""
_ATTEMPTS = 20


@dataclass(frozen=True)
class PhantomPair:
    """A synthetic pair and its truth.

    ``he`` and ``ihc`` are ``(H, W, 3)`` ``uint8`` RGB; ``dab`` is the true DAB density, ``(H, W)``
    ``float32`` in OD units, aligned with ``ihc``; ``cells`` have their positions in ``he``; ``level`` is the
    guideline's level of the tumour cells; ``record`` holds how the pair was made (stain vectors, white,
    misalignment), ready for JSON.
    """

    he: NDArray[np.uint8]
    ihc: NDArray[np.uint8]
    dab: Floats
    cells: Cells
    level: Her2Level
    record: dict[str, Any]


def make_pair(
    seed: int,
    index: int,
    level: Her2Level,
    *,
    size: int = 512,
    mpp: float = 0.46,
    misalign_um: float = 0.0,
    noiseless: bool = False,
) -> PhantomPair:
    """Grow tissue of ``level`` and render it as H&E and as HER2 IHC; depends on the arguments alone.

    Args:
        seed: the data set's seed.
        index: the pair's index in the data set.
        level: the level that the tumour cells shall have by the guideline.
        size: height and width in pixels.
        mpp: micrometres per pixel.
        misalign_um: RMS of the elastic field that moves the IHC, in µm.
        noiseless: leave the sensor's noise out (all else stays the same).
    """
    tissue, rng = grow_pair_tissue(seed, index, level, size=size, mpp=mpp)
    cells = _inside(tissue.cells, size)
    looks = np.random.default_rng([seed, index, 1])
    look_he, look_ihc = he_appearance(looks), ihc_appearance(looks)
    noise = np.random.default_rng([seed, index, 2])
    he = expose(as_seen(he_densities(tissue, rng), look_he, mpp), look_he, rng=None if noiseless else noise)
    dab = np.maximum(membrane_dab(tissue.territory, tissue.cells, tissue.cover, mpp, rng), luminal_dab(tissue))
    ihc, truth = _ihc(counterstain(tissue, rng), dab, look_ihc, mpp, misalign_um, (seed, index), noiseless)
    record = {
        "style": tissue.style,
        "he": look_he.as_dict(),
        "ihc": look_ihc.as_dict(),
        "misalignment": _misalignment(misalign_um, seed, index),
    }
    return PhantomPair(he, ihc, truth, cells, level, record)


def grow_pair_tissue(
    seed: int, index: int, level: Her2Level, *, size: int = 512, mpp: float = 0.46
) -> tuple[Tissue, np.random.Generator]:
    """The tissue of :func:`make_pair`'s pair with the same arguments, and the source of randomness as growing left it."""
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, index, 0, attempt])
        tissue = grow_tissue(rng, level=level, size=size, mpp=mpp)
        tumour = _inside(tissue.cells, size).tumour
        if asco_cap_level(tumour.completeness, tumour.dab_od) != level:
            continue
        if len(tumour) >= min(LEAST_CELLS, (size * mpp / 20) ** 2):
            return tissue, rng
    raise AssertionError(f"no tissue of level {level.text} grew from seed {seed}, index {index} at {size} px")


def pair_from_picture(
    picture: NDArray[np.uint8],
    name: str,
    seed: int,
    index: int,
    *,
    size: int = 512,
    mpp: float = 0.46,
    picture_mpp: float | None = None,
    misalign_um: float = 0.0,
    noiseless: bool = False,
) -> PhantomPair:
    """Cut a crop out of a real H&E picture, find its cells, and render the IHC that the phantom's rule gives
    them.

    The crop's pixels are the picture's own (resampled only where ``picture_mpp`` differs from ``mpp``). The
    level is that of the cells found.

    Args:
        picture: ``(H, W, 3)`` ``uint8`` RGB.
        name: the picture's name for the record and for errors.
        seed: the data set's seed.
        index: the pair's index in the data set.
        size: height and width of the crop in pixels.
        mpp: micrometres per pixel of the crop.
        picture_mpp: micrometres per pixel of the picture; None takes it to be ``mpp``.
        misalign_um: RMS of the elastic field that moves the IHC, in µm.
        noiseless: leave the sensor's noise out.

    Raises:
        RestainError: if the picture is too small, or has too little tissue.
    """
    rng = np.random.default_rng([seed, index, 0])
    he, corner = draw_crop(picture, name, rng, size=size, scale=(picture_mpp or mpp) / mpp)
    found = find_tissue(he, mpp, rng)
    look = ihc_appearance(np.random.default_rng([seed, index, 1]))
    dab = membrane_dab(found.territory, found.cells, found.cover, mpp, rng)
    ihc, truth = _ihc(found.counterstain, dab, look, mpp, misalign_um, (seed, index), noiseless)
    tumour = found.cells.tumour
    record = {
        "source": name,
        "corner_px": corner,
        "ihc": look.as_dict(),
        "misalignment": _misalignment(misalign_um, seed, index),
    }
    level = asco_cap_level(tumour.completeness, tumour.dab_od)
    return PhantomPair(he, ihc, truth, found.cells, level, record)


def _inside(cells: Cells, size: int) -> Cells:
    return cells.take((cells.x >= 0) & (cells.y >= 0) & (cells.x < size) & (cells.y < size))


def _misalignment(rms_um: float, seed: int, index: int) -> dict[str, Any] | None:
    return {"rms_um": rms_um, "bump_um": FIELD_BUMP_UM, "seed": seed, "index": index} if rms_um > 0 else None


def _ihc(
    hematoxylin: Floats,
    dab: Floats,
    look: Appearance,
    mpp: float,
    misalign_um: float,
    key: tuple[int, int],
    noiseless: bool,
) -> tuple[NDArray[np.uint8], Floats]:
    """Photograph the IHC section, moved by the pair's field: the image, and the DAB density in it."""
    layers = np.stack([hematoxylin, dab], axis=-1).astype(np.float32)
    if misalign_um > 0:
        shape = layers.shape[:2]
        field = misalignment_field(shape, mpp=mpp, rms_um=misalign_um, seed=key[0], index=key[1])
        at = np.mgrid[0 : shape[0], 0 : shape[1]] + field
        layers = np.stack(
            [ndimage.map_coordinates(layers[..., i], at, order=1, mode="mirror") for i in range(2)], axis=-1
        )
    seen = as_seen(layers, look, mpp)
    rng = None if noiseless else np.random.default_rng([*key, 4])
    return expose(seen, look, rng=rng), seen[..., 1]


__all__ = ["PhantomPair", "grow_pair_tissue", "make_pair", "pair_from_picture"]
