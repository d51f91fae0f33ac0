"""The generator: a U-Net with a residual attention block at every skip connection, after joining.

U-Net: Ronneberger et al. 2015. The attention is FAVOR+ (Choromanski et al. 2021), see :mod:`restain.models.attention`.
The label feature, the last feature map of the HER2 expression classifier, is fused at the bottleneck.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restain.models.attention import ResidualAttentionBlock
from restain.models.blocks import ResidualBlock, halve
from restain.models.expression import ExpressionClassifier
from restain.models.heads import RgbHead, Stained, StainHead
from restain.models.network import StainingNetwork, padded
from restain.models.state_grid import LocalState, State
from restain.models.streamed import AttentionState
from restain.models.strips import Strip, Whole, by_strips, strips_of, worthwhile
from restain.recipe import AttentionRecipe, ExpressionRecipe, GeneratorRecipe


class _EnoughError(Exception):
    """Ends a decoder early: nothing beyond is wanted."""


Keys = Callable[[ResidualAttentionBlock, Iterator[Tensor]], State]
"""What an attention block reads from, told the block and the parts of the map that asks, which are made when they are used."""

HALO = 2
"""Rows round a strip that the two convolutions of a residual block look at."""


class JoinAndAttend(nn.Module):
    """One decoder level: upsample, join with the skip connection, attend, convolve.

    Joining is concatenation followed by a 1×1 convolution, written as the sum of its two halves so that the half which
    comes from below is computed before upsampling.

    ``(N, C_below, H/2, W/2)`` and ``(N, C, H, W)`` to ``(N, C, H, W)``.
    """

    def __init__(self, below_channels: int, channels: int, attention: AttentionRecipe) -> None:
        super().__init__()
        self.from_below = nn.Conv2d(below_channels, channels, 1, bias=False)
        self.from_skip = nn.Conv2d(channels, channels, 1)
        self.attend: nn.Module = nn.Identity()
        if attention.kind != "none":
            self.attend = ResidualAttentionBlock(
                channels,
                heads=max(1, channels // attention.head_dim),
                features=attention.features,
                chunk=attention.chunk,
                exact=attention.kind == "exact",
            )
        self.convolve = ResidualBlock(channels)

    def forward(self, below: Tensor, skip: Tensor, keys: Keys | None = None) -> Tensor:
        """``keys``: what the attention block, where there is one, reads from, in place of its own map."""
        below = self.from_below(below)

        def join(strip: Strip) -> Tensor:
            return self.from_skip(strip.of(skip)) + strip.doubled(below)

        block, strips = self.attend, strips_of(skip, HALO)
        state: State | None = None
        if isinstance(block, ResidualAttentionBlock):
            if keys is None:
                strips = [Whole()]
            else:
                state = keys(block, (join(strip) for strip in strips_of(skip, 0)))

        def work(strip: Strip) -> Sequence[Tensor]:
            joined = join(strip)
            if state is not None and isinstance(block, ResidualAttentionBlock):
                attended = block.read(joined, state, strip.above)
            else:
                attended = block(joined)
            return [strip.kept(self.convolve(attended))]

        return by_strips(strips, work)[0]


def _given(context: Sequence[State], depth: int) -> Keys:
    """A state of ``context`` for one block after the other, of which the first works on a map halved ``depth - 1`` times."""
    states = iter(
        state.halved(depth - 1 - number) if isinstance(state, LocalState) else state
        for number, state in enumerate(context)
    )
    return lambda block, parts: next(states)


def _own(block: ResidualAttentionBlock, parts: Iterator[Tensor]) -> AttentionState:
    """The state of the map that asks."""
    return reduce(operator.add, map(block.state, parts))


class Generator(StainingNetwork):
    """restain's own: ``(N, 3, H, W)`` RGB in [0, 1] to :class:`~restain.models.heads.Stained`.

    Any height and width: the input is padded by reflection to a multiple of ``2^depth`` and of the expression classifier's
    stride, and the result is cut back.
    The expression classifier is part of the generator, since its feature map is an input of every call, but it is
    trained beforehand and frozen here.
    """

    def __init__(self, recipe: GeneratorRecipe, expression: ExpressionRecipe) -> None:
        super().__init__()
        widths = [recipe.width * min(2**i, 8) for i in range(recipe.depth + 1)]
        self.depth = recipe.depth
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.encode = nn.ModuleList(ResidualBlock(w) for w in widths[:-1])
        self.down = nn.ModuleList(halve(a, b) for a, b in itertools.pairwise(widths))
        self.bottleneck = nn.Sequential(ResidualBlock(widths[-1]), ResidualBlock(widths[-1]))
        silent = recipe.attention.model_copy(update={"kind": "none"})
        attending = recipe.attention.deepest or recipe.depth
        self.decode = nn.ModuleList(
            JoinAndAttend(below, here, recipe.attention if number < attending else silent)
            for number, (below, here) in enumerate(zip(widths[:0:-1], widths[-2::-1], strict=True))
        )
        self.head: StainHead | RgbHead
        if recipe.output == "stain":
            self.head = StainHead(widths[0], widths[-1], recipe.white)
        else:
            self.head = RgbHead(widths[0], widths[-1])
        if recipe.label_feature:
            self.expression = ExpressionClassifier(expression).requires_grad_(False)
            self.fuse_label = nn.Conv2d(self.expression.channels, widths[-1], 1)

    def label_feature(self, he: Tensor, size: torch.Size) -> Tensor | float:
        """The classifier's last feature map, projected and resized to the bottleneck; 0 without one."""
        if self.expression is None:
            return 0.0
        with torch.no_grad():
            features = self.expression(he).features
        return F.interpolate(self.fuse_label(features), size=(size[2], size[3]), mode="bilinear", align_corners=False)

    def forward(self, he: Tensor, white: Tensor | None = None, context: Sequence[State] | None = None) -> Stained:
        """``white``: see :class:`~restain.models.heads.StainHead`; the RGB output has none.

        ``context``: what :meth:`survey` says of a larger image, or :meth:`StateGrid.around
        <restain.models.state_grid.StateGrid.around>` of the place of ``he`` in it; attention then reads from that in place of
        ``he`` itself, so that the result for a tile does not depend on the tile.
        """
        keys: Keys | None = None
        if context is not None:
            keys = _given(context, self.depth)
        elif worthwhile(he) and self.surveys:
            keys = _own
        x, bottleneck = self._decode(he, keys)
        return self.head(x, bottleneck, white).cropped(*he.shape[2:])

    @property
    def surveyed_blocks(self) -> int:
        """How many attention blocks :meth:`survey` tells of: all, where all attention is FAVOR+, else none."""
        blocks = [m for m in self.modules() if isinstance(m, ResidualAttentionBlock)]
        return 0 if any(block.exact for block in blocks) else len(blocks)

    @torch.no_grad()
    def survey(self, he: Tensor, context: Sequence[State] = (), blocks: int | None = None) -> list[AttentionState]:
        """The states of the first ``blocks`` attention blocks (None: of all), deepest first, for ``he`` as keys: ``(N, 3, H, W)``.

        States of several windows can be added (:class:`~restain.models.streamed.AttentionState`) and given to
        :meth:`forward` as the ``context``. ``context`` here: what the first blocks read from, so that the states of those that follow
        are what they are in the whole image; blocks beyond it see the window alone.
        """
        states: list[AttentionState] = []
        before = iter(context)

        def keys(block: ResidualAttentionBlock, parts: Iterator[Tensor]) -> State:
            states.append(_own(block, parts))
            if len(states) == blocks:
                raise _EnoughError
            return next(before, states[-1])

        with suppress(_EnoughError):
            self._decode(he, keys)
        return states

    def _decode(self, he: Tensor, keys: Keys | None) -> tuple[Tensor, Tensor]:
        """Features at (padded) full size and at the bottleneck."""
        step = 2**self.depth if self.expression is None else max(2**self.depth, self.expression.backbone.stride)
        he = padded(he, step)

        x = he
        skips = []
        for level in range(self.depth):
            skip, x = self._encode(x, level)
            skips.append(skip)
        bottleneck = self.bottleneck(x + self.label_feature(he, x.shape))
        x = bottleneck
        for join_and_attend in self.decode:
            x = join_and_attend(x, skips.pop(), keys)
        return x, bottleneck

    def _encode(self, x: Tensor, level: int) -> Sequence[Tensor]:
        """One encoder level: the map that the skip connection carries, and the one of the next level."""
        first, encode, down = level == 0, self.encode[level], self.down[level]

        def work(strip: Strip) -> Sequence[Tensor]:
            seen = strip.of(x)
            skip = strip.kept(encode(self.stem(seen * 2 - 1) if first else seen))
            return skip, down(skip)

        return by_strips(strips_of(x, HALO + first, self.stem.out_channels if first else None), work)

    def freeze(self, part: Literal["encoder", "body"]) -> None:
        """Leave the encoder, or all but the head, as it is in training (the recipe's ``train.frozen``)."""
        kept = ["head"] if part == "body" else ["head", "decode", "fuse_label"]
        for name, module in self.named_children():
            if name not in kept:
                module.requires_grad_(False)

    def redraw_features(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, ResidualAttentionBlock):
                module.redraw(generator)
