"""All maps of one question: what drives the level of a window, and what drives the DAB of a place in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from restain.explain.attention import AttentionMap, attention_of_point
from restain.explain.attribution import (
    Attribution,
    Baseline,
    Calls,
    Floats,
    baseline_of,
    integrated_gradients,
    occlusion,
    occlusion_calls,
)
from restain.explain.targets import (
    Target,
    dab_map,
    disc_dab,
    disc_mask,
    label_gradient,
    level_logit,
    level_probabilities,
)
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.models.expression import ExpressionClassifier
from restain.models.network import StainingNetwork
from restain.models.tensors import batch_of

LEVEL_WINDOW = 256
DAB_WINDOW = 192
"""Side in px of the windows on which a level and a place's DAB are explained. The generator costs more than the
classifier, and a place's DAB depends on little beyond its neighbourhood."""


LEAST_DAB = 0.05
"""A place has DAB to explain when the model gives its disc at least this mean, in OD: the faintest membrane that counts."""


@dataclass(frozen=True)
class Effort:
    """How finely maps are made: steps of integrated gradients, side and step of the occluding patch in px."""

    steps: int
    patch: int = 32
    step: int = 16

    def calls(self, shape: tuple[int, ...]) -> int:
        """Network calls that the two maps take on an image of ``shape``."""
        return self.steps + 2 + occlusion_calls(shape, self.patch, self.step)


LEVEL_EFFORT = Effort(32)
DAB_EFFORT = Effort(16)


@dataclass(frozen=True)
class LevelMaps:
    """What drives a level: the classifier's probabilities ``(4,)`` on the window, the level that is explained, the maps
    in logits, and the baseline that they start from."""

    he: NDArray[np.uint8]
    probabilities: Floats
    level: Her2Level
    maps: tuple[Attribution, ...]
    baseline: Floats


@dataclass(frozen=True)
class DabMaps:
    """What drives the DAB of the disc around ``point`` (a pixel of ``he``): ``dab``, the disc's mean in OD units;
    ``virtual`` ``(H, W, 3)`` and ``density`` ``(H, W)``, the model's whole answer; the maps in OD units; the attention."""

    he: NDArray[np.uint8]
    point: Point
    disc: NDArray[np.bool_]
    dab: float
    virtual: NDArray[np.uint8]
    density: Floats
    maps: tuple[Attribution, ...]
    attention: list[AttentionMap]
    baseline: Floats
    target: Target


def window_around(shape: tuple[int, ...], centre: Point, side: int) -> Region:
    """The square of ``side`` px around ``centre``, moved to lie inside an image of ``shape``; less where that is smaller."""
    height, width = min(side, shape[0]), min(side, shape[1])
    x = min(max(centre.x - width // 2, 0), shape[1] - width)
    y = min(max(centre.y - height // 2, 0), shape[0] - height)
    return Region(Point(x, y), Size(width, height))


def cut(array: NDArray, region: Region) -> NDArray:
    """The part of an ``(H, W, ...)`` array in ``region``, as a copy of its own."""
    return np.ascontiguousarray(array[region.slices])


def explain_level(
    classifier: ExpressionClassifier,
    he: NDArray[np.uint8],
    mpp: float,
    calls: Calls,
    *,
    level: Her2Level | None = None,
    baseline: Baseline = "glass",
    effort: Effort = LEVEL_EFFORT,
) -> LevelMaps:
    """Attribution of a level's logit on the window ``he`` ``(H, W, 3)``.

    Args:
        classifier: the model's expression classifier.
        he: the window, uint8 RGB.
        mpp: micrometres per pixel.
        calls: counts the network's calls.
        level: the level to explain; None for the one that the classifier gives to the window.
        baseline: what "nothing there" looks like.
        effort: how finely.
    """
    probabilities = level_probabilities(classifier, batch_of(he))[0].numpy()
    level = Her2Level(int(probabilities.argmax())) if level is None else level
    start = baseline_of(he, baseline, mpp)
    target = calls.counted(level_logit(classifier, level))
    maps = (
        integrated_gradients(target, he, start, steps=effort.steps, batch=8),
        occlusion(target, he, start, patch=effort.patch, step=effort.step, batch=8),
    )
    return LevelMaps(he, probabilities, level, maps, start)


def explain_dab(
    network: StainingNetwork,
    he: NDArray[np.uint8],
    point: Point,
    mpp: float,
    calls: Calls,
    *,
    baseline: Baseline = "glass",
    effort: Effort = DAB_EFFORT,
) -> DabMaps:
    """Attribution of the mean DAB of the disc around ``point`` in the window ``he`` ``(H, W, 3)``, and its attention.

    Raises:
        RestainError: if the point lies outside the window.
    """
    disc = disc_mask((he.shape[0], he.shape[1]), point, mpp)
    with torch.inference_mode():
        stained = network(batch_of(he))
        density = dab_map(stained)[0].float().numpy()
        virtual = np.rint(stained.rgb[0].permute(1, 2, 0).numpy().clip(0, 1) * 255).astype(np.uint8)
    start = baseline_of(he, baseline, mpp)
    target = disc_dab(network, disc)
    counted = calls.counted(target)
    with label_gradient(network):
        maps = (
            integrated_gradients(counted, he, start, steps=effort.steps),
            occlusion(counted, he, start, patch=effort.patch, step=effort.step),
        )
    attention = attention_of_point(network, he, point)
    return DabMaps(he, point, disc, float(density[disc].mean()), virtual, density, maps, attention, start, target)
