"""Tiles of a phantom slide pair: the plan's polygons filled with quilted tissue, and photographed.

A tile depends on the plan and its number alone; a bounded cache is kept between tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain import optics
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom.quilting import DENSITY, HE_CHANNELS, IHC_CHANNELS, Quilt, Texture
from restain.phantom.render import Appearance
from restain.phantom.slide_plan import Fold, Mark, SlidePlan
from restain.slides.geojson import Polygon, Ring, rasterize

Floats = NDArray[np.float32]
Rgb = NDArray[np.uint8]

DAB_REDUCTION = 4
"""``dab.ome.tiff`` has one pixel for this many of the slide's, squared."""
_EDGE_PX = 1.2
"""Standard deviation of the blur of an outline."""
_MARGIN = 5
_LATTICE = 16
"""Spacing in px of the lattice on which smooth fields are computed; between its points they are linear."""
_THICKNESS = 0.10
"""Greatest standard deviation of the section's thickness about its mean of 1."""
_NOISE_FROM_OD = 0.03
"""Density below which noise fades out, so that glass has one colour, also in blank tiles."""
_SECTIONS = 64


class TileRenderer:
    """Renders the tiles, ``tile`` px squared, of the slides ``he``, ``ihc``, ``ihc-registered`` and ``dab`` of a plan.

    ``textures`` has grown tissue of each level of the plan's islands; ``he`` and ``ihc`` are the sections' appearances,
    of which the shading is ignored. ``white`` is the colour of blank tiles of each slide.
    """

    def __init__(
        self,
        plan: SlidePlan,
        textures: Mapping[Her2Level, Sequence[Texture]],
        he: Appearance,
        ihc: Appearance,
        tile: int,
    ) -> None:
        self._he, self._ihc, self._side = he, ihc, tile
        rng = np.random.default_rng([plan.seed, 31])
        layers = [textures[island.level] for island in plan.islands]
        # Each island mixes textures with weights of its own, as tumours differ.
        weights = [rng.dirichlet(np.full(len(layer), 1.0)) for layer in layers]
        shares = [
            float(weight @ [one.tumour_share for one in layer]) for weight, layer in zip(weights, layers, strict=True)
        ]
        islands = tuple(replace(i, tumour_share=share) for i, share in zip(plan.islands, shares, strict=True))
        self.plan = replace(plan, islands=islands)
        """The plan, its islands with their tumour shares."""
        # The second copy of the islands is the tissue on top of folds.
        self._quilt = Quilt(layers * 2, weights * 2, plan.seed, tile)
        self._waves = _thickness_waves(rng, plan.mpp)
        self._pool = np.random.default_rng([plan.seed, 32]).standard_normal((2 * tile, 2 * tile, 3), dtype=np.float32)
        self._cut: Callable[[int, int], Floats | None] = lru_cache(_SECTIONS)(self._cut_ihc)
        glass = _rounded(ihc.white)
        self.white = {"he": _rounded(he.white), "ihc": glass, "ihc-registered": glass, "dab": glass}
        self._tiles = {"he": self._he_tile, "ihc": self._ihc_tile, "ihc-registered": self._registered, "dab": self._dab}

    def tile(self, name: str, row: int, column: int) -> NDArray[Any] | None:
        """A tile of the slide ``name``, or None where it is all glass: uint8 RGB, or float32 OD units of ``dab``."""
        return self._tiles[name](row, column)

    def _he_tile(self, row: int, column: int) -> Rgb | None:
        plan = self.plan
        density = self._section(row, column, HE_CHANNELS, plan.folds_he)
        marks = self._marks((*plan.pens, *plan.dust_he), row, column)
        if density is None and marks is None:
            return None
        return self._photograph(density, marks, self._he, (row, column, 0))

    def _registered(self, row: int, column: int) -> Rgb | None:
        """The IHC slide's tile on the H&E's grid, neither moved nor torn."""
        density = self._cut(row, column)
        return None if density is None else self._photograph(density, None, self._ihc, (row, column, 1))

    def _dab(self, row: int, column: int) -> Floats | None:
        """Mean DAB density of the registered IHC over the pixels that become one."""
        n, part = DAB_REDUCTION, self._side // DAB_REDUCTION
        out: Floats | None = None
        for i, j in np.ndindex(n, n):
            density = self._cut(row * n + i, column * n + j)
            if density is not None:
                out = np.zeros((self._side, self._side), np.float32) if out is None else out
                blocks = density[..., 1].reshape(part, n, part, n)
                out[i * part : (i + 1) * part, j * part : (j + 1) * part] = blocks.mean(axis=(1, 3))
        return out

    def _ihc_tile(self, row: int, column: int) -> Rgb | None:
        """The IHC slide's tile as it was scanned: deformed."""
        marks = self._marks(self.plan.dust_ihc, row, column)
        density = self._moved(row, column)
        if density is None and marks is None:
            return None
        return self._photograph(density, marks, self._ihc, (row, column, 2))

    def _section(self, row: int, column: int, channels: tuple[int, ...], folds: Sequence[Fold]) -> Floats | None:
        """Densities of a section on the H&E's grid, ``(tile, tile, len(channels))``; None without tissue."""
        total: Floats | None = None
        for number, island in enumerate(self.plan.islands):
            cover = self._coverage(island.outline, row, column)
            if cover is None:
                continue
            density: Floats = DENSITY[self._quilt.tile(number, row, column)[list(channels)]]
            for fold in folds:
                band = self._coverage(fold.outline, row, column) if fold.island == number else None
                if band is not None:
                    above = self._quilt.tile(number + len(self.plan.islands), row, column)
                    density += band * DENSITY[above[list(channels)]]
            if not isinstance(cover, float):
                density *= cover
            total = density if total is None else total + density
        if total is None:
            return None
        # The thickness does not change DAB, whose truth means the same everywhere.
        even = 1 if channels == IHC_CHANNELS else len(channels)
        total[:even] *= self._thickness(row, column)
        return np.ascontiguousarray(np.moveaxis(total, 0, -1))

    def _cut_ihc(self, row: int, column: int) -> Floats | None:
        """Densities of the IHC section on the H&E's grid, without its missing piece."""
        density = self._section(row, column, IHC_CHANNELS, self.plan.folds_ihc)
        missing = self.plan.deformation.missing
        if density is None or missing is None:
            return density
        lost = self._coverage(np.asarray(missing), row, column)
        if lost is None:
            return density
        return None if isinstance(lost, float) else np.asarray(density * (1 - lost[..., None]), dtype=np.float32)

    def _moved(self, row: int, column: int) -> Floats | None:
        """Densities of the deformed IHC section."""
        side, deformation = self._side, self.plan.deformation
        if deformation.is_identity:
            return self._cut(row, column)
        knots = np.arange(0, side + 1, _LATTICE, dtype=np.float64)
        x, y = np.meshgrid(column * side + knots, row * side + knots)
        source = deformation.inverse_smooth(np.stack([x.ravel(), y.ravel()], axis=1))
        tear = deformation.tear
        if tear is not None and not tear.reaches(source):
            tear = None
        slack = 2.0 + (0.0 if tear is None else tear.opening)
        low, high = np.floor(source.min(axis=0) - slack), np.ceil(source.max(axis=0) + slack)
        if not any(_meet(_bounds(island.outline), (*low, *high)) for island in self.plan.islands):
            return None
        gap = None
        if tear is not None and not tear.divides(source, _LATTICE / deformation.scale):
            source, tear = tear.inverse(source), None
        at = np.stack([_between(source[:, i].reshape(x.shape), side) for i in range(2)], axis=-1)
        if tear is not None:
            flat, inside = tear.closed(at.reshape(-1, 2))
            at, gap = flat.reshape(side, side, 2), inside.reshape(side, side)
        piece = self._assembled(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        if piece is None:
            return None
        # Pixels have their centres at half-integers, arrays at integers.
        out = _sampled(piece, at - low - 0.5)
        if gap is not None and gap.any():
            out *= (1 - ndimage.gaussian_filter(gap.astype(np.float32), _EDGE_PX))[..., None]
        return out if out.any() else None

    def _assembled(self, left: int, top: int, right: int, bottom: int) -> Floats | None:
        """The IHC section's densities in a rectangle of the H&E's grid."""
        side = self._side
        out: Floats | None = None
        for row in range(max(0, top // side), -(-bottom // side)):
            for column in range(max(0, left // side), -(-right // side)):
                tile = self._cut(row, column)
                if tile is None:
                    continue
                if out is None:
                    out = np.zeros((bottom - top, right - left, 2), np.float32)
                y, x = row * side, column * side
                y0, y1, x0, x1 = max(y, top), min(y + side, bottom), max(x, left), min(x + side, right)
                out[y0 - top : y1 - top, x0 - left : x1 - left] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        return out

    def _coverage(self, ring: Ring, row: int, column: int) -> Floats | float | None:
        """Share of each pixel of a tile that an outline covers: None for no pixel, 1.0 for all."""
        side = self._side
        left, top = column * side - _MARGIN, row * side - _MARGIN
        wide = side + 2 * _MARGIN
        if not _meet(_bounds(ring), (left, top, left + wide, top + wide)):
            return None
        mask = rasterize([Polygon(ring - (left, top))], Size(wide, wide), 1.0)
        if not mask.any():
            return None
        if mask.all():
            return 1.0
        soft = ndimage.gaussian_filter(mask.astype(np.float32), _EDGE_PX, truncate=3.0)
        inner = soft[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        return inner if inner.any() else None

    def _marks(self, marks: Sequence[Mark], row: int, column: int) -> Floats | None:
        """Optical density of ink and dust, ``(tile, tile, 3)``."""
        total: Floats | None = None
        for mark in marks:
            cover = self._coverage(mark.outline, row, column)
            if cover is None:
                continue
            if total is None:
                total = np.zeros((self._side, self._side, 3), np.float32)
            total += np.asarray(cover, dtype=np.float32)[..., None] * np.asarray(mark.density, dtype=np.float32)
        return total

    def _thickness(self, row: int, column: int) -> Floats:
        """Relative thickness of the section at each pixel of a tile."""
        side = self._side
        knots = np.arange(0, side + 1, _LATTICE, dtype=np.float64)
        y, x = (row * side + knots)[:, None], (column * side + knots)[None, :]
        field = sum(a * np.sin(kx * x + ky * y + phase) for a, kx, ky, phase in self._waves)
        return _between(np.asarray(1 + field), side).astype(np.float32)

    def _photograph(
        self, density: Floats | None, marks: Floats | None, appearance: Appearance, key: tuple[int, int, int]
    ) -> Rgb:
        od = np.float32(0) if density is None else optics.mix(density, appearance.vectors)
        od = np.asarray(od if marks is None else od + marks)
        white = np.asarray(_rounded(appearance.white), dtype=np.float32) + np.float32(optics.EPS)
        light = np.exp(od * np.float32(-math.log(10)))
        light *= white
        light -= np.float32(optics.EPS)
        top, left = np.random.default_rng([self.plan.seed, 33, *key]).integers(self._side, size=2)
        noise = self._pool[top : top + self._side, left : left + self._side] * np.float32(appearance.noise)
        light += noise * np.minimum(od[..., 1:2] / np.float32(_NOISE_FROM_OD), 1)
        np.rint(light, out=light)
        return np.clip(light, 0, 255, out=light).astype(np.uint8)


def _thickness_waves(rng: np.random.Generator, mpp: float) -> list[tuple[float, float, float, float]]:
    """``(amplitude, kx, ky, phase)`` of waves of 0.6 to 5 mm."""
    waves = []
    for _ in range(8):
        k = 2 * np.pi / (np.exp(rng.uniform(math.log(600), math.log(5000))) / mpp)
        turn, phase = rng.uniform(0, 2 * np.pi, 2)
        waves.append((_THICKNESS / 2 * rng.uniform(0.5, 1), k * math.cos(turn), k * math.sin(turn), float(phase)))
    return waves


def _between(knots: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Values at pixel centres, ``(side, side)``, interpolated linearly from those on the lattice."""
    at = (np.arange(side) + 0.5) / _LATTICE
    share = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(len(knots))))
    return np.asarray(share @ knots @ share.T)


def _sampled(piece: Floats, at: NDArray[np.float64]) -> Floats:
    """Bilinear interpolation of two layers ``(H, W, 2)`` at ``(h, w, 2)`` x, y in array px, all within: ``(h, w, 2)``."""
    width = piece.shape[1]
    # As one complex number, both layers are fetched and weighted at once.
    both = np.ascontiguousarray(piece).view(np.complex64).ravel()
    whole = at.astype(np.int64)
    x, y = np.moveaxis((at - whole).astype(np.float32), -1, 0)
    first = whole[..., 1] * width + whole[..., 0]
    upper = both[first] * (1 - x) + both[first + 1] * x
    first += width
    lower = both[first] * (1 - x) + both[first + 1] * x
    return (upper * (1 - y) + lower * y).view(np.float32).reshape(*at.shape)


def _bounds(ring: Ring) -> tuple[float, float, float, float]:
    left, top, right, bottom = np.concatenate([ring.min(axis=0), ring.max(axis=0)]).tolist()
    return left, top, right, bottom


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _rounded(white: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(value) for value in white)
    return red, green, blue
