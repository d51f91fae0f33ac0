"""Training the network that reads HER2 levels from real IHC images (:mod:`restain.evaluation.her2_classifier`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from restain import losses
from restain.data import Pair, draw_geometry, open_pairs, require_scale, require_sides
from restain.errors import Interrupted, RestainError
from restain.evaluation.her2_classifier import (
    Her2ClassifierFacts,
    her2_classifier_network,
    level_probabilities,
    network_input,
    quiet_white,
    require_her2_classifier_folder,
    save_her2_classifier,
)
from restain.her2 import Her2Level
from restain.models.blocks import channels_last
from restain.models.expression import ExpressionClassifier
from restain.models.tensors import batch_of
from restain.optics import DAB, HEMATOXYLIN, optical_density, unit
from restain.progress import Progress
from restain.recipe import AugmentRecipe
from restain.training.checkpoint import StopRequest
from restain.training.prepare import require_crop

STEPS = 400
WARM_UP = 30
"""Steps over which the learning rate rises to its full size."""
BATCH = 8
TILE = 256
WIDTH = 8
LEARNING_RATE = 1e-3
VAL_SHARE = 0.15
CACHE_MIB = 2048

WHITE = (0.995, 1.005)
"""Range of the factor on each channel's white point, after the glass was made white: an estimate is never exact. More
would drown 1+, whose mean DAB density is a few thousandths."""
HEMATOXYLIN_CHANGE = 0.3
"""Largest relative change of the counterstain's density."""
DAB_CHANGE = 0.08
"""Largest relative change of DAB's density: small, for how dark DAB is tells the level."""
HUE_CHANGE = 0.01
"""Largest change of each component of the two absorption vectors."""
BLUR_PX = 0.8
"""Largest standard deviation of the blur that half of the crops get: virtual images have no sensor's noise, and a
classifier that lives on fine grain would misread them for that alone."""

Rgb = NDArray[np.uint8]


def train_her2_classifier(
    data: Sequence[Path],
    out: Path,
    *,
    steps: int = STEPS,
    seed: int = 0,
    mpp: float = 0.46,
    swap: bool = False,
    name: str = "",
    description: str = "",
    tile: int = TILE,
    width: int = WIDTH,
    progress: Progress | None = None,
) -> Her2ClassifierFacts:
    """Train a classifier on the real IHC images of the training split and write its folder; the test split is not touched.

    The same data, steps and seed give the same classifier. Levels that are rare count more, so that a classifier of unbalanced
    data does not answer with the most frequent one. It is checked on whole images of the validation part, or of a
    share of the training split (whole slides, where they are known).

    Args:
        data: folders of pairs with known levels.
        out: the classifier's folder; an older classifier there is replaced.
        steps: of Adam on crops of ``tile`` px; the learning rate warms up, then falls linearly to zero.
        seed: of weights, crops, variations and validation share.
        mpp: micrometres per pixel of the data.
        swap: the data's H&E and IHC are exchanged on reading.
        name: what the classifier calls itself; the folder's name by default.
        description: what the data is, in words; the number of images per level is added.
        tile: side of crops, and of the tiles that the classifier later votes on, in px.
        width: channels of the network's first stage.
        progress: called with the steps done and in all.

    Raises:
        RestainError: if the data has faults, fewer than two levels or slides, or images smaller than ``tile``, or the
            folder cannot be written.
        Interrupted: on Ctrl-C or SIGTERM; nothing is written then.
    """
    pairs = open_pairs(data, val_share=0, swap=swap)
    training = [pair for pair in pairs.split("train") if pair.level is not None]
    if len({pair.level for pair in training}) < 2 or len({pair.slide or pair.name for pair in training}) < 2:
        raise RestainError(
            f"{data[0]}: a classifier needs training pairs of at least two levels and two slides ({pairs.describe()})."
        )
    require_her2_classifier_folder(out)
    require_crop(training, tile, "--tile ")
    require_scale(training, mpp, "--mpp ")
    require_sides(training)
    pairs = pairs.with_validation(VAL_SHARE, seed)
    training, held_out = ([pair for pair in pairs.split(part) if pair.level is not None] for part in ("train", "val"))
    torch.manual_seed(seed)
    network = channels_last(her2_classifier_network(width).train())
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    weight = _level_weights(training)
    crops = _Crops(training, tile, seed)
    warm_up = max(1, min(WARM_UP, steps // 10))
    with StopRequest() as stop:
        for step in range(steps):
            images, levels = _batch(crops, step)
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / warm_up) * (1 - step / steps)
            loss = F.cross_entropy(network(images).logits, levels, weight=weight)
            losses.require_finite(step, {"level": float(loss.detach())})
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            if progress:
                progress(step + 1, steps)
            if stop.requested:
                raise Interrupted(f"stopped at step {step + 1} of {steps}; {out} was not written.")
    accuracy = _accuracy(network.eval(), held_out, tile)
    facts = Her2ClassifierFacts(
        name=name or out.resolve().name,
        data=" ".join(filter(None, (description, _about(training, held_out)))),
        mpp=mpp,
        tile=tile,
        width=width,
        steps=steps,
        seed=seed,
        accuracy=accuracy,
        images=len(held_out),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return save_her2_classifier(out, facts, network)


def vary_ihc(rgb: Rgb, white: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Vary what a classifier must ignore: counterstain, hues, sharpness, the rest of the glass' tint, DAB a little.

    Stains are varied in optical density as the H&E's are in training (:func:`restain.data.vary_he`).

    Args:
        rgb: ``(H, W, 3)`` 8-bit RGB.
        white: ``(3,)`` intensity of glass in [0, 255], which becomes about 255.
        rng: the only source of randomness.

    Returns:
        ``(H, W, 3)`` intensities, glass at about 255 and its noise beyond.
    """
    stains = unit([HEMATOXYLIN, DAB])
    third = unit(np.cross(stains[0], stains[1]))
    moved = unit(np.maximum(stains + HUE_CHANGE * rng.uniform(-1, 1, (2, 3)), 1e-3))
    strength = 1 + np.array([HEMATOXYLIN_CHANGE, DAB_CHANGE, 0.0]) * rng.uniform(-1, 1, 3)
    change = np.linalg.inv(np.vstack([stains, third])) @ (np.vstack([moved, third]) * strength[:, None])
    grey = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    density = optical_density(grey, white)[rgb, np.arange(3)] @ change.astype(np.float32)
    light = 255 * rng.uniform(*WHITE, 3).astype(np.float32) * 10**-density
    if rng.random() < 0.5:
        sigma = BLUR_PX * rng.random()
        light = gaussian_filter(light, (sigma, sigma, 0), truncate=3)
    return light


class _Crops:
    """Crop ``k`` depends on the seed and ``k`` only; every image comes once before any comes twice."""

    def __init__(self, pairs: Sequence[Pair], crop: int, seed: int) -> None:
        self.pairs, self.crop, self.seed = pairs, crop, seed
        self._room = CACHE_MIB * 2**20
        self._cache: dict[int, tuple[Rgb, NDArray[np.float32]]] = {}

    def __getitem__(self, k: int) -> tuple[NDArray[np.float32], int]:
        """``(crop, crop, 3)`` intensities as :func:`vary_ihc` gives them, and the level's index."""
        epoch, place = divmod(k, len(self.pairs))
        index = int(np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.pairs))[place])
        image, white = self._decoded(index)
        rng = np.random.default_rng([self.seed, 1, k])
        crop = draw_geometry(image.shape, self.crop, AugmentRecipe(), rng).apply(image)
        level = self.pairs[index].level
        assert level is not None
        return vary_ihc(crop, white, rng), int(level)

    def _decoded(self, index: int) -> tuple[Rgb, NDArray[np.float32]]:
        if index in self._cache:
            return self._cache[index]
        image = self.pairs[index].load()[1]
        decoded = image, quiet_white(image)
        if image.nbytes <= self._room:
            self._room -= image.nbytes
            self._cache[index] = decoded
        return decoded


def _batch(crops: _Crops, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, levels = zip(*(crops[k] for k in range(step * BATCH, (step + 1) * BATCH)), strict=True)
    return network_input(batch_of(np.stack(images))), torch.tensor(levels)


def _level_weights(pairs: Sequence[Pair]) -> torch.Tensor:
    """Inverse frequencies; a level that is absent has none to weigh."""
    counts = Counter(pair.level for pair in pairs)
    return torch.tensor([len(pairs) / (len(counts) * counts[level]) if counts[level] else 0.0 for level in Her2Level])


def _about(training: Sequence[Pair], held_out: Sequence[Pair]) -> str:
    counts = Counter(pair.level for pair in training)
    listed = ", ".join(f"{level.text}: {counts[level]}" for level in Her2Level)
    return f"Real IHC images: {len(training)} for training (levels {listed}), {len(held_out)} for validation."


def _accuracy(network: ExpressionClassifier, pairs: Sequence[Pair], tile: int) -> float | None:
    if not pairs:
        return None
    return sum(int(level_probabilities(network, p.load()[1], 1.0, tile).argmax()) == p.level for p in pairs) / len(
        pairs
    )
