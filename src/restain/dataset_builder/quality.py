"""Quality of a patch, measured before any rule is applied: no thresholds here, so that measurements can be kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import normalized_mutual_information

from restain.dataset_builder.masks import SlideMasks
from restain.dataset_builder.refinement import Box, refine_patch
from restain.geometry import Region
from restain.images import Rgb
from restain.optics import dab_density, optical_density
from restain.registration import Transform, warp_region
from restain.registration.features import feature_channels
from restain.slides import Slide

FOCUS_UM = (0.5, 2.0)
"""Standard deviations of the Gaussians whose differences are the fine and the middle scale of :func:`focus`."""
POSITIVE_OD = 0.10
"""Least DAB density, smoothed by one pixel, of a stained pixel, as in :mod:`restain.evaluation.stain`."""
MATCHING = 0.2
"""Least correlation of a block that shows the same tissue. docs/build.md names the pairs on which it was set."""
ERROR_PERCENTILE = 90.0
"""Percentile over the blocks of a patch of their misplacement."""
BINS = 16
"""Bins of the joint histogram of mutual information, along each side."""


@dataclass(frozen=True, slots=True)
class PatchQuality:
    """Shares are in [0, 1]; NaN where nothing could be measured."""

    match: float
    """Mean normalised cross-correlation of the stain-independent blocks after refinement, in [-1, 1]."""
    matched: float
    """Share of the blocks that correlate by :data:`MATCHING` or more."""
    error_um: float
    """Estimated misplacement, 90th percentile (:meth:`~restain.dataset_builder.refinement.Blocks.misplacement`)."""
    information: float
    """Normalised mutual information of the hematoxylin channel, (H(A) + H(B)) / H(A, B) - 1, in [0, 1]."""
    focus_he: float
    focus_ihc: float
    """Fine against middle detail (:func:`focus`); 0 without any."""
    positive: float
    """Share of the patch that is stained by DAB."""
    correction: str
    moved_um: float
    """Kind of the refinement, and the distance by which it moved the patch's middle."""
    matrix: tuple[float, ...]
    """The six numbers of its affine map, in px of the H&E slide's level 0."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PatchQuality:
        """The inverse of :meth:`as_dict`.

        Raises:
            KeyError, TypeError: if ``values`` lack something.
        """
        known = {field.name: values[field.name] for field in fields(cls)}
        known = {k: math.nan if v is None else v for k, v in known.items()}
        return cls(**(known | {"matrix": tuple(known["matrix"])}))


@dataclass(frozen=True, slots=True)
class MaskShares:
    """Shares of a patch's area in the overviews' masks, in [0, 1]: cheap, so measured for all patches."""

    tissue: float
    """Tissue on the H&E slide."""
    shared: float
    """Share of the tissue on either slide that is on both: lower with a missing piece, a tear or a wrong place."""
    pen: float
    fold: float
    """On either slide."""


def mask_shares(he: SlideMasks, ihc: SlideMasks, transform: Transform, region: Region, mpp: float) -> MaskShares:
    """The shares of a patch in both slides' masks; ``region`` in px of the H&E at ``mpp``."""
    points = Box.of(region, mpp, he.section.slide.mpp).grid(he.tissue.mpp)
    there = transform.forward(points)
    tissue, other_tissue = he.section.on_tissue(points), ihc.section.on_tissue(there)
    pen, fold = (
        he.section.on_tissue(points, one) | ihc.section.on_tissue(there, other)
        for one, other in ((he.pen, ihc.pen), (he.fold, ihc.fold))
    )
    either, both = np.count_nonzero(tissue | other_tissue), np.count_nonzero(tissue & other_tissue)
    shared = both / either if either else 0.0
    return MaskShares(float(tissue.mean()), shared, float(pen.mean()), float(fold.mean()))


def measure_patch(he: SlideMasks, ihc: SlideMasks, transform: Transform, region: Region, mpp: float) -> PatchQuality:
    """Refine a patch and measure it; ``region`` in px of the H&E at ``mpp``.

    Raises:
        RestainError: if pixels cannot be decoded.
    """
    refined = refine_patch(he.section, ihc.section, transform, region, mpp)
    blocks = refined.blocks
    known = len(blocks.correlation) > 0
    one = he.section.slide.read(region, mpp)
    other = read_ihc(ihc.section.slide, refined.transform, region, mpp, ihc.tissue.glass)
    return PatchQuality(
        match=float(blocks.correlation.mean()) if known else math.nan,
        matched=float((blocks.correlation >= MATCHING).mean()) if known else math.nan,
        error_um=float(np.percentile(blocks.misplacement(), ERROR_PERCENTILE)) if known else math.nan,
        information=_information(he, ihc, one, other),
        focus_he=focus(one, he.tissue.glass, mpp),
        focus_ihc=focus(other, ihc.tissue.glass, mpp),
        positive=positive_share(other, ihc.tissue.glass),
        correction=refined.correction,
        moved_um=refined.moved_um,
        matrix=tuple(float(v) for v in refined.matrix[:2].ravel()),
    )


def read_ihc(ihc: Slide, transform: Transform, region: Region, mpp: float, glass: NDArray[np.floating]) -> Rgb:
    """A patch of the IHC slide on the H&E's grid; ``glass`` (RGB) beyond the slide's border."""
    red, green, blue = (int(v) for v in np.rint(glass))
    return warp_region(ihc, transform, region, mpp, outside=(red, green, blue))


def focus(rgb: Rgb, glass: NDArray[np.float32], mpp: float) -> float:
    """Fine detail of a patch ``(H, W, 3)`` relative to its middle detail, a ratio of standard deviations.

    The variance of the Laplacian, the common measure (Pech-Pacheco et al. 2000), grows with the stain and with nuclei. Here
    the fine scale, differences of Gaussians of 0.5 and 1 µm, is divided by the middle one, of 2 and 4 µm: stain and density
    cancel, and defocus, which reduces the fine scale first, remains.
    """
    density = np.maximum(optical_density(rgb, glass), 0).sum(axis=-1)
    # At coarse pixels the fine scale is that of the pixels.
    unit = max(1.0, mpp / FOCUS_UM[0])
    fine, middle = (_detail(density, um * unit / mpp) for um in FOCUS_UM)
    return float(fine / middle) if middle > 1e-3 else 0.0


def positive_share(rgb: Rgb, glass: NDArray[np.float32]) -> float:
    """The share of ``(H, W, 3)`` IHC that DAB stains, in [0, 1]."""
    return float((ndimage.gaussian_filter(dab_density(rgb, glass), 1.0) >= POSITIVE_OD).mean())


def _detail(density: NDArray[np.float32], sigma: float) -> float:
    return float(np.std(ndimage.gaussian_filter(density, sigma) - ndimage.gaussian_filter(density, 2 * sigma)))


def _information(he: SlideMasks, ihc: SlideMasks, one: Rgb, other: Rgb) -> float:
    a, b = feature_channels(one, he.section.stain)[1], feature_channels(other, ihc.section.stain)[1]
    if min(a.std(), b.std()) < 1e-3:
        return 0.0
    return float(normalized_mutual_information(a, b, bins=BINS) - 1)
