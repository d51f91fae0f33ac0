"""Do the two modalities of a study look alike in what is no stain: glass, noise, flat areas, sharpness, traces of JPEG?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.geometry import Point, Region, Size

Rgb = NDArray[np.uint8]

SQUARE = 256
"""Side in px of the squares that are looked at."""
MOST_ALONG = 4
"""Squares at most along each side of an image."""
WINDOW = 16
"""Side in px of the windows of glass in which noise and flat blocks are looked for."""
LEAST_WINDOWS = 8
"""With fewer windows of glass an image tells nothing of its glass."""
BLOCK = 8
"""Side in px of JPEG's blocks, and of those that count as flat where they are one exact colour."""
TOLD_APART = 0.9
"""A property tells two modalities apart where an image of the one lies above one of the other with this probability, or
below (area under the ROC curve), and the medians differ by what the property's ``least`` says."""

LEAST_IMAGES = 8
"""With fewer images of a modality, chance separates them; then only what no photograph has is told: glass without noise."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Appearance:
    """Of one image; NaN where it shows no glass, or nothing.

    ``glass``: median RGB. ``noise``: median standard deviation of luminance in windows of glass, in grey levels.
    ``flat``: share of 8 x 8 blocks of glass that are one exact colour. ``sharpness``: fine over middle detail
    (:func:`restain.dataset_builder.quality.focus`). ``blocking``: gradient of luminance across borders of JPEG's blocks
    over that elsewhere; 1 without traces.
    """

    glass: tuple[float, float, float]
    noise: float
    flat: float
    sharpness: float
    blocking: float


@dataclass(frozen=True)
class _Property:
    """``least``: whether two medians differ enough to be seen. ``words``: medians as text, after "is". ``gross``: the
    least, however few the images are; never without it.
    """

    name: str
    value: Callable[[Appearance], float]
    least: Callable[[float, float], bool]
    words: Callable[[Sequence[Appearance]], str]
    gross: Callable[[float, float], bool] = lambda one, other: False


def appearance(path: Path, shown: Size) -> Appearance:
    """Measure what the middle of an image, ``shown`` px of level 0, looks like; at most 16 squares of it are read.

    Raises:
        RestainError: if the image cannot be read.
    """
    # Here, so that a study's other parts do not load it.
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
    # One above another: what they say of glass is said together.
    rgb = np.concatenate(squares)
    glass, _ = measure_glass(rgb)
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
    """A sentence for each property that tells the modalities apart; none where a modality has no image."""
    found = []
    for one in _PROPERTIES:
        sides = [np.array([one.value(look) for look in looks], float) for looks in (chemical, virtual)]
        known = [values[np.isfinite(values)] for values in sides]
        if not all(map(len, known)):
            continue  # Of images without glass there is nothing to say.
        least = one.least if min(map(len, known)) >= LEAST_IMAGES else one.gross
        above = (known[0][:, None] > known[1]).mean() + (known[0][:, None] == known[1]).mean() / 2
        if max(above, 1 - above) >= TOLD_APART and least(*(float(np.median(values)) for values in known)):
            found.append(
                f"{one.name} of chemical images is {one.words(chemical)}, of virtual ones {one.words(virtual)} (medians): "
                "readers can tell them apart."
            )
    return found


def _starts(first: int, length: int, side: int) -> list[int]:
    """Where squares begin, evenly over ``length`` px; on borders of JPEG's blocks where there is room."""
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


def _median(value: Callable[[Appearance], float], form: str) -> Callable[[Sequence[Appearance]], str]:
    return lambda looks: format(float(np.nanmedian([value(look) for look in looks])), form)


def _colour(looks: Sequence[Appearance]) -> str:
    return "RGB " + ", ".join(f"{value:.0f}" for value in np.nanmedian([look.glass for look in looks], axis=0))


def _apart(least: float) -> Callable[[float, float], bool]:
    return lambda one, other: abs(one - other) >= least


def _times(ratio: float, least: float = 0.0) -> Callable[[float, float], bool]:
    return lambda one, other: max(one, other) >= ratio * min(one, other) and abs(one - other) >= least


_PROPERTIES = (
    _Property("Brightness of glass", lambda look: float(np.mean(look.glass)), _apart(4.0), _colour),
    _Property("Tint of glass", lambda look: look.glass[0] - look.glass[2], _apart(4.0), _colour),
    _Property("Noise of glass", lambda look: look.noise, _times(1.5, 0.3), _median(lambda look: look.noise, ".1f")),
    _Property(
        "Share of exactly flat blocks of glass",
        lambda look: look.flat,
        _apart(0.1),
        _median(lambda look: look.flat, ".0%"),
        _apart(0.5),
    ),
    _Property(
        "Fine detail (sharpness)",
        lambda look: look.sharpness,
        _times(1.25),
        _median(lambda look: look.sharpness, ".2f"),
    ),
    _Property(
        "Step across borders of JPEG blocks",
        lambda look: look.blocking,
        _apart(0.1),
        _median(lambda look: look.blocking, ".2f"),
    ),
)
