"""An image's blocks: read with a margin, through the network, into stores of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.models.state_grid import State
from restain.slides import Slide
from restain.stain.area import Area
from restain.stain.glass import Glass
from restain.stain.ood import TileScores
from restain.stain.options import StainOptions
from restain.stain.pipeline import Pipeline, Seconds

if TYPE_CHECKING:
    from restain.stain.model import Model

Planes = NDArray[np.float32]
"""``(h, w, 3 or 4)``: RGB in [0, 1], then DAB density."""

Made = tuple[Planes, Rgb]
"""What the network made of a block and its margin, and the H&E that it saw."""

TILE = 512
"""Side in px of the result's tiles."""

HALO = 96
"""px round a block that the network sees and whose result is cut off: convolutions reach further, but what they carry
from there is below 8 bits. A multiple of every network's stride, so that blocks sit on the same grid as a whole image."""

UNSTAINED = np.full(3, 200, np.float32)
"""RGB of tissue that was not asked for or lies under a pen mark; not white, which would be a statement about the stain."""


class Tiles(Protocol):
    """What holds an image's tiles: a :class:`restain.slides.TileStore` on disk, or :class:`restain.stain.memory.MemoryTiles`."""

    size: Size
    tile: int
    grid: tuple[int, int]
    pattern: NDArray[np.uint8] | None
    """What blank tiles show, ``(p, p, 3)`` repeated from the image's corner on; None for one colour."""

    def has(self, row: int, column: int) -> bool: ...
    def extent(self, row: int, column: int) -> tuple[int, int]: ...
    def put(self, row: int, column: int, image: NDArray[np.uint8] | NDArray[np.float32]) -> None: ...
    def put_blank(self, row: int, column: int, colour: tuple[int, int, int] = ...) -> None: ...
    def put_hole(self, row: int, column: int, reason: str) -> None: ...


@dataclass(frozen=True)
class Block:
    """Tiles that go through the network together: ``(row, column)`` each, and the rectangle round them in px."""

    tiles: tuple[tuple[int, int], ...]
    region: Region


def tiles_per_block(options: StainOptions, tile: int = TILE) -> int:
    """Tiles of ``tile`` px along a block: as many as fit the options', at least one."""
    return max(1, options.tile // tile)


def seen_side(options: StainOptions, tile: int = TILE) -> int:
    """Side in px of what the network takes at a time: a block with its margin."""
    return tiles_per_block(options, tile) * tile + 2 * HALO


def is_one_block(size: Size, options: StainOptions, tile: int = TILE) -> bool:
    """Whether an image of ``size`` fits one block: it goes through the network whole and is its own context, as in training."""
    return max(size.width, size.height) <= tiles_per_block(options, tile) * tile


class BlockStainer:
    """Fills stores with an image's stained tiles.

    Args:
        slide: the H&E image.
        model: what stains it.
        options: see :class:`~restain.stain.options.StainOptions`; here ``tile``, ``engine``, ``white`` and ``strict``.
        area: what is stained.
        glass: fills what is not stained.
        context: what the attention reads from, told the region of the image that the network sees; None where each block
            is its own context.
        stores: of RGB, and of DAB where it is wanted; tiles that they hold already are left alone.
        scores: told of every tile that is read; None where tiles are not judged.
    """

    def __init__(
        self,
        slide: Slide,
        model: Model,
        options: StainOptions,
        area: Area,
        glass: Glass,
        context: Callable[[Region], Sequence[State]] | None,
        stores: Sequence[Tiles],
        scores: TileScores | None = None,
    ) -> None:
        self.slide, self.model, self.options, self.area, self.stores = slide, model, options, area, stores
        self.context, self.scores = context, scores
        self.tile = stores[0].tile
        self.mpp = model.mpp
        self.glass = glass
        red, green, blue = (int(v) for v in np.rint(glass.white))
        self.fill = (red, green, blue)
        stores[0].pattern = glass.pattern
        self.white = None if options.white is None else np.asarray(options.white, np.float32)
        self.engine = model.engine(options)
        self.stained_px = 0
        self.seconds = Seconds()

    @property
    def side(self) -> int:
        """Of a block, in tiles."""
        return tiles_per_block(self.options, self.tile)

    def region_of(self, row: int, column: int) -> Region:
        """A tile's pixels on the slide."""
        height, width = self.stores[0].extent(row, column)
        return Region(Point(column * self.tile, row * self.tile), Size(width, height))

    def run(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Fill the stores; ``progress`` is called with tiles there and tiles in all.

        Raises:
            RestainError: if the system refuses to write, or ``strict`` and a tile cannot be read.
        """
        blocks, done, total = [], 0, self.stores[0].grid[0] * self.stores[0].grid[1]
        for block in self._blocks():
            stained = [tile for tile in block.tiles if self._settle(*tile)]
            done += len(block.tiles)
            if not all(self._has(*tile) for tile in stained):
                # Whole, whatever is there of it: rounding depends on the shape of what the network takes.
                blocks.append(self._block(stained))
                done -= len(stained)
            if progress is not None:
                progress(done, total)
        pipeline: Pipeline[Block, Rgb | RestainError, Made | None] = Pipeline(
            self._read, self._work, self._keep, batch=self.model.batch, seconds=self.seconds
        )
        for block in pipeline.run(blocks):
            done += len(block.tiles)
            if progress is not None:
                progress(done, total)

    def _blocks(self) -> Iterator[Block]:
        rows, columns = self.stores[0].grid
        for top in range(0, rows, self.side):
            for left in range(0, columns, self.side):
                tiles = [
                    (row, column)
                    for row in range(top, min(top + self.side, rows))
                    for column in range(left, min(left + self.side, columns))
                ]
                yield _block(tiles, self.tile)

    def _block(self, tiles: Sequence[tuple[int, int]]) -> Block:
        """The block of the ``tiles`` that are to be stained; an image of one block is always seen whole."""
        if is_one_block(self.stores[0].size, self.options, self.tile):
            return Block(tuple(tiles), Region(Point(0, 0), self.stores[0].size))
        return _block(tiles, self.tile)

    def _has(self, row: int, column: int) -> bool:
        return all(store.has(row, column) for store in self.stores)

    def _settle(self, row: int, column: int) -> bool:
        """Whether a tile needs the network; one that does not is put."""
        region = self.region_of(row, column)
        glass = self.area.is_glass(region)
        if not glass and self.area.is_stained(region):
            return True
        if glass and not self._has(row, column):
            for store in self.stores:
                store.put_blank(row, column, self.fill)
        elif not self._has(row, column):
            shape = region.size.height, region.size.width
            self._put(row, column, np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32))
        return False

    def _seen(self, block: Block) -> Region:
        """What the network sees for a block: a margin round it, cut at the image's border, as the image itself is there."""
        extent, of = self.slide.size_at(self.mpp), block.region
        left, top = max(of.origin.x - HALO, 0), max(of.origin.y - HALO, 0)
        right, bottom = min(of.right + HALO, extent.width), min(of.bottom + HALO, extent.height)
        return Region(Point(left, top), Size(right - left, bottom - top))

    def _read(self, block: Block) -> Rgb | RestainError:
        seen = self._seen(block)
        try:
            he = self.slide.read(seen, self.mpp)
        except RestainError as fault:
            return fault
        if self.scores is not None:
            for row, column in block.tiles:
                region = self.region_of(row, column)
                weight, inside = self.area.weight(region), self.area.inside(region)
                tissue = weight if inside is None else weight * inside
                self.scores.look(row, column, he[region.within(seen)], tissue)
        return he

    def _work(self, blocks: Sequence[Block], pixels: Sequence[Rgb | RestainError]) -> list[Made | None]:
        made: dict[int, Made] = {}
        alike: dict[tuple[object, ...], list[int]] = {}
        contexts = [None if self.context is None else self.context(self._seen(block)) for block in blocks]
        for number, one in enumerate(pixels):
            if isinstance(one, RestainError):
                self._one_by_one(blocks[number], one)
            else:
                alike.setdefault((one.shape, id(contexts[number])), []).append(number)
        for group in alike.values():
            batch = np.stack([pixels[number] for number in group])  # type: ignore[misc]
            planes = self.engine(batch, self.white, contexts[group[0]])
            made.update(zip(group, zip(planes, batch, strict=True), strict=True))
            self.stained_px += batch.shape[0] * batch.shape[1] * batch.shape[2]
        return [made.get(number) for number in range(len(blocks))]

    def _one_by_one(self, block: Block, fault: RestainError) -> None:
        """What can be read of a block that cannot be read as a whole; the rest become holes."""
        if self.options.strict:
            raise fault
        for tile in block.tiles:
            single = _block([tile], self.tile)
            one = self._read(single) if len(block.tiles) > 1 else fault
            if isinstance(one, RestainError):
                for store in self.stores:
                    store.put_hole(*tile, str(one))
            else:
                (made,) = self._work([single], [one])
                self._keep(single, made)

    def _keep(self, block: Block, made: Made | None) -> None:
        if made is None:
            return
        seen, (planes, he) = self._seen(block), made
        shown = self.glass.shown(he, planes[..., :3] * np.float32(255))
        for row, column in block.tiles:
            part = self.region_of(row, column).within(seen)
            self._put(row, column, planes[part], shown[part])

    def _put(self, row: int, column: int, planes: Planes, shown: NDArray[np.float32]) -> None:
        """Keep a tile; ``shown``: what of ``planes`` is not glass, ``(h, w)`` in [0, 1]."""
        region = self.region_of(row, column)
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


def _block(tiles: Sequence[tuple[int, int]], side: int) -> Block:
    rows, columns = zip(*tiles, strict=True)
    top, left = min(rows) * side, min(columns) * side
    size = Size((max(columns) + 1) * side - left, (max(rows) + 1) * side - top)
    return Block(tuple(tiles), Region(Point(left, top), size))
