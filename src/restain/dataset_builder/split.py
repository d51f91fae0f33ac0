"""Split of a data set into training, validation and test by patient, never by patch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restain.data.layouts import SPLITS, Split
from restain.dataset_builder.table import SlidePair
from restain.errors import RestainError
from restain.her2 import Her2Level

TRIALS = 400
"""Random divisions, of which the one with the most even levels is taken."""


def split_patients(
    pairs: Sequence[SlidePair], test_share: float = 0.2, val_share: float = 0.1, seed: int = 0
) -> dict[str, Split]:
    """The split of each patient, by :attr:`~restain.dataset_builder.table.SlidePair.patient_key`.

    All slides of a patient are in one split. Shares are of slides, not of patches, so that neither a threshold nor a failed slide
    moves a patient: the splits depend on the table and the seed only. Of :data:`TRIALS` divisions drawn from ``seed`` the one is
    taken in which each level's slides are nearest to the shares.

    Args:
        pairs: the table.
        test_share: wanted share of slides in the test split, in [0, 1).
        val_share: the same of the validation split. A split whose share is above 0 gets at least one patient, the test
            split first; at least one patient is for training.
        seed: of the choice.

    Raises:
        RestainError: if a share is negative or the two leave nothing to train on.
    """
    if min(test_share, val_share) < 0 or test_share + val_share >= 1:
        raise RestainError(
            f"The shares of the test and validation splits must be 0 or more and together below 1, not {test_share:g} "
            f"and {val_share:g}."
        )
    counts: dict[str, Counter[Her2Level]] = {}
    for pair in pairs:
        counts.setdefault(pair.patient_key, Counter())[pair.level] += 1
    patients = sorted(counts)
    if not patients:
        return {}
    slides = np.array([[counts[patient][level] for level in Her2Level] for patient in patients], float)
    wanted = np.array([1 - test_share - val_share, val_share, test_share])
    rng = np.random.default_rng([seed, len(patients)])
    drawn = [_draw(slides, wanted, rng) for _ in range(TRIALS if len(patients) > 2 else 20)]
    best = min(drawn, key=lambda parts: _unevenness(slides, wanted, parts))
    return {patient: SPLITS[part] for patient, part in zip(patients, best, strict=True)}


def _draw(slides: NDArray[np.float64], wanted: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One division ``(n,)``: patients in random order, each to the split that lacks their slides most."""
    count = len(slides)
    parts: NDArray[np.int64] = np.zeros(count, np.int64)
    missing = wanted[:, None] * slides.sum(axis=0)
    order = rng.permutation(count)
    optional = [part for part in (2, 1) if wanted[part] > 0]
    # Splits that must not stay empty are filled first; the rest by need.
    forced = dict(zip(order, optional[: count - 1], strict=False))
    for patient in order:
        need = (missing * slides[patient]).sum(axis=1)
        need[wanted == 0] = -np.inf
        part = forced.get(patient, int(np.argmax(need + 1e-9 * rng.random(3))))
        parts[patient] = part
        missing[part] -= slides[patient]
    if not (parts == 0).any():
        parts[order[-1]] = 0
    return parts


def _unevenness(slides: NDArray[np.float64], wanted: NDArray[np.float64], parts: NDArray[np.int64]) -> float:
    """Squared distance of the splits from the shares, over levels and over all slides."""
    got = np.stack([slides[parts == part].sum(axis=0) for part in range(3)])
    by_level = got - wanted[:, None] * slides.sum(axis=0)
    return float(np.sum(by_level**2) + np.sum(by_level.sum(axis=1) ** 2))
