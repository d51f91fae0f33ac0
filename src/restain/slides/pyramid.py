"""The reduced levels of a finished slide, and the metadata that all formats keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain import NOTICE
from restain.geometry import Size
from restain.progress import Progress, Steps
from restain.slides.store import TileStore

SMALLEST = 512
"""Levels are halved until neither side is longer than this."""


def level_sizes(size: Size) -> list[Size]:
    """The sizes of a pyramid: ``size`` and its halves (odd sides rounded up), down to at most 512 px a side."""
    sizes = [size]
    while max(sizes[-1].width, sizes[-1].height) > SMALLEST:
        sizes.append(Size((sizes[-1].width + 1) // 2, (sizes[-1].height + 1) // 2))
    return sizes


def kept_metadata(store: TileStore, metadata: Mapping[str, str]) -> dict[str, str]:
    """``metadata`` with the notice and the holes (see :func:`restain.slides.write_ome_tiff`)."""
    kept = {"notice": NOTICE, **metadata}
    if store.holes:
        kept["holes"] = json.dumps(
            [
                [column * store.tile, row * store.tile, *reversed(store.extent(row, column)), reason]
                for row, column, reason in store.holes
            ]
        )
    return kept


def tile_steps(store: TileStore, progress: Progress | None) -> Steps:
    """A step for each tile of a pyramid; those of reduced levels count twice (made and written)."""
    tiles = [-(-size.width // store.tile) * -(-size.height // store.tile) for size in level_sizes(store.size)]
    return Steps(sum(tiles) + sum(tiles[1:]), progress)


def pyramid(store: TileStore, stack: ExitStack, steps: Steps) -> list[TileStore]:
    """The levels of a slide, the complete ``store`` first; reduced ones are made in its folder, or resumed there.

    ``stack`` closes them; ``steps`` counts their tiles. Raises RestainError if the store is damaged or
    its folder cannot be written.
    """
    levels = [store]
    for number, size in enumerate(level_sizes(store.size)[1:], start=1):
        coarser = stack.enter_context(levels[-1].level(number, size))
        if (pattern := levels[-1].pattern) is not None:
            half = halve(pattern)
            # Repeated where it becomes smaller than a tile.
            coarser.pattern = np.tile(half, (max(1, store.tile // half.shape[0]),) * 2 + (1,))
        for row, column in coarser.cells():
            if not coarser.has(row, column):
                _reduce_tile(levels[-1], coarser, row, column)
            steps.add()
        levels.append(coarser)
    return levels


def _reduce_tile(finer: TileStore, coarser: TileStore, row: int, column: int) -> None:
    quad = [
        (y, x)
        for y in range(2 * row, min(2 * row + 2, finer.grid[0]))
        for x in range(2 * column, min(2 * column + 2, finer.grid[1]))
    ]
    blanks = {finer.blank(y, x) for y, x in quad}
    colour = blanks.pop()
    if colour is not None and not blanks:
        coarser.put_blank(row, column, colour)
        return
    rows = [
        np.concatenate([finer.read(y, x) for y, x in quad if y == line], axis=1)
        for line in sorted({y for y, _ in quad})
    ]
    coarser.put(row, column, halve(np.concatenate(rows)))


def halve(image: NDArray[Any]) -> NDArray[Any]:
    """The 2x2 mean of ``(h, w, ...)``, of ``ceil(h / 2)`` by ``ceil(w / 2)``; an odd border is repeated once.

    ``uint8`` is rounded half up; ``float`` stays what it is.
    """
    odd = [(0, image.shape[0] % 2), (0, image.shape[1] % 2)] + [(0, 0)] * (image.ndim - 2)
    wide = np.pad(image, odd, mode="edge").astype(np.uint16 if image.dtype == np.uint8 else image.dtype)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8) if image.dtype == np.uint8 else total / np.asarray(4, image.dtype)
