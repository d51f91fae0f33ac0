"""Images of any size through the network in fixed windows, blended in optical density.

A window is the model's own context (``Card.context_px``): attention sees one window, in staining as in training. Windows lie
on a lattice that begins at the image's corner, at the model's mpp, and neighbours share a quarter of their side. The place of
a pixel alone decides which windows show it, so a region of interest has the pixels of the whole slide, whatever was stained
before. Logarithms of intensity, which are linear in stain densities, and the DAB density are summed with weights that fade
towards a window's border and sum to one. The last window of a row or column ends with the image; an image narrower
than a window is one window of its own size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Point, Region, Size, tile_starts
from restain.images import Rgb
from restain.ood.tiles import TileScores
from restain.progress import Progress
from restain.stain.glass import Glass
from restain.stain.pipeline import Pipeline, Seconds
from restain.stain.tiles import HeTiles, Tile, Tiles, region_of, tiles_of

if TYPE_CHECKING:
    from restain.stain.plan import StainJob, StainPlan

Planes = NDArray[np.float32]
"""``(h, w, 3 or 4)``: RGB in [0, 1] or its natural logarithm, then DAB density."""

Job = tuple["Window", Sequence[Tile]]
"""A window and the tiles that need it."""

OVERLAP = 4
"""Neighbouring windows share one in so many of their px."""

DARKEST = 1 / 510
"""Intensity below which the logarithm is cut off: half a grey level."""

UNSTAINED = np.full(3, 200, np.float32)
"""RGB of tissue outside the region of interest or under a pen mark; not white, which would be a statement about the stain."""


@dataclass(frozen=True, eq=False)
class Window:
    """``region`` of the image that the network sees at once, with the blending weights of its rows and columns."""

    region: Region
    down: NDArray[np.float32]
    across: NDArray[np.float32]


class WindowLattice:
    """The windows, with a side of ``context`` px, that cover an image of ``size`` px at the model's mpp, row by row."""

    def __init__(self, size: Size, context: int) -> None:
        overlap = context // OVERLAP
        self.stride = context - overlap
        self.window = Size(min(context, size.width), min(context, size.height))
        self._rows = _axis(tile_starts(size.height, context, overlap), self.window.height, overlap)
        self._columns = _axis(tile_starts(size.width, context, overlap), self.window.width, overlap)

    def __iter__(self) -> Iterator[Window]:
        for y, down in self._rows:
            for x, across in self._columns:
                yield Window(Region(Point(x, y), self.window), down, across)


def _axis(starts: Sequence[int], length: int, overlap: int) -> list[tuple[int, NDArray[np.float32]]]:
    """Each start with the weights of its window, ``(length,)``; at every pixel the weights of all windows sum to one."""
    ramp = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    total, every = np.zeros(starts[-1] + length), []
    for number, start in enumerate(starts):
        weights = np.ones(length)
        if number > 0:
            weights[:overlap] = ramp
        if number < len(starts) - 1:
            weights[length - overlap :] = ramp[::-1]
        total[start : start + length] += weights
        every.append((start, weights))
    return [(start, (weights / total[start : start + length]).astype(np.float32)) for start, weights in every]


class WindowStainer:
    """Fills stores with an image's stained tiles.

    Windows are added up in the order of the lattice, so that neither threads nor what was finished earlier change a bit.
    ``stores`` are of RGB, and of DAB where it is wanted; tiles that they hold already are left alone. Without ``scores``
    tiles are not scored.
    """

    def __init__(
        self, job: StainJob, plan: StainPlan, glass: Glass, stores: Sequence[Tiles], scores: TileScores | None = None
    ) -> None:
        model, options, slide = job.model, job.options, job.image.slide
        self.model, self.area, self.glass, self.stores, self.scores = model, plan.area, glass, stores, scores
        self.he = HeTiles(lambda region: slide.read(region, model.mpp), stores[0], glass.he_glass, options.strict)
        self.normalization = plan.normalization
        self.lattice = WindowLattice(stores[0].size, model.context_px)
        stores[0].pattern = glass.pattern
        self.white = None if options.white is None else np.asarray(options.white, np.float32)
        self.engine = model.engine(options)
        self.stained_px = 0
        self.seconds = Seconds()
        self._open: Counter[Tile] = Counter()
        """Windows that each unfinished tile waits for."""
        self._canvases: dict[Tile, Planes] = {}
        self._done = 0

    def run(self, progress: Progress | None = None) -> None:
        """Fill the stores; ``progress`` is called with tiles there and tiles in all.

        Raises RestainError if the system refuses to write, or ``strict`` and a tile cannot be read.
        """
        rows, columns = self.stores[0].grid
        unfinished = {tile for tile in np.ndindex(rows, columns) if not self._settle(*tile)}
        self._done = rows * columns - len(unfinished)
        jobs = [(window, tiles) for window in self.lattice if (tiles := self._needed_by(window, unfinished))]
        for _, tiles in jobs:
            self._open.update(tiles)
        if progress is not None:
            progress(self._done, rows * columns)
        pipeline: Pipeline[Job, Rgb, Planes] = Pipeline(
            lambda job: self.he.region(job[0].region), self._work, self._keep, self.model.batch, seconds=self.seconds
        )
        for _ in pipeline.run(jobs):
            if progress is not None:
                progress(self._done, rows * columns)

    def _settle(self, row: int, column: int) -> bool:
        """Whether a tile is there; one that needs no network is put."""
        if all(store.has(row, column) for store in self.stores):
            return True
        region = region_of(self.stores[0], row, column)
        if self.area.is_glass(region):
            red, green, blue = (int(v) for v in np.rint(self.glass.white))
            for store in self.stores:
                store.put_blank(row, column, (red, green, blue))
        elif not self.area.is_stained(region):
            shape = region.size.height, region.size.width
            self._put(row, column, np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32))
        else:
            return False
        return True

    def _needed_by(self, window: Window, tiles: set[Tile]) -> list[Tile]:
        """Those of ``tiles`` that need ``window``: it shows stained pixels of them."""
        return [
            tile
            for tile in tiles_of(self.stores[0], window.region)
            if tile in tiles and self.area.is_stained(region_of(self.stores[0], *tile).common(window.region))
        ]

    def _work(self, jobs: Sequence[Job], he: Sequence[Rgb]) -> Sequence[Planes]:
        batch = self._prepared(np.stack(he))
        self.stained_px += batch.shape[0] * batch.shape[1] * batch.shape[2]
        return list(self.engine(batch, self.white))

    def _prepared(self, he: Rgb) -> Rgb:
        """Pixels of the H&E, ``(..., 3)``, as they enter the network."""
        return he if self.normalization is None else self.normalization.apply(he)

    def _keep(self, job: Job, planes: Planes) -> None:
        window, tiles = job
        np.log(np.maximum(planes[..., :3], DARKEST), out=planes[..., :3])
        planes *= window.down[:, None, None] * window.across[:, None]
        for tile in tiles:
            region = region_of(self.stores[0], *tile)
            if (canvas := self._canvases.get(tile)) is None:
                shape = region.size.height, region.size.width, planes.shape[2]
                canvas = self._canvases[tile] = np.zeros(shape, np.float32)
            common = region.common(window.region)
            canvas[common.within(region)] += planes[common.within(window.region)]
            self._open[tile] -= 1
            if not self._open[tile]:
                self._finish(tile, self._canvases.pop(tile))

    def _finish(self, tile: Tile, planes: Planes) -> None:
        region, reach, size = region_of(self.stores[0], *tile), self.glass.reach, self.stores[0].size
        around = region.grown(reach).common(Region(Point(0, 0), size))
        try:
            he = self.he.tile(tile)
        except RestainError as fault:
            for store in self.stores:
                store.put_hole(*tile, str(fault))
        else:
            if self.scores is not None:
                self.scores.score(*tile, self._prepared(he), self._tissue(region))
            np.exp(planes[..., :3], out=planes[..., :3])
            shown = self.glass.shown(self.he.region(around), planes[..., :3] * np.float32(255), region.within(around))
            self._put(*tile, planes, shown)
        self._done += 1

    def _tissue(self, region: Region) -> NDArray[np.float32]:
        weight, inside = self.area.weight(region), self.area.inside(region)
        return weight if inside is None else weight * inside

    def _put(self, row: int, column: int, planes: Planes, shown: NDArray[np.float32]) -> None:
        """Keep a tile; ``shown``: what of ``planes`` is not glass, ``(h, w)`` in [0, 1]."""
        region = region_of(self.stores[0], row, column)
        weight, inside = self.area.weight(region), self.area.inside(region)
        white = self.glass.white
        rgb = white + (planes[..., :3] * np.float32(255) - white) * (weight * shown)[..., None]
        if inside is not None:
            rgb[~inside] = np.where((weight > 0.5)[..., None], UNSTAINED, white)[~inside]
            weight = weight * inside
        rgb = self.glass.add_noise(rgb, region)
        self.stores[0].put(row, column, np.rint(rgb.clip(0, 255)).astype(np.uint8))
        if len(self.stores) > 1:
            self.stores[1].put(row, column, planes[..., 3] * weight * shown)
