"""A Brownian-bridge diffusion model between H&E and IHC (BBDM, Li et al., CVPR 2023), in pixel space.

The bridge runs from the IHC image ``x_0`` to the H&E image ``y``: at time m in [0, 1]

    x_m = (1 - m) x_0 + m y + √δ_m ε,    δ_m = 2 s (m - m²)                    (eq. 4 to 6)

The network predicts ``x_m - x_0`` from ``x_m``, m and y. Sampling goes from m = 1 to 0 in a few steps; each estimates
``x_0`` and draws the next ``x_m`` from the bridge anew. The U-Net is MONAI's.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from restain.errors import needs
from restain.models.heads import Stained
from restain.models.network import StainingNetwork, padded

TIMES = 1000
"""The U-Net's time embedding was made for whole numbers up to a thousand."""


class BrownianBridge(StainingNetwork):
    """``(N, 3, H, W)`` RGB in [0, 1] to a virtual IHC image, in ``sample_steps`` calls of the U-Net.

    Args:
        width: channels of the U-Net's first level; a multiple of 8.
        variance: scale ``s`` of the bridge's variance.
        sample_steps: network calls per image.

    Raises:
        RestainError: if MONAI (the extra ``restain[peers]``) is not installed.
    """

    STEP = 8

    def __init__(self, width: int, variance: float, sample_steps: int) -> None:
        super().__init__()
        with needs("peers", "The diffusion peer"):
            from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
        unet: Any = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=6,
            out_channels=3,
            channels=(width, 2 * width, 4 * width, 4 * width),
            attention_levels=(False, False, False, True),
            num_res_blocks=1,
            num_head_channels=4 * width // 4,
            norm_num_groups=8,
        )
        self.unet = unet
        self.variance = variance
        self.sample_steps = sample_steps

    def delta(self, m: Tensor) -> Tensor:
        """Variance of the bridge at times ``m``."""
        return 2 * self.variance * (m - m * m)

    def step_back(self, x: Tensor, he: Tensor, m: Tensor) -> Tensor:
        """The network's estimate of ``x_m - x_0``; images in [-1, 1], ``m`` ``(N,)``."""
        estimate: Tensor = self.unet(torch.cat([x, he], dim=1), m * TIMES)
        return estimate

    def noised(self, ihc: Tensor, he: Tensor, m: Tensor, noise: Tensor) -> Tensor:
        """``x_m``; images in [-1, 1], ``m`` ``(N,)``."""
        m = m.view(-1, 1, 1, 1)
        return (1 - m) * ihc + m * he + self.delta(m).sqrt() * noise

    def forward(self, he: Tensor) -> Stained:
        """Sample with noise that depends on the step only: the same image gives the same result."""
        height, width = he.shape[2:]
        y = padded(he, self.STEP) * 2 - 1
        x, start = y, y
        times = torch.linspace(1, 0, self.sample_steps + 1, device=he.device)
        noise = torch.Generator().manual_seed(0)
        for m, following in itertools.pairwise(times):
            start = x - self.step_back(x, y, m.expand(len(x)))
            if following == 0:
                break
            x = (1 - following) * start + following * y
            x = x + math.sqrt(float(self.delta(following))) * torch.randn(x.shape, generator=noise).to(x)
        rgb = ((start + 1) / 2).clamp(0, 1)
        return Stained(rgb, None, None).cropped(height, width)
