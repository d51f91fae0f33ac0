"""Where a point of one slide lies on another: a matrix after a smooth displacement, both ways.

Points are ``(n, 2)`` ``float64``, x and y in px of level 0 with the corner of the first pixel at (0, 0), as in GeoJSON
and QuPath; a change of scale is then a multiplication. A transform takes a point ``p`` of the *fixed* slide to the
*moving* slide, which is what reading the moving slide on the fixed slide's grid needs::

    forward(p) = M · (p + u(p))

with ``M`` a 3 x 3 affine or projective matrix and ``u`` a cubic B-spline through displacements on a lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from restain.geometry import Size

Points = NDArray[np.float64]

NEWTON_STEPS = 30
"""Most steps of the inverse; a smooth field takes four or five."""
INVERSE_PX = 1e-6
"""The inverse is found when a step is shorter than this, in px of the fixed slide."""
_DIFFERENCE = 0.02
"""Step of the numerical derivative, in lattice spacings: the spline is smooth far below that."""


@dataclass(frozen=True)
class Lattice:
    """Displacements on a regular lattice: ``nodes`` ``(h, w, 2)`` ``float32`` (x, y) in px of the fixed slide's level 0.

    Node ``(row, column)`` stands at ``origin + spacing * (column, row)``. Beyond the outermost nodes the displacement is
    that of the border.
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
        where = np.stack([np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)])
        return np.stack(
            [ndimage.map_coordinates(plane, where, order=3, mode="mirror", prefilter=False) for plane in self._spline],
            1,
        )

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
    """How the displacement stretches the tissue: local area ratios on a grid over the fixed slide; 1 is unchanged."""

    least: float
    most: float
    folded_share: float
    """Share of the grid where the ratio is not positive: there the map turns the tissue over and has no inverse."""


@dataclass(frozen=True)
class Transform:
    """A map from px of the fixed slide's level 0 to px of the moving slide's.

    ``mpp`` are micrometres per pixel of the two level 0; None for plain pictures. Sizes are of level 0.
    """

    matrix: NDArray[np.float64]
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
        at = _points(points)
        return _project(self.matrix, at if self.lattice is None else at + self.lattice.at(at))

    def inverse(self, points: ArrayLike) -> Points:
        """Points of the moving slide to the fixed slide, by Newton's method; NaN where the map is folded and none fits."""
        straight = _project(_inverse(self.matrix), _points(points))
        if self.lattice is None or len(straight) == 0:
            return straight
        found = straight - self.lattice.at(straight)
        open_: NDArray[np.bool_] = np.ones(len(found), bool)
        for _ in range(NEWTON_STEPS):
            at = found[open_]
            missing = straight[open_] - at - self.lattice.at(at)
            slope = np.eye(2) + self.lattice.slope(at)
            steep = np.linalg.det(slope) > 0.05
            step = missing.copy()
            step[steep] = np.linalg.solve(slope[steep], missing[steep, :, None])[..., 0]
            length = np.hypot(*step.T)
            # A step longer than a lattice cell would leave the part of the spline that its slope describes.
            step *= np.minimum(1.0, self.lattice.spacing / np.maximum(length, 1e-12))[:, None]
            found[open_] = at + step
            open_[open_] = np.hypot(*missing.T) > INVERSE_PX
            if not open_.any():
                break
        wrong = np.hypot(*(found + self.lattice.at(found) - straight).T) > 1e-3
        found[wrong] = np.nan
        return found

    def jacobian(self, points: ArrayLike) -> NDArray[np.float64]:
        """``(n, 2, 2)`` derivative of :meth:`forward` at points of the fixed slide (row: x, y of moving; column: of fixed)."""
        at = _points(points)
        inner = np.broadcast_to(np.eye(2), (len(at), 2, 2))
        moved = at
        if self.lattice is not None:
            inner = inner + self.lattice.slope(at)
            moved = at + self.lattice.at(at)
        depth = moved @ self.matrix[2, :2] + self.matrix[2, 2]
        image = _project(self.matrix, moved)
        outer = (self.matrix[:2, :2] - image[:, :, None] * self.matrix[2, :2]) / depth[:, None, None]
        return np.asarray(outer @ inner)

    def stretch(self, points: ArrayLike) -> NDArray[np.float64]:
        """``(n,)`` local area ratio of the displacement alone: 1 unchanged, 0 or less folded."""
        at = _points(points)
        if self.lattice is None:
            return np.ones(len(at))
        return np.linalg.det(np.eye(2) + self.lattice.slope(at))

    def folding(self) -> Folding:
        """The stretch on a grid twice as fine as the lattice."""
        if self.lattice is None:
            return Folding(1.0, 1.0, 0.0)
        ratio = self.stretch(_grid(self.lattice, 2))
        return Folding(float(ratio.min()), float(ratio.max()), float(np.mean(ratio <= 0)))

    def then(self, second: Transform) -> Transform:
        """The transform that goes on from this one's moving slide to the moving slide of ``second``.

        Exact for matrices; displacements are sampled on the finer of the two lattices. A lattice needs to know how far
        the fixed slide reaches.

        Raises:
            ValueError: if ``second`` has a displacement and this transform does not know the fixed slide's size.
        """
        joined = replace(
            self,
            matrix=second.matrix @ self.matrix,
            moving_size=second.moving_size,
            moving_mpp=second.moving_mpp,
            lattice=None,
        )
        if self.lattice is None and second.lattice is None:
            return joined
        if second.lattice is None and np.allclose(second.matrix[2], (0, 0, second.matrix[2, 2])):
            return replace(joined, lattice=self.lattice)
        spacings = [] if self.lattice is None else [self.lattice.spacing]
        if second.lattice is not None:
            spacings.append(second.lattice.spacing / math.sqrt(abs(np.linalg.det(self.matrix[:2, :2]))))
        return replace(
            joined, lattice=self._sampled(joined.matrix, min(spacings), lambda p: second.forward(self.forward(p)))
        )

    def inverted(self) -> Transform:
        """The transform of the other direction, its displacement sampled on a lattice as fine as this one's.

        Raises:
            ValueError: if there is a displacement and the moving slide's size is unknown.
        """
        turned = Transform(_inverse(self.matrix), self.moving_size, self.fixed_size, self.moving_mpp, self.fixed_mpp)
        if self.lattice is None:
            return turned
        spacing = self.lattice.spacing * math.sqrt(abs(np.linalg.det(self.matrix[:2, :2])))
        return replace(turned, lattice=turned._sampled(turned.matrix, spacing, self.inverse))

    def scaled(self, fixed: float, moving: float) -> Transform:
        """The same map between pixels ``fixed`` and ``moving`` times as large as now (2 halves the numbers of the points)."""
        matrix = np.diag([1 / moving, 1 / moving, 1.0]) @ self.matrix @ np.diag([fixed, fixed, 1.0])
        lattice = self.lattice
        if lattice is not None:
            x, y = lattice.origin
            lattice = Lattice(lattice.nodes / np.float32(fixed), lattice.spacing / fixed, (x / fixed, y / fixed))
        return Transform(
            matrix,
            _resized(self.fixed_size, fixed),
            _resized(self.moving_size, moving),
            None if self.fixed_mpp is None else self.fixed_mpp * fixed,
            None if self.moving_mpp is None else self.moving_mpp * moving,
            lattice,
        )

    def _sampled(self, matrix: NDArray[np.float64], spacing: float, target: Any) -> Lattice:
        """The lattice over the fixed slide with which ``matrix`` leads to ``target(points)``."""
        if self.fixed_size is None:
            raise ValueError("a displacement cannot be sampled over a slide whose size is unknown")
        shape = (math.ceil(self.fixed_size.height / spacing) + 1, math.ceil(self.fixed_size.width / spacing) + 1)
        empty = Lattice(np.zeros((*shape, 2), np.float32), spacing)
        at = _grid(empty, 1)
        moved = _project(_inverse(matrix), target(at)) - at
        lost = ~np.isfinite(moved).all(axis=1)
        moved[lost] = 0.0 if lost.all() else np.median(moved[~lost], axis=0)
        return Lattice(moved.reshape(*shape, 2).astype(np.float32), spacing)


def identity(size: Size | None = None, mpp: float | None = None) -> Transform:
    """The transform of a slide onto itself."""
    return Transform(np.eye(3), size, size, mpp, mpp)


def _points(points: ArrayLike) -> Points:
    at = np.asarray(points, dtype=np.float64)
    if at.ndim != 2 or at.shape[1] != 2:
        raise ValueError(f"points must be (n, 2), not {at.shape}")
    return at


def _project(matrix: NDArray[np.float64], points: Points) -> Points:
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    depth = points @ matrix[2, :2] + matrix[2, 2]
    return np.asarray(moved / depth[:, None])


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _grid(lattice: Lattice, finer: int) -> Points:
    height, width = lattice.nodes.shape[:2]
    step = lattice.spacing / finer
    x = lattice.origin[0] + step * np.arange((width - 1) * finer + 1)
    y = lattice.origin[1] + step * np.arange((height - 1) * finer + 1)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _resized(size: Size | None, factor: float) -> Size | None:
    return None if size is None else Size(max(1, round(size.width / factor)), max(1, round(size.height / factor)))
