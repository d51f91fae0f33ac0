"""Features of a tile of an H&E image: stains, colours, sharpness, compression.

They are what a laboratory and a scanner can get wrong, and do not change when the tile is turned or mirrored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.optics import DAB, EOSIN, HEMATOXYLIN, optical_density, unit, unmix

Rgb = NDArray[np.uint8]
Floats = NDArray[np.float64]

TILE = 256
"""Side of the tiles that are judged, in px at the model's mpp; smaller images are one tile."""

STRIDE = 128
"""Least distance of two tiles; larger in images that would have more than ``MOST_TILES``."""

MOST_TILES = 400
"""Most tiles of one image that are described."""

SCALES = 4
"""Sharpness is measured in the image and in its three halvings."""

GLASS_OD = 0.08
"""A pixel of a lower mean optical density counts as glass."""

_BLOCK_FLOOR = 1e-3
"""OD: about half a grey level."""

_STAIN_POINTS = (1, 5, 25, 50, 75, 95, 99)


def feature_names() -> list[str]:
    """The names of the features of :func:`tile_features`, in order."""
    names = ["share of glass"]
    names += [
        f"{stain} density, {p} % point" for stain in ("hematoxylin", "eosin", "third colour") for p in _STAIN_POINTS
    ]
    names += [f"spread of {stain}" for stain in ("hematoxylin", "eosin", "the third colour")]
    names += [f"brown, {p} % point" for p in (50, 95, 99)]
    names += ["hematoxylin with eosin", "hematoxylin with the third colour", "eosin with the third colour"]
    for what in ("sharpness", "sharpness of colour"):
        for k in range(SCALES):
            names += [f"{what} at {2**k} px, mean", f"{what} at {2**k} px, edges"]
        names += [f"agreement of {what} at {2**k} and {2 ** (k + 1)} px" for k in range(SCALES - 1)]
    return [*names, "JPEG blocks across", "JPEG blocks down"]


def _halved(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    h, w = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    if min(h, w) < 2:
        return plane
    even = plane[:h, :w]
    quarter: NDArray[np.float32] = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) * np.float32(
        0.25
    )
    return quarter


def _blocks(grey: NDArray[np.float32], axis: int) -> float:
    """Log ratio of the steepest of the eight phases of a grid of 8 px to the median one."""
    steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
    if steps.size < 16:
        return 0.0
    phases = steps[: steps.size // 8 * 8].reshape(-1, 8).mean(axis=0)
    # Steps below the floor are read-out noise on glass, whose ratios mean nothing.
    return float(np.log10((phases.max() + _BLOCK_FLOOR) / (np.median(phases) + _BLOCK_FLOOR)))


def _sharpness(plane: NDArray[np.float32]) -> tuple[list[float], list[float]]:
    """Laplacian energy and edges at every scale, and whether scales agree on where edges are.

    In tissue edges lie at the same places at all scales; in noise or texture without shapes they do not.
    """
    values: list[float] = []
    together: list[float] = []
    finer: NDArray[np.float32] | None = None
    for _ in range(SCALES):
        edges = np.abs(ndimage.laplace(plane))
        values += [float(np.log10(np.mean(edges**2) + 1e-7)), float(np.log10(np.percentile(edges[::2], 99) + 1e-4))]
        if finer is not None:
            one, two = (side - side.mean() for side in (finer[: edges.shape[0], : edges.shape[1]], edges))
            together.append(float(np.mean(one * two) / (np.sqrt(np.mean(one**2) * np.mean(two**2)) + 1e-9)))
        finer, plane = _halved(edges), _halved(plane)
    return values, together


def places(length: int, tile: int = TILE, stride: int = STRIDE) -> list[int]:
    """First pixels of the tiles along a side, evenly spread so that the last ends with the side."""
    if length <= tile:
        return [0]
    count = -(-(length - tile) // stride) + 1
    return [int(v) for v in np.linspace(0, length - tile, count).round()]


def tile_corners(height: int, width: int) -> list[tuple[int, int]]:
    """Upper left corners ``(y, x)`` of the tiles of an image, row by row, at most about ``MOST_TILES``."""
    stride = STRIDE
    while len(places(height, stride=stride)) * len(places(width, stride=stride)) > MOST_TILES:
        stride *= 2
    return [(y, x) for y in places(height, stride=stride) for x in places(width, stride=stride)]


def tile_features(rgb: Rgb) -> list[float]:
    """One tile's stain statistics in the order of :func:`feature_names`: ``(h, w, 3)`` 8-bit RGB."""
    od = optical_density(rgb)
    grey = od.mean(axis=2)
    normal = unit(np.cross(HEMATOXYLIN, EOSIN))
    stains = unmix(od, (HEMATOXYLIN, EOSIN, normal))
    few = stains[::2, ::2].reshape(-1, 3)
    values = [float((grey < GLASS_OD).mean())]
    values += np.percentile(few, _STAIN_POINTS, axis=0).T.ravel().tolist()
    values += few.std(axis=0).tolist()
    brown = unmix(od[::2, ::2], (HEMATOXYLIN, DAB, EOSIN))[..., 1]
    values += np.percentile(brown, (50, 95, 99)).tolist()
    covariance = np.cov(few.T, bias=True) + 1e-6 * np.eye(3)
    spread = np.sqrt(np.diag(covariance))
    values += [float(covariance[i, j] / (spread[i] * spread[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
    for plane in (stains[..., 0], stains[..., 2]):
        sharp, together = _sharpness(plane)
        values += [*sharp, *together]
    return [*values, _blocks(grey, 1), _blocks(grey, 0)]


def image_features(rgb: Rgb) -> Floats:
    """Features of all tiles of an image: ``(H, W, 3)`` to ``(tiles, features)``."""
    corners = tile_corners(*rgb.shape[:2])
    return np.array([tile_features(rgb[y : y + TILE, x : x + TILE]) for y, x in corners], dtype=np.float64)
