"""Uncertainty of a virtual stain: per pixel, per image, and for inputs that are out of distribution.

Uncertainty is the spread of predictions: of the eight turned and mirrored views of one image (test-time augmentation; Wang et al.,
*Neurocomputing* 338:34, 2019), and of several models where an ensemble is given (Lakshminarayanan, Pritzel & Blundell, NeurIPS
2017). The OOD detector (:mod:`restain.ood.detector`) sees what the views agree on and are wrong about together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from restain.ood.detector import OodDetector
from restain.optics import dab_density, glass_white
from restain.prediction import Prediction
from restain.progress import Progress
from restain.stain import Model

Rgb = NDArray[np.uint8]
Plane = NDArray[np.float32]

VIEWS = 8
"""Turned and mirrored views of one image, the unchanged one first."""

TYPICAL_OD = 0.01
"""A mean disagreement of DAB, in OD, that halves the confidence: about twice that of the phantom's held-out images."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """How certain one answer is, without the real image."""

    prediction: Prediction
    """The first model's answer to the unchanged image."""
    uncertainty: Plane
    """``(H, W)`` standard deviation of the DAB density over views and models, in OD units."""
    colour_uncertainty: Plane
    """``(H, W)`` the same of the colour, as a distance in CIELAB."""
    disagreement: float
    """Mean of ``uncertainty``."""
    confidence: float
    """In (0, 1]: ``1 / (1 + disagreement / TYPICAL_OD)``, divided by ``score`` where that is above 1."""
    in_distribution: bool | None
    """Whether the input is like the training images; ``None`` where the bundle does not know them."""
    score: float | None
    """Distance from the training images; 1 is the limit."""
    reason: str
    """One sentence on out-of-distribution detection."""


def view(image: NDArray[Any], number: int) -> NDArray[Any]:
    """The ``number``-th of the eight turned and mirrored views of ``(H, W, ...)``; 0 is the image itself."""
    turned = np.rot90(image, number % 4)
    return np.ascontiguousarray(turned[:, ::-1] if number >= 4 else turned)


def unview(image: NDArray[Any], number: int) -> NDArray[Any]:
    """Turn a view back: the inverse of :func:`view`."""
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if number >= 4 else image, -(number % 4)))


def assess(
    model: Model | Sequence[Model],
    he: Rgb,
    *,
    views: int = VIEWS,
    ood: OodDetector | None = None,
    progress: Progress | None = None,
) -> Assessment:
    """Stain an image and measure the uncertainty of the answer.

    Args:
        model: what restains; several are an ensemble of which the first one answers.
        he: ``(H, W, 3)`` 8-bit RGB at the model's mpp.
        views: of the eight views, the first so many; an ensemble may do with one.
        ood: used instead of the first bundle's own.
        progress: called with answers done and in all.

    Raises:
        ValueError: if ``views`` is not from 1 to 8, or there is no model.
    """
    if not 1 <= views <= VIEWS:
        raise ValueError(f"views must be from 1 to {VIEWS}, not {views}")
    models = [model] if isinstance(model, Model) else list(model)
    if not models:
        raise ValueError("an assessment needs at least one model")
    spread, colour_spread = _Spread(), _Spread()
    first: Prediction | None = None
    for number in range(views * len(models)):
        if progress is not None:
            progress(number, views * len(models))
        which, turn = divmod(number, views)
        given = models[which].predict(view(he, turn))
        rgb = unview(given.rgb, turn)
        dab = dab_density(rgb, glass_white(rgb)) if given.dab is None else unview(given.dab, turn)
        first = first or Prediction(rgb, None if given.dab is None else dab)
        spread.add(dab)
        colour_spread.add(rgb2lab(rgb).astype(np.float32))
    assert first is not None
    uncertainty = spread.deviation()
    detector = ood or models[0].bundle.ood
    verdict = None if detector is None else detector.judge(he)
    disagreement = float(uncertainty.mean())
    return Assessment(
        prediction=first,
        uncertainty=uncertainty,
        colour_uncertainty=np.sqrt(np.square(colour_spread.deviation()).sum(axis=2)),
        disagreement=disagreement,
        confidence=confidence(disagreement, None if verdict is None else verdict.score),
        in_distribution=None if verdict is None else verdict.in_distribution,
        score=None if verdict is None else verdict.score,
        reason="the model does not say what its training images looked like." if verdict is None else verdict.reason,
    )


def confidence(disagreement: float, score: float | None) -> float:
    """From a mean disagreement in OD and an OOD detector score (1 is its limit) to (0, 1]; see its field."""
    return 1 / (1 + disagreement / TYPICAL_OD) / max(1.0, score or 0.0)


class _Spread:
    """Standard deviation over images that come one after another (Welford, *Technometrics* 4:419, 1962)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Plane = np.zeros(0, np.float32)
        self.squares: Plane = np.zeros(0, np.float32)

    def add(self, values: Plane) -> None:
        self.count += 1
        if self.count == 1:
            self.mean, self.squares = values.astype(np.float32), np.zeros_like(values, np.float32)
            return
        away = values - self.mean
        self.mean = self.mean + away / np.float32(self.count)
        self.squares = (self.squares + away * (values - self.mean)).astype(np.float32)

    def deviation(self) -> Plane:
        found: Plane = np.sqrt(np.maximum(self.squares, 0) / np.float32(self.count))
        return found
