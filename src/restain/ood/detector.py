"""A density-based out-of-distribution score of H&E images.

Tiles are described by what a laboratory and a scanner can get wrong: stain densities, third colours, brown, share of
glass, sharpness at four scales and whether edges agree over scales, JPEG blocks. The features of training tiles, their stains
varied as in training, are whitened by the shrunk covariance that the kinds of training data (folders) share (Lee et al.,
"A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018). A tile's score is its mean distance
to its nearest training tiles there (Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022)
against those tiles' own distance to tiles of other images (the local outlier factor's idea, Breunig et al., SIGMOD 2000),
so that a few varied images among many similar ones do not widen the limit for all.

The features are not the network's: its classifier has seen the training images so often that its features tell them
from new ones of the same kind (40 % of held-out phantom images were flagged by them).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy.spatial.distance import cdist

from restain.data import Pair, jitter_he
from restain.data.normalization import Normalize, unchanged
from restain.errors import RestainError
from restain.files import whole_file
from restain.geometry import Region
from restain.ood.features import feature_names, image_features
from restain.progress import Progress
from restain.recipe import AugmentRecipe

Rgb = NDArray[np.uint8]
Floats = NDArray[np.float64]

IMAGE_SHARE = 0.75
"""An image's score is this quantile of its tiles' scores: about a quarter of it must be unusual."""

QUANTILE = 0.97
"""Share of unseen images of the training kind that the threshold lets pass."""

JUDGED = 12
"""Windows of a slide at most that are judged."""

NEIGHBOURS = 5
"""Training tiles that a tile is compared with."""

FIT_IMAGES = 250
"""Most training images that a fit reads; of larger sets, a seeded sample."""

FIT_TILES = 1800
"""Most training tiles that are kept in the file."""

FOLDS = 5
"""The threshold comes from images that were left out of the fit, in so many turns."""

_ALONE = 2.0
"""Factor of the limit where a single training image says nothing of how images differ."""


@dataclass(frozen=True)
class Ood:
    """Whether an H&E image is out of the distribution of the model's training images.

    Example:
        >>> Ood(score=1.7, reason="its sharpness is below theirs.").is_ood
        True
    """

    score: float
    """Not negative; the higher, the farther from the training images."""
    reason: str
    """One sentence that names what is out of the ordinary, or says that nothing is."""
    limit: float = 1.0
    """The score above which the image is out of distribution."""

    @property
    def is_ood(self) -> bool:
        return self.score > self.limit

    @property
    def in_distribution(self) -> bool:
        return not self.is_ood

    def metadata(self) -> dict[str, str]:
        return {"ood": "yes" if self.is_ood else "no", "ood_score": repr(self.score), "ood_reason": self.reason}

    @staticmethod
    def from_metadata(text: Mapping[str, str]) -> Ood | None:
        """What :meth:`metadata` wrote; None where the text has no score."""
        return Ood(float(text["ood_score"]), text.get("ood_reason", "")) if "ood_score" in text else None


@dataclass(frozen=True)
class OodDetector:
    """Features of a bundle's training images, and the threshold of the score."""

    mean: Floats
    """``(features,)`` mean over the training tiles."""
    scale: Floats
    """``(features,)`` standard deviation."""
    whiten: Floats
    """``(features, features)``: standardised features times this have about unit covariance."""
    tiles: Floats
    """``(n, features)`` whitened training tiles."""
    reach: Floats
    """``(n,)`` mean distance of each to its nearest tiles of other images."""
    threshold: float
    """The ``quantile`` of the scores of images left out of the fit."""
    quantile: float
    images: int
    """Training images that were read."""
    calibrated_on: int
    """Left-out images behind the threshold; 0 where there was one image only, and the threshold is a guess from its jittered views."""

    def scores(self, features: Floats) -> Floats:
        """Distance of tiles to the training's over those tiles' own distances: ``(n, features)`` to ``(n,)``."""
        distances = cdist((features - self.mean) / self.scale @ self.whiten, self.tiles)
        nearest = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
        own = np.take_along_axis(distances, nearest, axis=1).mean(axis=1)
        found: Floats = own / np.maximum(self.reach[nearest].mean(axis=1), 1e-6)
        return found

    def judge(self, rgb: Rgb) -> Ood:
        """Score an H&E image at the model's mpp: ``(H, W, 3)`` 8-bit RGB of any size."""
        features = image_features(rgb)
        scores = self.scores(features) / self.threshold
        score = _image_score(scores)
        if score <= 1:
            return Ood(score, "the image is like those the model was trained on.")
        strange = ((features - self.mean) / self.scale)[scores >= score].mean(axis=0)
        worst = int(np.argmax(np.abs(strange)))
        side = "above" if strange[worst] > 0 else "below"
        return Ood(
            score,
            f"the image is unlike those the model was trained on ({score:.1f} times the limit): its "
            f"{feature_names()[worst]} is {abs(strange[worst]):.1f} standard deviations {side} theirs.",
        )

    def judge_slide(self, read: Callable[[Region], Rgb], windows: Sequence[Region]) -> Ood | None:
        """The median score of evenly spread ``windows``, read at the model's mpp; None if none can be read."""
        found = []
        for number in np.unique(np.linspace(0, len(windows) - 1, min(JUDGED, len(windows))).round().astype(int)):
            with suppress(RestainError):
                found.append(self.judge(read(windows[number])))
        return sorted(found, key=lambda one: one.score)[(len(found) - 1) // 2] if found else None


def _image_score(scores: Floats) -> float:
    return float(np.quantile(scores, IMAGE_SHARE, method="higher"))


@dataclass(frozen=True, slots=True)
class _View:
    """The tiles of one training image, once jittered."""

    image: int
    kind: Path
    features: Floats


def _fitted(views: Sequence[_View], seed: int) -> OodDetector:
    """Mean, whitening and tiles of some images' features, without a threshold.

    The covariance is shrunk to its mean variance by the oracle-approximating estimator (Chen, Wiesel, Eldar & Hero, *IEEE
    Trans Signal Process* 58:5016, 2010), with the number of images in the place of that of samples, since an image's tiles
    are similar.
    """
    tiles = np.concatenate([view.features for view in views])
    lengths = [len(view.features) for view in views]
    image = np.repeat([view.image for view in views], lengths)
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(view.kind for view in views))}
    kind = np.repeat([kinds[view.kind] for view in views], lengths)
    mean, scale = tiles.mean(axis=0), np.maximum(tiles.std(axis=0), 1e-3)
    standard = (tiles - mean) / scale
    centred = standard.copy()
    for number in kinds.values():
        centred[kind == number] -= standard[kind == number].mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    n, d = len(set(image.tolist())), covariance.shape[0]
    trace, square = float(np.trace(covariance)), float(np.sum(covariance**2))
    denominator = (n + 1 - 2 / d) * (square - trace**2 / d)
    shrink = min(1.0, ((1 - 2 / d) * square + trace**2) / denominator) if denominator > 0 else 1.0
    shrunk = (1 - shrink) * covariance + shrink * max(trace / d, 1e-6) * np.eye(d)
    whiten = np.linalg.inv(np.linalg.cholesky(shrunk)).T
    if len(standard) > FIT_TILES:
        kept = np.random.default_rng([seed, 3]).choice(len(standard), FIT_TILES, replace=False)
        standard, image = standard[kept], image[kept]
    white = standard @ whiten
    return OodDetector(mean, scale, whiten, white, _reach(white, image), 1.0, QUANTILE, n, 0)


def _reach(tiles: Floats, image: NDArray[np.int64]) -> Floats:
    """Mean distance of each tile to its nearest of other images, or of the same where there are hardly any others."""
    distances = cdist(tiles, tiles)
    same = image[:, None] == image[None, :]
    if np.count_nonzero(~same, axis=1).min() < NEIGHBOURS:
        same = np.eye(len(tiles), dtype=bool)
    distances[same] = np.inf
    count = min(NEIGHBOURS, max(len(tiles) - 1, 1))
    nearest = np.partition(distances, count - 1, axis=1)[:, :count].mean(axis=1)
    found: Floats = np.where(np.isfinite(nearest), nearest, 1.0)
    return found


def fit_ood_detector(
    pairs: Sequence[Pair],
    augment: AugmentRecipe,
    *,
    seed: int = 0,
    normalize: Normalize = unchanged,
    progress: Progress | None = None,
) -> OodDetector:
    """Fit a detector to the H&E of training pairs, their stains varied by the training's augmentation.

    The threshold is the ``QUANTILE`` of the scores of images that were left out of a fit, in ``FOLDS`` turns; patches
    of one slide stay together where slides are known. ``normalize`` is applied to each picture; ``seed`` is of the
    jitter and of samples.

    Raises ValueError if there are no pairs; RestainError if an image cannot be read.
    """
    if not pairs:
        raise ValueError("an OOD detector is fitted on at least one training pair")
    chosen = list(range(len(pairs)))
    if len(pairs) > FIT_IMAGES:
        chosen = np.sort(np.random.default_rng([seed, 0]).choice(len(pairs), FIT_IMAGES, replace=False)).tolist()
    views = max(1, min(4, 160 // len(chosen)))
    found: list[_View] = []
    for number, index in enumerate(chosen):
        he = normalize(pairs[index].load()[0])
        for view in range(views):
            jittered = jitter_he(he, augment, np.random.default_rng([seed, 1, index, view]))
            found.append(_View(number, pairs[index].he_path.parent, image_features(jittered)))
        if progress is not None:
            progress(number + 1, len(chosen))
    groups = _groups([pairs[i] for i in chosen], seed)
    alone = len(chosen) == 1
    # With one image, one jittered view is compared with the others; new images will be less similar than that.
    fold = list(range(views)) if alone else [groups[view.image] for view in found]
    held_out: list[float] = []
    for turn in range(max(fold) + 1):
        fit = _fitted([view for view, own in zip(found, fold, strict=True) if own != turn], seed)
        held_out += [_image_score(fit.scores(v.features)) for v, own in zip(found, fold, strict=True) if own == turn]
    threshold = max(float(np.quantile(held_out, QUANTILE)) * (_ALONE if alone else 1), 1e-6)
    return replace(_fitted(found, seed), threshold=threshold, calibrated_on=0 if alone else len(chosen))


def _groups(pairs: Sequence[Pair], seed: int) -> list[int]:
    """A fold for every pair; slides stay whole, unless all are of one slide."""
    keys = [pair.slide or pair.name for pair in pairs]
    if len(set(keys)) == 1:
        keys = [pair.name for pair in pairs]
    names = sorted(set(keys))
    order = np.random.default_rng([seed, 2]).permutation(len(names))
    fold = {names[place]: number % FOLDS for number, place in enumerate(order.tolist())}
    return [fold[key] for key in keys]


_TENSORS = ("mean", "scale", "whiten", "tiles", "reach")


def _digest(tensors: dict[str, NDArray[np.float32]], facts: dict[str, object]) -> str:
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(b"".join(tensors[key].tobytes() for key in _TENSORS) + text.encode()).hexdigest()


def save_ood_detector(path: Path, ood: OodDetector, bundle_hash: str) -> None:
    """Write an OOD detector as safetensors with the hash of the bundle that it belongs to.

    Raises RestainError if the file cannot be written.
    """
    tensors = {key: np.ascontiguousarray(getattr(ood, key), dtype=np.float32) for key in _TENSORS}
    facts: dict[str, object] = {
        "bundle_hash": bundle_hash,
        "features": feature_names(),
        "threshold": ood.threshold,
        "quantile": ood.quantile,
        "images": ood.images,
        "calibrated_on": ood.calibrated_on,
    }
    metadata = {"facts": json.dumps(facts), "hash": _digest(tensors, facts)}
    with whole_file(path) as partial:
        partial.write_bytes(safetensors.numpy.save(tensors, metadata))


def load_ood_detector(path: Path, bundle_hash: str) -> OodDetector:
    """Read an OOD detector back.

    Raises RestainError if it is damaged, of another bundle, or has other features than this restain.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in _TENSORS}
        facts = json.loads(metadata["facts"])
        intact = _digest(tensors, facts) == metadata["hash"]
    except (OSError, SafetensorError, KeyError, ValueError):
        intact = False
    if not intact:
        raise RestainError(f"{path}: the file is damaged; delete it, the bundle works without it.")
    if facts["bundle_hash"] != bundle_hash:
        raise RestainError(f"{path}: the file belongs to another bundle; delete it, the bundle works without it.")
    if facts["features"] != feature_names():
        raise RestainError(
            f"{path}: another version of restain wrote the file; delete it, the bundle works without it."
        )
    arrays = {key: value.astype(np.float64) for key, value in tensors.items()}
    return OodDetector(
        **arrays,
        threshold=float(facts["threshold"]),
        quantile=float(facts["quantile"]),
        images=int(facts["images"]),
        calibrated_on=int(facts["calibrated_on"]),
    )
