"""Training crops as a pure function of the seed and the step, so that a resumed run sees what an uninterrupted one does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from restain.data import Pair, PairSet, augment_pair, open_pairs
from restain.data.decoded import DecodedInMemory, DecodedPair, PairStore, decoded_bytes
from restain.data.normalization import describe_normalization, picture_normalizer
from restain.losses import UNKNOWN_LEVEL
from restain.models.tensors import batch_of
from restain.optics import round_to_uint8
from restain.recipe import AugmentRecipe, Recipe

Image = NDArray[np.uint8]


def training_pairs(recipe: Recipe, data: Sequence[Path]) -> PairSet:
    """The pairs in folders, split as the recipe says.

    Raises:
        RestainError: if a folder is of no known layout or has faults.
    """
    return open_pairs(
        data,
        val_share=recipe.data.val_share,
        seed=recipe.seed,
        holdout=recipe.data.holdout,
        same_slide=recipe.data.same_slide,
        swap=recipe.data.swap,
    )


class Batch(NamedTuple):
    """Crops of ``N`` pairs, on the training device."""

    he: Tensor
    """``(N, 3, c, c)`` RGB in [0, 1], channels_last."""
    ihc: Tensor
    """``(N, 3, c, c)`` RGB in [0, 1], channels_last."""
    level: Tensor
    """``(N,)`` class index of the HER2 level, :data:`restain.losses.UNKNOWN_LEVEL` where it is not known."""
    white: Tensor
    """``(N, 3)`` intensity of the IHC image's glass in [0, 1]."""
    level_map: Tensor | None = None
    """``(N, c // LEVEL_PX, c // LEVEL_PX)`` class index of the level at each place, where a crop may hold two."""

    @classmethod
    def from_bytes(
        cls, he: Tensor, ihc: Tensor, level: Tensor, white: Tensor, level_map: Tensor, device: torch.device
    ) -> Batch:
        """From the loader's ``(N, c, c, 3)`` uint8 images; the conversion runs on the device.

        Nothing waits for the copies: the loader's memory is pinned where that matters.
        """
        he, ihc, level, white, level_map = (
            part.to(device, non_blocking=True) for part in (he, ihc, level, white, level_map)
        )
        return cls(batch_of(he), batch_of(ihc), level, white, level_map)


def decoded_pairs(
    recipe: Recipe, training: Sequence[Pair], store: Path, processes: int = 1
) -> DecodedInMemory | PairStore:
    """The pairs that crops are cut from: in memory where all copies fit into ``data.cache_mib``, else in a store.

    Args:
        recipe: of the training.
        training: its pairs.
        store: the store's folder, for which :meth:`PairStore.fill` must be called.
        processes: training processes on this node; each has ``data.workers`` loader workers with a copy of their own.
    """
    data = recipe.data
    copies = processes * max(1, data.workers)
    normalize = picture_normalizer(recipe)
    if copies * sum(map(decoded_bytes, training)) <= data.cache_mib * 2**20:
        return DecodedInMemory(training, normalize)
    variant = [describe_normalization(), recipe.mpp] if data.normalization else None
    return PairStore(store, training, normalize, variant)


LEVEL_PX = 16
"""Side in px of the cells of a crop's map of levels: the stride of the small classifier."""


class Crops(Dataset[tuple[Image, Image, int, NDArray[np.float32], NDArray[np.int64]]]):
    """Item ``k`` is an augmented crop that depends on the seed and ``k`` only.

    A share ``mix`` of the crops is joined from two pairs along a random straight line, as CutMix (Yun et al., ICCV 2019) joins
    images: their level is then unknown as a whole and known at each place.

    Every pair comes once before any comes twice, or with ``weights``, ``(n,)`` with mean 1: in as many draws as there are
    pairs, a pair of weight w comes ⌊w⌋ or ⌈w⌉ times, w times in the mean (systematic resampling, Kitagawa 1996).

    Raises:
        RestainError: when an item is read, if a pair's files are damaged or smaller than the crop.
    """

    def __init__(
        self,
        decoded: DecodedInMemory | PairStore,
        crop: int,
        augment: AugmentRecipe,
        seed: int,
        weights: NDArray[np.float64] | None = None,
        mix: float = 0.0,
    ) -> None:
        self.decoded = decoded
        self.pairs = decoded.pairs
        self.mix = mix
        self.weights = weights
        self.crop = crop
        self.augment = augment
        self.seed = seed

    def _drawn(self, epoch: int, place: int) -> int:
        n = len(self.pairs)
        number = int(np.random.default_rng([self.seed, 0, epoch]).permutation(n)[place])
        if self.weights is None:
            return number
        at = number + np.random.default_rng([self.seed, 2, epoch]).random()
        return min(int(np.searchsorted(np.cumsum(self.weights), at, side="right")), n - 1)

    def __getitem__(self, k: int) -> tuple[Image, Image, int, NDArray[np.float32], NDArray[np.int64]]:
        index = self._drawn(*divmod(k, len(self.pairs)))
        rng = np.random.default_rng([self.seed, 1, k])
        found = self.decoded[index]
        (he, ihc), white = self._cut(found, rng), found.white
        level = self._level(index)
        side = max(1, self.crop // LEVEL_PX)
        level_map = np.full((side, side), level, np.int64)
        if self.mix and rng.random() < self.mix:
            other = int(rng.integers(len(self.pairs)))
            beside = self.decoded[other]
            he2, ihc2 = self._cut(beside, rng)
            beyond = _half_plane(self.crop, rng)
            he = np.where(beyond[..., None], he2, he)
            # One slide has one glass: transmittances relative to their own glass, on the first pair's.
            ihc2 = round_to_uint8(ihc2 * (white / beside.white))
            ihc = np.where(beyond[..., None], ihc2, ihc)
            cells = beyond[: side * LEVEL_PX, : side * LEVEL_PX]
            step = self.crop // side
            level_map[cells[step // 2 :: step, step // 2 :: step][:side, :side]] = self._level(other)
            level = level if level == self._level(other) else UNKNOWN_LEVEL
        return np.ascontiguousarray(he), np.ascontiguousarray(ihc), level, white, level_map

    def _cut(self, pair: DecodedPair, rng: np.random.Generator) -> tuple[Image, Image]:
        he, ihc = augment_pair(pair.he, pair.ihc, self.crop, self.augment, rng)
        return he, ihc

    def _level(self, index: int) -> int:
        level = self.pairs[index].level
        return UNKNOWN_LEVEL if level is None else int(level)


def _half_plane(side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """``(side, side)``: the pixels beyond a random straight line that passes through the middle half of a square."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    beyond: NDArray[np.bool_] = x * np.cos(angle) + y * np.sin(angle) > rng.uniform(-side / 4, side / 4)
    return beyond


class _Steps(Sampler[list[int]]):
    def __init__(self, start: int, stop: int, batch: int, rank: int, world: int) -> None:
        self.start, self.stop, self.batch, self.rank, self.world = start, stop, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            first = (step * self.world + self.rank) * self.batch
            yield list(range(first, first + self.batch))

    def __len__(self) -> int:
        return self.stop - self.start


def batches(
    crops: Crops,
    *,
    start: int = 0,
    stop: int,
    batch: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device,
) -> Iterator[Batch]:
    """The batches of steps ``start`` to ``stop`` (exclusive) for process ``rank`` of ``world``."""
    steps = _Steps(start, stop, batch, rank, world)
    loader = DataLoader(
        crops, batch_sampler=steps, num_workers=workers, pin_memory=device.type == "cuda", persistent_workers=False
    )
    for he, ihc, level, white, level_map in loader:
        yield Batch.from_bytes(he, ihc, level, white, level_map, device)
