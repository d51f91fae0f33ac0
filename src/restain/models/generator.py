"""The generator: a U-Net with a residual attention block at every skip connection, after joining.

U-Net: Ronneberger et al. 2015. The attention is FAVOR+ (Choromanski et al. 2021), see :mod:`restain.models.attention`.
The label feature, the last feature map of the HER2 expression classifier, is fused at the bottleneck.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restain.models.attention import ResidualAttentionBlock
from restain.models.blocks import ResidualBlock, doubled, halve
from restain.models.expression import ExpressionClassifier
from restain.models.heads import RgbHead, Stained, StainHead
from restain.models.network import StainingNetwork, padded
from restain.recipe import AttentionRecipe, ExpressionRecipe, GeneratorRecipe


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

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        joined = self.from_skip(skip) + doubled(self.from_below(below))
        convolved: Tensor = self.convolve(self.attend(joined))
        return convolved


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
        self.stride = 2**recipe.depth
        if recipe.label_feature:
            self.expression = ExpressionClassifier(expression).requires_grad_(False)
            self.fuse_label = nn.Conv2d(self.expression.channels, widths[-1], 1)
            self.stride = max(self.stride, self.expression.backbone.stride)

    @property
    def stain_head(self) -> StainHead | None:
        return self.head if isinstance(self.head, StainHead) else None

    def forward(self, he: Tensor, white: Tensor | None = None) -> Stained:
        """``white``: see :class:`~restain.models.heads.StainHead`; the RGB output has none."""
        height, width = he.shape[2:]
        he = padded(he, self.stride)

        x = self.stem(he * 2 - 1)
        skips = []
        for encode, down in zip(self.encode, self.down, strict=True):
            skips.append(encode(x))
            x = down(skips[-1])
        bottleneck = self.bottleneck(self.fuse(x, he))
        x = bottleneck
        for join_and_attend in self.decode:
            x = join_and_attend(x, skips.pop())
        return self.head(x, bottleneck, white).cropped(height, width)

    def fuse(self, x: Tensor, he: Tensor) -> Tensor:
        """The deepest map ``x`` with the label feature of ``he``, projected and resized, added where there is a classifier."""
        if self.expression is None:
            return x
        with torch.no_grad():
            features = self.expression(he).features
        features = self.fuse_label(features)
        return x + F.interpolate(features, size=x.shape[2:], mode="bilinear", align_corners=False)

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
