"""The terms of the training objective: tensors in, a scalar out.

Images are ``(N, 3, H, W)`` RGB in [0, 1], densities ``(N, 1, H, W)`` in OD units, logits as the discriminator gives them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from restain import optics
from restain.errors import RestainError, needs
from restain.recipe import Objective

UNKNOWN_LEVEL = -1
"""Class index of a pair whose HER2 level is not known; it enters no level term."""


def adversarial(logits: Tensor, real: bool, objective: Objective = "cross-entropy") -> Tensor:
    """The adversarial loss of logits that should all say ``real``, or all not.

    ``cross-entropy``: Goodfellow et al. 2014, non-saturating for the generator. ``least-squares``: LSGAN (Mao et al.,
    ICCV 2017). ``wasserstein``: the critic's mean (Arjovsky et al. 2017), to be used with :func:`gradient_penalty`.
    """
    if objective == "wasserstein":
        return -logits.mean() if real else logits.mean()
    truth = torch.full_like(logits, float(real))
    if objective == "least-squares":
        return F.mse_loss(logits, truth)
    return F.binary_cross_entropy_with_logits(logits, truth)


def discrimination(logits: Tensor, objective: Objective = "cross-entropy") -> Tensor:
    """What a discriminator minimises: :func:`adversarial`, mean of both halves of a batch, real ones first."""
    real, virtual = logits.chunk(2)
    return (adversarial(real, True, objective) + adversarial(virtual, False, objective)) / 2


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, virtual: Tensor, share: Tensor) -> Tensor:
    """WGAN-GP's penalty (Gulrajani et al. 2017, eq. 3): the squared deviation of the critic's slope from one.

    Args:
        critic: images to logits, of any shape with the batch first.
        real: ``(N, 3, H, W)``.
        virtual: the same shape; no gradient goes into it.
        share: ``(N,)`` in [0, 1], where between the two each slope is taken.
    """
    share = share.view(-1, 1, 1, 1)
    between = (share * real + (1 - share) * virtual.detach()).requires_grad_(True)
    # The mean over patches first: the slope is of one number per image.
    logits = critic(between).flatten(1).mean(dim=1)
    (slope,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def level(logits: Tensor, levels: Tensor) -> Tensor:
    """Cross-entropy of the HER2 level: ``(N, 4, ...)`` logits, ``(N, ...)`` class indices; 0 where no level is known."""
    known = levels != UNKNOWN_LEVEL
    total = F.cross_entropy(logits, levels, ignore_index=UNKNOWN_LEVEL, reduction="sum")
    return total / known.sum().clamp(min=1)


def l1(virtual: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(virtual, real)


# Constants are kept on the device: to copy one there waits for the device.
@lru_cache
def _taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=device, dtype=dtype) / 16


@lru_cache
def _to_dab(device: torch.device, dtype: torch.dtype) -> Tensor:
    stains = torch.from_numpy(optics.unit([optics.HEMATOXYLIN, optics.DAB]))
    return torch.linalg.pinv(stains)[:, 1].to(device, dtype)


def _halve(image: Tensor) -> Tensor:
    """Smooth with the 5-tap binomial kernel and drop every second pixel (Burt & Adelson 1983)."""
    taps = _taps(image.device, image.dtype)
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
    return torch.einsum("nchw,c->nhw", od, _to_dab(od.device, od.dtype)).clamp(min=0)[:, None]


def dab_cells(virtual: Tensor, real: Tensor, sides: Sequence[int] = (8, 32)) -> Tensor:
    """Mean squared error of the DAB density averaged over square cells, mean over their ``sides`` in px.

    Per pixel, L1 is least at the median, and the median of a thin membrane that is not placed exactly is no stain at
    all. A squared error of averages is least at the mean: the right amount of DAB in the right place.
    """
    total = virtual.new_zeros(())
    for side in sides:
        size = min(side, *virtual.shape[2:])
        total = total + F.mse_loss(F.avg_pool2d(virtual, size), F.avg_pool2d(real, size))
    return total / len(sides)


_PATTERN_OD = 0.02
"""A crop whose cells differ by this much in DAB (standard deviation) counts half in :func:`dab_where`; a flat one nothing."""


def dab_where(virtual: Tensor, real: Tensor, sides: Sequence[int] = (32,)) -> Tensor:
    """``1 - r`` with Pearson's r of the DAB density over the cells of each crop, mean over crops and cells' ``sides``.

    A squared error is spent on the few slides that stain strongly, and on how strong each is, which another slide's
    H&E hardly predicts. This term measures where the stain is in each picture, whatever its strength.
    """
    total = virtual.new_zeros(())
    for side in sides:
        size = min(side, *virtual.shape[2:])
        x, y = (F.avg_pool2d(dab, size).flatten(1) for dab in (virtual, real))
        x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
        # The floors keep flat crops finite: 0.001 OD is half a grey level of an 8-bit white.
        spread_x = (x.square().mean(dim=1) + 1e-6).sqrt()
        spread_y = y.square().mean(dim=1).sqrt()
        r = (x * y).mean(dim=1) / (spread_x * (spread_y + 1e-3))
        total = total + ((1 - r) * spread_y / (spread_y + _PATTERN_OD)).mean()
    return total / len(sides)


_PIECE_SAMPLES_PX = 2
"""Pieces are compared by means over squares of this side."""

_BANDWIDTH = 0.5
_CLOSENESS = 0.1
"""Constants of Mechrez et al. (2018) and Zhang et al. (2019)."""


def contextual(virtual: Tensor, real: Tensor, piece: int, reach: float) -> Tensor:
    """Contextual loss (Mechrez et al., ECCV 2018, eq. 2 to 5) between the pieces of two images.

    Each piece of the real image should be that which some piece of the virtual one is most similar to, wherever it lies;
    its place enters by the distance term of the contextual bilateral loss (Zhang et al., CVPR 2019, eq. 6). Features are
    the pieces' optical densities, so that no network trained on other pictures defines similarity.

    Args:
        virtual: ``(N, 3, H, W)`` in [0, 1].
        real: the same shape.
        piece: side of the pieces in px; there are ``HW / piece²`` of them, and as many squared are compared.
        reach: the distance in px at which a piece is as unwelcome as one that differs by 0.1 in cosine.
    """
    features, target = _pieces(virtual, piece), _pieces(real, piece)
    middle = target.mean(dim=2, keepdim=True)
    features, target = F.normalize(features - middle, dim=1), F.normalize(target - middle, dim=1)
    rows, columns = (side // piece for side in virtual.shape[2:])
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(features) * piece
    away = (torch.cdist(place, place) / reach).square()
    distance = 1 - features.mT @ target + _CLOSENESS * away
    relative = distance / (distance.amin(dim=2, keepdim=True) + 1e-3)
    share = torch.softmax((1 - relative) / _BANDWIDTH, dim=2)
    return -share.amax(dim=1).mean(dim=1).clamp(min=1e-6).log().mean()


def _pieces(rgb: Tensor, piece: int) -> Tensor:
    """``(N, 3, H, W)`` to the optical densities of its square pieces, ``(N, F, P)``."""
    od = -torch.log10(rgb.float().clamp(0, 1) + optics.EPS / 255)
    sample = math.gcd(piece, _PIECE_SAMPLES_PX)
    return F.unfold(F.avg_pool2d(od, sample), piece // sample, stride=piece // sample)


_CORRELATION_FLOOR = 1e-3
"""Variance, in squared units of the planes, below which a window has nothing to match."""


def local_dissimilarity(moved: Tensor, real: Tensor, inside: Tensor, window: int = 9) -> Tensor:
    """``1 - r`` with the local correlation over square windows (as VoxelMorph, Balakrishnan et al., IEEE TMI 2019).

    Args:
        moved: ``(N, C, H, W)``.
        real: the same shape.
        inside: ``(N, 1, H, W)`` in [0, 1]: what of ``moved`` came from inside the image; the rest is ignored, and
            windows count by how much of it they hold.
        window: side in px.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=1, padding=window // 2)

    held = mean(inside)
    shares = held.clamp(min=1e-6)
    x, y = moved * inside, real * inside
    mean_x, mean_y = mean(x) / shares, mean(y) / shares
    spread_x = (mean(x * x) / shares - mean_x.square()).clamp(min=0) + _CORRELATION_FLOOR
    spread_y = (mean(y * y) / shares - mean_y.square()).clamp(min=0) + _CORRELATION_FLOOR
    r = (mean(x * y) / shares - mean_x * mean_y) / (spread_x * spread_y).sqrt()
    return ((1 - r) * held).sum() / (held.sum() * moved.shape[1]).clamp(min=1e-6)


def slope(field: Tensor) -> Tensor:
    """Mean squared slope, in px per px, of a displacement ``(N, 2, H, W)``: the smoothness term of RegGAN (eq. 7)."""
    down, right = field.diff(dim=2), field.diff(dim=3)
    return (down.square().mean() + right.square().mean()) / 2


_COLOUR_BLUR_PX = 7
"""Side of the averaging before colours are compared: pairs match roughly, and noise has no colour to learn."""

BACKGROUND_OD = 0.05
"""A blurred pixel of the real image with less DAB than this is background."""


def _smooth(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, _COLOUR_BLUR_PX, stride=2, ceil_mode=True)


def _lab(image: Tensor) -> Tensor:
    with needs("train", "The loss lab"):
        from kornia.color import rgb_to_lab

    lab: Tensor = rgb_to_lab(image.float().clamp(1e-4, 1))
    return lab / 100


def lab(virtual: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference in CIELAB (divided by 100) after a small blur: colour as it is seen."""
    return F.l1_loss(_lab(_smooth(virtual)), _lab(_smooth(real)))


def lab_background(virtual: Tensor, real: Tensor, white: Tensor) -> Tensor:
    """:func:`lab` over the pixels without DAB in the real image, mean over the images that have some.

    Every image's background has the same weight, however small: in strongly stained tissue it would drown otherwise.

    Args:
        virtual: ``(N, 3, H, W)``.
        real: the same shape.
        white: ``(N, 3)`` intensity of the real image's glass.
    """
    mask = (_smooth(dab_density(real, white)) < BACKGROUND_OD).float()
    difference = (_lab(_smooth(virtual)) - _lab(_smooth(real))).abs().mean(dim=1, keepdim=True)
    count = mask.sum(dim=(1, 2, 3))
    by_image = (difference * mask).sum(dim=(1, 2, 3)) / count.clamp(min=1)
    return by_image.sum() / (count > 0).sum().clamp(min=1)


def hsv(virtual: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference in the HSV cone, ``(S·cos H, S·sin H, V)``, after a small blur.

    As a point of the cone and not as an angle, since the hue of white is anything.
    """
    with needs("train", "The loss hsv"):
        from kornia.color import rgb_to_hsv

    def cone(image: Tensor) -> Tensor:
        h, s, v = rgb_to_hsv(_smooth(image).float().clamp(1e-4, 1)).unbind(1)
        return torch.stack([s * torch.cos(h), s * torch.sin(h), v], dim=1)

    return F.l1_loss(cone(virtual), cone(real))


def require_finite(step: int, terms: Mapping[str, float]) -> None:
    """The guard against a training that continues after divergence.

    Raises:
        RestainError: naming the step and the first term that is not a finite number.
    """
    for name, value in terms.items():
        if not math.isfinite(value):
            raise RestainError(
                f"training stopped at step {step}: the loss '{name}' is {value}; "
                "lower the learning rate or this loss's weight in the recipe."
            )
