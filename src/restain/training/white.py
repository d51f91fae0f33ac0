"""The white that a model with a measured white renders on where nobody tells it another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restain.data import Pair
from restain.optics import glass_white

MEASURED_PAIRS = 200
"""Most pairs that are read; of larger sets, a seeded sample."""


def typical_white(pairs: Sequence[Pair], seed: int = 0) -> NDArray[np.float32]:
    """Median over slides of the IHC images' glass (:func:`restain.optics.glass_white`): ``(3,)`` in [0, 255].

    Patches of one slide have one glass, so a slide counts once however many patches it gave; a pair of an unknown slide
    counts as one. The median is what an absolute colour error is least at.

    Raises:
        RestainError: if an image cannot be read.
        ValueError: if there are no pairs.
    """
    if not pairs:
        raise ValueError("a white is measured on at least one pair")
    chosen: Sequence[int] = range(len(pairs))
    if len(pairs) > MEASURED_PAIRS:
        drawn = np.random.default_rng([seed, 2]).choice(len(pairs), MEASURED_PAIRS, replace=False)
        chosen = np.sort(drawn).tolist()
    slides: dict[str, list[NDArray[np.float32]]] = {}
    for index in chosen:
        pair = pairs[index]
        key = f"pair {pair.name}" if pair.slide is None else f"slide {pair.slide}"
        slides.setdefault(key, []).append(glass_white(pair.load()[1][::4, ::4]))
    return np.median([np.mean(whites, axis=0) for whites in slides.values()], axis=0).astype(np.float32)
