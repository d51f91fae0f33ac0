"""One synthetic pair: both images and the truth behind them, from a seed and an index."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.transform import resize_local_mean

from restain.her2 import Her2Level, asco_cap_level
from restain.phantom.cells import Cells, Floats
from restain.phantom.expression import Expression
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
    membrane_dab,
    tissue_dab,
)
from restain.phantom.tissue import Tissue, grow_tissue

LEAST_CELLS = 25
"""Least number of tumour cells of a grown pair; fewer do not define a level."""
JPEG_QUALITY = (80, 95)
"""Range of the JPEG quality of scanned pairs, drawn for each pair."""
_ATTEMPTS = 20


@dataclass(frozen=True)
class PhantomPair:
    """A synthetic pair and its truth.

    ``he`` and ``ihc`` are ``(H, W, 3)`` uint8 RGB; ``dab`` is the true DAB density, ``(H, W)`` float32 in OD units,
    aligned with ``ihc``; ``cells`` have their positions in ``he``; ``level`` is the guideline's level of the tumour
    cells; ``record`` holds how the pair was made, ready for JSON.
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
    scanned_at: float | None = None,
) -> PhantomPair:
    """Grow tissue of ``level`` and render it as H&E and as HER2 IHC; depends on the arguments alone.

    Args:
        seed, index: of the data set, and of the pair in it.
        size: height and width in px.
        misalign_um: RMS of the elastic field that moves the IHC, in µm.
        noiseless: leave out the sensor noise and nothing else.
        scanned_at: mpp at which the pair is rendered and JPEG-compressed before it is averaged to ``mpp``, as patches
            of slides are. At most ``mpp``; None renders at ``mpp``, which is sharper and noisier.
    """
    if scanned_at is not None:
        side = round(size * mpp / scanned_at)
        fine = make_pair(seed, index, level, size=side, mpp=scanned_at, misalign_um=misalign_um, noiseless=noiseless)
        return _scanned(fine, size, scanned_at, (seed, index))
    tissue, rng = grow_pair_tissue(seed, index, level, size=size, mpp=mpp)
    appearances = np.random.default_rng([seed, index, 1])
    of_he, of_ihc = he_appearance(appearances), ihc_appearance(appearances)
    noise = None if noiseless else np.random.default_rng([seed, index, 2])
    he = expose(as_seen(he_densities(tissue, rng), of_he, mpp), of_he, rng=noise)
    dab = tissue_dab(tissue, rng)
    ihc, truth, record = render_ihc(counterstain(tissue, rng), dab, of_ihc, mpp, misalign_um, (seed, index), noiseless)
    record = {"style": tissue.style, "he": asdict(of_he), **record}
    return PhantomPair(he, ihc, truth, tissue.cells.inside(size), level, record)


def grow_pair_tissue(
    seed: int, index: int, level: Her2Level, *, size: int = 512, mpp: float = 0.46
) -> tuple[Tissue, np.random.Generator]:
    """The tissue of :func:`make_pair` with the same arguments, and the random generator after growing it."""
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, index, 0, attempt])
        tissue = grow_tissue(rng, level=level, size=size, mpp=mpp)
        tumour = tissue.cells.inside(size).tumour
        enough = len(tumour) >= min(LEAST_CELLS, (size * mpp / 20) ** 2)
        if enough and asco_cap_level(tumour.completeness, tumour.dab_od) == level:
            return tissue, rng
    raise AssertionError(f"no tissue of level {level.text} grew from seed {seed}, index {index} at {size} px")


def pair_from_image(
    image: NDArray[np.uint8],
    name: str,
    seed: int,
    index: int,
    *,
    size: int = 512,
    mpp: float = 0.46,
    image_mpp: float | None = None,
    misalign_um: float = 0.0,
    expression: Expression | None = None,
) -> PhantomPair:
    """Cut a crop out of a real H&E image ``(H, W, 3)``, find its cells, and render the IHC that the phantom's rule gives
    them.

    The crop keeps the image's pixels; it is resampled only where ``image_mpp`` (None for ``mpp``) differs from ``mpp``.
    The cells found, or ``expression``, mRNA measured on the image, decide the level. ``name`` is the image's, for the record and for errors; see :func:`make_pair` for
    the other parameters. Raises RestainError if the image is too small, or has too little tissue.
    """
    rng = np.random.default_rng([seed, index, 0])
    scale = (image_mpp or mpp) / mpp
    he, corner = draw_crop(image, name, rng, size=size, scale=scale)
    scorer = None if expression is None else lambda xy: expression.scores(xy / scale + np.array(corner))
    found = find_tissue(he, mpp, rng, scorer)
    appearance = ihc_appearance(np.random.default_rng([seed, index, 1]))
    dab = membrane_dab(found.territory, found.cells, found.cover, mpp, rng)
    ihc, truth, record = render_ihc(found.counterstain, dab, appearance, mpp, misalign_um, (seed, index))
    tumour = found.cells.tumour
    level = asco_cap_level(tumour.completeness, tumour.dab_od)
    return PhantomPair(he, ihc, truth, found.cells, level, {"source": name, "corner_px": corner, **record})


def render_ihc(
    hematoxylin: Floats,
    dab: Floats,
    appearance: Appearance,
    mpp: float,
    misalign_um: float,
    key: tuple[int, int],
    noiseless: bool = False,
) -> tuple[NDArray[np.uint8], Floats, dict[str, Any]]:
    """Photograph the IHC section, moved by the field of ``(seed, index)``: the image, its DAB density, and the record."""
    moved = {"rms_um": misalign_um, "bump_um": FIELD_BUMP_UM, "seed": key[0], "index": key[1]}
    layers = np.stack([hematoxylin, dab], axis=-1).astype(np.float32)
    if misalign_um > 0:
        shape = layers.shape[:2]
        field = misalignment_field(shape, mpp=mpp, rms_um=misalign_um, seed=key[0], index=key[1])
        at = np.mgrid[0 : shape[0], 0 : shape[1]] + field
        layers = np.stack(
            [ndimage.map_coordinates(layers[..., i], at, order=1, mode="mirror") for i in range(2)], axis=-1
        )
    seen = as_seen(layers, appearance, mpp)
    noise = None if noiseless else np.random.default_rng([*key, 4])
    record = {"ihc": asdict(appearance), "misalignment": moved if misalign_um > 0 else None}
    return expose(seen, appearance, rng=noise), seen[..., 1], record


def _scanned(pair: PhantomPair, size: int, scanned_at: float, key: tuple[int, int]) -> PhantomPair:
    """The pair compressed as JPEG and averaged by area, which keeps the amount of stain, to ``size`` px."""
    quality = int(np.random.default_rng([*key, 77]).integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))

    def averaged(values: NDArray[Any]) -> Floats:
        small = resize_local_mean(values.astype(np.float32), (size, size), preserve_range=True)
        return np.asarray(small, np.float32)

    def compressed(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=0)
        return np.rint(averaged(np.asarray(Image.open(buffer)))).astype(np.uint8)

    ratio = np.float32(size / pair.he.shape[0])
    return replace(
        pair,
        he=compressed(pair.he),
        ihc=compressed(pair.ihc),
        dab=averaged(pair.dab),
        cells=replace(pair.cells, x=pair.cells.x * ratio, y=pair.cells.y * ratio),
        record={**pair.record, "scanned_at": scanned_at, "jpeg_quality": quality},
    )
