"""Answers that need no network of their own. A figure that one of them wins is no evidence of a model's worth.

Nothing here may learn from the images that are scored, except the oracle, which uses the real image's own
mean colour and is marked as such wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restain.data import Pair
from restain.evaluation.filters import gaussian
from restain.evaluation.scoring import Reference, read_reference, with_dab
from restain.optics import (
    DAB,
    HEMATOXYLIN,
    glass_white,
    hematoxylin_density,
    mix,
    optical_density,
    round_to_uint8,
    transmit,
)
from restain.prediction import Prediction

FIT_IMAGES = 500
"""Most training pairs that a fit reads; of larger sets, a seeded sample."""

FIT_PIXELS = 20_000
"""Most pixels per pair that the linear map is fitted on, drawn with the seed."""

BLUR_UM = 3.0
"""Standard deviation in µm of the Gaussian that blurs the model's own answer: about a nucleus' radius."""

SMOOTH_UM = 24.0
"""Standard deviation in µm of the Gaussian of the smoothed densities: texture goes, regions stay."""

DESCRIPTIONS = {
    "baseline_hematoxylin": "a line from the H&E's hematoxylin density to DAB density per pixel, least squares on the "
    "training split, never below 0; its picture is that by Beer–Lambert on the training split's mean white",
    "baseline_he": "the H&E itself; its hematoxylin density stands for the DAB map",
    "baseline_mean": "the training split's mean IHC colour, everywhere",
    "baseline_linear": "an affine map of RGB to RGB per pixel, least squares on the training split",
    "blurred_model": f"the model's own answer, blurred by a Gaussian of {BLUR_UM:g} µm",
    "baseline_hematoxylin_smooth": f"the H&E's hematoxylin density, smoothed by {SMOOTH_UM:g} µm: where cells are dense",
    "baseline_density_smooth": f"the H&E's optical density, smoothed by {SMOOTH_UM:g} µm: where the stain is dense",
    "oracle_flat": "the real image's own mean colour, everywhere: an oracle, it has seen the answer",
}
"""What each row is, in words, in the order of the tables."""

MAP_ONLY = ("baseline_hematoxylin_smooth", "baseline_density_smooth")
"""Baselines that are a map of densities without a picture of their own."""

FITTED = ("baseline_hematoxylin", "baseline_mean", "baseline_linear")
"""The answers that learn from a training split."""


@dataclass(frozen=True, slots=True)
class BaselineFit:
    """What the baselines learn from a training split."""

    mean: NDArray[np.float64]
    """``(3,)`` mean IHC colour over all pixels, RGB in [0, 255]."""
    linear: NDArray[np.float64]
    """``(4, 3)`` affine map: IHC RGB = (R, G, B, 1) of the H&E times this, in [0, 255]."""
    hematoxylin_lines: NDArray[np.float64]
    """``(2, 2)``: slope and offset (OD) of the IHC's hematoxylin and of DAB over the H&E's hematoxylin density."""
    white: NDArray[np.float64]
    """``(3,)`` mean intensity of the IHC's glass, RGB in [0, 255]."""
    images: int
    """Pairs read."""
    of: int
    """Pairs there were."""


def fit_baselines(
    pairs: Sequence[Pair],
    *,
    seed: int = 0,
    limit: int = FIT_IMAGES,
    pixels: int = FIT_PIXELS,
    progress: Callable[[], None] | None = None,
) -> BaselineFit:
    """Fit the mean colour, the affine map and the hematoxylin lines on training pairs, one pair in memory at a time.

    DAB is the phantom's truth where there is one, as in the scores.

    Args:
        pairs: training pairs, never scored ones.
        seed: of the sample of pairs (beyond ``limit``) and of pixels (beyond ``pixels`` per pair).
        limit: most pairs that are read.
        pixels: most pixels per pair in the least-squares fits; the mean colour is over all of them.
        progress: called after each pair.

    Raises:
        ValueError: if there are no pairs.
        RestainError: if an image cannot be read or is too small.
    """
    if not pairs:
        raise ValueError("baselines are fitted on at least one pair")
    chosen = range(len(pairs))
    if len(pairs) > limit:
        chosen = np.sort(np.random.default_rng([seed, 0]).choice(len(pairs), limit, replace=False)).tolist()
    gram, target = np.zeros((4, 4)), np.zeros((4, 3))
    line_gram, line_target = np.zeros((2, 2)), np.zeros((2, 2))
    total, count, white = np.zeros(3), 0, np.zeros(3)
    for index in chosen:
        he, ihc = pairs[index].load()
        reference = read_reference(pairs[index], ihc)
        source, answer = he.reshape(-1, 3), ihc.reshape(-1, 3)
        dense = hematoxylin_density(he, glass_white(he)).ravel()
        stains = np.stack([reference.hematoxylin.ravel(), reference.dab.ravel()], axis=-1)
        white += reference.white
        total += answer.sum(axis=0, dtype=np.float64)
        count += len(answer)
        if len(source) > pixels:
            sample = np.random.default_rng([seed, 1, index]).choice(len(source), pixels, replace=False)
            source, answer, dense, stains = source[sample], answer[sample], dense[sample], stains[sample]
        row = np.column_stack([source.astype(np.float64), np.ones(len(source))])
        gram += row.T @ row
        target += row.T @ answer
        line = np.column_stack([dense.astype(np.float64), np.ones(len(dense))])
        line_gram += line.T @ line
        line_target += line.T @ stains
        if progress:
            progress()
    linear = np.linalg.lstsq(gram, target, rcond=None)[0].astype(np.float64)
    lines = np.linalg.lstsq(line_gram, line_target, rcond=None)[0].T.astype(np.float64)
    return BaselineFit(total / count, linear, lines, white / len(chosen), len(chosen), len(pairs))


def baseline_answers(
    he: NDArray[np.uint8], reference: Reference, fit: BaselineFit | None, answer: Prediction, mpp: float
) -> dict[str, Prediction]:
    """The answers that stand beside the model, in the order of ``DESCRIPTIONS``; fewer without a fit.

    Args:
        he: ``(H, W, 3)``.
        reference: of the same pair; only the oracle looks at its real image.
        fit: from :func:`fit_baselines`.
        answer: the model's.
        mpp: micrometres per pixel.
    """
    density, *smooth = he_densities(he, glass_white(he), mpp)
    answers = {
        "baseline_he": Prediction(he, density),
        "blurred_model": blurred(with_dab(answer, reference), mpp),
        **{method: Prediction(he, one) for method, one in zip(MAP_ONLY, smooth, strict=True)},
        "oracle_flat": Prediction(flat(mean_colour(reference.real), he.shape)),
    }
    if fit is not None:
        answers |= {
            "baseline_hematoxylin": from_hematoxylin(density, fit),
            "baseline_mean": Prediction(flat(fit.mean, he.shape)),
            "baseline_linear": Prediction(apply_linear(he, fit.linear)),
        }
    return {method: answers[method] for method in DESCRIPTIONS if method in answers}


def he_densities(
    he: NDArray[np.uint8], white: NDArray[np.float32], mpp: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Three maps of an H&E image in OD: hematoxylin, hematoxylin smoothed, and total optical density smoothed."""
    nuclei = hematoxylin_density(he, white)
    total = optical_density(he, white).mean(axis=-1)
    smooth_nuclei, smooth_total = gaussian(np.stack([nuclei, total]), SMOOTH_UM / mpp, truncate=3)
    return nuclei, smooth_nuclei, smooth_total


def from_hematoxylin(density: NDArray[np.float32], fit: BaselineFit) -> Prediction:
    """The fitted lines of the H&E's hematoxylin density, ``(H, W)`` OD, as an IHC image and its DAB map."""
    stains = np.stack([np.maximum(slope * density + offset, 0) for slope, offset in fit.hematoxylin_lines], axis=-1)
    rgb = round_to_uint8(transmit(mix(stains, (HEMATOXYLIN, DAB)), fit.white))
    return Prediction(rgb, stains[..., 1].astype(np.float32))


def blurred(answer: Prediction, mpp: float) -> Prediction:
    """``answer``, image and DAB map, blurred by a Gaussian of ``BLUR_UM``."""
    sigma = BLUR_UM / mpp
    planes = gaussian(np.moveaxis(answer.rgb, -1, 0).astype(np.float32), sigma)
    rgb = np.ascontiguousarray(np.moveaxis(round_to_uint8(planes), 0, -1))
    return Prediction(rgb, None if answer.dab is None else gaussian(answer.dab, sigma))


def flat(colour: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A picture of one colour: ``(3,)`` RGB in [0, 255], rounded, as ``(H, W, 3)``."""
    return np.broadcast_to(round_to_uint8(colour), (*shape[:2], 3)).copy()


def mean_colour(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean colour of ``(H, W, 3)`` 8-bit RGB: ``(3,)`` in [0, 255]."""
    return rgb.reshape(-1, 3).mean(axis=0, dtype=np.float64)


def apply_linear(he: NDArray[np.uint8], linear: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map ``(H, W, 3)`` 8-bit RGB by a ``(4, 3)`` affine map, clipped to [0, 255] and rounded."""
    return round_to_uint8(he.astype(np.float32) @ linear[:3].astype(np.float32) + linear[3].astype(np.float32))
