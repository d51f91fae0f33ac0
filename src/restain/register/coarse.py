"""How one slide lies on another, from nothing: any rotation, mirrored or not; then an affine matrix.

On overviews of about 500 px, the moving section is turned by every :data:`ANGLE_STEP` degrees, as it is and mirrored, and
correlated with the fixed one at all shifts. The most promising candidates are refined to affine matrices by block matching,
and the one under which most blocks stand where the matrix says is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from restain.geometry import Point, Region
from restain.register.field import robust_affine
from restain.register.level import Progress, Raster, Section, Shifts, measure_shifts
from restain.register.structure import Floats, channels, matter
from restain.register.transform import Transform
from restain.register.warp import in_pixels

SEARCH_PX = 128
"""Longer side of the pictures in which the orientation is sought."""
ANGLE_STEP = 5.0
"""Degrees between the rotations that are tried: less than the structures seen at that size need."""
CANDIDATES = 8
"""Orientations that are refined."""
LEAST_OVERLAP = 0.25
"""Share of the smaller section's area that must lie on the other."""
DISTANCE_SHARE = 0.15
"""Candidates of neighbouring rotations whose shifts differ by less than this share are the same."""

QUICK = ((64, 16, 24), (64, 8, 24))
QUICK_SCORE = (48, 10, 24)
"""Block, reach and stride in px, of half the overview's resolution, by which all candidates are refined and judged."""
PATCH_SCORE = (96, 16, 24)
"""The last in patches: what serial sections share in small blocks may be too little to tell the right candidate from a chance one.
Sections on glass are not judged so, since large blocks see outlines, which different tissue may share."""
PATCH = 0.8
"""Share of tissue in a patch."""
FINALISTS = 3
"""Candidates that are refined at the overview's resolution."""
THOROUGH = ((96, 10, 32), (96, 6, 32))
THOROUGH_SCORE = (64, 12, 32)
"""The same at the overview's own resolution; the finalists of patches are judged by both scores together."""
EXPECTED = 0.5
"""By how much another orientation of patches must score above "as they lie": of the many that are tried, some fit by chance."""
AS_THEY_LIE_SHARE = 0.1
"""Sections whose corners move by less than this share of the longer side lie as they come."""
FIT_PX = 2.0
"""Distance within which a block supports a matrix, in px of the overview."""


@dataclass(frozen=True)
class Candidate:
    """An orientation: the 3 x 3 matrix between the search pictures, and the correlation that it reaches."""

    matrix: NDArray[np.float64]
    correlation: float
    angle: float
    mirrored: bool


@dataclass(frozen=True)
class Coarse:
    """The affine transform between the overviews, and how well it stands."""

    transform: Transform
    score: float
    angle: float
    mirrored: bool
    runner_up: float
    """Score of the best candidate that leads elsewhere."""
    as_they_lie: bool
    """Whether the sections lie on each other about as they come."""


def find_affine(fixed: Section, moving: Section, scales: tuple[float, ...], progress: Progress | None = None) -> Coarse:
    """The best affine transform between two overviews.

    Args:
        fixed: overview, its slide with an mpp.
        moving: the same.
        scales: sizes of the moving section relative to the fixed one, in their units, that are tried.
        progress: counts candidates refined.
    """
    found = _distinct([one for scale in scales for one in orientations(fixed, moving, scale)])
    # Patches that someone has matched already lie as they should, and may show too little for a search over all turns.
    unturned = [Candidate(np.diag([scale, scale, 1.0]), 0.0, 0.0, False) for scale in scales]
    found += unturned
    tell = progress or (lambda done, total: None)
    steps = len(found) + 2 * FINALISTS
    patch = is_patch(fixed)
    judged = PATCH_SCORE if patch else QUICK_SCORE
    quick = []
    for number, candidate in enumerate(found):
        start = Transform(candidate.matrix, fixed.slide.size, moving.slide.size, fixed.slide.mpp, moving.slide.mpp)
        quick.append((*_refined(fixed, moving, start, 2.0, QUICK, judged), candidate))
        tell(number + 1, steps)
    quick.sort(key=lambda one: -one[1])
    best_unturned = next(one for one in quick if any(one[2] is other for other in unturned))
    if patch and not any(one is best_unturned for one in quick[:FINALISTS]):
        quick[FINALISTS - 1] = best_unturned
    refined = []
    for number, (start, _, candidate) in enumerate(quick[:FINALISTS]):
        better, score = _refined(fixed, moving, start, 1.0, THOROUGH, THOROUGH_SCORE)
        if patch:
            score += standing_score(measure_shifts(fixed, moving, better, Raster(2 * fixed.slide.mpp, *PATCH_SCORE)))
            score += EXPECTED if any(candidate is other for other in unturned) else 0.0
        refined.append((better, score, candidate))
        tell(len(found) + 2 * (number + 1), steps)
    refined.sort(key=lambda one: -one[1])
    transform, score, best = refined[0]
    size = fixed.slide.size
    corners = np.array([[0, 0], [size.width, 0], [0, size.height], [size.width, size.height]], float)
    here = transform.forward(corners)
    apart = 0.1 * max(size.width, size.height)
    others = [s for t, s, _ in refined[1:] if np.hypot(*(t.forward(corners) - here).T).max() > apart]
    matrix = transform.matrix
    angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
    moves = min(np.hypot(*(corners * scale - here).T).max() / scale for scale in scales)
    as_they_lie = not best.mirrored and moves < AS_THEY_LIE_SHARE * max(size.width, size.height)
    return Coarse(transform, score, angle, best.mirrored, max(others, default=0.0), bool(as_they_lie))


def is_patch(section: Section) -> bool:
    """Whether tissue fills the picture, so that it has no outline by which pieces of different tissue could lie on each other."""
    return float(section.tissue.mask.mean()) >= PATCH


def _refined(
    fixed: Section,
    moving: Section,
    transform: Transform,
    coarser: float,
    rasters: tuple[tuple[int, int, int], ...],
    last: tuple[int, int, int],
) -> tuple[Transform, float]:
    """The affine transform that one leads to, between the overviews, and its score (see :func:`standing_score`)."""
    mpp = fixed.slide.mpp * coarser
    for raster in rasters:
        transform = fit_affine(
            transform, measure_shifts(fixed, moving, transform, Raster(mpp, *raster)), FIT_PX * coarser
        )
    return transform, standing_score(measure_shifts(fixed, moving, transform, Raster(mpp, *last)))


def _distinct(found: list[Candidate]) -> list[Candidate]:
    """The best candidates, without those that a better one's neighbourhood holds."""
    kept: list[Candidate] = []
    for one in sorted(found, key=lambda candidate: -candidate.correlation):
        near = (
            other.mirrored == one.mirrored
            and abs((other.angle - one.angle + 180) % 360 - 180) <= 2 * ANGLE_STEP
            and np.hypot(*(other.matrix - one.matrix)[:2, 2])
            < DISTANCE_SHARE * max(abs(one.matrix[:2, 2]).max(), 100.0)
            for other in kept
        )
        if not any(near):
            kept.append(one)
        if len(kept) == CANDIDATES:
            break
    return kept


def fit_affine(transform: Transform, shifts: Shifts, scale: float) -> Transform:
    """``transform`` (a matrix) corrected by the affine map that most blocks agree on; unchanged with too few blocks."""
    if len(shifts.points) < 6:
        return transform
    weight = np.maximum(shifts.match.correlation, 0.01) ** 2 * np.where(shifts.match.edge, 0.1, 1.0)
    correction, _ = robust_affine(shifts.points, shifts.points + shifts.shifts, weight, scale)
    stretch = np.linalg.svd(correction[:2, :2], compute_uv=False)
    # What bends the section out of shape is a chance agreement of few blocks.
    if stretch.min() < 0.7 or stretch.max() > 1.4 or np.linalg.det(correction[:2, :2]) <= 0:
        return transform
    return Transform(
        transform.matrix @ correction,
        transform.fixed_size,
        transform.moving_size,
        transform.fixed_mpp,
        transform.moving_mpp,
    )


def standing_score(shifts: Shifts) -> float:
    """The mean over blocks by how many standard deviations the place that the transform says stands out of the search."""
    return float(shifts.standing.mean()) if len(shifts.standing) else 0.0


def orientations(fixed: Section, moving: Section, scale: float) -> list[Candidate]:
    """The most promising orientations at one relative scale, best first; matrices are between the overviews' px."""
    one, two = in_pixels(fixed.slide), in_pixels(moving.slide)
    step = max(1.0, max(one.size.width, one.size.height, two.size.width, two.size.height) / SEARCH_PX)
    a, b = _planes(fixed, step), _planes(moving, step)
    seen = _Correlator(a, _turned_side(b, scale))
    found = []
    for mirrored in (False, True):
        for angle in np.arange(0.0, 360.0, ANGLE_STEP):
            turned, valid, back = _turned(b, angle, mirrored, scale)
            for correlation, dx, dy in seen.best(turned, valid):
                matrix = np.diag([step, step, 1]) @ back @ _shift(dx, dy) @ np.diag([1 / step, 1 / step, 1])
                found.append(Candidate(matrix, correlation, float(angle), mirrored))
    found.sort(key=lambda candidate: -candidate.correlation)
    return found


def _planes(section: Section, step: float) -> Floats:
    """``(2, h, w)``: matter, and the mean of the channels, each with mean 0 and standard deviation 1."""
    slide = in_pixels(section.slide)
    size = slide.size_at(step)
    rgb = slide.read(Region(Point(0, 0), size), step)
    planes = np.stack([matter(rgb, section.look), channels(rgb, section.look).mean(axis=0)])
    planes = ndimage.gaussian_filter(planes, (0, 1.5, 1.5))
    return np.asarray(
        (planes - planes.mean(axis=(1, 2), keepdims=True)) / (planes.std(axis=(1, 2), keepdims=True) + 1e-6)
    )


def _shift(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _turned_side(planes: Floats, scale: float) -> int:
    return math.ceil(math.hypot(*planes.shape[1:]) / scale) + 2


def _turned(planes: Floats, angle: float, mirrored: bool, scale: float) -> tuple[Floats, Floats, NDArray[np.float64]]:
    """The planes turned about their middle (and mirrored), where they are valid, and the matrix back to their own px."""
    _, height, width = planes.shape
    side = _turned_side(planes, scale)
    turn = math.radians(angle)
    rotate = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    if mirrored:
        rotate = np.diag([-1.0, 1.0]) @ rotate
    back = np.eye(3)
    back[:2, :2] = rotate
    back[:2, 2] = np.array([width / 2, height / 2]) - rotate @ np.array([side / 2, side / 2])
    # ndimage works in (row, column) of pixel centres.
    swapped = rotate[::-1, ::-1]
    offset = (back[:2, 2] + rotate @ (0.5, 0.5) - 0.5)[::-1]
    turned = np.stack([ndimage.affine_transform(p, swapped, offset, (side, side), order=1, cval=0.0) for p in planes])
    valid = ndimage.affine_transform(
        np.ones((height, width), np.float32), swapped, offset, (side, side), order=0, cval=0.0
    )
    return turned * valid, valid, back


class _Correlator:
    """Masked normalised cross-correlation with one picture at all shifts (Padfield, *IEEE TIP* 21:2706, 2012)."""

    def __init__(self, planes: Floats, turned_side: int) -> None:
        _, height, width = planes.shape
        self._turned_side = turned_side
        self._side = int(fft.next_fast_len(max(height, width) + turned_side, real=True))
        self._area = height * width
        self._one = [np.conj(self._fft(plane)) for plane in planes]
        self._square = [np.conj(self._fft(plane * plane)) for plane in planes]
        self._valid = np.conj(self._fft(np.ones((height, width), np.float32)))

    def _fft(self, plane: Floats) -> NDArray[np.complex64]:
        return np.asarray(fft.rfft2(plane, (self._side, self._side)))

    def _back(self, product: NDArray[np.complex64]) -> Floats:
        return np.asarray(fft.irfft2(product, (self._side, self._side)))

    def best(self, turned: Floats, valid: Floats) -> Iterator[tuple[float, float, float]]:
        """The best shift by matter, by structure, and by both: correlation and (x, y) from the picture to ``turned``."""
        there = self._fft(valid)
        overlap = np.maximum(self._back(there * self._valid), 1e-3)
        enough = overlap > LEAST_OVERLAP * min(self._area, float(valid.sum()))
        surfaces = []
        for plane, one, square in zip(turned, self._one, self._square, strict=True):
            spectrum = self._fft(plane)
            mean_here, mean_there = self._back(there * one) / overlap, self._back(spectrum * self._valid) / overlap
            own = self._back(there * square) / overlap - mean_here**2
            other = self._back(self._fft(plane * plane) * self._valid) / overlap - mean_there**2
            product = self._back(spectrum * one) / overlap - mean_here * mean_there
            surface = product / np.sqrt((np.maximum(own, 0) + 0.05) * (np.maximum(other, 0) + 0.05))
            # A small overlap reaches any correlation by chance.
            surfaces.append(np.where(enough, surface * np.sqrt(overlap / self._area), -1.0))
        for surface in (surfaces[0], surfaces[1], (surfaces[0] + surfaces[1]) / 2):
            row, column = np.unravel_index(int(surface.argmax()), surface.shape)
            dy, dx = (int(v) if v <= self._turned_side else int(v) - self._side for v in (row, column))
            yield float(surface[row, column]), float(dx), float(dy)
