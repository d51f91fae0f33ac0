"""The generator on a CPU in strips of rows that fit the cache, where nothing is to be learned.

A network of few channels spends more time on moving its full-size maps through memory, and on memory that is touched
for the first time, than on its products. Between two changes of resolution each pixel depends on its neighbourhood
alone, so all that happens there can be done strip by strip: a map goes through memory once in place of ten times.
Each strip is computed with a few rows of its neighbours, the *halo*, which are cut off afterwards. The result is that of
:meth:`Generator.forward <restain.models.generator.Generator.forward>` but for the order of additions.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from restain.models.attention import ResidualAttentionBlock
from restain.models.blocks import doubled
from restain.models.generator import Generator, JoinAndAttend
from restain.models.heads import Stained
from restain.models.network import padded

STRIP_BYTES = 6 * 2**20
"""Size of a strip of a map; a few of them fit the shared cache of a CPU. Half or twice as much is as fast."""
LEAST_ROWS = 32
"""With fewer rows the halo would cost more than the cache gains."""
HALO = 2
"""Rows round a strip that the two convolutions of a residual block read."""


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
        """The rows that are seen, of ``x`` ``(N, C, H/2, W/2)`` upsampled to ``(N, C, H, W)``."""
        first, last = max(self.above // 2 - 1, 0), min((self.below + 1) // 2 + 1, x.shape[2])
        return doubled(x[:, :, first:last])[:, :, self.above - 2 * first : self.below - 2 * first]

    def kept(self, y: Tensor) -> Tensor:
        """The rows of the strip itself, of a result for all rows that were read."""
        return y[:, :, self.start - self.above : self.stop - self.above]


@torch.inference_mode()
def run_in_strips(generator: Generator, he: Tensor, white: Tensor | None = None) -> Stained:
    """:meth:`Generator.forward` without gradients."""
    height, width = he.shape[2:]
    he = padded(he, generator.stride)
    x, skips = he, []
    for level in range(len(generator.encode)):
        skip, x = _encode(generator, level, x)
        skips.append(skip)
    bottleneck = generator.bottleneck(generator.fuse(x, he))
    x = bottleneck
    for join_and_attend in generator.decode:
        assert isinstance(join_and_attend, JoinAndAttend)
        x = _decode(join_and_attend, x, skips.pop())
    return generator.head(x, bottleneck, white).cropped(height, width)


def _encode(generator: Generator, level: int, x: Tensor) -> Sequence[Tensor]:
    """One encoder level: the map that the skip connection carries, and the one of the next level."""
    encode, down = generator.encode[level], generator.down[level]

    def work(strip: Strip) -> Sequence[Tensor]:
        seen = strip.of(x)
        skip = strip.kept(encode(generator.stem(seen * 2 - 1) if level == 0 else seen))
        return skip, down(skip)

    channels = generator.stem.out_channels if level == 0 else x.shape[1]
    return _by_strips(strips_of(x, HALO + (level == 0), channels), work)


def _decode(level: JoinAndAttend, below: Tensor, skip: Tensor) -> Tensor:
    block, below = level.attend, level.from_below(below)

    def join(strip: Strip) -> Tensor:
        joined: Tensor = level.from_skip(strip.of(skip))
        return joined + strip.doubled(below)

    if isinstance(block, ResidualAttentionBlock) and block.exact:
        whole = block(join(Strip(0, skip.shape[2], 0, skip.shape[2])))
        return _by_strips(strips_of(whole, HALO), lambda strip: [strip.kept(level.convolve(strip.of(whole)))])[0]
    if isinstance(block, ResidualAttentionBlock):
        state = reduce(operator.add, (block.state(join(strip)) for strip in strips_of(skip, 0)))

    def work(strip: Strip) -> Sequence[Tensor]:
        joined = join(strip)
        attended = block.read(joined, state) if isinstance(block, ResidualAttentionBlock) else joined
        return [strip.kept(level.convolve(attended))]

    return _by_strips(strips_of(skip, HALO), work)[0]


def strips_of(x: Tensor, halo: int, channels: int | None = None) -> list[Strip]:
    """The strips of a map ``(N, C, H, W)``, each of an even number of rows if the map has one.

    Args:
        x: the map.
        halo: rows that are seen beyond a strip.
        channels: of what is made of it, where that has more.
    """
    images, own_channels, height, width = x.shape
    rows = max(LEAST_ROWS, STRIP_BYTES // (4 * images * (channels or own_channels) * width) // 2 * 2)
    return [
        Strip(start, min(start + rows, height), max(start - halo, 0), min(start + rows + halo, height))
        for start in range(0, height, rows)
    ]


def _by_strips(strips: Sequence[Strip], work: Callable[[Strip], Sequence[Tensor]]) -> Sequence[Tensor]:
    """The maps that ``work`` gives for the rows of each strip, at full height or one that divides it, put together."""
    if len(strips) == 1:
        return work(strips[0])
    height = strips[-1].stop
    wholes: list[Tensor] = []
    for strip in strips:
        parts = work(strip)
        if not wholes:
            wholes = [_empty(part, height * part.shape[2] // (strip.stop - strip.start)) for part in parts]
        for whole, part in zip(wholes, parts, strict=True):
            first = strip.start * whole.shape[2] // height
            whole[:, :, first : first + part.shape[2]] = part
    return wholes


def _empty(part: Tensor, height: int) -> Tensor:
    layout = torch.channels_last if part.stride(1) == 1 else torch.contiguous_format
    size = (*part.shape[:2], height, part.shape[3])
    return torch.empty(size, dtype=part.dtype, device=part.device, memory_format=layout)
