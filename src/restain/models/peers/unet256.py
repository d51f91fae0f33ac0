"""pix2pix's generator: a U-Net of eight halvings (Isola et al. 2017, appendix 6.1.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restain.models.heads import Stained
from restain.models.network import StainingNetwork, padded

DEPTH = 8
"""256 px become one at the bottleneck."""

DROPOUT_LEVELS = range(4, 7)
"""Decoder levels with dropout, the innermost of those that are eight times as wide as the first."""


class UNet256(StainingNetwork):
    """``(N, 3, H, W)`` RGB in [0, 1] to a virtual IHC image; the input is padded to multiples of 256.

    Batch normalisation with running statistics at inference; dropout in training only.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(DEPTH)]
        self.down = nn.ModuleList()
        for level, wide in enumerate(widths):
            layers: list[nn.Module] = [] if level == 0 else [nn.LeakyReLU(0.2)]
            narrow = 3 if level == 0 else widths[level - 1]
            normed = 0 < level < DEPTH - 1
            layers.append(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=not normed))
            if normed:
                layers.append(nn.BatchNorm2d(wide))
            self.down.append(nn.Sequential(*layers))
        self.up = nn.ModuleList()
        for level in reversed(range(DEPTH)):
            wide = widths[level] * (1 if level == DEPTH - 1 else 2)
            narrow = 3 if level == 0 else widths[level - 1]
            layers = [nn.ReLU(), nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=level == 0)]
            if level:
                layers.append(nn.BatchNorm2d(narrow))
            if level in DROPOUT_LEVELS:
                layers.append(nn.Dropout(0.5))
            self.up.append(nn.Sequential(*layers))

    def forward(self, he: Tensor) -> Stained:
        height, width = he.shape[2:]
        x = padded(he, 2**DEPTH) * 2 - 1
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = skips.pop()
        for up in self.up:
            x = up(x)
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
        return Stained((torch.tanh(x) + 1) / 2, None, None).cropped(height, width)
