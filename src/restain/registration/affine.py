"""Initial alignment: the orientation of one section on another by exhaustive search, then an affine matrix.

On overviews of about 500 px, the moving section is rotated in steps of :data:`ANGLE_STEP`, as it is and mirrored, and
correlated with the fixed one at all shifts. The best candidates are refined to affine matrices by block matching. The one
with the highest mean z-score of its blocks is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from restain.geometry import Point, Region
from restain.progress import Progress
from restain.registration.block_matching import BlockGrid, Section, Shifts, match_blocks
from restain.registration.correlation import Correlator, prominence
from restain.registration.features import Floats, feature_channels, tissue_density
from restain.registration.fitting import robust_affine
from restain.registration.transform import Matrix, Transform

SEARCH_PX = 128
"""Longer side of the pictures in which the orientation is searched."""
ANGLE_STEP = 5.0
"""Step of the rotations in degrees: less than the structures seen at that size need."""
CANDIDATES = 8
"""Orientations that are refined."""
DISTANCE_SHARE = 0.15
"""Candidates of neighbouring rotations whose shifts differ by less than this share are the same."""

QUICK = ((64, 16, 24), (64, 8, 24))
QUICK_SCORE = (48, 10, 24)
"""Block, reach and stride in px, at half the overview's resolution, by which all candidates are refined and scored."""
FINALISTS = 3
"""Candidates that are refined at the overview's resolution."""
THOROUGH = ((96, 10, 32), (96, 6, 32))
"""The same at the overview's own resolution. The finalist of highest prominence is taken."""
PATCH_TISSUE = 0.8
"""Least share of tissue in a patch."""
CLEAR = {True: 1.6, False: 2.3}
"""Prominence from which patches, and other sections, that lie on each other as they are need no search."""
PROMISING = 1.2
"""Prominence below which unrotated sections are not refined."""
UNROTATED_BONUS = 1.15
"""Factor of the prominence of unrotated sections: of the many orientations that are tried, some fit by chance."""
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
    """The affine transform between the overviews."""

    transform: Transform
    prominence: float
    """See :class:`~restain.registration.correlation.Prominence`."""
    patch: bool
    """Whether tissue fills the fixed picture, so that no outline of different tissue can fit."""

    @property
    def score(self) -> float:
        """The prominence, times :data:`UNROTATED_BONUS` for sections that lie on each other as they are."""
        return self.prominence * (UNROTATED_BONUS if self.unrotated else 1.0)

    @property
    def angle(self) -> float:
        """Rotation in degrees."""
        matrix = self.transform.matrix
        return math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))

    @property
    def mirrored(self) -> bool:
        return bool(np.linalg.det(self.transform.matrix[:2, :2]) < 0)

    @property
    def unrotated(self) -> bool:
        """Whether the sections lie on each other about as they are."""
        assert self.transform.fixed_size is not None
        width, height = self.transform.fixed_size.width, self.transform.fixed_size.height
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
        scale = math.sqrt(abs(np.linalg.det(self.transform.matrix[:2, :2])))
        moved = np.hypot(*(corners * scale - self.transform.forward(corners)).T).max()
        return bool(not self.mirrored and moved < UNROTATED_SHARE * max(width, height) * scale)


def find_affine(
    fixed: Section, moving: Section, scales: tuple[float, ...], progress: Progress | None = None
) -> InitialAlignment:
    """The affine transform of highest prominence between two overviews, whose slides have an mpp.

    Sections that lie on each other as they are, such as patches that were matched before, need no search over rotations.
    ``scales`` are the tried sizes of the moving section relative to the fixed one, in px of the overviews; ``progress``
    counts refined candidates.
    """

    def start(matrix: Matrix) -> Transform:
        return Transform(matrix, fixed.slide.size, moving.slide.size, fixed.slide.mpp, moving.slide.mpp)

    unrotated = [_in_place(fixed, moving, start(np.diag([scale, scale, 1.0]))) for scale in scales]
    if (clear := max(unrotated, key=lambda one: one.prominence)).prominence >= CLEAR[clear.patch]:
        return clear
    found = _distinct([one for scale in scales for one in orientations(fixed, moving, scale)])
    steps = len(found) + FINALISTS
    ranked = []
    for number, candidate in enumerate(found, 1):
        transform = _refine(fixed, moving, start(candidate.matrix), 2.0, QUICK)
        shifts = match_blocks(fixed, moving, transform, BlockGrid(2 * fixed.slide.mpp, *QUICK_SCORE))
        ranked.append((transform, mean_z(shifts)))
        if progress is not None:
            progress(number, steps)
    finalists = []
    for number, (transform, _) in enumerate(sorted(ranked, key=lambda one: -one[1])[:FINALISTS], len(found) + 1):
        refined = _refine(fixed, moving, transform, 1.0, THOROUGH)
        finalists.append(InitialAlignment(refined, prominence(fixed, moving, refined).value, is_patch(fixed)))
        if progress is not None:
            progress(number, steps)
    return max(finalists + unrotated, key=lambda one: one.score)


def is_patch(section: Section) -> bool:
    """Whether tissue fills the picture, so that its outline says nothing about the position."""
    return float(section.tissue.mask.mean()) >= PATCH_TISSUE


def _in_place(fixed: Section, moving: Section, transform: Transform) -> InitialAlignment:
    """``transform`` shifted to the largest correlation nearby, and refined if that raises the correlation."""
    found, patch = prominence(fixed, moving, transform), is_patch(fixed)
    step = np.eye(3)
    step[:2, 2] = found.shift
    shifted = replace(transform, matrix=transform.matrix @ step)
    if found.value < PROMISING:
        return InitialAlignment(shifted, found.value, patch)
    refined = _refine(fixed, moving, _refine(fixed, moving, shifted, 2.0, QUICK), 1.0, THOROUGH)
    after = prominence(fixed, moving, refined)
    if after.correlation > found.correlation and np.hypot(*after.shift) < FIT_PX:
        return InitialAlignment(refined, after.value, patch)
    return InitialAlignment(shifted, found.value, patch)


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
    fixed: Section, moving: Section, transform: Transform, coarser: float, grids: tuple[tuple[int, int, int], ...]
) -> Transform:
    """``transform`` between the overviews refined by block matching, ``coarser`` times as coarse as they are."""
    for grid in grids:
        shifts = match_blocks(fixed, moving, transform, BlockGrid(fixed.slide.mpp * coarser, *grid))
        transform = fit_affine(transform, shifts, FIT_PX * coarser)
    return transform


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
    side = _rotated_side(b, scale)
    correlator = Correlator(a, np.ones(a.shape[1:], np.float32), max(a.shape[1:]) + side)
    found = []
    for mirrored in (False, True):
        for angle in np.arange(0.0, 360.0, ANGLE_STEP):
            rotated, valid, back = _rotated(b, angle, mirrored, scale)
            density, structure = correlator.surfaces(rotated, valid)
            for surface in (density, structure, (density + structure) / 2):
                row, column = np.unravel_index(int(surface.argmax()), surface.shape)
                dy, dx = (int(v) if v <= side else int(v) - correlator.side for v in (row, column))
                correlation = float(surface[row, column])
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
