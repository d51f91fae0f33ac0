"""What is measured of a patch before any rule judges it. No threshold is applied here, so that figures can be kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import normalized_mutual_information

from restain.dataset_builder.maps import SlideMaps
from restain.dataset_builder.refine import Box, Refined, refine_place
from restain.geometry import Region
from restain.images import Rgb
from restain.optics import dab_density, optical_density
from restain.register import Transform, warp_region
from restain.register.structure import channels

FOCUS_UM = (0.5, 2.0)
"""Standard deviations of the Gaussians whose differences are the fine and the middle scale of :func:`focus`."""
POSITIVE_OD = 0.10
"""DAB density, smoothed by one pixel, from which a pixel is stained, as in :mod:`restain.evaluation.stain`."""
MATCHING = 0.2
"""A block correlates at least so much where it shows the same tissue. See docs/build.md for what it was set on."""
FAR_OFF = 90.0
"""Percentile, over the blocks of a patch, of how far they lie from where they match."""
BINS = 16
"""Of the joint histogram of mutual information, along each side."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares are in [0, 1]; NaN where nothing could be measured."""

    match: float
    """Mean normalised cross-correlation of the stain-independent blocks after refinement, in [-1, 1]."""
    matched: float
    """Share of the blocks that correlate by :data:`MATCHING` or more."""
    error_um: float
    """How far blocks lie from where they match best, 90th percentile (:meth:`~restain.dataset_builder.refine.Blocks.misplacement`)."""
    information: float
    """Normalised mutual information of the hematoxylin channel, (H(A) + H(B)) / H(A, B) - 1, in [0, 1]."""
    focus_he: float
    focus_ihc: float
    """Fine against middle detail (:func:`focus`); 0 where there is none."""
    positive: float
    """Share of the patch that is stained by DAB."""
    correction: str
    moved_um: float
    """What refinement did, and how far it moved the patch's middle."""
    matrix: tuple[float, ...]
    """The six numbers of its affine map, in px of the H&E slide's level 0."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Figures:
        """What :meth:`as_dict` gave.

        Raises:
            KeyError, TypeError: if ``values`` lack something.
        """
        known = {field.name: values[field.name] for field in fields(cls)}
        known = {k: math.nan if v is None else v for k, v in known.items()}
        return cls(**(known | {"matrix": tuple(known["matrix"])}))


@dataclass(frozen=True, slots=True)
class Shares:
    """What the overviews say of a patch: cheap, so measured of all. Shares of the patch's area in [0, 1]."""

    tissue: float
    """Tissue on the H&E slide."""
    shared: float
    """Of the tissue on either slide, the share that is tissue on both: a missing piece, a tear and a wrong place lack some."""
    pen: float
    fold: float
    """On either slide."""


def overview_shares(he: SlideMaps, ihc: SlideMaps, transform: Transform, region: Region, mpp: float) -> Shares:
    """Look a patch up in both slides' maps; ``region`` in px of the H&E at ``mpp``."""
    box = Box.of(region, mpp, he.section.slide.mpp)
    points = _grid(box, he.tissue.mpp)
    there = transform.forward(points)
    here = {name: _at(mask.mask, points, he.section.slide.mpp / mask.mpp) for name, mask in _masks(he).items()}
    other = {name: _at(mask.mask, there, ihc.section.slide.mpp / mask.mpp) for name, mask in _masks(ihc).items()}
    either = np.count_nonzero(here["tissue"] | other["tissue"])
    both = np.count_nonzero(here["tissue"] & other["tissue"])
    return Shares(
        tissue=float(here["tissue"].mean()),
        shared=both / either if either else 0.0,
        pen=float((here["pen"] | other["pen"]).mean()),
        fold=float((here["fold"] | other["fold"]).mean()),
    )


def measure_patch(
    he: SlideMaps, ihc: SlideMaps, transform: Transform, region: Region, mpp: float
) -> tuple[Figures, Refined]:
    """Refine a patch's place and measure it; ``region`` in px of the H&E at ``mpp``.

    Raises:
        RestainError: if pixels cannot be decoded.
    """
    refined = refine_place(he.section, ihc.section, transform, region, mpp)
    one = he.section.slide.read(region, mpp)
    other = read_ihc(ihc, refined.transform, region, mpp)
    blocks = refined.blocks
    known = len(blocks.correlation) > 0
    off = blocks.misplacement()
    return (
        Figures(
            match=float(blocks.correlation.mean()) if known else math.nan,
            matched=float((blocks.correlation >= MATCHING).mean()) if known else math.nan,
            error_um=float(np.percentile(off, FAR_OFF)) if known else math.nan,
            information=_information(he, ihc, one, other),
            focus_he=focus(one, he.tissue.glass, mpp),
            focus_ihc=focus(other, ihc.tissue.glass, mpp),
            positive=positive_share(other, ihc.tissue.glass),
            correction=refined.correction,
            moved_um=refined.moved_um,
            matrix=tuple(float(v) for v in refined.matrix[:2].ravel()),
        ),
        refined,
    )


def read_ihc(ihc: SlideMaps, transform: Transform, region: Region, mpp: float) -> Rgb:
    """A patch of the IHC slide on the H&E's grid; beyond its border, glass."""
    red, green, blue = (int(v) for v in np.rint(ihc.tissue.glass))
    return warp_region(ihc.section.slide, transform, region, mpp, outside=(red, green, blue))


def focus(rgb: Rgb, glass: NDArray[np.float32], mpp: float) -> float:
    """How much fine detail a patch has for its middle detail: ``(H, W, 3)`` to a ratio of standard deviations.

    The variance of the Laplacian, the common measure (Pech-Pacheco et al. 2000), grows with the stain and with nuclei. Here the
    fine scale, differences of Gaussians of 0.5 and 1 µm, is divided by the middle one, of 2 and 4 µm, so that stain and density
    cancel and defocus, which takes the fine scale first, remains.
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


def _information(he: SlideMaps, ihc: SlideMaps, one: Rgb, other: Rgb) -> float:
    a, b = channels(one, he.section.look)[1], channels(other, ihc.section.look)[1]
    if min(a.std(), b.std()) < 1e-3:
        return 0.0
    return float(normalized_mutual_information(a, b, bins=BINS) - 1)


def _masks(maps: SlideMaps) -> dict[str, Any]:
    return {"tissue": maps.tissue, "pen": maps.pen, "fold": maps.fold}


def _grid(box: Box, mpp: float) -> NDArray[np.float64]:
    """Points ``(n, 2)`` all over a patch, about as far apart as the masks' pixels, in px of level 0."""
    across = max(4, math.ceil((box.right - box.left) * box.mpp / mpp))
    down = max(4, math.ceil((box.bottom - box.top) * box.mpp / mpp))
    x = box.left + (np.arange(across) + 0.5) / across * (box.right - box.left)
    y = box.top + (np.arange(down) + 0.5) / down * (box.bottom - box.top)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _at(mask: NDArray[np.bool_], points: NDArray[np.float64], scale: float) -> NDArray[np.bool_]:
    """The mask at points (px of level 0); False beyond it."""
    columns, rows = np.floor(points * scale).astype(int).T
    height, width = mask.shape
    inside = (rows >= 0) & (columns >= 0) & (rows < height) & (columns < width)
    found: NDArray[np.bool_] = np.zeros(len(points), bool)
    found[inside] = mask[rows[inside], columns[inside]]
    return found
