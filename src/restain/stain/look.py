"""Before the network: what of an image is tissue to be stained, and what the result will say of its making."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from restain.data.normalization import HENormalization
from restain.errors import RestainError
from restain.geometry import Region, Size
from restain.slides import Slide, TissueMask, tissue_mask
from restain.stain.area import Area, everywhere
from restain.stain.given import Given
from restain.stain.glass import Glass, measure_noise
from restain.stain.normalization import slide_normalization
from restain.stain.options import StainOptions
from restain.stain.provenance import Provenance, now
from restain.stain.windows import WindowLattice

if TYPE_CHECKING:
    from restain.stain.model import Model

LEAST_SIDE_UM = 256.0
"""An image with a shorter side is stained everywhere: the smallest piece of tissue on a slide would fill most of it, and
the tissue mask's pixels of 8 µm are too few to tell it from glass."""


class NoTissue(RestainError):  # noqa: N818  (as RestainError)
    """There is nothing to be stained where it was looked for."""


@dataclass(frozen=True)
class Looked:
    """``tissue`` found; the ``area`` to be stained; ``windows`` with tissue to be stained, in px at the model's mpp; ``size``
    of the result in px."""

    tissue: TissueMask
    area: Area
    windows: list[Region]
    size: Size
    normalization: HENormalization | None = None
    """Of the H&E before the network; None for none."""


def look(
    given: Given,
    model: Model,
    options: StainOptions,
    warn: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> Looked:
    """Look for tissue. A picture without any becomes a picture of glass, and ``warn`` is told.

    Raises:
        NoTissue: if a slide holds none where it is to be stained.
        RestainError: if the region of interest lies outside the image, or the image cannot be read.
    """
    slide, size = given.slide, given.slide.size_at(model.mpp)
    _check_roi(given, options)
    found = tissue_mask(slide, progress=progress)
    if min(slide.size.width, slide.size.height) * slide.mpp < LEAST_SIDE_UM:
        found = everywhere(slide.size_at(found.mpp), found)
    shown = everywhere(slide.size_at(found.mpp), found) if options.everywhere else found
    area = Area(shown, slide.mpp, model.mpp, options.roi)
    windows = [w.region for w in WindowLattice(size, model.context_px) if area.is_stained(w.region)]
    if not windows:
        none = "no tissue was found; --everywhere stains the whole slide."
        if shown.mask.any():
            none = "the region of interest holds no tissue."
        if not slide.is_picture:
            raise NoTissue(f"{given.source}: {none}")
        warn(f"{given.source}: {none}")
    return Looked(found, area, windows, size, slide_normalization(slide, found, model.bundle, options))


def glass_of(slide: Slide, model: Model, options: StainOptions, tissue: TissueMask, quality: int | None) -> Glass:
    """The glass of the result: the white that is rendered, or the H&E's glass for a model without, and the H&E's noise.

    ``quality``: of the JPEG that the result is kept in; None for lossless pixels.
    """
    white = tissue.glass if model.own_white is None else model.own_white
    if options.white is not None:
        white = np.asarray(options.white, np.float32)
    noise = measure_noise(slide, tissue, model.mpp) if options.glass_noise else None
    return Glass(white, tissue.glass, model.mpp, noise, quality)


def provenance_of(
    given: Given,
    model: Model,
    options: StainOptions,
    quality: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> Provenance:
    """What the result will say of itself.

    Raises:
        RestainError: if the source cannot be read, or states no mpp and is no picture.
    """
    card, slide = model.bundle.card, given.slide
    roi = "whole image"
    if options.roi is not None:
        outlines = b"".join(ring.astype("<f8").tobytes() for polygon in options.roi for ring in polygon.rings)
        roi = f"{len(options.roi)} outlines, SHA-256 {hashlib.sha256(outlines).hexdigest()}"
    return Provenance(
        source=given.source.name,
        source_sha256=given.digest(progress),
        source_mpp=slide.mpp,
        mpp_assumed=given.assumed,
        bundle=card.name,
        bundle_hash=card.hash,
        mpp=card.mpp,
        engine=model.engine(options).name,
        context_px=card.context_px,
        white=options.white,
        glass_noise=options.glass_noise,
        normalized=options.normalization and card.normalization is not None,
        region=roi,
        everywhere=options.everywhere,
        quality=quality,
        dab=options.dab,
        created=now(),
    )


def tell(given: Given, made: Provenance, warn: Callable[[str], None]) -> None:
    """Warn, in sentences that name the source, of an assumed mpp and of an image unlike the training images."""
    if made.mpp_assumed:
        warn(f"{given.source}: the image states no mpp; it is taken as being at the model's {made.mpp:g} µm per px.")
    if made.ood is not None and made.ood.is_ood:
        warn(f"{given.source}: {made.ood.reason}")


def _check_roi(given: Given, options: StainOptions) -> None:
    width, height = given.slide.size.width, given.slide.size.height
    corners = [(one.exterior.min(axis=0), one.exterior.max(axis=0)) for one in options.roi or ()]
    if corners and not any(low[0] < width and low[1] < height and high[0] > 0 and high[1] > 0 for low, high in corners):
        raise RestainError(f"{given.source}: the region lies outside the image, which has {width} x {height} px.")
