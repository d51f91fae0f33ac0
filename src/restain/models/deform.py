"""The registration network of training on rough pairs: ``R(output, target)`` gives a displacement.

After RegGAN (Kong et al., "Breaking the dilemma of medical image-to-image translation", NeurIPS 2021): what registration
left over between H&E and IHC is learned as noise of the labels, beside the generator, and thrown away afterwards. RegGAN's
network is a U-Net that must learn from nothing how far things moved. This one compares every cell of one image with those
around it in the other (a correlation volume, as in PWC-Net: Sun et al., CVPR 2018) and takes the expected shift. It learns
features to compare, the softmax's sharpness, and a correction. An output unlike its target gives noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restain import optics

CELL_PX = 8
"""Side of the cells that are compared, in px."""

_FINE_PX = 4
"""Pixels per sample of the features and of the correction."""

_TOGETHER = 7
"""Side in cells of the squares that are assumed to move together."""

_LEAST_EVIDENCE = 0.3
"""A shift that leaves less than this share of such a square in the image is not considered."""

_HALF_TRUSTED = 0.02
"""Squared share of the best shift at which only half of it is believed."""

_SHARPNESS = 100.0
"""Initial factor before the softmax over shifts; similarity is a cosine."""


def warp(planes: Tensor, field: Tensor) -> Tensor:
    """``(N, C, H, W)`` moved by ``(N, 2, H, W)``: at ``(y, x)`` what was at ``(y + field[0], x + field[1])``, bilinear.

    Shifts are in px along rows and columns. Beyond the image its border is repeated: see :func:`inside`.
    """
    height, width = planes.shape[2:]
    rows, columns = _sources(field)
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=3)
    return F.grid_sample(planes, grid.to(planes.dtype), mode="bilinear", padding_mode="border", align_corners=False)


def inside(field: Tensor) -> Tensor:
    """``(N, 1, H, W)`` bool: where a field of ``(N, 2, H, W)`` points into the image."""
    height, width = field.shape[2:]
    rows, columns = _sources(field)
    within = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    return within[:, None]


def _sources(field: Tensor) -> tuple[Tensor, Tensor]:
    height, width = field.shape[2:]
    rows = torch.arange(height, device=field.device, dtype=field.dtype)[:, None] + field[:, 0]
    columns = torch.arange(width, device=field.device, dtype=field.dtype) + field[:, 1]
    return rows, columns


def densities(rgb: Tensor) -> Tensor:
    """``(N, 3, H, W)`` RGB in [0, 1] to optical density per channel with each image's mean taken off: what is compared."""
    od = -torch.log10(rgb.clamp(0, 1) + optics.EPS / 255)
    return od - od.mean(dim=(2, 3), keepdim=True)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Deformer(nn.Module):
    """The displacement from a virtual image to the real one.

    Args:
        width: channels of the features.
        reach_px: search radius, along rows and along columns.
    """

    def __init__(self, width: int, reach_px: float) -> None:
        super().__init__()
        self.reach = max(1, math.ceil(reach_px / CELL_PX))
        self.encode = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(_SHARPNESS)))
        self.correct = nn.Sequential(
            nn.Conv2d(2 * (width + 3) + 3, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2),
            nn.ReLU(),
            _zero(nn.Conv2d(2 * width, 2, 3, padding=1)),
        )

    def forward(self, virtual: Tensor, real: Tensor) -> Tensor:
        """``(N, 3, H, W)`` RGB in [0, 1] twice to the field ``(N, 2, H, W)`` in px for :func:`warp` of ``virtual``.

        Height and width are at least twice :data:`CELL_PX`.
        """
        # The shifts are differences of large numbers, and the network is small: not in half precision.
        with torch.autocast(virtual.device.type, enabled=False):
            size = (virtual.shape[2], virtual.shape[3])
            moving, fixed = (self._features(image.float()) for image in (virtual, real))
            coarse, sure = self._expected_shift(moving, fixed)
            coarse = F.interpolate(coarse, size=moving.shape[2:], mode="bilinear", align_corners=False)
            sure = F.interpolate(sure, size=moving.shape[2:], mode="bilinear", align_corners=False)
            moved = warp(moving, coarse / _FINE_PX)
            correction = self.correct(torch.cat([moved, fixed, coarse / (self.reach * CELL_PX), sure], dim=1))
            field = coarse + CELL_PX * torch.tanh(correction)
            return F.interpolate(field, size=size, mode="bilinear", align_corners=False)

    def _features(self, rgb: Tensor) -> Tensor:
        seen = F.avg_pool2d(densities(rgb), _FINE_PX)
        seen = seen / (seen.square().mean(dim=(1, 2, 3), keepdim=True) + 4e-4).sqrt()
        return torch.cat([seen, self.encode(seen)], dim=1)

    def _expected_shift(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The mean shift over the correlation volume ``(N, 2, h, w)`` in px, and how sure it is, ``(N, 1, h, w)`` in [0, 1]."""
        # Windows of two cells: finer detail is lost where the true shift lies between two cells.
        cells_a, cells_b = (F.avg_pool2d(x, 4, stride=2, padding=1, count_include_pad=False) for x in (moving, fixed))
        height, width = cells_a.shape[2:]
        flat_a, flat_b = (F.normalize(x.flatten(2), dim=1) for x in (cells_a, cells_b))
        volume, exists = self._by_shift(flat_b.mT @ flat_a, height, width)
        # Neighbours move together: the evidence of the cells about each is put together, where there is any.
        volume, exists = (F.avg_pool2d(x, _TOGETHER, stride=1, padding=_TOGETHER // 2) for x in (volume, exists))
        evidence = self.log_sharpness.exp() * volume / exists.clamp(min=1e-6)
        unmoved = exists[:, exists.shape[1] // 2, None]
        share = torch.softmax(evidence.masked_fill(exists < _LEAST_EVIDENCE * unmoved, -math.inf), dim=1)
        steps = self._steps(share.device)
        shift = torch.einsum("nkhw,kc->nchw", share, steps.to(share.dtype)) * CELL_PX
        # Where no shift stands out, what the surroundings do; where none does there either, nothing.
        sure = share.amax(dim=1, keepdim=True)
        weight = sure.square()
        around = F.avg_pool2d(weight * shift, 5, stride=1, padding=2)
        return around / (F.avg_pool2d(weight, 5, stride=1, padding=2) + _HALF_TRUSTED), sure

    def _by_shift(self, every: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``(N, h·w, h·w)`` likeness of every cell to every one, to ``(N, K, h, w)`` by shift, and where there is such a cell."""
        device = every.device
        rows, columns = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        steps = self._steps(device)
        to_rows, to_columns = rows.flatten()[:, None] + steps[:, 0], columns.flatten()[:, None] + steps[:, 1]
        exists = (to_rows >= 0) & (to_rows < height) & (to_columns >= 0) & (to_columns < width)
        place = to_rows.clamp(0, height - 1) * width + to_columns.clamp(0, width - 1)
        found = every.gather(2, place.expand(len(every), -1, -1)) * exists
        there = exists.to(every.dtype).T.reshape(1, -1, height, width)
        return found.mT.reshape(len(every), -1, height, width), there

    def _steps(self, device: torch.device) -> Tensor:
        """``(K, 2)``: the candidate shifts, in cells."""
        reach = torch.arange(-self.reach, self.reach + 1, device=device)
        return torch.cartesian_prod(reach, reach)
