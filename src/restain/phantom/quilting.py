"""Image quilting (Efros and Freeman 2001, doi:10.1145/383259.383296): tissue of any extent from a few grown textures.

A *texture* is a piece of synthetic tissue as stain densities. The tissue of a level is a brick wall of random windows of
its textures, rotated and mirrored at random. Neighbours overlap and are joined along the path through the overlap that
crosses least stain and least difference, so that nuclei are not cut. Rows are shifted so that at most one vertical joint
falls into a tile. Horizontal joints are pinned where tiles meet, so that a tile depends on its number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.her2 import Her2Level
from restain.phantom.architecture import GLASS, TUMOUR
from restain.phantom.pair import grow_pair_tissue
from restain.phantom.render import Appearance, as_seen, counterstain, he_densities, tissue_dab

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]

HE_CHANNELS = (0, 1, 2)
IHC_CHANNELS = (3, 4)
"""Channels of a texture: hematoxylin, eosin and erythrocytes of the H&E section; hematoxylin and DAB of the IHC's."""

_GREATEST_OD = 2.6
DENSITY: Floats = (np.linspace(0, 1, 256) ** 2 * _GREATEST_OD).astype(np.float32)
"""Density in OD units of each code; the step is 0.004 at 0.1 OD and 0.013 at 1 OD."""

TEXTURE_TILES = 3
"""Side of a texture in tiles."""
MOST_TEXTURES = 6
"""Most textures grown for a level."""
MOST_GROWN = 12
"""Most textures grown for a slide, so that growing takes about a minute."""
_STEP = 2
"""Joints are searched on every second pixel."""
_PASSING = 10.0
"""Cost of a joint per pixel of its length, in codes: keeps it from meandering."""
_CACHED = 80


@dataclass(frozen=True)
class Texture:
    """A grown piece of tissue: ``codes`` ``(5, side, side)`` (see :data:`DENSITY`), and the share of tumour."""

    codes: Codes
    tumour_share: float


def grow_texture(
    seed: int, level: Her2Level, number: int, side: int, mpp: float, he: Appearance, ihc: Appearance
) -> Texture:
    """Grow ``side`` px squared of tissue of ``level``, as both sections show it; depends on the arguments alone."""
    for attempt in range(40):
        index = 1_000_000 + int(level) * 10_000 + number * 100 + attempt
        tissue, rng = grow_pair_tissue(seed, index, level, size=side, mpp=mpp)
        if (tissue.compartment != GLASS).all():
            break
    first = as_seen(he_densities(tissue, rng), he, mpp)
    dab = tissue_dab(tissue, rng)
    second = as_seen(np.stack([counterstain(tissue, rng), dab], axis=-1).astype(np.float32), ihc, mpp)
    densities = np.moveaxis(np.concatenate([first, second], axis=-1), -1, 0)
    codes = np.rint(255 * np.sqrt(np.clip(densities, 0, _GREATEST_OD) / np.float32(_GREATEST_OD))).astype(np.uint8)
    return Texture(np.ascontiguousarray(codes), float((tissue.compartment == TUMOUR).mean()))


class Quilt:
    """Endless tissue made of the textures of each layer, drawn with its weights; parts of recent tiles are cached.

    The side of tiles is ``tile`` px; textures must be larger by at least a half.
    """

    def __init__(
        self, textures: Sequence[Sequence[Texture]], weights: Sequence[ArrayLike], seed: int, tile: int
    ) -> None:
        self._textures = [tuple(layer) for layer in textures]
        self._edges = [np.cumsum(np.asarray(w, dtype=np.float64) / np.sum(w)) for w in weights]
        self._seed, self._tile = seed, tile
        self._overlap = tile * 3 // 8 // (2 * _STEP) * (2 * _STEP)
        self._course = lru_cache(_CACHED)(self._make_course)
        self._joint = lru_cache(_CACHED)(self._make_joint)

    def tile(self, layer: int, row: int, column: int) -> Codes:
        """The tile at ``row``, ``column``: codes ``(5, tile, tile)``."""
        side, half = self._tile, self._overlap // 2
        out = np.empty((5, side, side), np.uint8)
        out[:, :half] = self._joint(layer, row, column)[:, half:]
        out[:, half:-half] = self._course(layer, row, column)[:, 2 * half : side]
        out[:, -half:] = self._joint(layer, row + 1, column)[:, :half]
        return out

    def _brick(self, layer: int, row: int, column: int) -> Codes:
        """The window that a brick shows: ``(5, tile + overlap, tile + overlap)``."""
        rng = np.random.default_rng([self._seed, 21, layer, row + 2, column + 2])
        chosen = self._textures[layer][int(np.searchsorted(self._edges[layer][:-1], rng.random(), side="right"))]
        side = self._tile + self._overlap
        top, left = rng.integers(chosen.codes.shape[1] - side + 1, size=2)
        window = chosen.codes[:, top : top + side, left : left + side]
        turned = np.rot90(window, int(rng.integers(4)), axes=(1, 2))
        return turned[:, :, ::-1] if rng.random() < 0.5 else turned

    def _make_course(self, layer: int, row: int, column: int) -> Codes:
        """A tile's part of a course of bricks, with the overlaps above and below: ``(5, tile + overlap, tile)``."""
        side, overlap = self._tile, self._overlap
        rng = np.random.default_rng([self._seed, 22, layer, row + 2])
        first = int(rng.integers(0, (side - overlap) // 2 + 1)) * 2
        left = self._brick(layer, row, column - 1)[:, :, side - first :]
        right = self._brick(layer, row, column)[:, :, : side - first]
        out = np.empty((5, side + overlap, side), np.uint8)
        out[:, :, :first] = left[:, :, :first]
        out[:, :, first + overlap :] = right[:, :, overlap:]
        joined = _joined(left[:, :, first:].transpose(0, 2, 1), right[:, :, :overlap].transpose(0, 2, 1), pinned=False)
        out[:, :, first : first + overlap] = joined.transpose(0, 2, 1)
        return out

    def _make_joint(self, layer: int, row: int, column: int) -> Codes:
        """The overlap of the courses above and below a tile's upper border: ``(5, overlap, tile)``."""
        upper = self._course(layer, row - 1, column)[:, -self._overlap :]
        lower = self._course(layer, row, column)[:, : self._overlap]
        return _joined(upper, lower, pinned=True)


def _joined(upper: Codes, lower: Codes, *, pinned: bool) -> Codes:
    """Join two images ``(C, n, L)`` of one place along the cheapest path from left to right.

    A pinned path begins and ends halfway.
    """
    a, b = (codes[:2, ::_STEP, ::_STEP].astype(np.float32) for codes in (upper, lower))
    # Stain counts half, so that a path between nuclei costs less than one through two similar nuclei.
    cost = np.abs(a - b).sum(axis=0) + 0.5 * np.maximum(a[0], b[0]) + _PASSING
    path = _cheapest_path(cost.T, pinned)
    n, length = upper.shape[1:]
    fine = np.interp(np.arange(length), np.arange(len(path)) * _STEP, path * _STEP)
    row = np.clip(np.rint(fine), 2, n - 2).astype(np.intp)
    out: Codes = np.where(np.arange(n)[:, None] < row, upper, lower)
    # One step of smoothing across the joint, as the optics would have blurred it.
    x = np.arange(length)
    four = out[:, row[None] + np.arange(-2, 2)[:, None], x].astype(np.uint16)
    out[:, row - 1, x] = ((four[:, 0] + 2 * four[:, 1] + four[:, 2] + 2) // 4).astype(np.uint8)
    out[:, row, x] = ((four[:, 1] + 2 * four[:, 2] + four[:, 3] + 2) // 4).astype(np.uint8)
    return out


def _cheapest_path(cost: Floats, pinned: bool) -> NDArray[np.intp]:
    """The cheapest path through ``cost`` ``(L, n)``: positions ``(L,)`` in [0, n) that differ by at most one."""
    length, n = cost.shape
    total = np.full((length, n + 2), np.inf, np.float32)
    total[0, 1:-1] = cost[0]
    if pinned:
        total[0, 1:-1] = np.inf
        total[0, 1 + n // 2] = 0
    best = np.empty(n, np.float32)
    for i in range(1, length):
        before = total[i - 1]
        np.minimum(before[:-2], before[2:], out=best)
        np.minimum(best, before[1:-1], out=best)
        np.add(best, cost[i], out=total[i, 1:-1])
    at = 1 + n // 2 if pinned else int(np.argmin(total[-1]))
    path = np.empty(length, np.intp)
    path[-1] = at - 1
    for i in range(length - 2, -1, -1):
        at += int(np.argmin(total[i, at - 1 : at + 2])) - 1
        path[i] = at - 1
    return path
