"""What no model is to be blamed for: how near any answer could come to a real pair.

A left-out slide's glass cannot be known from other slides, and two sections never match to the pixel. These rows say what
that costs. All but ``hematoxylin_smoothed`` are told something of the real image and are oracles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from restain.evaluation.background import background_db, background_de
from restain.evaluation.stain import background_mask, dab_r16
from restain.geometry import um_to_px
from restain.optics import dab_density, glass_white, hematoxylin_density

Rgb = NDArray[np.uint8]

SHIFT_UM = 2.0
"""How far the real image is moved against itself, right and down."""

SMOOTH_UM = 24.0
"""Standard deviation of the smoothing of ``hematoxylin_smoothed``: the tissue's texture goes, its regions stay."""

DESCRIPTIONS = {
    "oracle_white": "the model's densities, rendered on the real image's own glass: an oracle of the white",
    "oracle_background": "the median colour of the real image's own background, everywhere: an oracle",
    "real_shifted": f"the real image against itself, moved by {SHIFT_UM:g} µm right and down: what misalignment alone costs",
    "hematoxylin_smoothed": f"the H&E's hematoxylin density, smoothed by {SMOOTH_UM:g} µm: where cells are dense, no model",
}
"""What each row is, in words, in the order of the tables."""


def limits(he: Rgb, real: Rgb, on_real_white: Rgb | None, mpp: float) -> dict[str, dict[str, float]]:
    """The rows of one pair: ``{method: {metric: value}}`` with the metrics' keys of an evaluation.

    Args:
        he: ``(H, W, 3)``.
        real: the same shape.
        on_real_white: the model's picture on the real image's glass, the same shape; None where it has no stain output.
        mpp: micrometres per pixel.
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
    # Without what the roll brings in from the other side.
    inside = mask.copy()
    inside[:step], inside[:, :step] = False, False
    difference, shift = background_de(moved, real, inside), background_db(moved, real, inside)
    shifted_dab = dab_density(moved[step:, step:], white)
    rows["real_shifted"] = {
        "dab_r16": dab_r16(shifted_dab, dab[step:, step:], mpp),
        "background_de": difference,
        "background_db": shift,
    }
    hematoxylin = gaussian_filter(hematoxylin_density(he, glass_white(he)), SMOOTH_UM / mpp)
    rows["hematoxylin_smoothed"] = {"dab_r16": dab_r16(hematoxylin, dab, mpp)}
    return rows
