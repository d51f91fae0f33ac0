"""One slide laid on another: overview, orientation, affine, elastic, and whether to believe it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Point, Region
from restain.images import Rgb
from restain.optics import glass_white
from restain.register.coarse import Coarse, find_affine, fit_affine
from restain.register.elastic import Pass, plan, refine_elastic
from restain.register.level import PRIOR, Progress, Raster, Section, Shifts, measure_shifts
from restain.register.structure import Look, look_of, textured
from restain.register.transform import Transform
from restain.register.verdict import Quality, agreement, least_agreement, quality
from restain.register.warp import in_pixels, slide_of
from restain.slides.mask import TissueMask, tissue_of
from restain.slides.slide import Slide

OVERVIEW_PX = 512
"""Longer side of the overviews on which the orientation is found."""
FINEST_UM = 1.0
"""The finest resolution that is looked at: nuclei are clear at 1 µm, and finer ones cost four times as much each."""
NOMINAL_UM = 8.0
"""What a pixel of an overview is taken for by the tissue mask where no mpp is known."""
LEAST_TISSUE = 0.002
"""Least share of an overview that must be tissue."""
SCALE_RANGE = (0.5, 2.0)
"""Relative sizes that are believed of pictures without an mpp."""


@dataclass(frozen=True)
class Registration:
    """The transform from the fixed slide to the moving one, and what speaks for it."""

    transform: Transform
    affine: Transform
    coarse: Coarse
    passes: list[Pass]
    agreement: float
    """How far the blocks' places stand out of the search, in standard deviations (see ``verdict``)."""
    quality: Quality
    looks: tuple[Look, Look]


def register_slides(
    fixed: Slide,
    moving: Slide,
    *,
    elastic: bool = True,
    finest_um: float = FINEST_UM,
    progress: Progress | None = None,
) -> Registration:
    """Lay ``moving`` on ``fixed``.

    Where one of the two has no mpp, both are taken as plain pictures whose relative size is to be found, and lengths that
    are otherwise micrometres are px of the fixed picture.

    Args:
        fixed: the slide whose grid the other is to be read on.
        moving: the other.
        elastic: go on from the affine matrix to a displacement.
        finest_um: finest resolution used, in µm per px.
        progress: called with thousandths done and 1000.

    Raises:
        RestainError: if a slide shows no tissue, cannot be decoded, or the two do not show the same tissue.
    """
    plain = not (fixed.has_mpp and moving.has_mpp)
    one, two = (in_pixels(fixed), in_pixels(moving)) if plain else (fixed, moving)
    tell = _Stages(progress)
    overview_one, overview_two = _overview(one, plain), _overview(two, plain)
    first, second = replace(overview_one, slide=one), replace(overview_two, slide=two)
    coarse = find_affine(overview_one, overview_two, _scales(overview_one, overview_two, plain), tell.stage(0, 150))
    # From here on between the slides' level 0.
    affine = coarse.transform.scaled(one.mpp / overview_one.slide.mpp, two.mpp / overview_two.slide.mpp)
    affine = replace(affine, fixed_size=one.size, moving_size=two.size, fixed_mpp=one.mpp, moving_mpp=two.mpp)
    finest = max(one.mpp, two.mpp, 1.0 if plain else finest_um)
    start = max(max(overview_one.slide.mpp, overview_two.slide.mpp) / 2, finest)
    affine, weights = _refined_affine(first, second, affine, start)
    tell.stage(150, 200)(1, 1)
    rasters = plan(first, start, finest)
    transform, passes = refine_elastic(
        first, second, affine, rasters if elastic else rasters[:1], weights, tell.stage(200, 950)
    )
    transform = transform if elastic else affine
    last, shifts = _last_look(first, second, transform, passes, weights)
    agreed, least = agreement(first, shifts, last), least_agreement(first, coarse)
    if agreed < least:
        raise RestainError(
            f"{fixed.path} and {moving.path} do not show the same tissue: nothing inside it matches (agreement "
            f"{agreed:.2f}, at least {least:g} is needed)."
        )
    tell.stage(950, 1000)(1, 1)
    found = quality(shifts, transform, one.mpp, last.stride * last.mpp / one.mpp)
    if plain:
        transform, affine = (replace(t, fixed_mpp=None, moving_mpp=None) for t in (transform, affine))
    return Registration(transform, affine, coarse, passes, agreed, found, (first.look, second.look))


def register_images(
    fixed: Rgb, moving: Rgb, mpp: float | None = None, *, elastic: bool = True, progress: Progress | None = None
) -> Registration:
    """Lay the picture ``moving`` on ``fixed``, ``(H, W, 3)`` ``uint8``, both at ``mpp`` or of unknown scale."""
    names = ("the fixed picture", "the moving picture")
    one, two = (slide_of(rgb, mpp, name) for rgb, name in zip((fixed, moving), names, strict=True))
    return register_slides(one, two, elastic=elastic, progress=progress)


def _overview(slide: Slide, plain: bool) -> Section:
    step = max(1.0, max(slide.size.width, slide.size.height) / OVERVIEW_PX)
    mpp = slide.mpp * step
    rgb = slide.read(Region(Point(0, 0), slide.size_at(mpp)), mpp)
    tissue = tissue_of(rgb, NOMINAL_UM if plain else mpp)
    mask, glass = tissue.mask, tissue.glass
    if mask.mean() < LEAST_TISSUE:
        # A patch of pale tissue alone is taken for glass; glass itself has no texture.
        glass = glass_white(rgb)
        if not textured(rgb, glass):
            raise RestainError(f"{slide.path} shows no tissue to register by.")
        mask = np.ones_like(mask)
    return Section(slide_of(rgb, mpp, slide.path), TissueMask(mask, mpp, glass), look_of(rgb, mask, glass))


def _refined_affine(
    fixed: Section, moving: Section, affine: Transform, mpp: float
) -> tuple[Transform, NDArray[np.float64]]:
    """The affine matrix at a finer resolution, and what the channels have to say there."""
    weights = PRIOR
    for _ in range(2):
        shifts = measure_shifts(fixed, moving, affine, Raster(mpp, 96, 16, 32), weights)
        affine, weights = fit_affine(affine, shifts, 2 * mpp / fixed.slide.mpp), shifts.weights()
    return affine, weights


def _last_look(
    fixed: Section, moving: Section, transform: Transform, passes: list[Pass], weights: NDArray[np.float64]
) -> tuple[Raster, Shifts]:
    """Shifts that remain under the final transform, at the finest resolution that counted."""
    counted = [one for one in passes if one.accepted] or passes[:1]
    mpp, apart = (counted[-1].raster.mpp, counted[-1].raster.stride) if counted else (fixed.tissue.mpp, 32)
    raster = Raster(mpp, 64, 12, max(32, apart))
    return raster, measure_shifts(
        fixed, moving, transform, raster, counted[-1].shifts.weights() if counted else weights
    )


def _scales(fixed: Section, moving: Section, plain: bool) -> tuple[float, ...]:
    """Sizes of the moving section's tissue relative to the fixed one's, in px of the overviews, that may be."""
    areas = [np.count_nonzero(one.tissue.mask) * one.slide.mpp**2 for one in (fixed, moving)]
    by_area = math.sqrt(areas[1] / areas[0])
    # Both candidates are in px of level 0; the matrices are between the overviews.
    to_overviews = fixed.slide.mpp / moving.slide.mpp
    likely = [1.0]
    if plain and SCALE_RANGE[0] < by_area < SCALE_RANGE[1] and abs(math.log(by_area)) > 0.02:
        likely.append(by_area)
    return tuple(scale * to_overviews for scale in likely)


class _Stages:
    """Parts of one job's progress, in thousandths."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def stage(self, start: int, end: int) -> Progress:
        def tell(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(start + round((end - start) * done / max(total, 1)), 1000)

        return tell
