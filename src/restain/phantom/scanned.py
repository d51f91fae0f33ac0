"""A pair as it is read from a slide: drawn at the scanner's resolution, compressed, and averaged down to the model's.

What is drawn at the model's resolution at once is sharper and noisier than what staining of slides gives the model to see.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import resize_local_mean

from restain.her2 import Her2Level
from restain.phantom.pair import PhantomPair, make_pair

QUALITY = (80, 95)
"""JPEG quality of slides, drawn for each pair from this range."""


def make_scanned_pair(
    seed: int, index: int, level: Her2Level, *, size: int, mpp: float, scanned_at: float, misalign_um: float = 0.0
) -> PhantomPair:
    """:func:`restain.phantom.make_pair` as a patch of two slides.

    Args:
        seed: see :func:`restain.phantom.make_pair`, as are ``index``, ``level`` and ``misalign_um``.
        size: height and width of the pair in px.
        mpp: micrometres per pixel of the pair.
        scanned_at: micrometres per pixel of the slides; at most ``mpp``.

    Raises:
        ValueError: if ``scanned_at`` is not finer than, or the same as, ``mpp``.
    """
    if not 0 < scanned_at <= mpp:
        raise ValueError(f"slides are scanned at no more than the pair's {mpp} µm per px, not at {scanned_at}")
    side = round(size * mpp / scanned_at)
    pair = make_pair(seed, index, level, size=side, mpp=scanned_at, misalign_um=misalign_um)
    quality = int(np.random.default_rng([seed, index, 77]).integers(QUALITY[0], QUALITY[1] + 1))
    he, ihc = (_averaged(_compressed(image, quality), size) for image in (pair.he, pair.ihc))
    ratio = size / side
    return replace(
        pair,
        he=np.rint(he).astype(np.uint8),
        ihc=np.rint(ihc).astype(np.uint8),
        dab=_averaged(pair.dab, size),
        cells=replace(pair.cells, x=pair.cells.x * np.float32(ratio), y=pair.cells.y * np.float32(ratio)),
        record={**pair.record, "scanned_at": scanned_at, "jpeg_quality": quality},
    )


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(buffer))


def _averaged(image: NDArray[np.uint8] | NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """By area, which keeps the amount of stain."""
    averaged = resize_local_mean(image.astype(np.float32), (size, size), preserve_range=True)
    return np.asarray(averaged, np.float32)
