"""A known deformation between two sections of one block: from pixels of the H&E slide to pixels of the IHC slide.

The steps, in order: a tear opens, waves displace elastically, then scale, mirror, rotation and shift; a piece may be
missing. Positions are ``(x, y)`` in px of level 0 with the corner of the first pixel at (0, 0), as in QuPath.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.geometry import Size
from restain.slides.geojson import Polygon

Points = NDArray[np.float64]

_TOLERANCE_PX = 1e-4
_STEEPEST = 0.8
"""Greatest displacement per length: above 1 a field folds over itself, and near 1 the inverse converges slowly."""
_GAUSSIAN_SLOPE = math.exp(-0.5)
"""Steepest slope of ``exp(-x²/2)``."""
_WAVES = 8


@dataclass(frozen=True)
class Wave:
    """One plane wave of displacement, in px: ``amplitude * sin(wave_vector · p + phase)``; the vector is in rad/px."""

    amplitude: tuple[float, float]
    wave_vector: tuple[float, float]
    phase: float


@dataclass(frozen=True)
class Tear:
    """A slit from ``start`` to ``end`` (px) that opens by up to ``opening`` px in its middle.

    Both lips move away from the line; the displacement falls with the distance as a Gaussian of ``reach`` px.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    opening: float
    reach: float

    def across(self, points: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Signed distance from the line, and displacement of the lip at that place along it, in px: ``(n,)`` each."""
        along = np.subtract(self.end, self.start)
        length = float(np.hypot(*along))
        from_start = points - np.asarray(self.start)
        t = from_start @ along / length**2
        lift = np.where((t > 0) & (t < 1), np.sin(np.pi * t) ** 2, 0.0) * self.opening / 2
        return from_start @ self.normal, lift

    @property
    def normal(self) -> Points:
        """The unit vector across the slit, ``(2,)``."""
        along = np.subtract(self.end, self.start)
        return np.array([-along[1], along[0]]) / np.hypot(*along)

    def reaches(self, points: Points) -> bool:
        """Whether any of the points is moved by more than 0.01 px."""
        distance, lift = self.across(points)
        return bool((lift * np.exp(-0.5 * (distance / self.reach) ** 2)).max(initial=0.0) > 0.01)

    def divides(self, points: Points, spacing: float) -> bool:
        """Whether the gap may lie between points of a lattice of ``spacing`` px, or they lie on both sides of it."""
        distance, _ = self.across(points)
        clear = self.opening / 2 + 2 * spacing
        return not (bool((distance > clear).all()) or bool((distance < -clear).all()))

    def forward(self, points: Points) -> Points:
        """Positions after the tear has opened, ``(n, 2)`` px."""
        distance, lift = self.across(points)
        side = np.where(distance >= 0, 1.0, -1.0)
        moved = side * lift * np.exp(-0.5 * (distance / self.reach) ** 2)
        return points + moved[:, None] * self.normal

    def inverse(self, points: Points) -> Points:
        """Positions before the tear opened, ``(n, 2)`` px; NaN in the open gap."""
        found, gap = self.closed(points)
        found[gap] = np.nan
        return found

    def closed(self, points: Points) -> tuple[Points, NDArray[np.bool_]]:
        """Positions before the tear opened, and whether each point lies in the gap: there it takes the nearer lip's."""
        there, lift = self.across(points)
        size = np.maximum(np.abs(there), lift)

        def before(distance: Points) -> Points:
            return np.maximum(size - lift * np.exp(-0.5 * (distance / self.reach) ** 2), 0.0)

        source = np.where(there >= 0, 1.0, -1.0) * _fixed_point(before, before(size))
        return points + (source - there)[:, None] * self.normal, np.abs(there) < lift


@dataclass(frozen=True)
class Deformation:
    """Map from pixels of the H&E slide to pixels of the IHC slide.

    ``size`` and ``target`` are ``(width, height)`` in px of the H&E and of the IHC slide, both at ``mpp``. After tear
    and waves, ``q = target/2 + shift + scale · R · M · (p - size/2)``: ``M`` mirrors x if ``mirror`` is set, ``R``
    rotates by ``rotation_deg``, clockwise on the screen. ``missing`` is the outline of a lost piece in px of the H&E.
    Raises ValueError if it is not invertible (scale not positive, waves or tear too steep).
    """

    size: tuple[int, int]
    target: tuple[int, int]
    mpp: float
    rotation_deg: float = 0.0
    mirror: bool = False
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    waves: tuple[Wave, ...] = ()
    tear: Tear | None = None
    missing: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"the scale of a deformation must be positive, not {self.scale}")
        steepness = sum(math.hypot(*wave.amplitude) * math.hypot(*wave.wave_vector) for wave in self.waves)
        if steepness > _STEEPEST:
            raise ValueError(f"elastic waves with a slope of up to {steepness:.2f} may fold the section over")
        if self.tear is not None and self.tear.opening / 2 * _GAUSSIAN_SLOPE > _STEEPEST * self.tear.reach:
            raise ValueError(f"a tear of {self.tear.opening} px does not fit a reach of {self.tear.reach} px")

    @classmethod
    def identity(cls, size: Size, mpp: float) -> Deformation:
        """No deformation."""
        return cls((size.width, size.height), (size.width, size.height), mpp)

    @property
    def target_size(self) -> Size:
        """Level 0 of the IHC slide."""
        return Size(*self.target)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is moved (a piece may be missing)."""
        return self == replace(Deformation(self.size, self.size, self.mpp), missing=self.missing)

    @property
    def matrix(self) -> Points:
        """The linear part, ``(2, 2)``."""
        turn = math.radians(self.rotation_deg)
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        return self.scale * rotation @ np.diag([-1.0 if self.mirror else 1.0, 1.0])

    def forward(self, points: ArrayLike) -> Points:
        """Positions on the IHC slide of positions on the H&E slide, ``(n, 2)`` x, y in px."""
        at = _as_points(points)
        if self.tear is not None:
            at = self.tear.forward(at)
        at = at + self._elastic(at)
        middle = np.asarray(self.target) / 2 + self.shift
        return np.asarray((at - np.asarray(self.size) / 2) @ self.matrix.T + middle)

    def inverse(self, points: ArrayLike) -> Points:
        """Positions on the H&E slide of positions on the IHC slide, ``(n, 2)`` x, y in px; NaN in the tear's gap.

        By fixed-point iteration, to better than 0.01 px.
        """
        at = self.inverse_smooth(points)
        return at if self.tear is None else self.tear.inverse(at)

    def inverse_smooth(self, points: ArrayLike) -> Points:
        """:meth:`inverse` without the tear, whose inverse is not smooth."""
        middle = np.asarray(self.target) / 2 + self.shift
        start = (_as_points(points) - middle) @ np.linalg.inv(self.matrix).T + np.asarray(self.size) / 2
        return _fixed_point(lambda at: start - self._elastic(at), start) if self.waves else start

    def _elastic(self, points: Points) -> Points:
        total = np.zeros_like(points)
        for wave in self.waves:
            swing = np.sin(points @ np.asarray(wave.wave_vector) + wave.phase)
            total += swing[:, None] * np.asarray(wave.amplitude)
        return total


@dataclass(frozen=True)
class Distortion:
    """Strength of a deformation; :func:`draw_deformation` draws the details from a seed.

    ``shift_um`` is ``(x, y)``; ``elastic_um`` the RMS of the elastic displacement; ``tear_um`` the opening of the tear
    (0: no tear); ``missing`` whether a piece of the section is lost.
    """

    rotation_deg: float = 7.0
    mirror: bool = False
    scale: float = 1.01
    shift_um: tuple[float, float] = (120.0, -80.0)
    elastic_um: float = 15.0
    tear_um: float = 60.0
    missing: bool = True


def draw_deformation(
    distortion: Distortion, size: Size, mpp: float, rng: np.random.Generator, outlines: Sequence[Points] = ()
) -> Deformation:
    """A deformation of the stated strength for an H&E slide of ``size`` px at ``mpp``.

    Wavelengths lie between 0.3 and 1.2 of the slide's longer side, and above 700 µm on larger slides. The tear runs
    into the largest of ``outlines`` (``(n, 2)`` px each), the missing piece lies at the border of the second largest
    one. The IHC slide is as large as the rotated H&E slide with its shift. Raises ValueError if the section would fold
    over itself.
    """
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (size.width / 2, size.height / 2)
    source = (size.width, size.height)
    shift = (distortion.shift_um[0] / mpp, distortion.shift_um[1] / mpp)
    plain = Deformation(source, source, mpp, distortion.rotation_deg, distortion.mirror, distortion.scale, shift)
    reach = np.abs(corners @ plain.matrix.T).max(axis=0) + np.abs(shift)
    width, height = (math.ceil(side - 1e-6) for side in 2 * reach)
    tear, missing = None, None
    by_area = sorted(outlines, key=lambda ring: -Polygon(ring).area)
    if by_area and distortion.tear_um > 0:
        tear = _draw_tear(by_area[0], distortion.tear_um / mpp, rng)
    if by_area and distortion.missing:
        missing = _draw_piece(by_area[min(1, len(by_area) - 1)], rng, avoid=tear)
    return Deformation(
        size=source,
        target=(width, height),
        mpp=mpp,
        rotation_deg=distortion.rotation_deg,
        mirror=distortion.mirror,
        scale=distortion.scale,
        shift=shift,
        waves=_draw_waves(distortion.elastic_um / mpp, max(source), 700 / mpp, rng),
        tear=tear,
        missing=missing,
    )


def _draw_waves(rms: float, side: float, shortest: float, rng: np.random.Generator) -> tuple[Wave, ...]:
    if rms <= 0:
        return ()
    low, high = max(0.3 * side, min(shortest, side)), 1.2 * side
    lengths = np.exp(rng.uniform(math.log(low), math.log(high), _WAVES))
    turns, phases = rng.uniform(0, 2 * np.pi, (2, _WAVES))
    # Short waves are weaker, as in a sheet with stiffness.
    amplitude = rng.normal(size=(_WAVES, 2)) * (lengths / high)[:, None]
    amplitude *= rms / math.sqrt(0.5 * float(np.sum(amplitude**2)))
    vectors = (2 * np.pi / lengths)[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return tuple(Wave(_pair(a), _pair(k), float(phase)) for a, k, phase in zip(amplitude, vectors, phases, strict=True))


def _draw_tear(outline: Points, opening: float, rng: np.random.Generator) -> Tear:
    middle, border = outline.mean(axis=0), outline[rng.integers(len(outline))]
    start, end = border + 0.25 * (border - middle), middle + 0.25 * (border - middle)
    length = float(np.hypot(*(end - start)))
    return Tear(_pair(start), _pair(end), min(opening, length / 3), max(1.5 * min(opening, length / 3), length / 3))


def _draw_piece(outline: Points, rng: np.random.Generator, avoid: Tear | None) -> tuple[tuple[float, float], ...]:
    """An irregular bite out of the border of an outline, away from the tear."""
    places = outline[rng.integers(len(outline), size=8)]
    if avoid is not None:
        far = np.hypot(*(places - avoid.start).T)
        places = places[np.argsort(-far, kind="stable")]
    radius = 0.4 * math.sqrt(Polygon(outline).area / np.pi)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    wobble = sum(rng.normal(0, 0.12 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 8))
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (radius * np.exp(wobble))[:, None] + places[0]
    return tuple(_pair(np.round(point, 2)) for point in ring)


def _fixed_point(step: Callable[[Points], Points], start: Points) -> Points:
    """Iterate ``step`` from ``start`` until no value changes by more than the tolerance."""
    at = start
    for _ in range(100):
        before, at = at, step(at)
        if np.abs(at - before).max(initial=0.0) < _TOLERANCE_PX:
            break
    return at


def _pair(values: ArrayLike) -> tuple[float, float]:
    x, y = np.asarray(values, dtype=np.float64).tolist()
    return x, y


def _as_points(points: ArrayLike) -> Points:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"points must be (n, 2), not {array.shape}")
    return array
