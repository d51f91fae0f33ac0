"""The 70 px PatchGAN discriminator of pix2pix and CycleGAN (Isola et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn


class PatchGan(nn.Module):
    """``(N, channels, H, W)`` RGB in [0, 1] to logits ``(N, 1, H/8 - 2, W/8 - 2)``, one per patch of 70 px.

    Args:
        channels: 3 for an image, 6 for an H&E and an IHC image side by side in the channels.
        width: channels of the first layer.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for narrow, wide, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(narrow * width, wide * width, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(wide * width),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(8 * width, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(image * 2 - 1)
        return logits
