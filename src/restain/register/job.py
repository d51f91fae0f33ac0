"""``restain register``: one pair of files in, transform, pictures and report out; finished work is kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from restain._version import __version__
from restain.errors import RestainError
from restain.files import digest, file_state, read_kept, write_kept
from restain.images import write_png
from restain.register.files import read_transform, write_transform
from restain.register.level import Progress
from restain.register.pictures import RAMP, WORST_UM, both, checkerboard, error_map, overlay
from restain.register.run import FINEST_UM, Registration, register_slides
from restain.register.transform import Transform
from restain.register.warp import in_pixels
from restain.slides.find import split_number
from restain.slides.slide import Slide, open_slide

REPORT = "report.json"


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
) -> dict[str, Any]:
    """Register the slide or picture ``moving`` to ``fixed``.

    ``out`` gets ``transform.json`` and ``displacement.npy``, ``checkerboard.png``, ``overlay.png``, ``error-map.png`` and, last,
    ``report.json``. A result of the same files and parameters is kept.

    Args:
        fixed: the file whose grid the other is to be read on.
        moving: the other file.
        out: folder, made where needed.
        mpps: micrometres per pixel of the two, where the files do not say. Where either is unknown both are taken as plain
            pictures, and lengths are px of the fixed one.
        override_mpp: take ``mpps`` also where the files state others.
        elastic: go on from the affine matrix to a displacement.
        finest_um: finest resolution used, in µm per px.
        progress: called with thousandths done and 1000.

    Returns:
        The content of ``report.json``.

    Raises:
        RestainError: if a file cannot be read, shows no tissue, the two do not show the same tissue, or a result cannot be
            written.
    """
    with (
        open_slide(fixed, mpps[0], override_mpp=override_mpp) as one,
        open_slide(moving, mpps[1], override_mpp=override_mpp) as two,
    ):
        identity = _identity(one, two, elastic, finest_um)
        if (known := _finished(out, identity)) is not None:
            return known
        found = register_slides(one, two, elastic=elastic, finest_um=finest_um, progress=progress)
        write_transform(out, found.transform, (fixed.name, moving.name))
        _draw(out, one, two, found)
        report = {"restain": __version__, **describe(found, one, two)}
        write_kept(out / REPORT, identity, report)
    return report


def describe(found: Registration, fixed: Slide, moving: Slide) -> dict[str, Any]:
    """The facts of a registration, ready for JSON; lengths in ``unit``."""
    transform, affine, verdict = found.transform, found.affine, found.quality
    error, correlation = verdict.error[np.isfinite(verdict.error)], verdict.correlation
    return {
        "fixed": fixed.path.name,
        "moving": moving.path.name,
        "unit": "px of the fixed picture" if transform.fixed_mpp is None else "µm",
        "verdict": "the same tissue",
        "agreement": found.agreement,
        "orientation": {"degrees": found.coarse.angle, "mirrored": found.coarse.mirrored},
        "affine": affine.matrix.tolist(),
        "folding": asdict(transform.folding()),
        "displacement": _lengths(transform),
        "blocks": len(verdict.points),
        "estimated_error": {"median": _percentile(error, 50), "p95": _percentile(error, 95)},
        "local_correlation": {"median": _percentile(correlation, 50), "p5": _percentile(correlation, 5)},
        "passes": [
            {
                "mpp": one.raster.mpp,
                "block_px": one.raster.block,
                "smoothing_px": one.raster.smoothing,
                "blocks": len(one.misfit),
                "standing": one.standing,
                "accepted": one.accepted,
            }
            for one in found.passes
        ],
    }


def _percentile(values: np.ndarray, share: float) -> float | None:
    return float(np.percentile(values, share)) if len(values) else None


def _lengths(transform: Transform) -> dict[str, float]:
    if transform.lattice is None:
        return {"median": 0.0, "largest": 0.0}
    length = np.hypot(*np.moveaxis(transform.lattice.nodes, -1, 0)) * (transform.fixed_mpp or 1.0)
    return {"median": float(np.median(length)), "largest": float(length.max())}


def _draw(out: Path, fixed: Slide, moving: Slide, found: Registration) -> None:
    if found.transform.fixed_mpp is None:
        fixed, moving = in_pixels(fixed), in_pixels(moving)
    one, other, mpp = both(fixed, moving, found.transform)
    known = None if found.transform.fixed_mpp is None else mpp
    write_png(out / "checkerboard.png", checkerboard(one, other), mpp=known)
    write_png(out / "overlay.png", overlay(one, other, found.looks), mpp=known)
    legend = ", ".join(f"{share * WORST_UM:g}: RGB {colour}" for share, colour in RAMP)
    write_png(out / "error-map.png", error_map(one, found.quality, mpp, fixed.mpp), {"error": legend}, known)


def _identity(fixed: Slide, moving: Slide, elastic: bool, finest_um: float) -> str:
    """What the result depends on, as a digest; files by name, size and time of their last change."""
    facts: list[Any] = [__version__, elastic, finest_um]
    for slide in (fixed, moving):
        state = file_state(split_number(slide.path)[0])
        facts += [str(slide.path.resolve()), *state[1:], slide.mpp if slide.has_mpp else None]
    return digest(facts)


def _finished(out: Path, identity: str) -> dict[str, Any] | None:
    if (report := read_kept(out / REPORT, identity)) is not None:
        try:
            read_transform(out)
        except RestainError:
            return None
    return report
