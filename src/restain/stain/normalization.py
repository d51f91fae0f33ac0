"""The normalisation of one H&E image, estimated from the whole of it (:mod:`restain.data.normalization`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from restain.bundle import Bundle
from restain.data.normalization import ESTIMATION_MPP, HENormalization, normalization_of
from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.slides import Slide, TissueMask
from restain.stain.options import StainOptions

WHOLE_PX = 1024 * 1024
"""An image of up to so many px at the resolution of the estimate is read whole, as the pictures of training are."""
SAMPLE_PX = 256
"""Side of the samples of larger ones: 512 µm."""
SAMPLES = 24
LEAST_TISSUE = 0.25
"""Share of tissue in a sample."""


def slide_normalization(
    slide: Slide, tissue: TissueMask, bundle: Bundle, options: StainOptions
) -> HENormalization | None:
    """How ``slide`` is normalised before the network; None for a bundle that was trained without, or where it is switched
    off.

    Evenly spread samples of its tissue are read, whatever region is to be stained, and the white is the glass of the
    overview; pen marks do not count. Raises RestainError if pixels cannot be decoded.
    """
    if bundle.card.normalization is None or not options.normalization:
        return None
    mpp = max(ESTIMATION_MPP, slide.mpp)
    size = slide.size_at(mpp)
    if size.width * size.height <= WHOLE_PX:
        return normalization_of([slide.read(Region(Point(0, 0), size), mpp)])
    samples = [_without_ink(slide.read(region, mpp), region, mpp, tissue) for region in _samples(size, mpp, tissue)]
    # A mask of tissue alone is that of an image without glass, which has no colour of glass.
    return normalization_of(samples, None if tissue.mask.all() else tissue.glass)


def normalized_reader(slide: Slide, mpp: float, normalization: HENormalization | None) -> Callable[[Region], Rgb]:
    """Reads regions in px at ``mpp``, ``(h, w, 3)`` ``uint8``, as the network is given them."""

    def read(region: Region) -> Rgb:
        rgb = slide.read(region, mpp)
        return rgb if normalization is None else normalization.apply(rgb)

    return read


def _samples(size: Size, mpp: float, tissue: TissueMask) -> list[Region]:
    """Evenly spread squares with enough tissue, inside the image."""
    squares = [
        Region(Point(x, y), Size(min(SAMPLE_PX, size.width), min(SAMPLE_PX, size.height)))
        for y in range(0, max(size.height - SAMPLE_PX, 0) + 1, SAMPLE_PX)
        for x in range(0, max(size.width - SAMPLE_PX, 0) + 1, SAMPLE_PX)
    ]
    for least in (LEAST_TISSUE, 0.0):
        full = [square for square in squares if tissue.covers(square, mpp) > least]
        if full:
            return [full[i] for i in sorted(set(np.linspace(0, len(full) - 1, SAMPLES).round().astype(int)))]
    return []


def _without_ink(rgb: Rgb, region: Region, mpp: float, tissue: TissueMask) -> Rgb:
    if tissue.ink is None or not tissue.ink.any():
        return rgb
    ink = tissue.nearest(tissue.ink, region, mpp)
    return np.where(ink[..., None], np.uint8(255), rgb)
