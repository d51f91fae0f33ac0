"""The generator with nine residual blocks of CycleGAN, PyramidPix2pix, CUT and ASP (Johnson et al. 2016; Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from restain.models.heads import Stained
from restain.models.network import StainingNetwork, padded

BLOCKS = 9


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y


class ResNet9(StainingNetwork):
    """``(N, 3, H, W)`` RGB in [0, 1] to a virtual IHC image; instance normalisation, also at inference.

    :meth:`features` gives the feature maps that PatchNCE compares.
    """

    NCE_LAYERS = (0, 2, 3, 4, 8)
    """Input, the two halvings, the first and the fifth residual block: CUT's choice (Park et al., ECCV 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Identity(),
            _step(nn.Conv2d(3, width, 7, padding=3, padding_mode="reflect"), width),
            _step(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), 2 * width),
            _step(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), 4 * width),
            *(_Block(4 * width) for _ in range(BLOCKS)),
            _step(nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1), 2 * width),
            _step(nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1), width),
            nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect"),
        ]
        self.layers = nn.ModuleList(layers)
        self.nce_channels = (3, 2 * width, 4 * width, 4 * width, 4 * width)

    def features(self, image: Tensor) -> list[Tensor]:
        """The maps after ``NCE_LAYERS`` for an image ``(N, 3, H, W)`` in [0, 1]; nothing beyond them is computed."""
        return self._run(image * 2 - 1, self.NCE_LAYERS, stop=self.NCE_LAYERS[-1])[1]

    def _run(self, x: Tensor, keep: Sequence[int], stop: int) -> tuple[Tensor, list[Tensor]]:
        kept = []
        for number, layer in enumerate(self.layers[: stop + 1]):
            x = layer(x)
            if number in keep:
                kept.append(x)
        return x, kept

    def forward(self, he: Tensor) -> Stained:
        height, width = he.shape[2:]
        x, _ = self._run(padded(he, 4) * 2 - 1, (), stop=len(self.layers) - 1)
        return Stained((torch.tanh(x) + 1) / 2, None, None).cropped(height, width)


def _step(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.InstanceNorm2d(channels), nn.ReLU())
