"""Where a slide holds tissue: not glass, not pen, not dust, but with the fat and the lumina inside it.

All thresholds are on optical density relative to the slide's own glass, whose colour is measured, and all sizes are
physical, so that a slide means the same at every mpp. The figures are restain's own choice. What tells ink from stain is
that hematoxylin and eosin both absorb most in green (Ruifrok & Johnston 2001, table 1): no mixture of the two absorbs red
or blue light as strongly as green.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from restain.files import make_folder
from restain.geometry import Point, Region, Size, um_to_px
from restain.images import write_png
from restain.optics import glass_white, optical_density
from restain.progress import Progress
from restain.slides.find import stem_of
from restain.slides.geojson import to_polygons, write_geojson

if TYPE_CHECKING:
    from restain.slides.slide import Slide

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

MASK_MPP = 8.0
"""The mask's resolution: fine enough for single fat cells, and a slide of 10¹⁰ px at 0.25 µm becomes 10⁷ px."""

FLAT_GREY_LEVELS = 4.0
"""A pixel is flat where its 3 x 3 neighbourhood spans a standard deviation below this, in each channel."""
LEAST_FLAT_SHARE = 0.005
"""With fewer flat pixels than this share of the picture it shows no glass."""
STAINED_OD = 0.03
"""Flat pixels that absorb so much more in green than in red and blue are not glass but evenly stained tissue."""
GLASS_PEAK_SHARE = 0.1
"""The glass is the brightest peak that is at least this high, as a share of the histogram's highest."""
PLAIN_OD = 0.06
"""Glass stays within this density of its own colour, smoothed by two px, where nothing lies on it."""
UNSCANNED_OD = 0.12
"""Glass is at most this dense against pure white, which scanners and writers put where nothing was scanned."""

GREEN = 1
"""The channel in which tissue is detected: both stains absorb most there, and eosin almost only there."""
SMOOTHING_UM = 8.0
"""Standard deviation of the Gaussian over the density before the threshold."""
LEAST_OD = 0.03
"""Optical density in green above which smoothed density is tissue; more where the glass is uneven."""
GLASS_SPREADS = 4.0
"""The threshold stays this many robust standard deviations of the glass above it."""
CLOSING_UM = 48.0
"""Radius that closes the net of membranes round fat cells (50 to 100 µm wide)."""
HOLE_UM2 = 250_000.0
"""Holes up to this size (a lumen or fat lobule of 560 µm) belong to the tissue; larger ones are glass."""
OPENING_UM = 16.0
"""Radius below which threads and single fibres are not tissue."""
LEAST_UM2 = 20_000.0
"""Pieces below this size (160 µm across) are dust or debris."""
SPECK_UM2 = 1_500.0
"""Spots below this size are dropped before closing, so that it cannot join dust into a piece."""

INK_LEAST_UM2 = 8_000.0
"""A pen mark is at least this large; less of its colour is pigment, or noise in dark tissue."""
INK_REACH_UM = 80.0
"""How far a stroke's thinner border is followed."""
INK_MARGIN_UM = 12.0
"""Margin about a stroke that is left out as well."""

OUTLINE = (0, 160, 80)
"""Colour of outlines (RGB): neither stain's."""


@dataclass(frozen=True)
class TissueMask:
    """Tissue of a slide: ``mask`` ``(h, w)`` bool at ``mpp``; ``glass`` ``(3,)`` RGB of the glass in [0, 255].

    The first pixel is at the slide's corner; beyond the border is glass. ``ink``, of the same shape, marks pen marks,
    which are not tissue; None if they were not searched.
    """

    mask: Mask
    mpp: float
    glass: Floats
    ink: Mask | None = None

    @property
    def area_um2(self) -> float:
        return float(np.count_nonzero(self.mask)) * self.mpp**2

    def covers(self, region: Region, mpp: float) -> float:
        """The share of tissue in ``region`` (px of the slide at ``mpp``), in [0, 1], exact for parts of mask pixels."""
        scale = mpp / self.mpp
        left, right = region.origin.x * scale, region.right * scale
        top, bottom = region.origin.y * scale, region.bottom * scale
        inside = self._sum(bottom, right) - self._sum(top, right) - self._sum(bottom, left) + self._sum(top, left)
        return min(1.0, max(0.0, inside / ((right - left) * (bottom - top))))

    def nearest(self, values: Mask, region: Region, mpp: float) -> Mask:
        """``values`` of the mask's shape at the pixels of ``region``, px of the slide at ``mpp``, by nearest neighbour."""
        rows, columns = (
            ((np.arange(start, stop) + 0.5) * (mpp / self.mpp)).astype(np.int64).clip(0, length - 1)
            for start, stop, length in zip(
                (region.origin.y, region.origin.x), (region.bottom, region.right), values.shape, strict=True
            )
        )
        return values[np.ix_(rows, columns)]

    @cached_property
    def _sums(self) -> NDArray[np.float64]:
        return np.pad(self.mask, ((1, 0), (1, 0))).astype(np.float64).cumsum(axis=0).cumsum(axis=1)

    def _sum(self, y: float, x: float) -> float:
        """The tissue above and left of a point, in mask pixels; linear within a pixel, so bilinear is exact."""
        height, width = self.mask.shape
        y, x = min(max(y, 0.0), float(height)), min(max(x, 0.0), float(width))
        row, column = min(int(y), height - 1), min(int(x), width - 1)
        v, u = y - row, x - column
        corner = self._sums[row : row + 2, column : column + 2]
        return float(
            (1 - v) * ((1 - u) * corner[0, 0] + u * corner[0, 1]) + v * ((1 - u) * corner[1, 0] + u * corner[1, 1])
        )


def tissue_mask(slide: Slide, mpp: float = MASK_MPP, progress: Progress | None = None) -> TissueMask:
    """Tissue of a whole slide, found at ``mpp``; ``progress(done, total)`` counts rows read.

    Raises RestainError if the slide has no mpp or cannot be read.
    """
    return tissue_of(*overview(slide, mpp, progress))


def overview(slide: Slide, mpp: float = MASK_MPP, progress: Progress | None = None) -> tuple[Rgb, float]:
    """The whole slide at ``mpp`` (or its own if coarser), ``(h, w, 3)``, and that mpp.

    Raises RestainError if the slide has no mpp or cannot be read.
    """
    mpp = max(mpp, slide.mpp)
    size = slide.size_at(mpp)
    picture = np.empty((size.height, size.width, 3), dtype=np.uint8)
    strip = 256
    for top in range(0, size.height, strip):
        region = Region(Point(0, top), Size(size.width, min(strip, size.height - top)))
        picture[region.slices] = slide.read(region, mpp)
        if progress is not None:
            progress(region.bottom, size.height)
    return picture, mpp


def draw_outline(rgb: Rgb, found: TissueMask) -> Rgb:
    """The picture of the mask, ``(H, W, 3)``, with the tissue outlined in green, two px wide."""
    inner = ndimage.binary_erosion(found.mask, iterations=2, border_value=1)
    drawn = rgb.copy()
    drawn[found.mask & ~inner] = OUTLINE
    return drawn


def write_tissue(
    path: Path, out: Path, *, mpp: float | None = None, override_mpp: bool = False, progress: Progress | None = None
) -> str:
    """Find a slide's tissue; write ``NAME.tissue.geojson`` and ``NAME.tissue.png`` into ``out``, and return a sentence.

    Raises RestainError if the slide cannot be read, has no mpp, or a file cannot be written.
    """
    # Imported here, since masks of arrays need no slide libraries.
    from restain.slides.slide import open_slide

    with open_slide(path, mpp, override_mpp=override_mpp) as slide:
        slide_mpp = slide.mpp
        picture, mask_mpp = overview(slide, MASK_MPP, progress)
    found = tissue_of(picture, mask_mpp)
    polygons = to_polygons(found.mask, found.mpp, slide_mpp)
    make_folder(out)
    outline, drawing = out / f"{stem_of(path)}.tissue.geojson", out / f"{stem_of(path)}.tissue.png"
    write_geojson(outline, polygons, colour=OUTLINE)
    write_png(drawing, draw_outline(picture, found), {"source": path.name}, found.mpp)
    if not polygons:
        return f"{path}: no tissue found; {outline} is empty, see {drawing}."
    pieces = "1 piece" if len(polygons) == 1 else f"{len(polygons)} pieces"
    glass = ", ".join(f"{value:.0f}" for value in found.glass)
    return (
        f"{path}: {found.area_um2 / 1e6:.2f} mm² of tissue in {pieces}, {found.mask.mean():.0%} of the slide; "
        f"glass is RGB {glass}. Wrote {outline} and {drawing}."
    )


def tissue_of(rgb: Rgb, mpp: float) -> TissueMask:
    """Tissue in ``(H, W, 3)`` ``uint8`` of H&E or IHC on glass of any colour, best at 4 to 16 µm per px; all without
    glass.

    Raises ValueError if ``mpp`` is not a positive, finite number.
    """
    um_to_px(1.0, mpp)
    glass, spread = measure_glass(rgb)
    od = optical_density(rgb, glass)
    scanned = ~np.all(rgb == 0, axis=-1)
    ink = ink_marks(od, mpp)
    if not shows_glass(rgb, glass):
        return TissueMask(scanned & ~ink, mpp, glass, ink)
    seen = ndimage.gaussian_filter(od[..., GREEN], SMOOTHING_UM / mpp, mode="nearest")
    least = max(LEAST_OD, GLASS_SPREADS * spread)
    found = (seen > least) & scanned & ~ink
    found = _without_small(found, SPECK_UM2 / mpp**2)
    found = _closed(found, CLOSING_UM / mpp)
    found = _filled(found & ~ink, HOLE_UM2 / mpp**2, ~ink & scanned)
    found = _opened(found, OPENING_UM / mpp)
    # The smoothing spreads tissue over the glass beside it.
    rim = found & ~_shrunk(found, 1.5 * SMOOTHING_UM / mpp)
    found &= ~(rim & (od[..., GREEN] <= least))
    # Outlines do not join pixels that share a corner only.
    return TissueMask(_without_small(found, LEAST_UM2 / mpp**2, connectivity=1), mpp, glass, ink)


def measure_glass(rgb: Rgb) -> tuple[Floats, float]:
    """The colour of the glass ``(3,)`` in [1, 255], and the robust standard deviation of its optical density in green.

    Glass is flat where tissue is textured, and brighter than what lies on it: its brightness is the brightest high peak
    in the histogram of the flat pixels, its colour their median there. Pure white beside duller glass is taken for
    unscanned. A picture without flat pixels shows no glass; its brightest pixels then stand in, with a spread of 0.
    """
    flat = _flat(rgb)
    least = LEAST_FLAT_SHARE * flat.size
    white = flat & (rgb == 255).all(axis=-1)
    if np.count_nonzero(flat) < least:
        return glass_white(rgb), 0.0
    dull = flat & ~white
    if np.count_nonzero(dull) >= least:
        glass, spread = _peak(rgb, dull)
        if not white.any() or float(optical_density(glass).mean()) < UNSCANNED_OD:
            return glass, spread
    return _peak(rgb, flat)


def _flat(rgb: Rgb) -> Mask:
    values = rgb.astype(np.float32)
    mean = ndimage.uniform_filter(values, (3, 3, 0))
    variance = ndimage.uniform_filter(values**2, (3, 3, 0)) - mean**2
    flat: Mask = (variance < FLAT_GREY_LEVELS**2).all(axis=-1) & (rgb.min(axis=-1) > 0)
    return flat


def shows_glass(rgb: Rgb, glass: Floats) -> bool:
    """Whether ``glass``, the colour that was measured, is that of glass and not the tissue's own."""
    flat = _flat(rgb)
    red, green, blue = optical_density(glass)
    stained = float(green - (red + blue) / 2) >= STAINED_OD
    return int(np.count_nonzero(flat)) >= LEAST_FLAT_SHARE * flat.size and not stained


def glass_windows(rgb: Rgb, glass: ArrayLike, side: int) -> list[Rgb]:
    """Windows ``(side, side, 3)`` of glass alone, on a grid from the corner of a ``(H, W, 3)`` picture."""
    density = ndimage.gaussian_filter(optical_density(rgb, glass), (2, 2, 0))
    plain = (np.abs(density) < PLAIN_OD).all(axis=-1)
    return [
        rgb[y : y + side, x : x + side]
        for y in range(0, rgb.shape[0] - side + 1, side)
        for x in range(0, rgb.shape[1] - side + 1, side)
        if plain[y : y + side, x : x + side].all()
    ]


def _peak(rgb: Rgb, where: Mask) -> tuple[Floats, float]:
    pixels = rgb[where].astype(np.float32)
    brightness = pixels.mean(axis=-1)
    counts = ndimage.gaussian_filter1d(np.bincount(np.rint(brightness).astype(int), minlength=256).astype(float), 2.0)
    tops = (counts >= np.roll(counts, 1)) & (counts >= np.roll(counts, -1))
    peak = int(np.flatnonzero(tops & (counts >= GLASS_PEAK_SHARE * counts.max()))[-1])
    near = pixels[np.abs(brightness - peak) <= 5]
    glass = np.clip(np.median(near, axis=0), 1, 255).astype(np.float32)
    density = optical_density(near, glass)[..., GREEN]
    return glass, 1.4826 * float(np.median(np.abs(density - np.median(density))))


def ink_marks(od: ArrayLike, mpp: float) -> Mask:
    """Pen marks and other matter that hematoxylin and eosin cannot colour so: ``(H, W, 3)`` densities to ``(H, W)`` bool.

    Blue and green ink absorb red more than green; black ink, carbon and coverslip edges absorb all channels equally; red ink absorbs
    blue nearly as much as green, no red, and more than blood does. A stroke is found where its colour is plain and
    followed to where it is faint.
    """
    density = np.asarray(od, dtype=np.float32)
    # Colours are ratios, and a single noisy pixel must not decide one.
    red, green, blue = np.moveaxis(ndimage.gaussian_filter(density, (SMOOTHING_UM / mpp,) * 2 + (0,)), -1, 0)
    plain = (red > 1.12 * green) & (red > 0.3)
    plain |= (np.minimum(red, blue) > 0.8 * green) & (np.minimum(np.minimum(red, blue), green) > 0.45)
    plain |= (blue > 0.7 * green) & (red < 0.35 * green) & (green > 0.85)
    # Ink over tissue has a mixed colour, but is denser in red than nuclei can be over the width of a stroke.
    plain |= (red > 1.2) & (red > 0.85 * green)
    plain = _without_small(plain, INK_LEAST_UM2 / mpp**2)
    if not plain.any():
        return plain
    faint = (red > 1.02 * green) & (red > 0.06)
    faint |= (np.minimum(red, blue) > 0.7 * green) & (np.minimum(red, blue) > 0.06)
    faint |= (red > 0.9) & (red > 0.75 * green)
    faint |= (blue > 0.65 * green) & (red < 0.4 * green) & (green > 0.1)
    near = _grown(plain, INK_REACH_UM / mpp)
    stroke = ndimage.binary_propagation(plain, mask=plain | (faint & near))
    return _grown(stroke, INK_MARGIN_UM / mpp)


def _grown(mask: Mask, radius: float) -> Mask:
    if not mask.any():
        return mask
    grown: Mask = ndimage.distance_transform_edt(~mask) <= radius
    return grown


def _shrunk(mask: Mask, radius: float) -> Mask:
    """Erosion; pixels beyond the picture count as tissue."""
    return ~_grown(~mask, radius)


def _closed(mask: Mask, radius: float) -> Mask:
    # Padding lets the grown mask leave the picture, so that the border is closed like the middle.
    margin = math.ceil(radius) + 1
    return _shrunk(_grown(np.pad(mask, margin), radius), radius)[margin:-margin, margin:-margin] | mask


def _opened(mask: Mask, radius: float) -> Mask:
    return _grown(_shrunk(mask, radius), radius) & mask


def _without_small(mask: Mask, least_px: float, connectivity: int = 2) -> Mask:
    pieces, _ = ndimage.label(mask, ndimage.generate_binary_structure(2, connectivity))
    kept = np.bincount(pieces.ravel()) >= least_px
    kept[0] = False
    large: Mask = kept[pieces]
    return large


def _filled(mask: Mask, most_px: float, allowed: Mask) -> Mask:
    """Holes up to ``most_px`` filled where ``allowed``; a gap that opens to the border of the picture is no hole."""
    gaps, _ = ndimage.label(~mask)
    area = np.bincount(gaps.ravel())
    border = np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]])
    small = area <= most_px
    small[border] = False
    small[0] = False
    filled: Mask = mask | (small[gaps] & allowed)
    return filled
