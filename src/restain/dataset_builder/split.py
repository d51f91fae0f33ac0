"""Who is for training and who for testing: patients, never patches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restain.data.layouts import Split
from restain.dataset_builder.table import SlidePair
from restain.errors import RestainError
from restain.her2 import Her2Level

TRIALS = 400
"""Drawn divisions, of which the one whose levels are spread best is taken."""

PARTS: tuple[Split, ...] = ("train", "val", "test")


def split_patients(
    pairs: Sequence[SlidePair], test_share: float = 0.2, val_share: float = 0.1, seed: int = 0
) -> dict[str, Split]:
    """The part of each patient, by :attr:`~restain.dataset_builder.table.SlidePair.person`.

    A patient's slides are all in one part. Shares are of slides, not of patches, so that neither a threshold nor a slide that fails
    moves a patient from one part to another: what was once test stays test as long as the table and the seed do. Of :data:`TRIALS`
    divisions drawn from ``seed`` the one is taken in which each level's slides come nearest to the shares.

    Args:
        pairs: the table.
        test_share: wanted share of slides in the test part, in [0, 1).
        val_share: the same of the validation part. A part whose share is above 0 gets one patient at least, the test part
            where there are two, the validation part where there are three; one patient at least is for training.
        seed: of the choice.

    Raises:
        RestainError: if a share is negative or the two leave nothing to train on.
    """
    if min(test_share, val_share) < 0 or test_share + val_share >= 1:
        raise RestainError(
            f"The shares of the test and validation parts must be 0 or more and together below 1, not {test_share:g} "
            f"and {val_share:g}."
        )
    counts: dict[str, Counter[Her2Level]] = {}
    for pair in pairs:
        counts.setdefault(pair.person, Counter())[pair.level] += 1
    people = sorted(counts)
    if not people:
        return {}
    slides = np.array([[counts[person][level] for level in Her2Level] for person in people], float)
    wanted = np.array([1 - test_share - val_share, val_share, test_share])
    rng = np.random.default_rng([seed, len(people)])
    drawn = [_draw(slides, wanted, rng) for _ in range(TRIALS if len(people) > 2 else 20)]
    best = min(drawn, key=lambda parts: _unevenness(slides, wanted, parts))
    return {person: PARTS[part] for person, part in zip(people, best, strict=True)}


def _draw(slides: NDArray[np.float64], wanted: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One division ``(n,)``: patients in random order, each to the part that lacks most of what they have."""
    count = len(slides)
    parts: NDArray[np.int64] = np.zeros(count, np.int64)
    room = wanted[:, None] * slides.sum(axis=0)
    order = rng.permutation(count)
    open_ = [part for part in (2, 1) if wanted[part] > 0]
    # Parts that must not stay empty are served first; the rest by need.
    forced = dict(zip(order, open_[: count - 1], strict=False))
    for person in order:
        need = (room * slides[person]).sum(axis=1)
        need[wanted == 0] = -np.inf
        part = forced.get(person, int(np.argmax(need + 1e-9 * rng.random(3))))
        parts[person] = part
        room[part] -= slides[person]
    if not (parts == 0).any():
        parts[order[-1]] = 0
    return parts


def _unevenness(slides: NDArray[np.float64], wanted: NDArray[np.float64], parts: NDArray[np.int64]) -> float:
    """How far the parts are from the shares, over levels and over all slides; 0 is perfect."""
    got = np.stack([slides[parts == part].sum(axis=0) for part in range(3)])
    by_level = got - wanted[:, None] * slides.sum(axis=0)
    return float(np.sum(by_level**2) + np.sum(by_level.sum(axis=1) ** 2))
