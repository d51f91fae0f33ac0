"""All maps of one target: of the level of a window, and of the DAB at a place in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restain.explain import targets
from restain.explain.attention import AttentionMap, attention_of_point
from restain.explain.attribution import (
    Attribution,
    Baseline,
    Floats,
    baseline_of,
    counted,
    integrated_gradients,
    occlusion,
    occlusion_calls,
)
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.models.expression import ExpressionClassifier
from restain.models.network import StainingNetwork
from restain.models.tensors import batch_of, to_uint8
from restain.progress import Steps

LEVEL_WINDOW = 256
DAB_WINDOW = 192
"""Sides in px of the windows on which a level and the DAB at a place are explained; the generator costs more."""
LEAST_DAB = 0.05
"""Least mean DAB, in OD, that the model gives to a disc worth explaining: the faintest membrane that counts."""


@dataclass(frozen=True)
class Effort:
    """Resolution of maps: steps of integrated gradients, side and step of the occluding patch in px."""

    steps: int
    patch: int = 32
    step: int = 16

    def calls(self, size: Size) -> int:
        """Network calls of the two maps on an image of ``size``."""
        return self.steps + 2 + occlusion_calls((size.height, size.width), self.patch, self.step)

    def maps(
        self, target: targets.Target, he: NDArray[np.uint8], baseline: Floats, batch: int = 1
    ) -> tuple[Attribution, ...]:
        """Integrated gradients and occlusion of ``target``."""
        return (
            integrated_gradients(target, he, baseline, steps=self.steps, batch=batch),
            occlusion(target, he, baseline, patch=self.patch, step=self.step, batch=batch),
        )


LEVEL_EFFORT = Effort(32)
DAB_EFFORT = Effort(16)


@dataclass(frozen=True)
class Maps:
    """Attributions on the window ``he`` ``(H, W, 3)``, and their ``baseline`` image.

    ``target`` is the function that deletion and insertion curves follow: a level's probability, or the DAB of a disc.
    """

    he: NDArray[np.uint8]
    baseline: Floats
    target: targets.Target
    attributions: tuple[Attribution, ...]


@dataclass(frozen=True)
class LevelMaps(Maps):
    """Attributions of the logit of ``level``, and the classifier's ``probabilities`` ``(4,)``."""

    level: Her2Level
    probabilities: Floats


@dataclass(frozen=True)
class DabMaps(Maps):
    """Attributions, in OD, of the mean ``dab`` of the disc around ``point``, a pixel of ``he``.

    ``virtual`` ``(H, W, 3)`` and ``density`` ``(H, W)`` are the model's output.
    """

    point: Point
    disc: NDArray[np.bool_]
    dab: float
    virtual: NDArray[np.uint8]
    density: Floats
    attention: list[AttentionMap]


def window_around(shape: tuple[int, ...], centre: Point, side: int) -> Region:
    """The square of ``side`` px around ``centre``, moved to lie inside an image of ``shape``; smaller on a small image."""
    height, width = min(side, shape[0]), min(side, shape[1])
    x = min(max(centre.x - width // 2, 0), shape[1] - width)
    y = min(max(centre.y - height // 2, 0), shape[0] - height)
    return Region(Point(x, y), Size(width, height))


def cut(array: NDArray[Any], region: Region) -> NDArray[Any]:
    """A copy of the part of an ``(H, W, ...)`` array in ``region``."""
    return np.ascontiguousarray(array[region.slices])


def explain_level(
    classifier: ExpressionClassifier,
    he: NDArray[np.uint8],
    mpp: float,
    calls: Steps,
    *,
    baseline: Baseline,
    level: Her2Level | None = None,
) -> LevelMaps:
    """Attribution of the logit of ``level`` (None: the predicted one) on the window ``he`` ``(H, W, 3)`` uint8."""
    with torch.inference_mode():
        probabilities = torch.softmax(classifier(batch_of(he)).logits, dim=1)[0].numpy()
    level = Her2Level(int(probabilities.argmax())) if level is None else level
    start = baseline_of(he, baseline, mpp)
    found = LEVEL_EFFORT.maps(counted(targets.level_logit(classifier, level), calls), he, start, batch=8)
    return LevelMaps(he, start, targets.level_probability(classifier, level), found, level, probabilities)


def explain_dab(
    network: StainingNetwork,
    he: NDArray[np.uint8],
    point: Point,
    mpp: float,
    calls: Steps,
    *,
    baseline: Baseline,
    effort: Effort = DAB_EFFORT,
) -> DabMaps:
    """Attribution of the mean DAB of the disc around ``point`` in the window ``he`` ``(H, W, 3)``, and its attention.

    Raises RestainError if the point lies outside the window.
    """
    disc = targets.disc_mask((he.shape[0], he.shape[1]), point, mpp)
    with torch.inference_mode():
        stained = network(batch_of(he))
        density = targets.dab_map(stained)[0].float().numpy()
        virtual = to_uint8(stained.rgb[0].permute(1, 2, 0).float().numpy())
    start, target = baseline_of(he, baseline, mpp), targets.disc_dab(network, disc)
    with targets.label_gradient(network):
        found = effort.maps(counted(target, calls), he, start)
    attention = attention_of_point(network, he, point)
    dab = float(density[disc].mean())
    return DabMaps(he, start, target, found, point, disc, dab, virtual, density, attention)
