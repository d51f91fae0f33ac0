"""Optical density, stain unmixing and Beer–Lambert rendering.

Light through a stained section obeys Beer–Lambert: ``I = I0 · 10^(-c·v)`` per colour channel, with ``c`` the stain's
density and ``v`` its absorption in R, G and B. Densities are therefore linear in optical density,
``OD = -log10((I + eps) / I0)``, and stains are separated by a linear map (Ruifrok & Johnston, "Quantification of
histochemical staining by color deconvolution", *Anal Quant Cytol Histol* 23:291, 2001).

Functions take and give NumPy arrays whose last axis is RGB. A density of 1.0 absorbs as much as a unit optical density
vector does. DAB maps are in OD units and are never rescaled per image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

EPS = 1.0
"""Added to 8-bit intensities before the logarithm: half a grey level's worth of read-out noise, so that black is finite."""

HEMATOXYLIN: tuple[float, float, float] = (0.650, 0.704, 0.286)
EOSIN: tuple[float, float, float] = (0.072, 0.990, 0.105)
DAB: tuple[float, float, float] = (0.268, 0.570, 0.776)
"""Unit absorption vectors (R, G, B) of Ruifrok & Johnston 2001, table 1 and the H-DAB set of its ImageJ plug-in."""


def unit(vector: ArrayLike) -> Floats:
    """Scale absorption vectors (last axis RGB) to unit length. Raises ValueError if a vector is zero."""
    v = np.asarray(vector, dtype=np.float32)
    norm = np.linalg.norm(v, axis=-1, keepdims=True)
    if np.any(norm == 0):
        raise ValueError("a stain's absorption vector must not be zero")
    return (v / norm).astype(np.float32)


def optical_density(rgb: ArrayLike, white: ArrayLike = 255.0) -> Floats:
    """Optical density of ``(..., 3)`` intensities in [0, 255], as ``float32`` of the same shape.

    0 is white, negative where ``rgb`` is brighter. ``white`` is the intensity of unstained glass ``I0``: a number,
    three numbers or an array that broadcasts to ``rgb``.
    """
    given, light = np.asarray(rgb), np.asarray(white, dtype=np.float32)
    if given.dtype == np.uint8 and given.ndim > 1 and given.shape[-1] == 3 and light.shape in ((), (3,)):
        # 256 logarithms per channel in place of one per pixel.
        tables = -np.log10((np.arange(256, dtype=np.float32)[:, None] + EPS) / (np.broadcast_to(light, 3) + EPS))
        density = np.empty(given.shape, np.float32)
        for channel in range(3):
            density[..., channel] = tables[:, channel][given[..., channel]]
        return density
    return -np.log10((given.astype(np.float32) + EPS) / (light + EPS))


def transmit(od: ArrayLike, white: ArrayLike = 255.0) -> Floats:
    """Intensities from optical density: the inverse of :func:`optical_density`, as float in [0, 255]."""
    light = (np.asarray(white, dtype=np.float32) + EPS) * np.power(10.0, -np.asarray(od, dtype=np.float32)) - EPS
    return np.clip(light, 0.0, 255.0).astype(np.float32)


def round_to_uint8(light: ArrayLike) -> NDArray[np.uint8]:
    """Intensities in [0, 255], rounded and cut off there, as 8 bit; any shape."""
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def unmix(od: ArrayLike, stains: Sequence[ArrayLike]) -> Floats:
    """Stain densities by colour deconvolution (least squares, Ruifrok & Johnston 2001).

    ``(..., 3)`` optical density and one to three absorption vectors, each scaled to unit length, give ``(..., S)``
    densities in OD units; noise can make them slightly negative. With fewer than three vectors, what no stain explains
    is left out of the densities (it does not leak into them as it would with an arbitrary third vector).

    Raises ValueError if the vectors are linearly dependent or more than three.
    """
    matrix = unit(np.stack([np.asarray(s, dtype=np.float32) for s in stains]))
    if matrix.shape[0] > 3 or np.linalg.matrix_rank(matrix, tol=1e-3) < matrix.shape[0]:
        raise ValueError("stain vectors must be one to three linearly independent RGB absorption vectors")
    return (np.asarray(od, dtype=np.float32) @ np.linalg.pinv(matrix)).astype(np.float32)


def mix(densities: ArrayLike, stains: Sequence[ArrayLike]) -> Floats:
    """Optical density of stains laid over one another: ``(..., S)`` densities and S absorption vectors give ``(..., 3)``."""
    matrix = unit(np.stack([np.asarray(s, dtype=np.float32) for s in stains]))
    return (np.asarray(densities, dtype=np.float32) @ matrix).astype(np.float32)


def dab_density(rgb: ArrayLike, white: ArrayLike = 255.0) -> Floats:
    """DAB density of an H-DAB image: ``(H, W, 3)`` 8-bit RGB to ``(H, W)``, OD units, never negative.

    Unmixes hematoxylin and DAB by two vectors; the white field must be given where glass is not 255.
    """
    return np.maximum(unmix(optical_density(rgb, white), (HEMATOXYLIN, DAB))[..., 1], 0.0)


def hematoxylin_density(rgb: ArrayLike, white: ArrayLike = 255.0) -> Floats:
    """Hematoxylin density of an H&E image: ``(H, W, 3)`` 8-bit RGB to ``(H, W)``, OD units, never negative."""
    return np.maximum(unmix(optical_density(rgb, white), (HEMATOXYLIN, EOSIN))[..., 0], 0.0)


def glass_white(rgb: ArrayLike, percentile: float = 99.5) -> Floats:
    """Estimate ``I0`` from an image's brightest pixels: ``(H, W, 3)`` 8-bit RGB to ``(3,)`` in [1, 255].

    The value is each channel's mean over the pixels whose darkest channel is at or above its ``percentile``. Where a
    picture has no glass at all the estimate is too dark, so densities relative to it are then too low.
    """
    pixels = np.asarray(rgb).reshape(-1, 3)
    pixels = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    # Channel by channel: a reduction over an axis of three is ten times slower.
    darkest = np.minimum(np.minimum(pixels[:, 0], pixels[:, 1]), pixels[:, 2])
    bright = pixels[darkest >= np.percentile(darkest, percentile)].astype(np.float32)
    return np.clip(bright.mean(axis=0), 1.0, 255.0).astype(np.float32)
