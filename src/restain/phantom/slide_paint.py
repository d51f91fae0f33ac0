"""Tiles of a phantom slide pair: the plan's polygons filled with quilted tissue, and photographed.

Every tile is a function of the plan and its number; what is kept between tiles is a bounded cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain import optics
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom.render import Appearance
from restain.phantom.slide_plan import Fold, Mark, SlidePlan, bounds
from restain.phantom.slide_texture import DENSITY, HE_CHANNELS, IHC_CHANNELS, Quilt, Texture
from restain.slides.geojson import Polygon, Ring, rasterize

Floats = NDArray[np.float32]
Rgb = NDArray[np.uint8]

_EDGE_PX = 1.2
"""Standard deviation of the blur of an outline."""
_MARGIN = 5
_LATTICE = 16
"""Smooth fields are computed on every so manyth pixel, and linearly between."""
_THICKNESS = 0.10
"""Greatest standard deviation of the section's thickness about its mean of 1."""
_NOISE_FROM_OD = 0.03
"""Density below which noise fades out: glass has one colour, also where it is not painted but put as blank."""
_SECTIONS = 64


class Painter:
    """Paints the tiles of both slides of a plan.

    Args:
        plan: what lies where.
        textures: grown tissue of each level that the plan's islands have.
        he: how the H&E section looks; its shading is left out, as scanners correct it.
        ihc: how the IHC section looks.
        tile: side of the tiles in px.
    """

    def __init__(
        self,
        plan: SlidePlan,
        textures: Mapping[Her2Level, Sequence[Texture]],
        he: Appearance,
        ihc: Appearance,
        tile: int,
    ) -> None:
        self._plan, self._he, self._ihc, self._side = plan, he, ihc, tile
        rng = np.random.default_rng([plan.seed, 31])
        layers = [textures[island.level] for island in plan.islands]
        # Each island has textures of its own liking, as tumours differ.
        weights = [rng.dirichlet(np.full(len(layer), 1.0)) for layer in layers]
        self.tumour_shares = tuple(
            float(weight @ [texture.tumour_share for texture in layer])
            for weight, layer in zip(weights, layers, strict=True)
        )
        """Share of each island that is tumour, in the mean over its textures."""
        # The same islands once more: the tissue that folds lay on them.
        self._quilt = Quilt(layers * 2, weights * 2, plan.seed, tile)
        self._boxes = [island.box for island in plan.islands]
        self._waves = _thickness_waves(rng, plan.mpp)
        self._pool = np.random.default_rng([plan.seed, 32]).standard_normal((2 * tile, 2 * tile, 3), dtype=np.float32)
        self._cut: Callable[[int, int], Floats | None] = lru_cache(_SECTIONS)(self._cut_ihc)
        self.white_he, self.white_ihc = _rounded(he.white), _rounded(ihc.white)

    def he(self, row: int, column: int) -> Rgb | None:
        """The H&E slide's tile, ``(tile, tile, 3)``, or None where it is all glass."""
        plan = self._plan
        density = self._section(row, column, HE_CHANNELS, plan.folds_he)
        marks = self._marks((*plan.pens, *plan.dust_he), row, column)
        if density is None and marks is None:
            return None
        return self._photograph(density, marks, self._he, (row, column, 0))

    def registered(self, row: int, column: int) -> Rgb | None:
        """The IHC slide's tile on the H&E's grid: the section as it is, but neither moved nor torn."""
        density = self._cut(row, column)
        return None if density is None else self._photograph(density, None, self._ihc, (row, column, 1))

    def reduced_dab(self, row: int, column: int, reduction: int) -> Floats | None:
        """DAB density in OD units of :meth:`registered` in a grid ``reduction`` times coarser, ``(tile, tile)``: the mean
        over the pixels that become one. None where there is no tissue."""
        part = self._side // reduction
        out = np.zeros((self._side, self._side), np.float32)
        found = False
        for i in range(reduction):
            for j in range(reduction):
                density = self._cut(row * reduction + i, column * reduction + j)
                if density is not None:
                    found = True
                    blocks = density[..., 1].reshape(part, reduction, part, reduction)
                    out[i * part : (i + 1) * part, j * part : (j + 1) * part] = blocks.mean(axis=(1, 3))
        return out if found else None

    def ihc(self, row: int, column: int) -> Rgb | None:
        """The IHC slide's tile as it was scanned: deformed."""
        marks = self._marks(self._plan.dust_ihc, row, column)
        density = self._moved(row, column)
        if density is None and marks is None:
            return None
        return self._photograph(density, marks, self._ihc, (row, column, 2))

    def _section(self, row: int, column: int, channels: tuple[int, ...], folds: Sequence[Fold]) -> Floats | None:
        """Densities of a section on the H&E's grid, ``(tile, tile, len(channels))``, or None where there is no tissue."""
        total: Floats | None = None
        for number, island in enumerate(self._plan.islands):
            cover = self._coverage(island.outline, row, column)
            if cover is None:
                continue
            density: Floats = DENSITY[self._quilt.tile(number, row, column)[list(channels)]]
            for fold in folds:
                band = self._coverage(fold.outline, row, column) if fold.island == number else None
                if band is not None:
                    above = self._quilt.tile(number + len(self._plan.islands), row, column)
                    density += band * DENSITY[above[list(channels)]]
            if not isinstance(cover, float):
                density *= cover
            total = density if total is None else total + density
        if total is None:
            return None
        # Not DAB, which shall mean the same everywhere.
        even = 1 if channels == IHC_CHANNELS else len(channels)
        total[:even] *= self._thickness(row, column)
        return np.ascontiguousarray(np.moveaxis(total, 0, -1))

    def _cut_ihc(self, row: int, column: int) -> Floats | None:
        """Densities of the IHC section on the H&E's grid, without the piece that it lacks."""
        density = self._section(row, column, IHC_CHANNELS, self._plan.folds_ihc)
        missing = self._plan.deformation.missing
        if density is None or missing is None:
            return density
        lost = self._coverage(np.asarray(missing), row, column)
        if lost is None:
            return density
        return None if isinstance(lost, float) else np.asarray(density * (1 - lost[..., None]), dtype=np.float32)

    def _moved(self, row: int, column: int) -> Floats | None:
        """Densities of the IHC section where it came to lie."""
        side, deformation = self._side, self._plan.deformation
        if deformation.is_identity:
            return self._cut(row, column)
        knots = np.arange(0, side + 1, _LATTICE, dtype=np.float64)
        x, y = np.meshgrid(column * side + knots, row * side + knots)
        origin = deformation.inverse_smooth(np.stack([x.ravel(), y.ravel()], axis=1))
        tear = deformation.tear
        torn = tear is not None and tear.reaches(origin)
        slack = 2.0 + (tear.opening if tear is not None and torn else 0.0)
        low, high = np.floor(origin.min(axis=0) - slack), np.ceil(origin.max(axis=0) + slack)
        if not any(_meet(box, (*low, *high)) for box in self._boxes):
            return None
        gap = None
        if tear is not None and torn and not tear.divides(origin, _LATTICE / deformation.scale):
            origin = tear.inverse(origin)
            torn = False
        at = np.stack([_between(origin[:, i].reshape(x.shape), side) for i in range(2)], axis=-1)
        if tear is not None and torn:
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
        """How much of each pixel of a tile an outline covers: None for nothing, 1.0 for everything."""
        side = self._side
        left, top = column * side - _MARGIN, row * side - _MARGIN
        wide = side + 2 * _MARGIN
        if not _meet(bounds(ring), (left, top, left + wide, top + wide)):
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
        self, density: Floats | None, marks: Floats | None, look: Appearance, key: tuple[int, int, int]
    ) -> Rgb:
        od = np.float32(0) if density is None else optics.mix(density, look.vectors)
        od = np.asarray(od if marks is None else od + marks)
        white = np.asarray(_rounded(look.white), dtype=np.float32) + np.float32(optics.EPS)
        light = np.exp(od * np.float32(-math.log(10)))
        light *= white
        light -= np.float32(optics.EPS)
        light += self._noise(key, look.noise) * np.minimum(od[..., 1:2] / np.float32(_NOISE_FROM_OD), 1)
        np.rint(light, out=light)
        return np.clip(light, 0, 255, out=light).astype(np.uint8)

    def _noise(self, key: tuple[int, int, int], strength: float) -> Floats:
        top, left = np.random.default_rng([self._plan.seed, 33, *key]).integers(self._side, size=2)
        return self._pool[top : top + self._side, left : left + self._side] * np.float32(strength)


def _thickness_waves(rng: np.random.Generator, mpp: float) -> list[tuple[float, float, float, float]]:
    """``(amplitude, kx, ky, phase)`` of waves of 0.6 to 5 mm."""
    waves = []
    for _ in range(8):
        k = 2 * np.pi / (np.exp(rng.uniform(math.log(600), math.log(5000))) / mpp)
        turn, phase = rng.uniform(0, 2 * np.pi, 2)
        waves.append((_THICKNESS / 2 * rng.uniform(0.5, 1), k * math.cos(turn), k * math.sin(turn), float(phase)))
    return waves


def _between(knots: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Values at pixel centres, ``(side, side)``, from those on the lattice, linearly between."""
    at = (np.arange(side) + 0.5) / _LATTICE
    share = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(len(knots))))
    return np.asarray(share @ knots @ share.T)


def _sampled(piece: Floats, at: NDArray[np.float64]) -> Floats:
    """Bilinear interpolation of two layers ``(H, W, 2)`` at ``(h, w, 2)`` x, y in array px, all within: ``(h, w, 2)``."""
    width = piece.shape[1]
    # Both layers as one complex number are fetched and weighted in one go.
    both = np.ascontiguousarray(piece).view(np.complex64).ravel()
    whole = at.astype(np.int64)
    x, y = np.moveaxis((at - whole).astype(np.float32), -1, 0)
    first = whole[..., 1] * width + whole[..., 0]
    upper = both[first] * (1 - x) + both[first + 1] * x
    first += width
    lower = both[first] * (1 - x) + both[first + 1] * x
    return (upper * (1 - y) + lower * y).view(np.float32).reshape(*at.shape)


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _rounded(white: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(value) for value in white)
    return red, green, blue


__all__ = ["Painter"]
