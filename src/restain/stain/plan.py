"""Before the network: where an image is stained, on which glass, and the provenance of the result."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from restain.data.normalization import HENormalization
from restain.errors import RestainError
from restain.geometry import Region, Size
from restain.progress import Progress, Warn, part
from restain.slides import TissueMask, tissue_mask
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


@dataclass(frozen=True)
class StainJob:
    """An image to stain, with which model and how; ``warn`` and ``progress`` are called meanwhile."""

    image: InputImage
    model: Model
    options: StainOptions
    warn: Warn
    progress: Progress | None = None

    def plan(self, start: int, end: int) -> StainPlan:
        """Find the tissue, from ``start`` to ``end`` of the progress. A picture without any is stained as glass.

        Raises NoTissueError if a slide has none in the region of interest; RestainError if the region of interest lies
        outside the image, or the image cannot be read.
        """
        image, model, options = self.image, self.model, self.options
        slide, size = image.slide, image.slide.size_at(model.mpp)
        self._check_roi()
        tissue = tissue_mask(slide, progress=part(self.progress, start, end))
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
            self.warn(f"{image.source}: {none}")
        return StainPlan(tissue, area, windows, size, slide_normalization(slide, tissue, model.bundle, options))

    def glass(self, tissue: TissueMask, quality: int | None) -> Glass:
        """The glass of the result: the white of options, model or else H&E, and the noise of the H&E's glass.

        ``quality``: of the result's JPEG; None for lossless pixels.
        """
        slide, model, options = self.image.slide, self.model, self.options
        white = tissue.glass if model.own_white is None else model.own_white
        if options.white is not None:
            white = np.asarray(options.white, np.float32)
        noise = measure_noise(slide, tissue, model.mpp) if options.glass_noise else None
        return Glass(white, tissue.glass, model.mpp, noise, quality)

    def provenance(self, quality: int | None, progress: Progress | None = None) -> Provenance:
        """The provenance of the result.

        Raises RestainError if the source cannot be read, or if a slide does not state its µm per px.
        """
        image, options, card = self.image, self.options, self.model.bundle.card
        roi = "whole image"
        if options.roi is not None:
            outlines = b"".join(polygon.wkb for polygon in options.roi)
            roi = f"{len(options.roi)} outlines, SHA-256 {hashlib.sha256(outlines).hexdigest()}"
        return Provenance(
            source=image.source.name,
            source_sha256=image.digest(progress),
            source_mpp=image.slide.mpp,
            mpp_assumed=image.mpp_assumed,
            bundle=card.name,
            bundle_hash=card.hash,
            mpp=card.mpp,
            engine=self.model.engine(options).name,
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

    def planned(self, made: Provenance, plan: StainPlan) -> Provenance:
        """The provenance with what was measured of the image."""
        ood = self.model.ood_of(self.image.slide, plan.windows, plan.normalization)
        return replace(made, normalization=plan.normalization, ood=ood)

    def warn_of(self, made: Provenance) -> None:
        """Warn of an assumed mpp and of an image that is out of distribution."""
        source = self.image.source
        if made.mpp_assumed:
            self.warn(f"{source}: the image states no mpp; it is taken as being at the model's {made.mpp:g} µm per px.")
        if made.ood is not None and made.ood.is_ood:
            self.warn(f"{source}: {made.ood.reason}")

    def warn_of_faults(self) -> None:
        for fault in self.image.slide.faults:
            self.warn(f"{self.image.source}: {fault}")

    def _check_roi(self) -> None:
        size = self.image.slide.size
        bounds = [outline.bounds for outline in self.options.roi or ()]
        if bounds and not any(
            left < size.width and top < size.height and right > 0 and bottom > 0 for left, top, right, bottom in bounds
        ):
            raise RestainError(
                f"{self.image.source}: the region lies outside the image, which has {size.width} x {size.height} px."
            )
