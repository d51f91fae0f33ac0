"""Registration of two slides: overviews, orientation, affine matrix, elastic refinement, acceptance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.images import Rgb
from restain.optics import glass_white
from restain.progress import Progress, part
from restain.registration.acceptance import DOUBTFUL_FROM, PairRefusedError, Quality, Verdict, agreement, judge
from restain.registration.affine import InitialAlignment, find_affine, fit_affine
from restain.registration.block_matching import PRIOR, BlockGrid, Section, Shifts, match_blocks
from restain.registration.elastic import Pass, plan_passes, refine_elastic
from restain.registration.features import StainStrength, is_textured, measure_stain
from restain.registration.transform import Transform
from restain.registration.warp import slide_of
from restain.slides import Slide
from restain.slides.mask import TissueMask, tissue_of

OVERVIEW_PX = 512
"""Longer side of the overviews on which the orientation is found."""
FINEST_UM = 1.0
"""Finest resolution in µm per px: nuclei are clear at 1 µm, and finer ones cost four times as much each."""
NOMINAL_UM = 8.0
"""Assumed mpp of an overview for the tissue mask if no mpp is known."""
LEAST_TISSUE = 0.002
"""Least share of an overview that is tissue."""
SCALE_RANGE = (0.5, 2.0)
"""Accepted relative sizes of pictures without an mpp."""


@dataclass(frozen=True)
class Registration:
    """The transform from the fixed slide to the moving one, and its evidence."""

    transform: Transform
    affine: Transform
    initial: InitialAlignment
    passes: list[Pass]
    verdict: Verdict
    """Accepted or doubtful; refused pairs are errors."""
    agreement: float
    """Mean z-score of the blocks inside the tissue under the transform."""
    quality: Quality
    stains: tuple[StainStrength, StainStrength]


def register_slides(
    fixed: Slide,
    moving: Slide,
    *,
    elastic: bool = True,
    finest_um: float = FINEST_UM,
    progress: Progress | None = None,
) -> Registration:
    """Register ``moving`` to ``fixed``.

    If one of the two has no mpp, both are plain pictures whose relative size is estimated, and lengths that are otherwise
    micrometres are px of the fixed picture.

    Args:
        fixed: the slide that defines the grid.
        moving: the other slide.
        elastic: refine the affine matrix by a displacement.
        finest_um: finest resolution used, in µm per px.
        progress: called with thousandths done and 1000.

    Raises:
        RestainError: if a slide shows no tissue or cannot be decoded; :class:`PairRefusedError` if the two do not show the same tissue.
    """
    plain = not (fixed.has_mpp and moving.has_mpp)
    one, two = (fixed.taken_at(1.0), moving.taken_at(1.0)) if plain else (fixed, moving)
    fixed_overview, moving_overview, initial = align(fixed, moving, part(progress, 0, 150))
    overviews = fixed_overview, moving_overview
    if (verdict := judge(initial)) is Verdict.REFUSED:
        raise PairRefusedError(
            f"{fixed.path} and {moving.path} do not show the same tissue: no orientation correlates by more than chance "
            f"(score {initial.score:.2f}, at least {DOUBTFUL_FROM:g} is needed)."
        )
    first, second = replace(overviews[0], slide=one), replace(overviews[1], slide=two)
    # From here on between the slides' level 0.
    steps = [overview.slide.mpp / slide.mpp for overview, slide in zip(overviews, (one, two), strict=True)]
    to_overview, from_overview = np.diag([1 / steps[0], 1 / steps[0], 1.0]), np.diag([steps[1], steps[1], 1.0])
    affine = Transform(from_overview @ initial.transform.matrix @ to_overview, one.size, two.size, one.mpp, two.mpp)
    finest = max(one.mpp, two.mpp, 1.0 if plain else finest_um)
    start = max(max(overview.slide.mpp for overview in overviews) / 2, finest)
    weights = PRIOR
    for _ in range(2):
        shifts = match_blocks(first, second, affine, BlockGrid(start, 96, 16, 32), weights)
        affine, weights = fit_affine(affine, shifts, 2 * start / one.mpp), shifts.weights()
    grids = plan_passes(first, start, finest)
    transform, passes = refine_elastic(
        first, second, affine, grids if elastic else grids[:1], weights, part(progress, 200, 950)
    )
    transform = transform if elastic else affine
    grid, shifts = _final_match(first, second, transform, passes, weights)
    part(progress, 950, 1000)(1, 1)
    quality = Quality.of(shifts, one.mpp, grid.stride * grid.mpp / one.mpp)
    if plain:
        transform, affine = (replace(t, fixed_mpp=None, moving_mpp=None) for t in (transform, affine))
    agreed = agreement(first, shifts, grid)
    return Registration(transform, affine, initial, passes, verdict, agreed, quality, (first.stain, second.stain))


def align(fixed: Slide, moving: Slide, progress: Progress | None = None) -> tuple[Section, Section, InitialAlignment]:
    """The overviews of two slides, and the affine transform between them by which the pair is judged.

    Raises:
        RestainError: if a slide shows no tissue or cannot be decoded.
    """
    plain = not (fixed.has_mpp and moving.has_mpp)
    one, two = (_overview(slide.taken_at(1.0) if plain else slide, plain) for slide in (fixed, moving))
    return one, two, find_affine(one, two, _scales(one, two, plain), progress)


def register_images(
    fixed: Rgb, moving: Rgb, mpp: float | None = None, *, elastic: bool = True, progress: Progress | None = None
) -> Registration:
    """Register the picture ``moving`` to ``fixed``, ``(H, W, 3)`` ``uint8``, both at ``mpp`` or of unknown scale."""
    one, two = slide_of(fixed, mpp, "the fixed picture"), slide_of(moving, mpp, "the moving picture")
    return register_slides(one, two, elastic=elastic, progress=progress)


def _overview(slide: Slide, plain: bool) -> Section:
    rgb, mpp = slide.thumbnail(OVERVIEW_PX)
    tissue = tissue_of(rgb, NOMINAL_UM if plain else mpp)
    mask, glass = tissue.mask, tissue.glass
    if mask.mean() < LEAST_TISSUE:
        # A patch of pale tissue alone is taken for glass; glass itself has no texture.
        glass = glass_white(rgb)
        if not is_textured(rgb, glass):
            raise RestainError(f"{slide.path} shows no tissue to register by.")
        mask = np.ones_like(mask)
    return Section(slide_of(rgb, mpp, slide.path), TissueMask(mask, mpp, glass), measure_stain(rgb, mask, glass))


def _final_match(
    fixed: Section, moving: Section, transform: Transform, passes: list[Pass], weights: NDArray[np.float64]
) -> tuple[BlockGrid, Shifts]:
    """Shifts that remain under the final transform, at the finest resolution that was accepted."""
    accepted = [one for one in passes if one.accepted] or passes[:1]
    mpp, stride = (accepted[-1].grid.mpp, accepted[-1].grid.stride) if accepted else (fixed.tissue.mpp, 32)
    weights = accepted[-1].shifts.weights() if accepted else weights
    grid = BlockGrid(mpp, 64, 12, max(32, stride))
    return grid, match_blocks(fixed, moving, transform, grid, weights)


def _scales(fixed: Section, moving: Section, plain: bool) -> tuple[float, ...]:
    """Possible sizes of the moving section relative to the fixed one, in px of the overviews."""
    areas = [np.count_nonzero(one.tissue.mask) * one.slide.mpp**2 for one in (fixed, moving)]
    by_area = math.sqrt(areas[1] / areas[0])
    likely = [1.0]
    if plain and SCALE_RANGE[0] < by_area < SCALE_RANGE[1] and abs(math.log(by_area)) > 0.02:
        likely.append(by_area)
    # Both are in px of level 0; the matrices are between the overviews.
    return tuple(scale * (fixed.slide.mpp / moving.slide.mpp) for scale in likely)
