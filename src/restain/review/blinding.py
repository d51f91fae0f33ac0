"""Check whether the two modalities of a study can be distinguished without the stain: glass, noise, sharpness, JPEG artefacts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size

Rgb = NDArray[np.uint8]

SQUARE = 256
"""Side in px of the squares that are measured."""
MOST_ALONG = 4
"""Largest number of squares along a side of an image."""
WINDOW = 16
"""Side in px of the windows of glass in which noise and flat blocks are measured."""
LEAST_WINDOWS = 8
"""Least number of windows for the figures of glass."""
BLOCK = 8
"""Side in px of JPEG blocks, and of blocks that are flat if they have one exact colour."""
SEPARATION = 0.9
"""Area under the ROC curve, in either direction, from which a property separates the modalities."""
LEAST_IMAGES = 8
"""Least images per modality; with fewer, chance separates them, and only glass without noise is reported."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Appearance:
    """Figures of one image; NaN where it shows no glass or no detail."""

    glass: tuple[float, float, float]
    """Median RGB."""
    noise: float
    """Median standard deviation of the luminance in windows of glass, in grey levels."""
    flat: float
    """Share of 8 x 8 blocks of glass with one exact colour."""
    sharpness: float
    """Fine over middle detail (:func:`restain.dataset_builder.quality.focus`)."""
    blocking: float
    """Gradient of the luminance across borders of JPEG blocks over that elsewhere; 1 without artefacts."""


@dataclass(frozen=True)
class _Property:
    """``differ`` says whether two medians differ visibly; ``gross`` the same for few images."""

    name: str
    value: Callable[[Appearance], float]
    differ: Callable[[float, float], bool]
    form: str
    gross: Callable[[float, float], bool] = lambda one, other: False

    def median(self, images: Sequence[Appearance]) -> str:
        if self.form == "RGB":
            return "RGB " + ", ".join(f"{value:.0f}" for value in np.nanmedian([one.glass for one in images], axis=0))
        return format(float(np.nanmedian([self.value(one) for one in images])), self.form)


def measure_appearance(path: Path, shown: Size) -> Appearance:
    """Measure the central ``shown`` px (level 0) of an image, from at most 16 squares.

    Raises:
        RestainError: if the image cannot be read.
    """
    # Imported here: other parts of a study do not need these.
    from restain.dataset_builder.quality import FOCUS_UM, focus
    from restain.slides import glass_windows, open_slide
    from restain.slides.mask import measure_glass

    with open_slide(path) as opened:
        slide = opened if opened.has_mpp else opened.taken_at(FOCUS_UM[0])
        width, height = min(shown.width, slide.size.width), min(shown.height, slide.size.height)
        left, top = (slide.size.width - width) // 2, (slide.size.height - height) // 2
        size = Size(min(SQUARE, width), min(SQUARE, height))
        squares = [
            slide.read(Region(Point(x, y), size), slide.mpp)
            for y in _starts(top, height, size.height)
            for x in _starts(left, width, size.width)
        ]
        mpp = slide.mpp
    glass, _ = measure_glass(np.concatenate(squares))
    windows = [window for square in squares for window in glass_windows(square, glass, WINDOW)]
    colour, noise, flat = np.full(3, np.nan), np.nan, np.nan
    if len(windows) >= LEAST_WINDOWS:
        stack = np.stack(windows)
        colour = np.median(stack, axis=(0, 1, 2))
        noise = float(np.median((stack @ LUMA).std(axis=(1, 2))))
        blocks = stack.reshape(len(stack), WINDOW // BLOCK, BLOCK, WINDOW // BLOCK, BLOCK, 3)
        flat = float((np.ptp(blocks, axis=(2, 4)) == 0).all(axis=-1).mean())
    sharpness = float(np.mean([focus(square, glass, mpp) for square in squares])) or np.nan
    red, green, blue = (float(v) for v in colour)
    return Appearance((red, green, blue), noise, flat, sharpness, _blocking(squares))


def differences(chemical: Sequence[Appearance], virtual: Sequence[Appearance]) -> list[str]:
    """A sentence for each property that separates the modalities; none if a modality has no images."""
    found = []
    for one in _PROPERTIES:
        values = [np.array([one.value(image) for image in images], float) for images in (chemical, virtual)]
        first, second = (side[np.isfinite(side)] for side in values)
        if not (len(first) and len(second)):
            continue
        differ = one.differ if min(len(first), len(second)) >= LEAST_IMAGES else one.gross
        auc = (first[:, None] > second).mean() + (first[:, None] == second).mean() / 2
        if max(auc, 1 - auc) >= SEPARATION and differ(float(np.median(first)), float(np.median(second))):
            medians = f"chemical {one.median(chemical)}, virtual {one.median(virtual)} (medians)"
            found.append(f"{one.name}: {medians}. Readers can tell the modalities apart by it.")
    return found


def _starts(first: int, length: int, side: int) -> list[int]:
    """Where squares begin, evenly over ``length`` px; on borders of JPEG blocks where possible."""
    count = min(MOST_ALONG, -(-length // side))
    starts = first + np.linspace(0, length - side, count)
    return sorted({max(first, int(start) // BLOCK * BLOCK) for start in starts})


def _blocking(squares: Sequence[Rgb]) -> float:
    borders = insides = 0.0
    for square in squares:
        luma = square @ LUMA
        for plane in (luma, luma.T):
            steps = np.abs(np.diff(plane, axis=1)).mean(axis=0)
            at_border = np.arange(1, len(steps) + 1) % BLOCK == 0
            if at_border.any():
                borders += float(steps[at_border].mean())
                insides += float(steps[~at_border].mean())
    return borders / insides if insides > 0 else np.nan


def _by(least: float) -> Callable[[float, float], bool]:
    return lambda one, other: abs(one - other) >= least


def _times(ratio: float, least: float = 0.0) -> Callable[[float, float], bool]:
    return lambda one, other: max(one, other) >= ratio * min(one, other) and abs(one - other) >= least


_PROPERTIES = (
    _Property("Brightness of glass", lambda image: float(np.mean(image.glass)), _by(4.0), "RGB"),
    _Property("Tint of glass", lambda image: image.glass[0] - image.glass[2], _by(4.0), "RGB"),
    _Property("Noise of glass", lambda image: image.noise, _times(1.5, 0.3), ".1f"),
    _Property("Share of exactly flat blocks of glass", lambda image: image.flat, _by(0.1), ".0%", _by(0.5)),
    _Property("Fine detail (sharpness)", lambda image: image.sharpness, _times(1.25), ".2f"),
    _Property("Step across borders of JPEG blocks", lambda image: image.blocking, _by(0.1), ".2f"),
)
