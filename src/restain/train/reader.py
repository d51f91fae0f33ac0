"""Training the network that reads HER2 levels from real IHC images (:mod:`restain.evaluate.reading`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from restain import losses
from restain.data import Pair, open_pairs
from restain.errors import Interrupted, RestainError
from restain.evaluate.reading import ReaderFacts, level_probabilities, reader_network, save_reader
from restain.her2 import Her2Level
from restain.models.blocks import channels_last
from restain.models.expression import ExpressionClassifier
from restain.optics import DAB, HEMATOXYLIN, mix, optical_density, transmit, unit, unmix
from restain.recipe import AugmentRecipe
from restain.train.batches import Crops
from restain.train.checkpoint import StopRequest

STEPS = 1000
BATCH = 8
TILE = 256
WIDTH = 8
LEARNING_RATE = 1e-3
VAL_SHARE = 0.15
CACHE_MIB = 2048
GEOMETRY = AugmentRecipe(he_stain=0, he_hue=0, he_white=0)

WHITE = (0.88, 1.04)
"""Range of the factor on each channel's white point: a level must not be read from the tint of the glass."""
HEMATOXYLIN_CHANGE = 0.3
"""Largest relative change of the counterstain's density."""
DAB_CHANGE = 0.08
"""Largest relative change of DAB's density: small, for how dark DAB is tells the level."""
HUE_CHANGE = 0.03
"""Largest change of each component of the two absorption vectors."""
BLUR_PX = 1.2
"""Largest standard deviation of the blur that half of the crops get: virtual images have no sensor's noise, and a
reader that lives on fine grain would misread them for that alone."""

Rgb = NDArray[np.uint8]


def train_reader(
    data: Sequence[Path],
    out: Path,
    *,
    steps: int = STEPS,
    seed: int = 0,
    mpp: float = 0.46,
    name: str = "",
    description: str = "",
    tile: int = TILE,
    width: int = WIDTH,
    progress: Callable[[int, int], None] | None = None,
) -> ReaderFacts:
    """Train a reader on the real IHC images of the training split and write its folder; the test split is not touched.

    The same data, steps and seed give the same reader. Levels that are rare count more, so that a reader of unbalanced
    data does not answer with the most frequent one. It is checked on whole images of the validation part, or of a
    share of the training split (whole slides, where they are known).

    Args:
        data: folders of pairs with known levels.
        out: the reader's folder; an older reader there is replaced.
        steps: of Adam on crops of ``tile`` px, with a linear decay of the learning rate.
        seed: of weights, crops, variations and validation share.
        mpp: micrometres per pixel of the data.
        name: what the reader calls itself; the folder's name by default.
        description: what the data is, in words, before what was recognised of it.
        tile: side of crops, and of the tiles that the reader later votes on, in px.
        width: channels of the network's first stage.
        progress: called with the steps done and in all.

    Raises:
        RestainError: if the data has faults, fewer than two levels or slides, or images smaller than ``tile``, or the
            folder cannot be written.
        Interrupted: on Ctrl-C or SIGTERM; nothing is written then.
    """
    pairs = open_pairs(data, val_share=0)
    training = [pair for pair in pairs.split("train") if pair.level is not None]
    if len({pair.level for pair in training}) < 2 or len({pair.slide or pair.name for pair in training}) < 2:
        raise RestainError(
            f"{data[0]}: a reader needs training pairs of at least two levels and two slides ({pairs.describe()})."
        )
    pairs = pairs.with_validation(VAL_SHARE, seed)
    training, held_out = ([pair for pair in pairs.split(part) if pair.level is not None] for part in ("train", "val"))
    torch.manual_seed(seed)
    network = channels_last(reader_network(width).train())
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    weight = _level_weights(training)
    crops = Crops(training, tile, GEOMETRY, seed, CACHE_MIB)
    with StopRequest() as stop:
        for step in range(steps):
            images, levels = _batch(crops, step, seed)
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * (1 - step / steps)
            loss = F.cross_entropy(network(images).logits, levels, weight=weight)
            losses.require_finite(step, {"level": loss})
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if progress:
                progress(step + 1, steps)
            if stop.asked:
                raise Interrupted(f"stopped at step {step + 1} of {steps}; {out} was not written.")
    accuracy = _accuracy(network.eval(), held_out, tile)
    facts = ReaderFacts(
        name=name or out.resolve().name,
        data=" ".join(filter(None, (description, pairs.describe()))),
        mpp=mpp,
        tile=tile,
        width=width,
        steps=steps,
        seed=seed,
        accuracy=accuracy,
        images=len(held_out),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return save_reader(out, facts, network)


def vary_ihc(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Vary what a reader must not look at: white point, counterstain, hues, sharpness, and DAB's strength a little.

    ``(H, W, 3)`` 8-bit RGB to the same. Stains are varied in optical density as the H&E's are in training
    (:func:`restain.data.jitter_he`).
    """
    stains = unit([HEMATOXYLIN, DAB])
    third = unit(np.cross(stains[0], stains[1]))
    change = np.array([HEMATOXYLIN_CHANGE, DAB_CHANGE, 0.0])
    moved = unit(np.maximum(stains + HUE_CHANGE * rng.uniform(-1, 1, (2, 3)), 1e-3))
    density = unmix(optical_density(rgb), [*stains, third]) * (1 + change * rng.uniform(-1, 1, 3)).astype(np.float32)
    white = np.minimum(255 * rng.uniform(*WHITE) * rng.uniform(0.97, 1.03, 3), 255)
    light = transmit(mix(density, [*moved, third]), white)
    if rng.random() < 0.5:
        sigma = BLUR_PX * rng.random()
        light = gaussian_filter(light, (sigma, sigma, 0))
    return np.rint(light).astype(np.uint8)


def _batch(crops: Crops, step: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, levels = [], []
    for k in range(step * BATCH, (step + 1) * BATCH):
        _, ihc, level, _ = crops[k]
        images.append(vary_ihc(ihc, np.random.default_rng([seed, 2, k])))
        levels.append(level)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)
    return stacked.contiguous(memory_format=torch.channels_last), torch.tensor(levels)


def _level_weights(pairs: Sequence[Pair]) -> torch.Tensor:
    """Inverse frequencies; a level that is absent has none to weigh."""
    counts = Counter(pair.level for pair in pairs)
    return torch.tensor([len(pairs) / (len(counts) * counts[level]) if counts[level] else 0.0 for level in Her2Level])


def _accuracy(network: ExpressionClassifier, pairs: Sequence[Pair], tile: int) -> float | None:
    if not pairs:
        return None
    return sum(int(level_probabilities(network, p.load()[1], 1.0, tile).argmax()) == p.level for p in pairs) / len(pairs)
