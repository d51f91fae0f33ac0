"""``restain register``: register two files; write the transform, pictures and a report; keep a finished result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from restain._version import __version__
from restain.errors import RestainError
from restain.files import digest, file_state, read_kept, write_kept
from restain.geometry import Point, Region
from restain.images import Rgb, write_png
from restain.progress import Progress
from restain.registration.acceptance import Quality, Verdict
from restain.registration.features import StainStrength, tissue_density
from restain.registration.register import FINEST_UM, Registration, register_slides
from restain.registration.transform import Folding
from restain.registration.transform_file import read_transform, write_transform
from restain.registration.warp import warp_region
from restain.slides import Slide, open_slide
from restain.slides.find import split_number

REPORT = "report.json"
PICTURE_PX = 2048
"""Maximum longer side of the pictures."""
FIELDS = 16
"""Fields of the checkerboard along its longer side."""
RAMP = ((0.0, (49, 104, 142)), (0.25, (94, 201, 98)), (0.5, (253, 231, 37)), (1.0, (200, 30, 30)))
"""Colours (RGB) of errors, as shares of :data:`WORST_UM`."""
WORST_UM = 20.0
"""Errors of this many µm (px for plain pictures) and more are red."""


@dataclass(frozen=True)
class Spread:
    """Median and an extreme percentile of lengths or correlations; None without blocks."""

    median: float | None
    extreme: float | None

    @classmethod
    def of(cls, values: NDArray[np.floating], percentage: float) -> Spread:
        if not len(values):
            return cls(None, None)
        return cls(float(np.median(values)), float(np.percentile(values, percentage)))


@dataclass(frozen=True)
class PassReport:
    """One elastic pass: its blocks, and whether its shifts were used."""

    mpp: float
    block_px: int
    smoothing_px: float
    blocks: int
    z_score: float
    accepted: bool


@dataclass(frozen=True)
class Report:
    """The content of ``report.json``: what :class:`Registration` found, lengths in ``unit``."""

    restain: str
    fixed: str
    moving: str
    unit: str
    verdict: Verdict
    score: float
    """By which the verdict was given."""
    agreement: float
    degrees: float
    mirrored: bool
    affine: list[list[float]]
    folding: Folding
    displacement: Spread
    """Median and maximum."""
    blocks: int
    estimated_error: Spread
    """Median and 95th percentile."""
    local_correlation: Spread
    """Median and 5th percentile."""
    passes: list[PassReport]

    @property
    def doubt(self) -> str | None:
        """A sentence on what to do with a doubtful pair; None for an accepted one."""
        if self.verdict is Verdict.ACCEPTED:
            return None
        return (
            f"{self.fixed} and {self.moving} are a doubtful pair: they may show different tissue (score {self.score:.2f}). "
            "Inspect overlay.png and checkerboard.png"
        )


def register_files(
    fixed: Path,
    moving: Path,
    out: Path,
    *,
    mpps: tuple[float | None, float | None] = (None, None),
    override_mpp: bool = False,
    elastic: bool = True,
    finest_um: float = FINEST_UM,
    progress: Progress | None = None,
) -> Report:
    """Register the slide or picture ``moving`` to ``fixed`` (see :func:`register_slides`).

    The result of a doubtful pair is written like that of an accepted one, and marked in the report.
    ``out`` gets ``transform.json`` and ``displacement.npy``, ``checkerboard.png``, ``overlay.png``, ``error-map.png`` and,
    last, ``report.json``. A result of the same files and parameters is kept.

    Args:
        fixed: the file that defines the grid.
        moving: the other file.
        out: folder, made if needed.
        mpps: micrometres per pixel of the two, for files that state none.
        override_mpp: use ``mpps`` also for files that state others.
        elastic: refine the affine matrix by a displacement.
        finest_um: finest resolution used, in µm per px.
        progress: called with thousandths done and 1000.

    Raises:
        RestainError: if a file cannot be read or shows no tissue, the two do not show the same tissue, or a result cannot be
            written.
    """
    with (
        open_slide(fixed, mpps[0], override_mpp=override_mpp) as one,
        open_slide(moving, mpps[1], override_mpp=override_mpp) as two,
    ):
        inputs = [slide_state(one), slide_state(two)]
        identity = digest([__version__, elastic, finest_um, inputs])
        if (kept := _finished(out, identity)) is not None:
            return kept
        found = register_slides(one, two, elastic=elastic, finest_um=finest_um, progress=progress)
        write_transform(out, found.transform, (fixed.name, moving.name))
        _write_pictures(out, one, two, found)
        report = _report(found, fixed.name, moving.name)
        write_kept(out / REPORT, identity, asdict(report))
    return report


def slide_state(slide: Slide) -> list[Any]:
    """Path, file state and mpp of a slide: another list after every change of its file."""
    state = file_state(split_number(slide.path)[0])
    return [str(slide.path.resolve()), *state[1:], slide.mpp if slide.has_mpp else None]


def _report(found: Registration, fixed: str, moving: str) -> Report:
    transform, quality = found.transform, found.quality
    lengths = np.zeros(1)
    if transform.lattice is not None:
        lengths = np.hypot(*np.moveaxis(transform.lattice.nodes, -1, 0)) * (transform.fixed_mpp or 1.0)
    return Report(
        restain=__version__,
        fixed=fixed,
        moving=moving,
        unit="px of the fixed picture" if transform.fixed_mpp is None else "µm",
        verdict=found.verdict,
        score=found.initial.score,
        agreement=found.agreement,
        degrees=found.initial.angle,
        mirrored=found.initial.mirrored,
        affine=found.affine.matrix.tolist(),
        folding=transform.folding(),
        displacement=Spread.of(lengths.ravel(), 100),
        blocks=len(quality.places),
        estimated_error=Spread.of(quality.error[np.isfinite(quality.error)], 95),
        local_correlation=Spread.of(quality.correlation, 5),
        passes=[
            PassReport(
                one.grid.mpp, one.grid.block, one.grid.smoothing, len(one.shifts.points), one.z_score, one.accepted
            )
            for one in found.passes
        ],
    )


def _finished(out: Path, identity: str) -> Report | None:
    if (content := read_kept(out / REPORT, identity)) is None:
        return None
    try:
        read_transform(out)
        return TypeAdapter(Report).validate_python(content)
    except (RestainError, ValueError):
        return None


def _write_pictures(out: Path, fixed: Slide, moving: Slide, found: Registration) -> None:
    plain = found.transform.fixed_mpp is None
    if plain:
        fixed, moving = fixed.taken_at(1.0), moving.taken_at(1.0)
    one, mpp = fixed.thumbnail(PICTURE_PX)
    other = warp_region(moving, found.transform, Region(Point(0, 0), fixed.size_at(mpp)), mpp)
    known = None if plain else mpp
    fields = max(8, max(one.shape) // FIELDS)
    write_png(out / "checkerboard.png", checkerboard(one, other, fields), mpp=known)
    write_png(out / "overlay.png", _overlay(one, other, found.stains), mpp=known)
    legend = ", ".join(f"{share * WORST_UM:g}: RGB {colour}" for share, colour in RAMP)
    write_png(out / "error-map.png", _error_map(one, found.quality, mpp / fixed.mpp), {"error": legend}, known)


def checkerboard(one: Rgb, other: Rgb, side: int) -> Rgb:
    """Alternating fields of ``side`` px of two pictures ``(h, w, 3)``, the first of ``one``."""
    rows, columns = (np.arange(length) // side for length in one.shape[:2])
    return np.where((np.add.outer(rows, columns) % 2 == 1)[..., None], other, one)


def _overlay(one: Rgb, other: Rgb, stains: tuple[StainStrength, StainStrength]) -> Rgb:
    """Tissue of ``one`` in magenta and of ``other`` in green; where both are, grey."""
    light = [255 * (1 - 0.8 * tissue_density(rgb, stain)) for rgb, stain in zip((one, other), stains, strict=True)]
    return np.rint(np.stack([light[1], light[0], light[1]], axis=-1)).astype(np.uint8)


def _error_map(picture: Rgb, quality: Quality, step: float) -> Rgb:
    """The fixed slide in grey, ``(h, w, 3)`` with ``step`` px of level 0 per px, and each block's error in colour (:data:`RAMP`)."""
    grey = picture.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    plane = np.full(quality.shape, np.nan)
    plane[quality.places[:, 0], quality.places[:, 1]] = quality.error
    rows, columns = (
        np.clip((np.arange(n) + 0.5) * step / quality.spacing, 0, side - 1).astype(int)
        for n, side in zip(picture.shape[:2], plane.shape, strict=True)
    )
    error = plane[np.ix_(rows, columns)]
    shown = ~np.isnan(error)
    stops, colours = [stop for stop, _ in RAMP], np.array([colour for _, colour in RAMP])
    ramp = np.stack([np.interp(error[shown] / WORST_UM, stops, colours[:, i]) for i in range(3)], axis=-1)
    grey[shown] = 0.4 * grey[shown] + 0.6 * ramp
    return np.rint(grey).astype(np.uint8)
