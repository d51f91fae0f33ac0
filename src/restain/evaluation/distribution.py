"""Figures of the whole set of virtual images: FID, KID and Inception Score.

They ask whether virtual images look like real ones as a crowd, not whether each is right; an answer that repaints a
stained image as another one can win them. On tens of images they say little: FID is biased upwards by a small number
of samples (Bińkowski et al., ICLR 2018; Chong & Forsyth, CVPR 2020), so that only figures of the same number of crops and the
same network compare. KID is unbiased. Crops raise the number of samples; they are not independent of one another, so
intervals leave out whole images (jackknife).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.features import CROP_PX, FeatureNet
from restain.statistics import Interval

Array = NDArray[np.float64]

MOST_GROUPS = 20
"""Most groups of images that the jackknife leaves out one at a time."""

LEAST_IMAGES = 5
"""Fewer images have no interval."""

TITLES = {"fid": "FID", "kid": "KID", "inception_score": "Inception Score"}
BETTER = {"fid": "lower", "kid": "lower", "inception_score": "higher"}

NOTE = (
    "FID is biased upwards by a small number of crops, and crops of one image are not independent: compare only "
    "figures of the same number of crops and the same network. KID is unbiased. Intervals are by a jackknife over images."
)


def fid(first: Array, second: Array) -> float:
    """Fréchet distance of two sets of features, ``(N, D)`` and ``(M, D)`` (Heusel et al., NeurIPS 2017).

    ``|μ₁ - μ₂|² + tr(S₁ + S₂ - 2 (S₁ S₂)^½)`` with sample covariances; needs two rows each. The last trace is the sum of
    the singular values of the product of the centred features: faster than torchmetrics' eigenvalues of a D × D product,
    and exact where that is rank-deficient.
    """
    a, b = (x - x.mean(axis=0) for x in (first, second))
    a, b = a / math.sqrt(len(a) - 1), b / math.sqrt(len(b) - 1)
    apart = float(np.square(first.mean(axis=0) - second.mean(axis=0)).sum())
    if min(len(a), len(b)) > a.shape[1]:  # more samples than features: the same from factors of D × D
        a, b = (np.linalg.qr(x, mode="r") for x in (a, b))
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return apart + float(np.square(a).sum() + np.square(b).sum() - 2 * shared)


def kid(first: Array, second: Array) -> float:
    """Kernel distance of ``(N, D)`` and ``(M, D)`` features: the unbiased MMD² (Bińkowski et al., ICLR 2018).

    By torchmetrics, with the kernel ``(x·y / D + 1)³``; can be slightly negative.
    """
    import torch
    from torchmetrics.image.kid import poly_mmd

    return float(poly_mmd(torch.from_numpy(first), torch.from_numpy(second)))


def inception_score(probabilities: Array) -> float:
    """``exp`` of the mean KL divergence of ``(N, K)`` class probabilities from their mean (Salimans et al., NeurIPS 2016).

    At least 1. Its classes are those of photographs, not of tissue.
    """
    p = np.maximum(probabilities, 1e-16)
    return float(np.exp((p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1).mean()))


class Distributions:
    """Features of the real and the virtual images, gathered image by image.

    Args:
        net: what gives the features; None gathers nothing.
    """

    def __init__(self, net: FeatureNet | None) -> None:
        self.net = net
        self._names: list[str] = []
        self._features: dict[str, list[Array]] = {}
        self._classes: dict[str, list[Array]] = {}

    def add(self, name: str, real: NDArray[np.uint8], answers: Mapping[str, NDArray[np.uint8]]) -> None:
        """Add a real image and the answers for it, all ``(H, W, 3)`` 8-bit RGB."""
        if self.net is None:
            return
        self._names.append(name)
        for method, rgb in {"real": real, **answers}.items():
            features, classes = self.net(rgb)
            self._features.setdefault(method, []).append(features)
            if classes is not None:
                self._classes.setdefault(method, []).append(classes)

    def findings(self) -> dict[str, Any] | None:
        """The figures by method with what made them; None where nothing was gathered.

        The method ``real`` has the Inception Score of the real images, and FID and KID of one half of them against the
        other (of half as many crops, so its FID is more biased than the others').
        """
        if self.net is None or not self._names:
            return None
        real = self._features["real"]
        methods: dict[str, dict[str, Interval]] = {}
        for method, own in self._features.items():
            pairs = (real[::2], real[1::2]) if method == "real" else (real, own)
            line = {key: _jackknife(figure, pairs) for key, figure in (("fid", fid), ("kid", kid))}
            if method in self._classes:
                line["inception_score"] = _jackknife(inception_score, (self._classes[method],))
            methods[method] = line
        return {
            "extractor": self.net.name,
            "titles": {key: f"{title} ({self.net.name})" for key, title in TITLES.items()},
            "better": BETTER,
            "images": len(self._names),
            "crops": sum(map(len, real)),
            "crop_px": CROP_PX,
            "note": NOTE,
            "methods": methods,
        }


def _jackknife(figure: Callable[..., float], sets: Sequence[Sequence[Array]]) -> Interval:
    """A figure of sets of features per image with a 95 % interval by a jackknife over groups of images (Efron 1982)."""
    n = min(map(len, sets))

    def of(kept: NDArray[np.bool_] | None) -> float:
        chosen = [[part for i, part in enumerate(one) if kept is None or i >= n or kept[i]] for one in sets]
        if any(sum(map(len, one)) < 2 for one in chosen):
            return math.nan
        return figure(*(np.concatenate(one) for one in chosen))

    value = of(None)
    if n < LEAST_IMAGES:
        return Interval(value, math.nan, math.nan, n)
    groups = min(n, MOST_GROUPS)
    group = np.arange(n) % groups
    left_out = np.array([of(group != k) for k in range(groups)])
    error = math.sqrt((groups - 1) / groups * float(np.square(left_out - left_out.mean()).sum()))
    return Interval(value, value - 1.96 * error, value + 1.96 * error, n)
