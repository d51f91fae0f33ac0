"""Synthetic breast tissue: compartments, cells and their territories, grown from noise.

Outlines are thresholded multi-scale noise, so that nests are irregular; collagen follows the level lines of a stream
function that bends around nests and ducts; cells are jittered seeds whose territories are the seeds' nearest pixels. All
lengths are in micrometres, so that the same tissue exists at any pixel size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from restain.her2 import Her2Level
from restain.phantom.cells import (
    CELL_UM,
    FEW_CELLS,
    NUCLEUS_CV,
    NUCLEUS_UM,
    Bools,
    CellKind,
    Cells,
    Floats,
    Ints,
    stain_membranes,
)
from restain.phantom.noise import smooth_noise

MARGIN_UM = 14.0
"""Tissue is grown this much beyond the image, so that cells are cut by its edge as in a real picture."""

GLASS, STROMA, TUMOUR, DUCT, LUMEN, FAT, VESSEL = range(7)
"""Compartments: no tissue, connective tissue, tumour nests, ductal epithelium, lumina, adipocytes, vessel walls."""


@dataclass(frozen=True)
class Style:
    """How a piece of tissue is built: nest size (bump of the noise, µm), share of tumour, and what lies beside it."""

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


@dataclass(frozen=True)
class Tissue:
    """A piece of tissue as arrays of one shape ``(H, W)``, and its cells.

    ``compartment`` names each pixel's compartment; ``territory`` is, for epithelium, one plus the index of the cell that
    owns the pixel (0 elsewhere); ``nucleus`` the same for nuclei of every cell; ``radius`` the distance from the nucleus'
    centre in nuclear radii (1 at its rim; large far away); ``cover`` how much of the pixel is nucleus, in [0, 1];
    ``fibre`` the collagen's texture (zero mean, unit variance); ``slit`` how open the connective tissue is, in [0, 1];
    ``red_cells`` the erythrocytes' density, in [0, 1].
    """

    mpp: float
    style: str
    compartment: NDArray[np.uint8]
    territory: Ints
    nucleus: Ints
    radius: Floats
    cover: Floats
    fibre: Floats
    slit: Floats
    red_cells: Floats
    cells: Cells


def _mask_of_share(field: Floats, allowed: Bools, share: float) -> Bools:
    """The pixels of ``allowed`` whose field is highest, ``share`` of them."""
    if share <= 0 or not allowed.any():
        return np.zeros_like(allowed)
    return allowed & (field > np.quantile(field[allowed], 1 - min(share, 1.0)))


def _without_specks(mask: Bools, least_px: float) -> Bools:
    """Drop connected parts, and fill holes, of fewer than ``least_px`` pixels."""
    for value in (True, False):
        labels, count = ndimage.label(mask == value)
        if count:
            small = np.bincount(labels.ravel()) < least_px
            small[0] = False
            mask = mask ^ small[labels]
    return mask


def _seeds(rng: np.random.Generator, allowed: Bools, spacing: float, keep: float = 1.0) -> Floats:
    """Jittered hexagonal lattice of about ``spacing`` pixels, kept where ``allowed``: ``(N, 2)`` rows and columns."""
    h, w = allowed.shape
    rows, cols = np.mgrid[0 : h : spacing * 0.866, 0:w:spacing]
    cols = cols + (np.arange(rows.shape[0]) % 2)[:, None] * spacing / 2
    points = np.stack([rows.ravel(), cols.ravel()], axis=1)
    points = points + rng.uniform(-0.27, 0.27, points.shape) * spacing
    points = points[rng.random(len(points)) < keep]
    inside = np.all((points >= 0) & (points < (h - 0.5, w - 0.5)), axis=1)
    points = points[inside]
    pixel = points.astype(int)
    return points[allowed[pixel[:, 0], pixel[:, 1]]].astype(np.float32)


def _nearest(points: Floats, shape: tuple[int, int]) -> Ints:
    """Index of the seed nearest to each pixel: ``(H, W)``."""
    grid = np.full(shape, -1, dtype=np.int32)
    pixel = points.astype(int)
    grid[pixel[:, 0], pixel[:, 1]] = np.arange(len(points))
    rows, cols = ndimage.distance_transform_edt(grid < 0, return_distances=False, return_indices=True)
    return grid[rows, cols]


class _Grower:
    """Grows one piece of tissue; holds what every step needs (randomness, canvas, scale)."""

    def __init__(self, rng: np.random.Generator, size: int, mpp: float, level: Her2Level) -> None:
        self.rng, self.mpp, self.level = rng, mpp, level
        self.margin = round(MARGIN_UM / mpp)
        self.shape = (size + 2 * self.margin,) * 2
        self.style = STYLES[rng.integers(len(STYLES))]
        self.compartment = np.full(self.shape, STROMA, dtype=np.uint8)
        self.slit = np.zeros(self.shape, dtype=np.float32)
        self.red = np.zeros(self.shape, dtype=np.float32)

    def noise(self, um: float | tuple[float, float]) -> Floats:
        sigma = tuple(u / self.mpp for u in um) if isinstance(um, tuple) else um / self.mpp
        return smooth_noise(self.rng, self.shape, sigma)  # type: ignore[arg-type]

    def px(self, um: float) -> float:
        return um / self.mpp

    def depth_um(self, mask: Bools) -> Floats:
        return (ndimage.distance_transform_edt(mask) * self.mpp).astype(np.float32)

    def nests(self) -> None:
        style, rng = self.style, self.rng
        broad = self.noise(style.bump_um)
        field = broad + 0.30 * self.noise(style.bump_um / 3) + 0.10 * self.noise(3.0)
        if style.cords:
            field = 0.5 * self.noise(50) - np.abs(field)
        everywhere = np.ones(self.shape, dtype=bool)
        nests = _mask_of_share(field, everywhere, rng.uniform(*style.tumour))
        nests = _without_specks(nests, self.px(14) ** 2)
        if style.name == "solid":
            septa = np.abs(self.noise(32) + 0.25 * self.noise(8)) < 0.045
            nests = _without_specks(nests & ~septa, self.px(14) ** 2)
        self.compartment[nests] = TUMOUR
        depth = self.depth_um(nests)
        if style.lumina:
            spots = _seeds(rng, depth > 9, self.px(26), keep=style.lumina)
            self._lumina(spots, (4.0, 9.0), nests & (depth > 7.5))
        if style.cleft_um:
            outside = self.depth_um(~nests)
            width = style.cleft_um * (0.5 + 0.7 * self.noise(22)) + 0.5 * self.noise(2.5)
            self.slit[(outside > 0) & (outside < width)] = 1.0

    def _lumina(self, spots: Floats, radius_um: tuple[float, float], allowed: Bools) -> None:
        if not len(spots):
            return
        index = _nearest(spots, self.shape)
        radius = self.rng.uniform(*radius_um, len(spots)).astype(np.float32)
        y, x = np.mgrid[0 : self.shape[0], 0 : self.shape[1]].astype(np.float32)
        away = np.hypot(y - spots[index, 0], x - spots[index, 1]) * self.mpp + 1.6 * self.noise(4)
        self.compartment[allowed & (away < radius[index])] = LUMEN

    def ducts_and_vessels(self) -> None:
        """Rings around a lumen, where there is room beside the tumour."""
        rng = self.rng
        kinds = [DUCT] * rng.poisson(self.style.ducts) + [VESSEL] * rng.poisson(0.9)
        y, x = np.mgrid[0 : self.shape[0], 0 : self.shape[1]].astype(np.float32)
        for kind in kinds:
            outer = rng.uniform(24, 44) if kind == DUCT else rng.uniform(9, 18)
            room = self.depth_um(self.compartment == STROMA)
            places = np.argwhere(room > outer + 4)
            if not len(places):
                if kind == DUCT and self.style.name == "sparse":
                    places = np.argwhere(self.compartment == STROMA)
                else:
                    continue
            cy, cx = places[rng.integers(len(places))]
            stretch, turn = rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
            u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
            v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
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
        seeds = _seeds(self.rng, where, self.px(5.6), keep=0.9)
        if not len(seeds):
            return
        index = _nearest(seeds, self.shape)
        y, x = np.mgrid[0 : self.shape[0], 0 : self.shape[1]].astype(np.float32)
        away = np.hypot(y - seeds[index, 0], x - seeds[index, 1]) * self.mpp
        disc = np.clip((3.0 - away) / (0.8 * self.mpp) + 0.5, 0, 1) * (0.72 + 0.28 * np.clip(away / 2, 0, 1))
        self.red = np.maximum(self.red, disc).astype(np.float32)

    def fat(self) -> None:
        if self.rng.random() > self.style.fat:
            return
        stroma = self.compartment == STROMA
        region = _mask_of_share(self.noise(75) + 0.15 * self.noise(15), stroma, self.rng.uniform(0.35, 0.7))
        seeds = _seeds(self.rng, np.ones(self.shape, dtype=bool), self.px(self.rng.uniform(42, 58)))
        index = _nearest(seeds, self.shape)
        edge = self.depth_um(~borders(index)) * (region & (self.depth_um(region) > 2))
        seen = self.depth_um(stroma)
        bubble = np.minimum(edge, seen)
        # Smoothing before the threshold rounds the corners of the polygons, as surface tension does.
        self.compartment[(ndimage.gaussian_filter(bubble, self.px(4.5)) > 3.4) & stroma & region] = FAT

    def glass(self) -> None:
        if self.rng.random() > 0.22:
            return
        turn = self.rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : self.shape[0] * 1j, -1 : 1 : self.shape[1] * 1j]
        edge = x * np.cos(turn) + y * np.sin(turn) + 0.16 * self.noise(40) + 0.035 * self.noise(6)
        self.compartment[edge > self.rng.uniform(0.5, 0.9)] = GLASS

    def collagen(self) -> tuple[Floats, Floats]:
        """Fibre texture, and the angle along which fibres run."""
        y, x = np.mgrid[0 : self.shape[0], 0 : self.shape[1]].astype(np.float32)
        turn = self.rng.uniform(0, np.pi)
        wave = self.px(1) * self.rng.uniform(8, 20)
        across = (
            y * np.cos(turn) - x * np.sin(turn) + wave * self.noise(30) + self.px(1.9) * self.noise(7)
        )
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

    def scores(self) -> Ints:
        """HER2 score of the focus that a tumour pixel belongs to, ``(H, W)``."""
        score = np.full(self.shape, int(self.level), dtype=np.int32)
        tumour = self.compartment == TUMOUR
        foci = self.noise(24)
        if self.level > 0:
            score[_mask_of_share(foci, tumour, self.rng.uniform(0.05, 0.22))] -= 1
        if 0 < self.level < 3:
            score[_mask_of_share(-foci, tumour, self.rng.uniform(0.0, 0.06))] += 1
        return score

    def epithelium(self) -> tuple[Floats, Ints, Ints]:
        """Seeds of tumour and duct cells: ``(N, 2)`` positions, kinds and scores."""
        tumour, score = self.compartment == TUMOUR, self.scores()
        depth = self.depth_um(tumour)
        points, kinds, scores = [], [], []
        for s in np.unique(score[tumour]):
            allowed = tumour & (score == s) & (depth > 0.22 * CELL_UM[s])
            found = _seeds(self.rng, allowed, self.px(CELL_UM[s]))
            found = self._filled_up(found, allowed, 0.72 * self.px(CELL_UM[s]))
            points.append(found)
            kinds.append(np.full(len(found), CellKind.TUMOUR))
            scores.append(np.full(len(found), s))
        duct = self.compartment == DUCT
        found = _seeds(self.rng, duct & (self.depth_um(duct) > 2.4), self.px(7.6))
        points.append(found)
        kinds.append(np.full(len(found), CellKind.DUCT))
        scores.append(np.zeros(len(found)))
        place = np.concatenate(points).astype(np.float32)
        crowded = cKDTree(place).query_pairs(self.px(6.0), output_type="ndarray")
        keep = np.ones(len(place), dtype=bool)
        keep[crowded[:, 1]] = False
        return (
            place[keep],
            np.concatenate(kinds)[keep].astype(np.int32),
            np.concatenate(scores)[keep].astype(np.int32),
        )

    def _filled_up(self, seeds: Floats, allowed: Bools, room: float) -> Floats:
        """Add seeds where the lattice left holes, as it does along winding outlines."""
        for _ in range(2):
            more = _seeds(self.rng, allowed, 0.9 * room)
            if not len(more):
                break
            if len(seeds):
                more = more[cKDTree(seeds).query(more)[0] > room]
            late = cKDTree(more).query_pairs(room, output_type="ndarray")[:, 1] if len(more) else []
            seeds = np.concatenate([seeds, np.delete(more, late, axis=0)]).astype(np.float32)
        return seeds

    def interstitial(self) -> tuple[Floats, Ints]:
        """Seeds of fibroblasts and lymphocytes: ``(N, 2)`` positions and kinds."""
        stroma = (self.compartment == STROMA) & (self.slit < 0.5)
        room = stroma & (self.depth_um(stroma) > 1.6)
        share = max(0.0, self.rng.normal(self.style.lymphocytes, 0.08))
        crowd = _mask_of_share(self.noise(26) + 0.4 * self.noise(7), room, share)
        small = np.concatenate(
            [
                _seeds(self.rng, crowd, self.px(8.2), keep=0.85),
                _seeds(self.rng, room & ~crowd, self.px(30), keep=0.5),
            ]
        )
        spindle = _seeds(self.rng, room & ~crowd, self.px(self.rng.uniform(14, 20)), keep=0.75)
        place = np.concatenate([small, spindle])
        kind = np.repeat([CellKind.LYMPHOCYTE, CellKind.FIBROBLAST], [len(small), len(spindle)])
        return place.astype(np.float32), kind.astype(np.int32)

    def grow(self) -> Tissue:
        self.nests()
        self.ducts_and_vessels()
        self.fat()
        self.glass()
        fibre, angle = self.collagen()
        self._open_slits(fibre)
        rng = self.rng
        seeds, kind, score = self.epithelium()
        loose, loose_kind = self.interstitial()
        count = len(seeds)
        place = np.concatenate([seeds, loose])
        kind = np.concatenate([kind, loose_kind])
        score = np.concatenate([score, np.zeros(len(loose), dtype=np.int32)])

        pleomorphism = rng.normal(0, 1, len(place)).clip(-2.2, 2.2) * NUCLEUS_CV[score]
        diameter = (NUCLEUS_UM[score] * (1 + pleomorphism)).astype(np.float32)
        others = {
            CellKind.DUCT: (5.6, 0.3),
            CellKind.LYMPHOCYTE: (5.3, 0.35),
            CellKind.FIBROBLAST: (4.9, 0.6),
        }
        for which, (mean, spread) in others.items():
            here = kind == which
            diameter[here] = rng.normal(mean, spread, int(here.sum())).clip(3.5, 8)
        slender = np.array([1.22, 1.5, 3.6, 1.08], dtype=np.float32)[kind] * rng.uniform(
            0.92, 1.2, len(place)
        )
        slender = np.maximum(slender, 1.0).astype(np.float32)
        pixel = place.astype(int)
        turn = rng.uniform(0, np.pi, len(place)).astype(np.float32)
        spindle = kind == CellKind.FIBROBLAST
        turn[spindle] = angle[pixel[spindle, 0], pixel[spindle, 1]] + rng.normal(0, 0.15, int(spindle.sum()))
        inward = self._toward_wall()[pixel[:, 0], pixel[:, 1]]
        turn = np.where(kind == CellKind.DUCT, inward, turn).astype(np.float32)

        epithelial = np.isin(self.compartment, (TUMOUR, DUCT))
        wobble = [self.px(0.55) * self.noise(2.2) for _ in range(2)]
        y, x = np.mgrid[0 : self.shape[0], 0 : self.shape[1]].astype(np.float32)
        wy = np.clip(np.rint(y + wobble[0]), 0, self.shape[0] - 1).astype(int)
        wx = np.clip(np.rint(x + wobble[1]), 0, self.shape[1] - 1).astype(int)
        owner = _nearest(seeds, self.shape)[wy, wx] if count else np.zeros(self.shape, np.int32)
        own_loose = _nearest(loose, self.shape) + count if len(loose) else np.zeros(self.shape, np.int32)
        nearest = np.where(epithelial, owner, own_loose)

        dy, dx = y + 0.6 * wobble[0] - place[nearest, 0], x + 0.6 * wobble[1] - place[nearest, 1]
        cos, sin = np.cos(turn)[nearest], np.sin(turn)[nearest]
        long = (diameter * np.sqrt(slender) / 2)[nearest] / self.mpp
        short = (diameter / np.sqrt(slender) / 2)[nearest] / self.mpp
        radius = np.hypot((dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short)
        radius = (radius * (1 + 0.07 * self.noise(1.7))).astype(np.float32)
        cover = np.clip((1 - radius) * short + 0.5, 0, 1)
        solid = epithelial | ((self.compartment == STROMA) | (self.compartment == VESSEL))
        cover = np.where(solid & (len(place) > 0), cover, 0).astype(np.float32)

        completeness, dab_od = stain_membranes(rng, kind, score, diameter)
        cells = Cells(place[:, 1], place[:, 0], kind, score, diameter, completeness, dab_od)
        tissue = Tissue(
            mpp=self.mpp,
            style=self.style.name,
            compartment=self.compartment,
            territory=np.where(epithelial & (count > 0), owner + 1, 0).astype(np.int32),
            nucleus=np.where(cover > 0.5, nearest + 1, 0).astype(np.int32),
            radius=radius,
            cover=cover,
            fibre=fibre,
            slit=self.slit,
            red_cells=self.red,
            cells=cells,
        )
        return _cropped(tissue, self.margin)

    def _open_slits(self, fibre: Floats) -> None:
        """Gaps between collagen bundles, as sections tear along fibres."""
        loose = self.noise(30) * 0.55 + self.rng.uniform(-2.7, -1.35)
        smooth = ndimage.gaussian_filter(fibre, self.px(0.5))
        gap = np.clip((loose - smooth) * 3 + 0.5, 0, 1)
        self.slit = np.maximum(self.slit, gap).astype(np.float32) * (self.compartment == STROMA)
        self.slit = ndimage.gaussian_filter(self.slit, 0.5)

    def _toward_wall(self) -> Floats:
        """Angle from the duct's lumen to its wall, along which ductal nuclei stand."""
        outside = ndimage.gaussian_filter(
            ndimage.distance_transform_edt(self.compartment != LUMEN).astype(np.float32), self.px(2)
        )
        dy, dx = np.gradient(outside)
        return np.arctan2(dy, dx).astype(np.float32)


def borders(labels: Ints) -> Bools:
    """Pixels whose right or lower neighbour has another label, and those neighbours."""
    border = np.zeros(labels.shape, dtype=bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border


def _cropped(tissue: Tissue, margin: int) -> Tissue:
    """Cut the margin off, and renumber the cells whose nuclei or territories remain."""
    inner = (slice(margin, -margin),) * 2
    size = tissue.compartment.shape[0] - 2 * margin
    cells = tissue.cells
    x, y = cells.x - margin, cells.y - margin
    inside = (x >= 0) & (y >= 0) & (x < size) & (y < size)
    territory, nucleus = tissue.territory[inner], tissue.nucleus[inner]
    # Cells with their centre outside keep their number after those inside, so that their membranes are still drawn.
    order = np.concatenate([np.flatnonzero(inside), np.flatnonzero(~inside)])
    number = np.zeros(len(cells) + 1, dtype=np.int32)
    number[order + 1] = np.arange(1, len(cells) + 1)
    arrays = {
        k: getattr(tissue, k)[inner] for k in ("compartment", "radius", "cover", "fibre", "slit", "red_cells")
    }
    moved = replace(cells, x=x.astype(np.float32), y=y.astype(np.float32)).take(order)
    return replace(tissue, territory=number[territory], nucleus=number[nucleus], cells=moved, **arrays)


def grow_tissue(rng: np.random.Generator, *, level: Her2Level, size: int = 512, mpp: float = 0.46) -> Tissue:
    """Grow a square piece of tissue whose tumour cells are of ``level`` by the guideline.

    Args:
        rng: source of randomness.
        level: the HER2 level that most foci have.
        size: height and width in pixels.
        mpp: micrometres per pixel.

    Returns:
        The tissue. Its cells include those that only reach into the image from outside.
    """
    return _Grower(rng, size, mpp, level).grow()


__all__ = ["FEW_CELLS", "STYLES", "Style", "Tissue", "grow_tissue"]
