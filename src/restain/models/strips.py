"""Maps worked on in strips of rows that fit the cache, where nothing is to be learned from them.

A network of few channels spends more time on moving its full-size maps through memory, and on memory that is touched
for the first time, than on its products. Between two changes of resolution each pixel depends on its neighbourhood
alone, so all that happens there can be done strip by strip: a map goes through memory once in place of ten times.
Each strip is computed with a few rows of its neighbours, the *halo*, which are cut off afterwards. Image borders stay
borders, so the result is that of the whole map but for the order of additions within a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

STRIP_BYTES = 6 * 2**20
"""Size of a strip of a map; a few of them fit the shared cache of a CPU. Half or twice as much is as fast."""
LEAST_ROWS = 32
"""With fewer rows the halo would cost more than the cache gains."""


@dataclass(frozen=True)
class Strip:
    """Rows ``start`` to ``stop`` of a map, seen with the halo: from ``above`` to ``below``."""

    start: int
    stop: int
    above: int
    below: int

    def of(self, x: Tensor) -> Tensor:
        """The rows that are seen, of ``(N, C, H, W)``."""
        return x[:, :, self.above : self.below]

    def doubled(self, x: Tensor) -> Tensor:
        """The rows that are seen, of ``x`` ``(N, C, H/2, W/2)`` upsampled bilinearly to ``(N, C, H, W)``."""
        first, last = max(self.above // 2 - 1, 0), min((self.below + 1) // 2 + 1, x.shape[2])
        return doubled(x[:, :, first:last])[:, :, self.above - 2 * first : self.below - 2 * first]

    def kept(self, y: Tensor) -> Tensor:
        """Of a result for the rows that are seen, those of the strip itself."""
        return y[:, :, self.start - self.above : self.stop - self.above]


class Whole(Strip):
    """The only strip of a map that is worked on as a whole."""

    def __init__(self) -> None:
        super().__init__(0, 0, 0, 0)

    def of(self, x: Tensor) -> Tensor:
        return x

    def doubled(self, x: Tensor) -> Tensor:
        return doubled(x)

    def kept(self, y: Tensor) -> Tensor:
        return y


def doubled(x: Tensor) -> Tensor:
    """Twice the height and width, bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def worthwhile(x: Tensor) -> bool:
    """Whether strips are of use: nothing is to be learned, on a CPU, by this code and not by a compiler's."""
    return x.device.type == "cpu" and torch.is_inference_mode_enabled() and not torch.compiler.is_compiling()


def strips_of(x: Tensor, halo: int, channels: int | None = None) -> list[Strip]:
    """The strips of a map ``(N, C, H, W)``: several where they are of use and the map is large, elsewhere the whole.

    Each starts at an even row and has an even number of rows, if the map has.

    Args:
        x: the map.
        halo: rows that are seen beyond a strip.
        channels: of what is made of it, where that has more.
    """
    images, own_channels, height, width = x.shape
    rows = max(LEAST_ROWS, STRIP_BYTES // (4 * images * (channels or own_channels) * width) // 2 * 2)
    if height <= rows or not worthwhile(x):
        return [Whole()]
    starts = range(0, height, rows)
    return [
        Strip(start, min(start + rows, height), max(start - halo, 0), min(start + rows + halo, height))
        for start in starts
    ]


def by_strips(strips: Sequence[Strip], work: Callable[[Strip], Sequence[Tensor]]) -> Sequence[Tensor]:
    """The maps that ``work`` gives strip by strip, each put together.

    Args:
        strips: of one map, as :func:`strips_of` gives them.
        work: from a strip to maps of its rows alone, at the full height or at one that divides it.
    """
    if len(strips) == 1:
        return work(strips[0])
    height = strips[-1].stop
    wholes: list[Tensor] = []
    for strip in strips:
        parts = work(strip)
        if not wholes:
            wholes = [_whole(part, height * part.shape[2] // (strip.stop - strip.start)) for part in parts]
        for whole, part in zip(wholes, parts, strict=True):
            first = strip.start * whole.shape[2] // height
            whole[:, :, first : first + part.shape[2]] = part
    return wholes


def _whole(part: Tensor, height: int) -> Tensor:
    layout = torch.channels_last if part.stride(1) == 1 else torch.contiguous_format
    size = (*part.shape[:2], height, part.shape[3])
    return torch.empty(size, dtype=part.dtype, device=part.device, memory_format=layout)
