"""Alignment: figures after a small rigid and elastic registration of the virtual on the real image.

Pairs of serial or re-stained sections match only roughly, and figures that compare pixels punish a right answer at a
slightly wrong place. So the virtual image is moved onto the real one and measured again, beside the raw figures and
never in place of them. Four rules keep the registration from making images agree that do not:

- the field is a shift and a rotation plus a smooth elastic part, no finer than ``SMOOTH_UM``, and moves nothing
  farther than ``LARGEST_UM``;
- it is computed on the total optical density at ``GRID_UM`` per pixel, where cells are seen and noise is not;
- every search finds something, so the same search is made against the real image's mirror images, which the tissue
  cannot match; a stage (rigid, then elastic) is accepted only where it gains clearly more than that control;
- a field that makes the squared error of the picture larger is refused.

The elastic part is an iterative Lucas–Kanade flow (Le Besnerais & Champagnat, *ICIP* 2005), smoothed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter, zoom
from skimage.measure import block_reduce
from skimage.transform import pyramid_reduce
from torch.nn import functional as F

from restain.evaluation.filters import gaussian
from restain.evaluation.image import luminance
from restain.optics import optical_density
from restain.prediction import Prediction

Floats = NDArray[np.float32]

LARGEST_UM = 20.0
"""Nothing is moved farther than this, in µm."""

SMOOTH_UM = 20.0
"""Standard deviation in µm of the Gaussian over the elastic field: no finer deformation is allowed."""

GRID_UM = 2.0
"""Size in µm of the pixels on which the field is sought."""

ANGLES = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Rotations that are tried, in degrees."""

ROUNDS = 3
"""How often the elastic flow is sought again from where the last one led."""

COARSEST_PX = 16
MOST_LEVELS = 10
"""The flow's pyramid ends at this side in px, or after this many levels, as scikit-image's."""

LEAST_GAIN = 0.02
"""Least gain in correlation for which anything is moved."""

LEAST_CORRELATION = 0.2
"""Where even the best field correlates less than this, the two do not show the same and nothing is moved."""

LOCAL_STEP_UM = 4.0
LOCAL_REACH_UM = 12.0
"""Step and reach in µm of the local shifts that are tried before the flow, which finds small ones only."""

OVER_CONTROL = 1.5
"""A stage must remove this many times the share of the disagreement (1 - correlation) that it removes against
mirrored images."""

LEAST_SIDE_UM = 60.0
"""Images with a shorter side are not aligned: too few cells to know."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """A field that moves a virtual image onto the real one; ``field`` is None where nothing was accepted."""

    field: Floats | None
    """``(2, H, W)``: the virtual pixel at (row, column) + field belongs at (row, column); px."""
    moved_um: float
    """Mean length of the field in µm; 0 where nothing is moved."""

    def apply(self, planes: Floats) -> Floats:
        """Move ``(H, W, C)`` by cubic interpolation; beyond its border the image is reflected."""
        if self.field is None:
            return planes
        height, width = planes.shape[:2]
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) + self.field
        grid = np.stack([columns * 2 / max(width - 1, 1) - 1, rows * 2 / max(height - 1, 1) - 1], axis=-1)
        moved = F.grid_sample(
            torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))[None],
            torch.from_numpy(grid.astype(np.float32))[None],
            mode="bicubic",
            padding_mode="reflection",
            align_corners=True,
        )
        result: Floats = moved[0].permute(1, 2, 0).numpy()
        return result


IDENTITY = Alignment(None, 0.0)


def align(virtual: NDArray[np.uint8], real: NDArray[np.uint8], mpp: float) -> Alignment:
    """Find the field that moves ``virtual`` onto ``real``, both ``(H, W, 3)`` 8-bit RGB; the identity where none is accepted."""
    if min(real.shape[:2]) * mpp < LEAST_SIDE_UM:
        return IDENTITY
    factor = max(1, round(GRID_UM / mpp))
    moving, fixed = (_seen(image, factor) for image in (virtual, real))
    if moving.std() < 1e-3 or fixed.std() < 1e-3:
        return IDENTITY
    largest, smooth = LARGEST_UM / (mpp * factor), SMOOTH_UM / (mpp * factor)
    start = _correlation(moving, fixed)
    found = [(field, _correlation(_warp(moving, field), fixed)) for field in _stages(moving, fixed, largest, smooth)]
    # A stage is accepted only where it gains more than the other, so the better one is tested first.
    accepted: Floats | None = None
    for elastic, (field, reached) in sorted(enumerate(found), key=lambda stage: -stage[1][1]):
        worth = reached - start > LEAST_GAIN and reached > LEAST_CORRELATION
        share = (reached - start) / (1 - start + 1e-6) / OVER_CONTROL
        if accepted is None and worth and not _by_chance(moving, fixed, largest, smooth, share, rigid=not elastic):
            accepted = field
    if accepted is None:
        return IDENTITY
    whole = _enlarge(accepted, factor, real.shape[:2])
    alignment = Alignment(whole, float(np.hypot(*whole).mean()) * mpp)
    before, after = (np.square(image - real).mean() for image in (virtual.astype(np.float32), _rgb(alignment, virtual)))
    return alignment if after < before else IDENTITY


def _by_chance(moving: Floats, fixed: Floats, largest: float, smooth: float, share: float, *, rigid: bool) -> bool:
    """Whether a stage removes this share of the disagreement against one of three images that cannot match."""
    for mirrored in (fixed[:, ::-1], fixed[::-1], fixed[::-1, ::-1]):
        control = np.ascontiguousarray(mirrored)
        start = _correlation(moving, control)
        stages = _stages(moving, control, largest, smooth)
        field = next(stages) if rigid else list(stages)[-1]
        if (_correlation(_warp(moving, field), control) - start) / (1 - start) >= share:
            return True
    return False


def apply_alignment(alignment: Alignment, answer: Prediction) -> Prediction:
    """``answer``, image and DAB map, moved onto the real image."""
    if alignment.field is None:
        return answer
    rgb = np.rint(_rgb(alignment, answer.rgb)).astype(np.uint8)
    dab = None if answer.dab is None else np.maximum(alignment.apply(answer.dab[..., None])[..., 0], 0)
    return Prediction(rgb, dab)


def _rgb(alignment: Alignment, rgb: NDArray[np.uint8]) -> Floats:
    return alignment.apply(rgb.astype(np.float32)).clip(0, 255)


def _seen(rgb: NDArray[np.uint8], factor: int) -> Floats:
    """Optical density of the luminance in blocks of ``factor`` px, with its mean taken off."""
    rows, columns = (side // factor * factor for side in rgb.shape[:2])
    density = block_reduce(optical_density(luminance(rgb[:rows, :columns])), factor, np.mean)
    small = gaussian(density, 0.7)
    return small - small.mean()


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))


def _warp(image: Floats, field: Floats) -> Floats:
    at = np.mgrid[0 : image.shape[0], 0 : image.shape[1]] + field
    moved: Floats = map_coordinates(image, at, order=1, mode="reflect")
    return moved


def _stages(moving: Floats, fixed: Floats, largest: float, smooth: float) -> Iterator[Floats]:
    """The rigid field, then the elastic one on top of it."""
    field = _rigid(moving, fixed, largest)
    yield field
    field = _bound(field + _local(_warp(moving, field), fixed, smooth), largest)
    for _ in range(ROUNDS):
        flow = lucas_kanade(fixed, _warp(moving, field), max(3, round(smooth / 2)))
        field = _bound(field + gaussian(flow, smooth / 2), largest)
    yield gaussian(field, smooth / 2)


def lucas_kanade(fixed: Floats, moving: Floats, radius: int, warps: int = 2) -> Floats:
    """scikit-image's ``optical_flow_ilk``, whose systems of two equations are solved in closed form: ``(2, H, W)``.

    It takes a third of the time; most of the original's is LAPACK's, called for each pixel.
    """
    levels = [(fixed, moving)]
    while min(levels[-1][0].shape) > 2 * COARSEST_PX and len(levels) < MOST_LEVELS:
        still, other = (pyramid_reduce(image, 2).astype(np.float32) for image in levels[-1])
        levels.append((still, other))
    flow = np.zeros((2, *levels[-1][0].shape), np.float32)
    for still, other in reversed(levels):
        scale = [n / had for n, had in zip(still.shape, flow.shape[1:], strict=True)]
        if still.shape != flow.shape[1:]:
            enlarged = zoom(flow, [1, *scale], order=0, mode="nearest", prefilter=False)
            flow = np.asarray(scale, np.float32)[:, None, None] * enlarged
        for _ in range(warps):
            flow = _flow_step(still, other, flow, 2 * radius + 1)
    return flow


def _flow_step(fixed: Floats, moving: Floats, flow: Floats, window: int) -> Floats:
    at = np.indices(fixed.shape, np.float32) + flow
    warped = map_coordinates(moving, at, order=1, mode="nearest")
    down, right = np.gradient(warped)
    error = down * flow[0] + right * flow[1] + fixed - warped
    products = (down * down, down * right, right * right, down * error, right * error)
    yy, xy, xx, ye, xe = (uniform_filter(each, window, mode="mirror") for each in products)
    determinant = yy * xx - xy * xy
    # Where the window shows no two directions nothing is moved.
    solid = np.abs(determinant) >= 1e-14
    safe = np.where(solid, determinant, 1)
    return np.where(solid, np.stack([xx * ye - xy * xe, yy * xe - xy * ye]) / safe, 0).astype(np.float32)


def _local(moving: Floats, fixed: Floats, smooth: float) -> Floats:
    """The shift that correlates best around each pixel, within a Gaussian window, smoothed: a field."""
    step = max(1, round(LOCAL_STEP_UM / SMOOTH_UM * smooth))
    reach = round(LOCAL_REACH_UM / SMOOTH_UM * smooth)
    padded = np.pad(moving, reach, mode="reflect")
    rows, columns = moving.shape
    shifts = [(y, x) for y in range(-reach, reach + 1, step) for x in range(-reach, reach + 1, step)]
    there = np.stack([padded[reach + y : reach + y + rows, reach + x : reach + x + columns] for y, x in shifts])
    best = gaussian(np.square(there - fixed), smooth, truncate=2).argmin(axis=0)
    found = np.moveaxis(np.array(shifts, np.float32)[best], -1, 0)
    return gaussian(found, smooth / 2)


def _rigid(moving: Floats, fixed: Floats, largest: float) -> Floats:
    """The rotation and shift within bounds that correlate best, as a field."""
    rows, columns = moving.shape
    window = np.outer(np.hanning(rows + 2)[1:-1], np.hanning(columns + 2)[1:-1]).astype(np.float32)
    shape = tuple(side + 2 * int(largest) + 2 for side in moving.shape)
    spectrum = np.fft.rfft2(fixed * window, shape)
    reach = np.arange(-int(largest), int(largest) + 1)
    inside = np.hypot(*np.meshgrid(reach, reach, indexing="ij")) <= largest
    best, found = -np.inf, np.zeros((2, rows, columns), np.float32)
    for angle in ANGLES:
        turn = _rotation(moving.shape, np.deg2rad(angle))
        turned = _warp(moving, turn) if angle else moving
        score = np.fft.irfft2(np.conj(spectrum) * np.fft.rfft2(turned * window, shape), shape)
        score = np.where(inside, score[np.ix_(reach, reach)], -np.inf)
        at = np.unravel_index(int(np.argmax(score)), score.shape)
        if score[at] > best + (1e-6 if angle else 0):
            shift = np.array([reach[at[0]], reach[at[1]]], np.float32)
            best, found = float(score[at]), turn + shift[:, None, None]
    return _bound(found, largest)


def _rotation(shape: tuple[int, ...], angle: float) -> Floats:
    centre = np.array([(side - 1) / 2 for side in shape])
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] - centre[:, None, None]
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * y - s * x - y, s * y + c * x - x]).astype(np.float32)


def _bound(field: Floats, largest: float) -> Floats:
    length = np.maximum(np.hypot(*field), 1e-9)
    return (field * np.minimum(1.0, largest / length)).astype(np.float32)


def _enlarge(field: Floats, factor: int, shape: tuple[int, ...]) -> Floats:
    """The field at full size, in px of that size."""
    whole = [zoom(part, factor, order=1, grid_mode=True, mode="nearest") * factor for part in field]
    pad = [(0, max(0, side - had)) for side, had in zip(shape, whole[0].shape, strict=True)]
    return np.stack([np.pad(part, pad, mode="edge") for part in whole]).astype(np.float32)
