"""Initial alignment: the orientation of one section on another by exhaustive search, then an affine matrix.

On overviews of about 500 px, the moving section is rotated in steps of :data:`ANGLE_STEP`, as it is and mirrored, and
correlated with the fixed one at all shifts. The best candidates are refined to affine matrices by block matching. The one
with the highest mean z-score of its blocks is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from restain.geometry import Point, Region
from restain.registration.block_matching import BlockGrid, Progress, Section, Shifts, match_blocks
from restain.registration.features import Floats, feature_channels, tissue_density
from restain.registration.fitting import robust_affine
from restain.registration.transform import Matrix, Transform

SEARCH_PX = 128
"""Longer side of the pictures in which the orientation is searched."""
ANGLE_STEP = 5.0
"""Step of the rotations in degrees: less than the structures seen at that size need."""
CANDIDATES = 8
"""Orientations that are refined."""
LEAST_OVERLAP = 0.25
"""Least share of the smaller section's area that overlaps the other."""
DISTANCE_SHARE = 0.15
"""Candidates of neighbouring rotations whose shifts differ by less than this share are the same."""

QUICK = ((64, 16, 24), (64, 8, 24))
QUICK_SCORE = (48, 10, 24)
"""Block, reach and stride in px, at half the overview's resolution, by which all candidates are refined and scored."""
PATCH_SCORE = (96, 16, 24)
"""The last in patches: small blocks of serial sections may share too little to separate the right candidate from a chance one.
Sections on glass are not scored so, since large blocks see outlines, which different tissue may share."""
PATCH_TISSUE = 0.8
"""Least share of tissue in a patch."""
FINALISTS = 3
"""Candidates that are refined at the overview's resolution."""
THOROUGH = ((96, 10, 32), (96, 6, 32))
THOROUGH_SCORE = (64, 12, 32)
"""The same at the overview's own resolution; the score of finalists of patches is the sum of both."""
UNROTATED_BONUS = 0.5
"""Added to the score of unrotated patches: of the many orientations that are tried, some fit by chance."""
UNROTATED_SHARE = 0.1
"""Sections whose corners move by less than this share of the longer side are unrotated."""
FIT_PX = 2.0
"""Distance within which a block supports a matrix, in px of the overview."""


@dataclass(frozen=True)
class Candidate:
    """An orientation: the 3 x 3 matrix between the overviews, and the correlation that it reaches."""

    matrix: Matrix
    correlation: float
    angle: float
    mirrored: bool


@dataclass(frozen=True)
class InitialAlignment:
    """The affine transform between the overviews, its rotation in degrees, and whether it mirrors."""

    transform: Transform
    angle: float
    mirrored: bool
    unrotated: bool
    """Whether the sections lie on each other about as they are."""


def find_affine(
    fixed: Section, moving: Section, scales: tuple[float, ...], progress: Progress | None = None
) -> InitialAlignment:
    """The best affine transform between two overviews, whose slides have an mpp.

    ``scales`` are the tried sizes of the moving section relative to the fixed one, in px of the overviews; ``progress``
    counts refined candidates.
    """
    found = _distinct([one for scale in scales for one in orientations(fixed, moving, scale)])
    # Patches that were matched before are in place, and may show too little for a search over all rotations.
    unrotated = [Candidate(np.diag([scale, scale, 1.0]), 0.0, 0.0, False) for scale in scales]
    patch = is_patch(fixed)
    steps = len(found) + len(unrotated) + 2 * FINALISTS
    ranked = []
    for number, candidate in enumerate(found + unrotated, 1):
        start = Transform(candidate.matrix, fixed.slide.size, moving.slide.size, fixed.slide.mpp, moving.slide.mpp)
        refined = _refine(fixed, moving, start, 2.0, QUICK, PATCH_SCORE if patch else QUICK_SCORE)
        ranked.append((*refined, number > len(found), candidate))
        if progress is not None:
            progress(number, steps)
    ranked.sort(key=lambda one: -one[1])
    if patch and not any(one[2] for one in ranked[:FINALISTS]):
        ranked[FINALISTS - 1] = next(one for one in ranked if one[2])
    finalists = []
    for number, (start, _, is_unrotated, candidate) in enumerate(ranked[:FINALISTS]):
        transform, score = _refine(fixed, moving, start, 1.0, THOROUGH, THOROUGH_SCORE)
        if patch:
            grid = BlockGrid(2 * fixed.slide.mpp, *PATCH_SCORE)
            score += mean_z(match_blocks(fixed, moving, transform, grid)) + is_unrotated * UNROTATED_BONUS
        finalists.append((transform, score, candidate))
        if progress is not None:
            progress(steps - 2 * (FINALISTS - number - 1), steps)
    transform, _, best = max(finalists, key=lambda one: one[1])
    width, height = fixed.slide.size.width, fixed.slide.size.height
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    moved = transform.forward(corners)
    distance = min(np.hypot(*(corners * scale - moved).T).max() / scale for scale in scales)
    angle = math.degrees(math.atan2(transform.matrix[1, 0], transform.matrix[0, 0]))
    in_place = not best.mirrored and distance < UNROTATED_SHARE * max(width, height)
    return InitialAlignment(transform, angle, best.mirrored, bool(in_place))


def is_patch(section: Section) -> bool:
    """Whether tissue fills the picture, so that it has no outline on which different tissue could be aligned."""
    return float(section.tissue.mask.mean()) >= PATCH_TISSUE


def fit_affine(transform: Transform, shifts: Shifts, scale: float) -> Transform:
    """``transform`` (a matrix) corrected by the affine map that most blocks agree on; unchanged if there are too few blocks."""
    if len(shifts.points) < 6:
        return transform
    weight = np.maximum(shifts.match.correlation, 0.01) ** 2 * np.where(shifts.match.edge, 0.1, 1.0)
    correction, _ = robust_affine(shifts.points, shifts.points + shifts.shifts, weight, scale)
    stretch = np.linalg.svd(correction[:2, :2], compute_uv=False)
    # A strong distortion is a chance agreement of few blocks.
    if stretch.min() < 0.7 or stretch.max() > 1.4 or np.linalg.det(correction[:2, :2]) <= 0:
        return transform
    return replace(transform, matrix=transform.matrix @ correction)


def mean_z(shifts: Shifts) -> float:
    """The mean z-score of the blocks; 0 without blocks."""
    return float(shifts.z_score.mean()) if len(shifts.z_score) else 0.0


def _refine(
    fixed: Section,
    moving: Section,
    transform: Transform,
    coarser: float,
    grids: tuple[tuple[int, int, int], ...],
    score_grid: tuple[int, int, int],
) -> tuple[Transform, float]:
    """``transform`` between the overviews refined by block matching, and its score, the mean z-score of the blocks."""
    mpp = fixed.slide.mpp * coarser
    for grid in grids:
        shifts = match_blocks(fixed, moving, transform, BlockGrid(mpp, *grid))
        transform = fit_affine(transform, shifts, FIT_PX * coarser)
    return transform, mean_z(match_blocks(fixed, moving, transform, BlockGrid(mpp, *score_grid)))


def _distinct(found: list[Candidate]) -> list[Candidate]:
    """The best candidates without near duplicates."""
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


def orientations(fixed: Section, moving: Section, scale: float) -> list[Candidate]:
    """The orientations of highest correlation at one relative scale; matrices are between the overviews' px."""
    sizes = fixed.slide.size, moving.slide.size
    step = max(1.0, max(side for size in sizes for side in (size.width, size.height)) / SEARCH_PX)
    a, b = _planes(fixed, step), _planes(moving, step)
    correlator = _Correlator(a, _rotated_side(b, scale))
    found = []
    for mirrored in (False, True):
        for angle in np.arange(0.0, 360.0, ANGLE_STEP):
            rotated, valid, back = _rotated(b, angle, mirrored, scale)
            for correlation, dx, dy in correlator.best(rotated, valid):
                shift = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])
                matrix = np.diag([step, step, 1]) @ back @ shift @ np.diag([1 / step, 1 / step, 1])
                found.append(Candidate(matrix, correlation, float(angle), mirrored))
    return found


def _planes(section: Section, step: float) -> Floats:
    """``(2, h, w)``: tissue density, and the mean of the channels, each with mean 0 and standard deviation 1."""
    slide = section.slide.taken_at(1.0)
    rgb = slide.read(Region(Point(0, 0), slide.size_at(step)), step)
    planes = np.stack([tissue_density(rgb, section.stain), feature_channels(rgb, section.stain).mean(axis=0)])
    planes = ndimage.gaussian_filter(planes, (0, 1.5, 1.5))
    deviation = planes.std(axis=(1, 2), keepdims=True) + 1e-6
    return np.asarray((planes - planes.mean(axis=(1, 2), keepdims=True)) / deviation)


def _rotated_side(planes: Floats, scale: float) -> int:
    return math.ceil(math.hypot(*planes.shape[1:]) / scale) + 2


def _rotated(planes: Floats, angle: float, mirrored: bool, scale: float) -> tuple[Floats, Floats, Matrix]:
    """The planes rotated about their centre (and mirrored), where they are valid, and the matrix back to their own px."""
    _, height, width = planes.shape
    side = _rotated_side(planes, scale)
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

    def resampled(plane: Floats, order: int) -> Floats:
        return np.asarray(ndimage.affine_transform(plane, swapped, offset, (side, side), order=order, cval=0.0))

    valid = resampled(np.ones((height, width), np.float32), 0)
    return np.stack([resampled(plane, 1) for plane in planes]) * valid, valid, back


class _Correlator:
    """Masked normalised cross-correlation with one picture at all shifts (Padfield, *IEEE TIP* 21:2706, 2012)."""

    def __init__(self, planes: Floats, rotated_side: int) -> None:
        _, height, width = planes.shape
        self._rotated_side = rotated_side
        self._side = int(fft.next_fast_len(max(height, width) + rotated_side, real=True))
        self._area = height * width
        self._one = [np.conj(self._fft(plane)) for plane in planes]
        self._square = [np.conj(self._fft(plane * plane)) for plane in planes]
        self._valid = np.conj(self._fft(np.ones((height, width), np.float32)))

    def _fft(self, plane: Floats) -> NDArray[np.complex64]:
        return np.asarray(fft.rfft2(plane, (self._side, self._side)))

    def _back(self, product: NDArray[np.complex64]) -> Floats:
        return np.asarray(fft.irfft2(product, (self._side, self._side)))

    def best(self, rotated: Floats, valid: Floats) -> Iterator[tuple[float, float, float]]:
        """The best shift by density, by structure, and by both: correlation and (x, y) from the picture to ``rotated``."""
        mask = self._fft(valid)
        overlap = np.maximum(self._back(mask * self._valid), 1e-3)
        enough = overlap > LEAST_OVERLAP * min(self._area, float(valid.sum()))
        surfaces = []
        for plane, one, square in zip(rotated, self._one, self._square, strict=True):
            spectrum = self._fft(plane)
            own_mean, other_mean = self._back(mask * one) / overlap, self._back(spectrum * self._valid) / overlap
            own = self._back(mask * square) / overlap - own_mean**2
            other = self._back(self._fft(plane * plane) * self._valid) / overlap - other_mean**2
            product = self._back(spectrum * one) / overlap - own_mean * other_mean
            surface = product / np.sqrt((np.maximum(own, 0) + 0.05) * (np.maximum(other, 0) + 0.05))
            # A small overlap reaches any correlation by chance.
            surfaces.append(np.where(enough, surface * np.sqrt(overlap / self._area), -1.0))
        for surface in (surfaces[0], surfaces[1], (surfaces[0] + surfaces[1]) / 2):
            row, column = np.unravel_index(int(surface.argmax()), surface.shape)
            dy, dx = (int(v) if v <= self._rotated_side else int(v) - self._side for v in (row, column))
            yield float(surface[row, column]), float(dx), float(dy)
