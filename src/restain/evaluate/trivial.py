"""Answers that need no network. A figure that one of them wins is no evidence of a model's worth.

Nothing here may learn from the images that are scored, except the oracle, which is told the real image's own
mean colour and is marked as such wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restain.data import Pair

FIT_IMAGES = 500
"""Most training pairs that a fit reads; of larger sets, a seeded sample."""

FIT_PIXELS = 20_000
"""Most pixels per pair that the linear map is fitted on, drawn with the seed."""

DESCRIPTIONS = {
    "trivial_he": "the H&E itself; its hematoxylin density stands for the DAB map",
    "trivial_mean": "the training split's mean IHC colour, everywhere",
    "trivial_linear": "an affine map of RGB to RGB per pixel, least squares on the training split",
    "oracle_flat": "the real image's own mean colour, everywhere: an oracle, it has seen the answer",
}
"""What each row is, in words, in the order of the tables."""


@dataclass(frozen=True, slots=True)
class TrivialFit:
    """What the trivial answers learn from a training split."""

    mean: NDArray[np.float64]
    """``(3,)`` mean IHC colour over all pixels, RGB in [0, 255]."""
    linear: NDArray[np.float64]
    """``(4, 3)`` affine map: IHC RGB = (R, G, B, 1) of the H&E times this, in [0, 255]."""
    images: int
    """Pairs read."""
    of: int
    """Pairs there were."""


def fit_trivial(
    pairs: Sequence[Pair],
    *,
    seed: int = 0,
    limit: int = FIT_IMAGES,
    pixels: int = FIT_PIXELS,
    progress: Callable[[], None] | None = None,
) -> TrivialFit:
    """Fit the mean colour and the affine map on training pairs, one pair in memory at a time.

    Args:
        pairs: training pairs, never scored ones.
        seed: of the sample of pairs (beyond ``limit``) and of pixels (beyond ``pixels`` per pair).
        limit: most pairs that are read.
        pixels: most pixels per pair in the least-squares fit; the mean colour is over all of them.
        progress: called after each pair.

    Raises:
        ValueError: if there are no pairs.
        RestainError: if an image cannot be read.
    """
    if not pairs:
        raise ValueError("trivial answers are fitted on at least one pair")
    chosen = range(len(pairs))
    if len(pairs) > limit:
        chosen = np.sort(np.random.default_rng([seed, 0]).choice(len(pairs), limit, replace=False)).tolist()
    gram, target = np.zeros((4, 4)), np.zeros((4, 3))
    total, count = np.zeros(3), 0
    for index in chosen:
        he, ihc = pairs[index].load()
        source, answer = he.reshape(-1, 3), ihc.reshape(-1, 3)
        total += answer.sum(axis=0, dtype=np.float64)
        count += len(answer)
        if len(source) > pixels:
            sample = np.random.default_rng([seed, 1, index]).choice(len(source), pixels, replace=False)
            source, answer = source[sample], answer[sample]
        row = np.column_stack([source.astype(np.float64), np.ones(len(source))])
        gram += row.T @ row
        target += row.T @ answer
        if progress:
            progress()
    linear = np.linalg.lstsq(gram, target, rcond=None)[0].astype(np.float64)
    return TrivialFit(mean=total / count, linear=linear, images=len(chosen), of=len(pairs))


def flat(colour: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A picture of one colour: ``(3,)`` RGB in [0, 255], rounded, as ``(H, W, 3)``."""
    return np.broadcast_to(_to_uint8(colour), (*shape[:2], 3)).copy()


def mean_colour(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean colour of ``(H, W, 3)`` 8-bit RGB: ``(3,)`` in [0, 255]."""
    return rgb.reshape(-1, 3).mean(axis=0, dtype=np.float64)


def apply_linear(he: NDArray[np.uint8], linear: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map ``(H, W, 3)`` 8-bit RGB by a ``(4, 3)`` affine map, clipped to [0, 255] and rounded."""
    return _to_uint8(he.astype(np.float32) @ linear[:3].astype(np.float32) + linear[3].astype(np.float32))


def _to_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
