"""Before the network: where an image is stained, on which glass, and the provenance of the result."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from restain.data.normalization import HENormalization
from restain.errors import RestainError
from restain.geometry import Region, Size
from restain.progress import Progress, Warn
from restain.slides import Slide, TissueMask, tissue_mask
from restain.stain.area import Area, everywhere
from restain.stain.glass import Glass, measure_noise
from restain.stain.inputs import InputImage
from restain.stain.normalization import slide_normalization
from restain.stain.options import StainOptions
from restain.stain.provenance import Provenance, now
from restain.stain.windows import WindowLattice

if TYPE_CHECKING:
    from restain.stain.model import Model

LEAST_SIDE_UM = 256.0
"""An image with a shorter side is stained everywhere: the tissue mask's pixels of 8 µm are too few to find glass in it."""


class NoTissueError(RestainError):
    """There is nothing to stain."""


@dataclass(frozen=True)
class StainPlan:
    """``tissue`` found; the ``area`` to stain; ``windows`` with tissue, in px at the model's mpp; ``size`` of the result;
    ``normalization`` of the H&E before the network, None for none."""

    tissue: TissueMask
    area: Area
    windows: list[Region]
    size: Size
    normalization: HENormalization | None = None


def plan_staining(
    image: InputImage, model: Model, options: StainOptions, warn: Warn, progress: Progress | None = None
) -> StainPlan:
    """Find the tissue of an image. A picture without any is stained as glass, with a warning.

    Raises NoTissueError if a slide has none in the region of interest; RestainError if the region of interest lies
    outside the image, or the image cannot be read.
    """
    slide, size = image.slide, image.slide.size_at(model.mpp)
    _check_roi(image, options)
    tissue = tissue_mask(slide, progress=progress)
    whole = everywhere(slide.size_at(tissue.mpp), tissue)
    if min(slide.size.width, slide.size.height) * slide.mpp < LEAST_SIDE_UM:
        tissue = whole
    shown = whole if options.everywhere else tissue
    area = Area(shown, slide.mpp, model.mpp, options.roi)
    windows = [w.region for w in WindowLattice(size, model.context_px) if area.is_stained(w.region)]
    if not windows:
        none = "no tissue was found; --everywhere stains the whole slide."
        if shown.mask.any():
            none = "the region of interest holds no tissue."
        if not slide.is_picture:
            raise NoTissueError(f"{image.source}: {none}")
        warn(f"{image.source}: {none}")
    return StainPlan(tissue, area, windows, size, slide_normalization(slide, tissue, model.bundle, options))


def glass_of(slide: Slide, model: Model, options: StainOptions, tissue: TissueMask, quality: int | None) -> Glass:
    """The glass of the result: the white of options, model or else H&E, and the noise of the H&E's glass.

    ``quality``: of the result's JPEG; None for lossless pixels.
    """
    white = tissue.glass if model.own_white is None else model.own_white
    if options.white is not None:
        white = np.asarray(options.white, np.float32)
    noise = measure_noise(slide, tissue, model.mpp) if options.glass_noise else None
    return Glass(white, tissue.glass, model.mpp, noise, quality)


def provenance_of(
    image: InputImage, model: Model, options: StainOptions, quality: int | None, progress: Progress | None = None
) -> Provenance:
    """The provenance of the result.

    Raises RestainError if the source cannot be read, or states no mpp and is no picture.
    """
    card, slide = model.bundle.card, image.slide
    roi = "whole image"
    if options.roi is not None:
        outlines = b"".join(polygon.wkb for polygon in options.roi)
        roi = f"{len(options.roi)} outlines, SHA-256 {hashlib.sha256(outlines).hexdigest()}"
    return Provenance(
        source=image.source.name,
        source_sha256=image.digest(progress),
        source_mpp=slide.mpp,
        mpp_assumed=image.mpp_assumed,
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


def warn_of(image: InputImage, made: Provenance, warn: Warn) -> None:
    """Warn of an assumed mpp and of an image that is out of distribution."""
    if made.mpp_assumed:
        warn(f"{image.source}: the image states no mpp; it is taken as being at the model's {made.mpp:g} µm per px.")
    if made.ood is not None and made.ood.is_ood:
        warn(f"{image.source}: {made.ood.reason}")


def _check_roi(image: InputImage, options: StainOptions) -> None:
    width, height = image.slide.size.width, image.slide.size.height
    bounds = [outline.bounds for outline in options.roi or ()]
    if bounds and not any(
        left < width and top < height and right > 0 and bottom > 0 for left, top, right, bottom in bounds
    ):
        raise RestainError(f"{image.source}: the region lies outside the image, which has {width} x {height} px.")
