"""Figures of the whole set of virtual images: FID, KID and Inception Score.

They ask whether virtual images look like real ones as a set, not whether each is right; an answer that repaints a
stained image as another one can win them. On tens of images they say little: FID is biased upwards by a small number
of samples (Bińkowski et al., ICLR 2018; Chong & Forsyth, CVPR 2020), so that only figures of the same number of crops and the
same network compare. KID is unbiased. Crops raise the number of samples; they are not independent of one another, so
intervals leave out whole images (jackknife).

All figures follow from sums over groups of images, so leaving a group out is a subtraction, and the features of two
methods at a time are in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.features import CROP_PX
from restain.statistics import Interval

Array = NDArray[np.float64]
Kept = NDArray[np.bool_]
"""Which groups of images a figure is computed on."""

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


@dataclass(frozen=True, slots=True)
class SetFeatures:
    """What a network says of the crops of one image, as arrays or as what NumPy can make arrays of."""

    features: Any
    """``(N, D)``."""
    classes: Any = None
    """``(N, K)`` class probabilities; None where the network has no classes."""


@dataclass(frozen=True, slots=True)
class DistributionFindings:
    """Figures by method and key of ``TITLES``, and what made them; ``distribution`` in ``metrics.json``."""

    extractor: str
    titles: dict[str, str]
    better: dict[str, str]
    images: int
    crops: int
    crop_px: int
    note: str
    methods: dict[str, dict[str, Interval]]


def find_distribution(images: Sequence[Mapping[str, SetFeatures]], extractor: str) -> DistributionFindings | None:
    """The figures of the whole set; None where there are no images.

    The method ``real`` has the Inception Score of the real images, and FID and KID of one half of them against the
    other (of half as many crops, so its FID is more biased than the others').

    Args:
        images: for each image the features of ``real`` and of each method's answer.
        extractor: the name of the network that gave them.
    """
    if not images:
        return None

    def loaded(method: str) -> list[Array]:
        return [np.asarray(image[method].features, np.float64) for image in images]

    real = loaded("real")
    whole = _Reference(real, len(real))
    methods: dict[str, dict[str, Interval]] = {}
    for method in images[0]:
        if method == "real":
            other = real[1::2]
            nothing = {"fid": Interval(math.nan), "kid": Interval(math.nan)}
            line = _Reference(real[::2], len(other)).against(other) if other else nothing
        else:
            line = whole.against(loaded(method))
        if images[0][method].classes is not None:
            line["inception_score"] = _score_interval(
                [np.asarray(image[method].classes, np.float64) for image in images]
            )
        methods[method] = line
    return DistributionFindings(
        extractor=extractor,
        titles={key: f"{title} ({extractor})" for key, title in TITLES.items()},
        better=BETTER,
        images=len(images),
        crops=sum(map(len, real)),
        crop_px=CROP_PX,
        note=NOTE,
        methods=methods,
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
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return apart + float(np.square(a).sum() + np.square(b).sum() - 2 * shared)


def kid(first: Array, second: Array) -> float:
    """Kernel distance of ``(N, D)`` and ``(M, D)`` features: the unbiased MMD² (Bińkowski et al., ICLR 2018).

    The kernel is ``(x·y / D + 1)³``, as in torchmetrics; the distance can be slightly negative.
    """
    return _Kernels([first]).against(_Kernels([second]), np.ones(1, np.bool_))


def inception_score(probabilities: Array) -> float:
    """``exp`` of the mean KL divergence of ``(N, K)`` class probabilities from their mean (Salimans et al., NeurIPS 2016).

    At least 1. Its classes are those of photographs, not of tissue.
    """
    return _score_interval([probabilities]).mean


class _Moments:
    """Number, sum and sum of outer products of the rows of groups; those of several groups add up."""

    def __init__(self, groups: Sequence[Array]) -> None:
        self.groups = groups
        self.n = np.array([len(group) for group in groups])
        self.total = np.stack([group.sum(axis=0) for group in groups])
        self.gram: Array = groups[0].T @ groups[0]
        for group in groups[1:]:
            self.gram += group.T @ group

    def of(self, kept: Kept) -> tuple[Array, Array]:
        """Mean ``(D,)`` and covariance ``(D, D)`` of the kept groups."""
        gram = self.gram.copy()
        for group, stays in zip(self.groups, kept, strict=True):
            if not stays:
                gram -= group.T @ group
        n, mean = self.n[kept].sum(), self.total[kept].sum(axis=0) / self.n[kept].sum()
        return mean, (gram - n * np.outer(mean, mean)) / (n - 1)


class _Kernels:
    """Sums of KID's kernel between groups of rows."""

    def __init__(self, groups: Sequence[Array]) -> None:
        self.groups = groups
        self.n = np.array([len(group) for group in groups])
        self.own = self.between(groups)
        diagonals = (np.square(x).sum(axis=1) / x.shape[1] + 1 for x in groups)
        self.diagonal = np.array([float((each**3).sum()) for each in diagonals])

    def between(self, others: Sequence[Array]) -> Array:
        """``(groups, groups of others)``."""
        return np.array([[float(((x @ y.T / x.shape[1] + 1) ** 3).sum()) for y in others] for x in self.groups])

    def against(self, other: _Kernels, kept: Kept, shared: Array | None = None) -> float:
        shared = self.between(other.groups) if shared is None else shared
        pairs = np.ix_(kept, kept)
        n, m = int(self.n[kept].sum()), int(other.n[kept].sum())
        if min(n, m) < 2:
            return math.nan
        mine, theirs = (float(k.own[pairs].sum() - k.diagonal[kept].sum()) for k in (self, other))
        return mine / (n * (n - 1)) + theirs / (m * (m - 1)) - 2 * float(shared[pairs].sum()) / (n * m)


class _Reference:
    """Real images that sets of answers are compared with, in the groups of a jackknife over ``n`` images.

    Images beyond the first ``n`` belong to no group that is left out.
    """

    def __init__(self, real: Sequence[Array], n: int) -> None:
        self.images = n
        self.moments = _Moments(_grouped(real, n))
        self.kernels = _Kernels(self.moments.groups)
        self._roots: dict[bytes, tuple[Array, Array, float]] = {}

    def against(self, answers: Sequence[Array]) -> dict[str, Interval]:
        """FID and KID of the answers' features, image by image."""
        moments = _Moments(_grouped(answers, self.images))
        kernels = _Kernels(moments.groups)
        shared = self.kernels.between(kernels.groups)
        return {
            "fid": _jackknife(lambda kept: self._fid(moments, kept), self.images),
            "kid": _jackknife(lambda kept: self.kernels.against(kernels, kept, shared), self.images),
        }

    def _fid(self, answers: _Moments, kept: Kept) -> float:
        rows = [int(side.n[kept].sum()) for side in (self.moments, answers)]
        if min(rows) < 2:
            return math.nan
        if min(rows) <= answers.gram.shape[0]:
            sides = ([g for g, k in zip(side.groups, kept, strict=True) if k] for side in (self.moments, answers))
            return fid(*(np.concatenate(side) for side in sides))
        key = kept.tobytes()
        if key not in self._roots:
            mean, covariance = self.moments.of(kept)
            values, vectors = np.linalg.eigh(covariance)
            self._roots[key] = mean, (vectors * np.sqrt(values.clip(0))) @ vectors.T, float(values.sum())
        real_mean, root, real_trace = self._roots[key]
        mean, covariance = answers.of(kept)
        shared = np.sqrt(np.linalg.eigvalsh(root @ covariance @ root).clip(0)).sum()
        return float(np.square(real_mean - mean).sum() + real_trace + np.trace(covariance) - 2 * shared)


def _score_interval(classes: Sequence[Array]) -> Interval:
    """Inception Score of images, from sums of ``p log p`` and of ``p``, with ``p`` their ``(N, K)`` probabilities."""
    groups = [np.maximum(group, 1e-16) for group in _grouped(classes, len(classes))]
    n = np.array([len(p) for p in groups])
    entropy, total = np.array([(p * np.log(p)).sum() for p in groups]), np.stack([p.sum(axis=0) for p in groups])

    def score(kept: Kept) -> float:
        mean = total[kept].sum(axis=0) / n[kept].sum()
        return float(np.exp(entropy[kept].sum() / n[kept].sum() - (mean * np.log(mean)).sum()))

    return _jackknife(score, len(classes))


def _grouped(images: Sequence[Array], n: int) -> list[Array]:
    """The rows of the first ``n`` images in groups, and those of all further images together as one more."""
    count = max(1, min(n, MOST_GROUPS))
    groups = [np.concatenate(images[k:n:count]) for k in range(count)] if n else []
    return [*groups, np.concatenate([images[0][:0], *images[n:]])]


def _jackknife(figure: Callable[[Kept], float], n: int) -> Interval:
    """A figure of ``n`` images with a 95 % interval by a jackknife over groups of images (Efron 1982)."""
    groups = max(1, min(n, MOST_GROUPS))
    every = np.ones(groups + 1, np.bool_)
    value = figure(every)
    if n < LEAST_IMAGES:
        return Interval(value, math.nan, math.nan, n)
    left_out = np.array([figure(np.arange(groups + 1) != k) for k in range(groups)])
    error = math.sqrt((groups - 1) / groups * float(np.square(left_out - left_out.mean()).sum()))
    return Interval(value, value - 1.96 * error, value + 1.96 * error, n)
