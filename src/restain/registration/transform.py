"""A map between the pixels of two slides: a smooth displacement, then a matrix.

Points are ``(n, 2)`` ``float64``, x and y in px of level 0 with the corner of the first pixel at (0, 0), as in GeoJSON and
QuPath; a change of scale is then a multiplication. A transform takes a point ``p`` of the *fixed* slide to the *moving* one::

    forward(p) = M · (p + u(p))

with ``M`` a 3 x 3 affine or projective matrix and ``u`` a cubic B-spline through displacements on a lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from restain.geometry import Size

Points = NDArray[np.float64]
Matrix = NDArray[np.float64]

NEWTON_STEPS = 30
"""Maximum number of Newton steps of the inverse; a smooth field takes four or five."""
INVERSE_PX = 1e-6
"""The inverse has converged when a step is shorter than this, in px of the fixed slide."""
_DIFFERENCE = 0.02
"""Step of the numerical derivative, in lattice spacings: the spline is smooth far below that."""


@dataclass(frozen=True)
class Lattice:
    """Displacements on a regular lattice: ``nodes`` ``(h, w, 2)`` ``float32`` (x, y) in px of the fixed slide's level 0.

    Node ``(row, column)`` is at ``origin + spacing * (column, row)``. Outside the lattice the displacement is that of the
    border.
    """

    nodes: NDArray[np.float32]
    spacing: float
    origin: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.nodes.ndim != 3 or self.nodes.shape[2] != 2 or 0 in self.nodes.shape:
            raise ValueError(f"displacements must be (h, w, 2), not {self.nodes.shape}")
        if not (math.isfinite(self.spacing) and self.spacing > 0):
            raise ValueError(f"a lattice's spacing must be a positive number, not {self.spacing}")

    def at(self, points: Points) -> Points:
        """The displacement ``(n, 2)`` at points of the fixed slide."""
        column, row = ((points - np.asarray(self.origin)) / self.spacing).T
        height, width = self.nodes.shape[:2]
        index = np.stack([np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)])
        planes = (ndimage.map_coordinates(p, index, order=3, mode="mirror", prefilter=False) for p in self._spline)
        return np.stack(list(planes), 1)

    def slope(self, points: Points) -> NDArray[np.float64]:
        """``(n, 2, 2)``: the derivative of the displacement (row: component, column: direction)."""
        step = _DIFFERENCE * self.spacing
        along = [(self.at(points + way) - self.at(points - way)) / (2 * step) for way in step * np.eye(2)]
        return np.stack(along, axis=-1)

    @cached_property
    def _spline(self) -> list[NDArray[np.float64]]:
        planes = np.moveaxis(self.nodes.astype(np.float64), -1, 0)
        return [
            ndimage.spline_filter(plane, order=3, mode="mirror") if min(plane.shape) > 1 else plane for plane in planes
        ]


@dataclass(frozen=True)
class Folding:
    """Local area ratios of the displacement on a grid over the fixed slide; 1 is unchanged."""

    least: float
    most: float
    folded_share: float
    """Share of the grid where the ratio is not positive: there the map folds and has no inverse."""


@dataclass(frozen=True)
class Transform:
    """A map from px of the fixed slide's level 0 to px of the moving slide's.

    ``fixed_mpp`` and ``moving_mpp`` are micrometres per pixel of level 0; None for pictures without a scale.
    """

    matrix: Matrix
    fixed_size: Size | None = None
    moving_size: Size | None = None
    fixed_mpp: float | None = None
    moving_mpp: float | None = None
    lattice: Lattice | None = None

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if matrix.shape == (2, 3):
            matrix = np.vstack([matrix, [0.0, 0.0, 1.0]])
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise ValueError("a transform's matrix must be 2 x 3 or 3 x 3, finite and invertible")
        object.__setattr__(self, "matrix", matrix)

    def forward(self, points: ArrayLike) -> Points:
        """Points of the fixed slide to the moving slide, ``(n, 2)`` each."""
        points = _checked(points)
        return apply_matrix(self.matrix, points if self.lattice is None else points + self.lattice.at(points))

    def inverse(self, points: ArrayLike) -> Points:
        """Points of the moving slide to the fixed slide, by Newton's method; NaN where the map folds and has no inverse."""
        target = apply_matrix(invert(self.matrix), _checked(points))
        if self.lattice is None or len(target) == 0:
            return target
        found = target - self.lattice.at(target)
        pending: NDArray[np.bool_] = np.ones(len(found), bool)
        for _ in range(NEWTON_STEPS):
            current = found[pending]
            residual = target[pending] - current - self.lattice.at(current)
            slope = np.eye(2) + self.lattice.slope(current)
            regular = np.linalg.det(slope) > 0.05
            step = residual.copy()
            step[regular] = np.linalg.solve(slope[regular], residual[regular, :, None])[..., 0]
            # A step longer than a lattice cell would leave the part of the spline that its slope describes.
            step *= np.minimum(1.0, self.lattice.spacing / np.maximum(np.hypot(*step.T), 1e-12))[:, None]
            found[pending] = current + step
            pending[pending] = np.hypot(*residual.T) > INVERSE_PX
            if not pending.any():
                break
        found[np.hypot(*(found + self.lattice.at(found) - target).T) > 1e-3] = np.nan
        return found

    def folding(self) -> Folding:
        """The displacement's local area ratio on a grid twice as fine as the lattice."""
        lattice = self.lattice
        if lattice is None:
            return Folding(1.0, 1.0, 0.0)
        y, x = (
            start + lattice.spacing / 2 * np.arange((count - 1) * 2 + 1)
            for start, count in zip(lattice.origin[::-1], lattice.nodes.shape[:2], strict=True)
        )
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        ratio = np.linalg.det(np.eye(2) + lattice.slope(grid))
        return Folding(float(ratio.min()), float(ratio.max()), float(np.mean(ratio <= 0)))


def _checked(points: ArrayLike) -> Points:
    checked = np.asarray(points, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] != 2:
        raise ValueError(f"points must be (n, 2), not {checked.shape}")
    return checked


def apply_matrix(matrix: Matrix, points: Points) -> Points:
    """``(n, 2)`` points under a 3 x 3 projective matrix."""
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    depth = points @ matrix[2, :2] + matrix[2, 2]
    return np.asarray(moved / depth[:, None])


def invert(matrix: Matrix) -> Matrix:
    """The inverse of a 3 x 3 matrix, ``float64``."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
