"""Tissue of any extent from a few grown pieces: a quilt without visible seams, each of whose tiles can be made alone.

A *texture* is one piece of synthetic tissue as stain densities. A level's tissue is a brick wall of windows out of its
textures, each at a random place, turned and mirrored at random. Neighbours overlap, and are joined along the path
through the overlap that crosses least stain and least difference (image quilting: Efros and Freeman 2001,
doi:10.1145/383259.383296), so that nuclei are not cut. Rows of the wall are shifted so that at most one upright joint
falls into a tile, and level joints are pinned where tiles meet: a tile depends on its number alone.
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
from restain.phantom.render import (
    Appearance,
    as_seen,
    counterstain,
    he_densities,
    luminal_dab,
    membrane_dab,
)

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]

HE_CHANNELS = (0, 1, 2)
IHC_CHANNELS = (3, 4)
"""Channels of a texture: hematoxylin, eosin and erythrocytes of the H&E section; hematoxylin and DAB of the IHC's."""

_GREATEST_OD = 2.6
DENSITY: Floats = (np.linspace(0, 1, 256) ** 2 * _GREATEST_OD).astype(np.float32)
"""Density in OD units of each code: the step is 0.004 at 0.1 OD and 0.013 at 1 OD."""

TEXTURE_TILES = 3
"""Side of a texture in tiles."""
MOST_TEXTURES = 6
"""Textures grown for a level, at most; of several levels fewer of each, so that growing stays a matter of a minute."""
MOST_GROWN = 12
"""Textures grown for a slide, at most."""
_STEP = 2
"""Joints are looked for on every second pixel."""
_PASSING = 10.0
"""Cost of a joint per pixel of its length, on the scale of codes: keeps it from meandering."""
_CACHED = 80


def encode(density: Floats) -> Codes:
    """Codes of densities in OD units."""
    share = np.sqrt(np.clip(density, 0, _GREATEST_OD) / np.float32(_GREATEST_OD))
    return np.rint(255 * share).astype(np.uint8)


@dataclass(frozen=True)
class Texture:
    """One grown piece of tissue: ``codes`` ``(5, side, side)`` (see :data:`DENSITY`), how it is built, and the share of
    its area that is tumour."""

    codes: Codes
    style: str
    tumour_share: float


def grow_texture(
    seed: int, level: Her2Level, number: int, side: int, mpp: float, he: Appearance, ihc: Appearance
) -> Texture:
    """Grow a square piece of tissue of ``level``, as both sections show it; a function of its arguments alone.

    Densities are scaled by the appearances' strengths and blurred by their optics, as :func:`restain.phantom.make_pair`
    has them.
    """
    for attempt in range(40):
        index = 1_000_000 + int(level) * 10_000 + number * 100 + attempt
        tissue, rng = grow_pair_tissue(seed, index, level, size=side, mpp=mpp)
        if (tissue.compartment != GLASS).all():
            break
    first = as_seen(he_densities(tissue, rng), he, mpp)
    dab = np.maximum(membrane_dab(tissue.territory, tissue.cells, tissue.cover, mpp, rng), luminal_dab(tissue))
    second = as_seen(np.stack([counterstain(tissue, rng), dab], axis=-1).astype(np.float32), ihc, mpp)
    codes = encode(np.moveaxis(np.concatenate([first, second], axis=-1), -1, 0))
    return Texture(np.ascontiguousarray(codes), tissue.style, float((tissue.compartment == TUMOUR).mean()))


class Quilt:
    """Endless tissue made of textures, tile by tile.

    Several layers of it can be asked for, which share nothing but the textures. Keeps a bounded number of half-made
    tiles, so that neighbours asked for in turn cost little more than their own pixels.

    Args:
        textures: of each layer, at least one each, all of one size.
        weights: how often each of a layer's textures is taken.
        seed: of the choices.
        tile: side of the tiles in px; textures must be larger by a half at least.
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
    """Two pictures ``(C, n, L)`` of one place as one: above the cheapest path from left to right the first, below the
    second. A pinned path begins and ends halfway."""
    a, b = (codes[:2, ::_STEP, ::_STEP].astype(np.float32) for codes in (upper, lower))
    # Stain counts half, so that a path between nuclei costs less than one through two alike.
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
    """For each of ``L`` steps the place in [0, n) of the cheapest path through ``cost`` ``(L, n)``, whose neighbouring
    places differ by at most one."""
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


__all__ = [
    "DENSITY",
    "HE_CHANNELS",
    "IHC_CHANNELS",
    "MOST_GROWN",
    "MOST_TEXTURES",
    "TEXTURE_TILES",
    "Quilt",
    "Texture",
    "encode",
    "grow_texture",
]
