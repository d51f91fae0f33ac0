"""Limits: how near any answer could come to a real pair, since glass is unknown and sections match only roughly.

All are oracles: they use the real image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.background import background_db, background_de
from restain.evaluation.stain import background_mask, dab_r16
from restain.geometry import um_to_px
from restain.optics import dab_density, glass_white

Rgb = NDArray[np.uint8]

SHIFT_UM = 2.0
"""How far the real image is moved against itself, right and down."""

DESCRIPTIONS = {
    "oracle_white": "the model's densities, rendered on the real image's own glass: an oracle of the white",
    "oracle_background": "the median colour of the real image's own background, everywhere: an oracle",
    "real_shifted": f"the real image against itself, moved by {SHIFT_UM:g} µm right and down: what misalignment alone costs",
}
"""What each row is, in words, in the order of the tables."""


def limits(real: Rgb, on_real_white: Rgb | None, mpp: float) -> dict[str, dict[str, float]]:
    """The rows of one pair: ``{method: {metric: value}}`` with the metrics' keys of an evaluation.

    ``on_real_white`` is the model's picture on the real image's glass, ``(H, W, 3)`` as ``real``; None without a stain
    output.
    """
    white = glass_white(real)
    dab = dab_density(real, white)
    mask = background_mask(dab)

    def colour(virtual: Rgb) -> dict[str, float]:
        difference, shift = background_de(virtual, real, mask), background_db(virtual, real, mask)
        return {"background_de": difference, "background_db": shift}

    step = um_to_px(SHIFT_UM, mpp)
    rows: dict[str, dict[str, Any]] = {}
    if on_real_white is not None:
        rows["oracle_white"] = colour(on_real_white)
    if mask.any():
        median = np.round(np.median(real[mask], axis=0)).astype(np.uint8)
        rows["oracle_background"] = colour(np.broadcast_to(median, real.shape).copy())
    moved = np.roll(real, (step, step), (0, 1))
    # Without what the roll brings in from the opposite border.
    inside = mask.copy()
    inside[:step], inside[:, :step] = False, False
    difference, shift = background_de(moved, real, inside), background_db(moved, real, inside)
    shifted_dab = dab_density(moved[step:, step:], white)
    rows["real_shifted"] = {
        "dab_r16": dab_r16(shifted_dab, dab[step:, step:], mpp),
        "background_de": difference,
        "background_db": shift,
    }
    return rows
