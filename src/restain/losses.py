"""The terms of the training objective: tensors in, a scalar out.

Images are ``(N, 3, H, W)`` RGB in [0, 1], densities ``(N, 1, H, W)`` in OD units, logits as the discriminator gives them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from restain import optics
from restain.errors import RestainError

UNKNOWN_LEVEL = -1
"""Class index of a pair whose HER2 level is not known; it enters no level term."""


def adversarial(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy GAN loss (Goodfellow et al. 2014), non-saturating for the generator: BCE against one answer."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def level(logits: Tensor, levels: Tensor) -> Tensor:
    """Cross-entropy of the HER2 level: ``(N, 4)`` logits, ``(N,)`` class indices; 0 where no level is known."""
    known = levels != UNKNOWN_LEVEL
    total = F.cross_entropy(logits, levels, ignore_index=UNKNOWN_LEVEL, reduction="sum")
    return total / known.sum().clamp(min=1)


def l1(virtual: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(virtual, real)


def _halve(image: Tensor) -> Tensor:
    """Smooth with the 5-tap binomial kernel and drop every second pixel (Burt & Adelson 1983)."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=image.device, dtype=image.dtype) / 16
    channels = image.shape[1]
    padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
    rows = F.conv2d(padded, taps.view(1, 1, 5, 1).expand(channels, 1, 5, 1), stride=(2, 1), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5), stride=(1, 2), groups=channels)


def pyramid_l1(virtual: Tensor, real: Tensor, levels: int) -> Tensor:
    """Mean L1 over the levels below full size of a Gaussian pyramid (PyramidPix2pix, Liu et al., CVPRW 2022).

    Tolerates misalignment that is small against a level's pixel. Levels of less than 4 px are left out.
    """
    total = virtual.new_zeros(())
    count = 0
    for _ in range(levels):
        if min(virtual.shape[2:]) < 8:
            break
        virtual, real = _halve(virtual), _halve(real)
        total = total + F.l1_loss(virtual, real)
        count += 1
    return total / max(count, 1)


def dab_density(rgb: Tensor, white: Tensor) -> Tensor:
    """:func:`restain.optics.dab_density` in torch, differentiable: ``(N, 1, H, W)`` in OD units, never negative.

    Args:
        rgb: images in [0, 1].
        white: ``(N, 3)`` intensity of unstained glass in [0, 1].
    """
    eps = optics.EPS / 255
    od = -torch.log10((rgb.clamp(0, 1) + eps) / (white[:, :, None, None] + eps))
    stains = torch.from_numpy(optics.unit([optics.HEMATOXYLIN, optics.DAB]))
    to_dab = torch.linalg.pinv(stains)[:, 1].to(od)
    return torch.einsum("nchw,c->nhw", od, to_dab).clamp(min=0)[:, None]


CELLS_PX = (8, 32)
"""Sides of the cells over which DAB is averaged; at BCI's 0.46 µm per px about a membrane and a tumour cell."""


def dab_cells(virtual: Tensor, real: Tensor) -> Tensor:
    """Mean squared error of the DAB density averaged over cells, mean over the cell sizes ``CELLS_PX``.

    Per pixel, L1 is least at the median, and the median of a thin membrane that is not placed exactly is no stain at
    all. A squared error of averages is least at the mean: the right amount of DAB in the right place.
    """
    total = virtual.new_zeros(())
    for side in CELLS_PX:
        size = min(side, *virtual.shape[2:])
        total = total + F.mse_loss(F.avg_pool2d(virtual, size), F.avg_pool2d(real, size))
    return total / len(CELLS_PX)


def require_finite(step: int, terms: dict[str, Tensor]) -> None:
    """The guard against a training that goes on after it has diverged.

    Raises:
        RestainError: naming the step and the first term that is not a finite number.
    """
    for name, value in terms.items():
        if not math.isfinite(number := float(value.detach())):
            raise RestainError(
                f"training stopped at step {step}: the loss '{name}' is {number}; "
                "lower the learning rate or this loss's weight in the recipe."
            )
