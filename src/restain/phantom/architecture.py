"""The architecture of synthetic tissue: which pixel is tumour, duct, lumen, fat, vessel, collagen or glass.

Outlines are thresholded multi-scale noise. Collagen follows the level lines of a stream function that bends around nests
and ducts. Lengths are in micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from restain.phantom.cells import Bools, Floats, Ints
from restain.phantom.noise import smooth_noise

GLASS, STROMA, TUMOUR, DUCT, LUMEN, FAT, VESSEL = range(7)
"""No tissue, connective tissue, tumour nests, ductal epithelium, lumina, adipocytes, vessel walls."""


@dataclass(frozen=True)
class Style:
    """How a piece of tissue is built: size of nests (bump of the noise), share of tumour, and what lies beside it."""

    name: str
    bump_um: float
    tumour: tuple[float, float]
    cords: bool = False
    lumina: float = 0.0
    cleft_um: float = 0.0
    ducts: float = 0.5
    fat: float = 0.25
    lymphocytes: float = 0.12


STYLES = (
    Style("solid", 60, (0.65, 0.85), ducts=0.0, fat=0.0, lymphocytes=0.06),
    Style("nests", 26, (0.42, 0.60), cleft_um=5.0, ducts=0.3, fat=0.15),
    Style("cords", 17, (0.38, 0.52), cords=True, ducts=0.3, fat=0.15),
    Style("glands", 15, (0.34, 0.48), lumina=0.55, ducts=0.3, fat=0.15),
    Style("comedo", 42, (0.35, 0.55), cleft_um=11.0, ducts=0.3, fat=0.2),
    Style("sparse", 20, (0.22, 0.32), ducts=1.3, fat=0.7, lymphocytes=0.2),
)


def mask_of_share(field: Floats, allowed: Bools, share: float) -> Bools:
    """The pixels of ``allowed`` whose field is highest, ``share`` of them."""
    if share <= 0 or not allowed.any():
        return np.zeros_like(allowed)
    return allowed & (field > np.quantile(field[allowed], 1 - min(share, 1.0)))


def without_specks(mask: Bools, least_px: float) -> Bools:
    """Drop connected parts, and fill holes, of fewer than ``least_px`` pixels."""
    for value in (True, False):
        labels, count = ndimage.label(mask == value)
        if count:
            small = np.bincount(labels.ravel()) < least_px
            small[0] = False
            mask = mask ^ small[labels]
    return mask


def scatter(rng: np.random.Generator, allowed: Bools, spacing: float, keep: float = 1.0) -> Floats:
    """Jittered hexagonal lattice of about ``spacing`` px, kept where ``allowed``: ``(N, 2)`` rows and columns."""
    h, w = allowed.shape
    rows, cols = np.mgrid[0 : h : spacing * 0.866, 0:w:spacing]
    cols = cols + (np.arange(rows.shape[0]) % 2)[:, None] * spacing / 2
    points = np.stack([rows.ravel(), cols.ravel()], axis=1)
    points = points + rng.uniform(-0.27, 0.27, points.shape) * spacing
    points = points[rng.random(len(points)) < keep]
    points = points[np.all((points >= 0) & (points < (h - 0.5, w - 0.5)), axis=1)]
    pixel = points.astype(int)
    return points[allowed[pixel[:, 0], pixel[:, 1]]].astype(np.float32)


def nearest_seed(points: Floats, shape: tuple[int, int]) -> Ints:
    """Index of the seed nearest to each pixel: ``(H, W)``."""
    grid = np.full(shape, -1, dtype=np.int32)
    pixel = points.astype(int)
    grid[pixel[:, 0], pixel[:, 1]] = np.arange(len(points))
    rows, cols = ndimage.distance_transform_edt(grid < 0, return_distances=False, return_indices=True)
    return grid[rows, cols]


def borders(labels: Ints) -> Bools:
    """Pixels whose right or lower neighbour has another label, and those neighbours."""
    down, right = np.diff(labels, axis=0) != 0, np.diff(labels, axis=1) != 0
    top, left = np.pad(down, ((1, 0), (0, 0))), np.pad(right, ((0, 0), (1, 0)))
    return top | np.pad(down, ((0, 1), (0, 0))) | left | np.pad(right, ((0, 0), (0, 1)))


class Architecture:
    """The compartments of one square piece of tissue, built step by step from one source of randomness.

    ``(side, side)`` each: ``compartment``; ``slit``, how open the connective tissue is, in [0, 1]; ``red``, erythrocytes,
    in [0, 1]; ``fibre``, texture of the collagen, unit variance; ``angle``, along which it runs.
    """

    def __init__(self, rng: np.random.Generator, side: int, mpp: float) -> None:
        self.rng, self.mpp, self.shape = rng, mpp, (side, side)
        self.style = STYLES[rng.integers(len(STYLES))]
        self.compartment = np.full(self.shape, STROMA, dtype=np.uint8)
        self.slit, self.red = np.zeros((2, side, side), dtype=np.float32)
        self.y, self.x = np.mgrid[0:side, 0:side].astype(np.float32)
        self.nests()
        self.ducts_and_vessels()
        self.fat()
        self.glass()
        self.fibre, self.angle = self.collagen()
        self.open_slits()

    def noise(self, um: float) -> Floats:
        """Noise whose bumps have a standard deviation of ``um`` micrometres."""
        return smooth_noise(self.rng, self.shape, um / self.mpp)

    def px(self, um: float) -> float:
        """Micrometres in pixels."""
        return um / self.mpp

    def depth_um(self, mask: Bools) -> Floats:
        """Distance of the mask's pixels to its outside, in µm."""
        return (ndimage.distance_transform_edt(mask) * self.mpp).astype(np.float32)

    def nests(self) -> None:
        """Tumour, with its lumina and the clefts that shrinkage leaves around it."""
        style, rng = self.style, self.rng
        broad = self.noise(style.bump_um)
        field = broad + 0.30 * self.noise(style.bump_um / 3) + 0.10 * self.noise(3.0)
        if style.cords:
            field = 0.5 * self.noise(50) - np.abs(field)
        nests = mask_of_share(field, np.ones(self.shape, dtype=bool), rng.uniform(*style.tumour))
        nests = without_specks(nests, self.px(14) ** 2)
        if style.name == "solid":
            septa = np.abs(self.noise(32) + 0.25 * self.noise(8)) < 0.075
            nests = without_specks(nests & ~septa, self.px(14) ** 2)
        self.compartment[nests] = TUMOUR
        depth = self.depth_um(nests)
        if style.lumina:
            spots = scatter(rng, depth > 9, self.px(26), keep=style.lumina)
            self._lumina(spots, (4.0, 9.0), nests & (depth > 7.5))
        if style.cleft_um:
            outside = self.depth_um(~nests)
            width = style.cleft_um * (0.5 + 0.7 * self.noise(22)) + 0.5 * self.noise(2.5)
            self.slit[(outside > 0) & (outside < width)] = 1.0

    def _lumina(self, spots: Floats, radius_um: tuple[float, float], allowed: Bools) -> None:
        if not len(spots):
            return
        index = nearest_seed(spots, self.shape)
        radius = self.rng.uniform(*radius_um, len(spots)).astype(np.float32)
        away = self._away(spots, index) + 1.6 * self.noise(4)
        self.compartment[allowed & (away < radius[index])] = LUMEN

    def ducts_and_vessels(self) -> None:
        """Rings around a lumen, where they fit beside the tumour."""
        rng = self.rng
        for kind in [DUCT] * rng.poisson(self.style.ducts) + [VESSEL] * rng.poisson(0.9):
            outer = rng.uniform(24, 44) if kind == DUCT else rng.uniform(9, 18)
            depth = self.depth_um(self.compartment == STROMA)
            places = np.argwhere(depth > outer + 4)
            if not len(places):
                if kind == DUCT and self.style.name == "sparse":
                    places = np.argwhere(self.compartment == STROMA)
                else:
                    continue
            cy, cx = places[rng.integers(len(places))]
            stretch, turn = rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
            u = (self.x - cx) * np.cos(turn) + (self.y - cy) * np.sin(turn)
            v = (self.y - cy) * np.cos(turn) - (self.x - cx) * np.sin(turn)
            away = np.hypot(u, v / stretch) * self.mpp + 0.09 * outer * self.noise(0.4 * outer)
            wall = rng.uniform(10, 15) if kind == DUCT else rng.uniform(2.2, 4.0)
            near = away < outer + 10
            self.compartment[near & (self.compartment == TUMOUR)] = STROMA
            self.slit[near] = 0
            self.compartment[away < outer] = kind
            lumen = away < outer - wall + (1.2 * self.noise(2.5) if kind == DUCT else 0)
            self.compartment[lumen] = LUMEN
            if kind == VESSEL:
                self._fill_with_red_cells(lumen & (self.noise(6) > rng.uniform(-1.0, 0.8)))

    def _fill_with_red_cells(self, where: Bools) -> None:
        seeds = scatter(self.rng, where, self.px(5.6), keep=0.9)
        if not len(seeds):
            return
        away = self._away(seeds, nearest_seed(seeds, self.shape))
        disc = np.clip((3.0 - away) / (0.8 * self.mpp) + 0.5, 0, 1) * (0.72 + 0.28 * np.clip(away / 2, 0, 1))
        self.red = np.maximum(self.red, disc).astype(np.float32)

    def _away(self, points: Floats, index: Ints) -> Floats:
        """Distance of each pixel from the point of its index, in µm."""
        distance: Floats = np.hypot(self.y - points[index, 0], self.x - points[index, 1]) * self.mpp
        return distance

    def fat(self) -> None:
        """Adipocytes: large bubbles between thin septa."""
        if self.rng.random() > self.style.fat:
            return
        stroma = self.compartment == STROMA
        region = mask_of_share(self.noise(75) + 0.15 * self.noise(15), stroma, self.rng.uniform(0.35, 0.7))
        seeds = scatter(self.rng, np.ones(self.shape, dtype=bool), self.px(self.rng.uniform(42, 58)))
        index = nearest_seed(seeds, self.shape)
        edge = self.depth_um(~borders(index)) * (region & (self.depth_um(region) > 2))
        bubble = np.minimum(edge, self.depth_um(stroma))
        # Smoothing before the threshold rounds the corners of the polygons, as surface tension does.
        self.compartment[(ndimage.gaussian_filter(bubble, self.px(4.5)) > 3.4) & stroma & region] = FAT

    def glass(self) -> None:
        """In some pictures the tissue ends."""
        if self.rng.random() > 0.22:
            return
        turn = self.rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : self.shape[0] * 1j, -1 : 1 : self.shape[1] * 1j]
        edge = x * np.cos(turn) + y * np.sin(turn) + 0.16 * self.noise(40) + 0.035 * self.noise(6)
        self.compartment[edge > self.rng.uniform(0.5, 0.9)] = GLASS

    def collagen(self) -> tuple[Floats, Floats]:
        """Fibre texture, and the angle along which fibres run."""
        y, x, turn = self.y, self.x, self.rng.uniform(0, np.pi)
        wave = self.px(1) * self.rng.uniform(8, 20)
        across = y * np.cos(turn) - x * np.sin(turn) + wave * self.noise(30) + self.px(1.9) * self.noise(7)
        along = x * np.cos(turn) + y * np.sin(turn) + wave * self.noise(26)
        bodies = np.isin(self.compartment, (TUMOUR, DUCT, VESSEL))
        away = ndimage.gaussian_filter(ndimage.distance_transform_edt(~bodies), self.px(4))
        wrap = 0.75 * np.exp(-away / self.px(13))
        stream = (1 - wrap) * across + wrap * away
        dy, dx = np.gradient(ndimage.gaussian_filter(stream, self.px(3)))
        angle = np.arctan2(dx, -dy).astype(np.float32)
        fibre = np.zeros(self.shape, dtype=np.float32)
        side = int(1.5 * max(self.shape))
        for width, length, weight in ((0.5, 6.0, 0.5), (1.1, 11.0, 0.6), (2.8, 17.0, 0.7)):
            sheet = smooth_noise(self.rng, (side, side), (self.px(width), self.px(length)))
            fibre += weight * ndimage.map_coordinates(sheet, (stream, along), order=1, mode="grid-wrap")
        return (fibre / fibre.std()).astype(np.float32), angle

    def open_slits(self) -> None:
        """Gaps between collagen bundles, as sections tear along fibres."""
        loose = self.noise(30) * 0.55 + self.rng.uniform(-2.7, -1.35)
        smooth = ndimage.gaussian_filter(self.fibre, self.px(0.5))
        gap = np.clip((loose - smooth) * 3 + 0.5, 0, 1)
        self.slit = np.maximum(self.slit, gap).astype(np.float32) * (self.compartment == STROMA)
        self.slit = ndimage.gaussian_filter(self.slit, 0.5)

    def toward_wall(self) -> Floats:
        """Angle from the duct's lumen to its wall, along which ductal nuclei stand."""
        outside = ndimage.gaussian_filter(
            ndimage.distance_transform_edt(self.compartment != LUMEN).astype(np.float32), self.px(2)
        )
        dy, dx = np.gradient(outside)
        return np.arctan2(dy, dx).astype(np.float32)
