"""The generator's two output heads: stain densities rendered by Beer–Lambert, or plain RGB.

With the stain head white is exactly zero stain on a smooth white field, so background cannot drift to pale yellow
without paying for it in DAB, and the DAB map that a HER2 reading needs is an output instead of an estimate.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restain import optics

White = Literal["predicted", "fixed", "measured"]


class Stained(NamedTuple):
    """A virtual IHC image."""

    rgb: Tensor
    """``(N, 3, H, W)`` in [0, 1]."""
    dab: Tensor | None
    """``(N, 1, H, W)`` DAB density in OD units, never negative; None from the RGB head."""
    hematoxylin: Tensor | None
    """``(N, 1, H, W)`` hematoxylin density in OD units, never negative; None from the RGB head."""

    def cropped(self, height: int, width: int) -> Stained:
        """The top left ``height`` x ``width`` px of every plane."""

        def crop(plane: Tensor) -> Tensor:
            return plane[:, :, :height, :width]

        return Stained(
            crop(self.rgb),
            None if self.dab is None else crop(self.dab),
            None if self.hematoxylin is None else crop(self.hematoxylin),
        )


class _Project(torch.autograd.Function):
    """Projection onto the non-negative numbers, with the gradient of the projected gradient method.

    Zero stain is exactly zero, and a pixel there still learns to take stain up: the gradient passes where descent would
    raise the density and is stopped where it would push further below zero. With softplus, or a plain clamp, DAB that
    was once pushed to zero has no gradient left and stays there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) | (gradient < 0), gradient, torch.zeros_like(gradient))


def project(x: Tensor) -> Tensor:
    """``max(x, 0)``, differentiable for learning also at and below zero (see :class:`_Project`)."""
    result: Tensor = _Project.apply(x)  # type: ignore[no-untyped-call]
    return result


class RgbHead(nn.Module):
    """A 1×1 convolution and tanh, mapped to [0, 1]."""

    def __init__(self, channels: int, bottleneck_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, 3, 1)

    def forward(self, features: Tensor, bottleneck: Tensor, white: Tensor | None = None) -> Stained:
        return Stained((torch.tanh(self.project(features)) + 1) / 2, None, None)


class WhiteField(nn.Module):
    """The intensity of unstained glass: one colour, times a smooth field where that is predicted at the bottleneck.

    The field is predicted on the bottleneck's coarse grid, smoothed there and interpolated, so it can follow a tinted or
    unevenly lit slide but cannot paint cells. The colour is learned, or measured on the training images and set.
    """

    SPREAD = 0.3
    """Largest relative deviation of the field from the learned colour."""

    def __init__(self, bottleneck_channels: int, kind: White) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.full((1, 3, 1, 1), 3.0), requires_grad=kind != "measured")
        self.predict = nn.Conv2d(bottleneck_channels, 3, 1) if kind == "predicted" else None
        if self.predict is not None:
            nn.init.zeros_(self.predict.weight)
            nn.init.zeros_(self.predict.bias)  # type: ignore[arg-type]

    def measured(self, white: Tensor) -> None:
        """Set the colour: ``(3,)`` intensities in [0, 1]."""
        with torch.no_grad():
            self.colour.copy_(torch.logit(white.float(), eps=1e-3).view(1, 3, 1, 1))

    def forward(self, bottleneck: Tensor, size: tuple[int, int]) -> Tensor:
        """``(N, C, h, w)`` bottleneck features to ``(N or 1, 3, H or 1, W or 1)`` intensities in [0, 1]."""
        colour = torch.sigmoid(self.colour)
        if self.predict is None:
            return colour
        coarse = torch.tanh(self.predict(bottleneck)) * self.SPREAD
        coarse = F.avg_pool2d(F.pad(coarse, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        field = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        return (colour * (1 + field)).clamp(max=1.0)


class StainHead(nn.Module):
    """Non-negative hematoxylin and DAB densities, rendered by Beer–Lambert on a smooth white field.

    ``I = I0 · 10^-(h·v_H + d·v_D)``, with absorption vectors that start at Ruifrok & Johnston's and are learned. ``I0`` is
    the head's own white field, or a white that the caller gives.
    """

    def __init__(self, channels: int, bottleneck_channels: int, white: White) -> None:
        super().__init__()
        self.densities = nn.Conv2d(channels, 2, 1)
        nn.init.constant_(self.densities.bias, 0.1)  # type: ignore[arg-type]
        self.white = WhiteField(bottleneck_channels, white)
        vectors = torch.from_numpy(optics.unit([optics.HEMATOXYLIN, optics.DAB]))
        self.raw_vectors = nn.Parameter(torch.log(torch.expm1(vectors)))

    @property
    def vectors(self) -> Tensor:
        """``(2, 3)``: unit absorption vectors of hematoxylin and DAB."""
        return F.normalize(F.softplus(self.raw_vectors), dim=1)

    def scale_dab(self, factor: float) -> None:
        """Multiply every DAB density by ``factor``, above 0; exact, since the density is a projected linear map."""
        with torch.no_grad():
            self.densities.weight[1] *= factor
            self.densities.bias[1] *= factor  # type: ignore[index]

    def forward(self, features: Tensor, bottleneck: Tensor, white: Tensor | None = None) -> Stained:
        """Features at full size and at the bottleneck, and a white, ``(N or 1, 3)`` in [0, 1], in place of the own one."""
        size = (features.shape[2], features.shape[3])
        densities = project(self.densities(features).float())
        od = torch.einsum("nshw,sc->nchw", densities, self.vectors.float())
        glass = self.white(bottleneck, size) if white is None else white[:, :, None, None]
        rgb = glass.float() * torch.exp(od * -math.log(10))
        return Stained(rgb, densities[:, 1:2], densities[:, 0:1])
