"""The commands ``register`` and ``map``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from restain.cli import options as opt
from restain.cli.console import Panel, progress_bar, show, show_fault

command = Panel("Slide pairs")


@command("restain register he.svs ihc.svs -o registration")
def register(
    fixed: Annotated[Path, Argument(help="Slide or picture whose grid is the reference.")],
    moving: Annotated[Path, Argument(help="Slide or picture to register, of any stain and orientation.")],
    out: opt.Out,
    fixed_mpp: Annotated[
        float | None, Option(min=0.01, help="Micrometres per pixel of FIXED, if it states none.")
    ] = None,
    moving_mpp: Annotated[
        float | None, Option(min=0.01, help="Micrometres per pixel of MOVING, if it states none.")
    ] = None,
    override_mpp: opt.OverrideMpp = False,
    elastic: Annotated[
        bool, Option("--elastic/--affine", help="Fit an elastic transform, or an affine one only.")
    ] = True,
    finest: Annotated[float, Option(min=0.1, help="Finest resolution used, in µm per px.")] = 1.0,
) -> None:
    """Register two sections of one tissue block; write the transform, overlays for visual control, and a report.

    The verdict is accepted, doubtful (written, with a warning: inspect the overlays) or refused (exit code 2).
    If an mpp is missing, lengths are in px.
    """
    from restain.registration.output import register_files

    with progress_bar("registering") as progress:
        report = register_files(
            fixed,
            moving,
            out,
            mpps=(fixed_mpp, moving_mpp),
            override_mpp=override_mpp,
            elastic=elastic,
            finest_um=finest,
            progress=progress,
        )
    error = report.estimated_error
    orientation = f"rotation {report.degrees:.1f}°" + (", mirrored" if report.mirrored else "")
    show(
        f"{fixed} and {moving}: {report.verdict} (score {report.score:.1f}); {orientation}; estimated error: "
        f"median {error.median:.1f}, 95th percentile {error.extreme:.1f} {report.unit}; "
        f"folded share {report.folding.folded_share:.2%}. Results: {out}"
    )
    if report.doubt is not None:
        show_fault(f"{report.doubt} in {out}.", "warning")


@command("restain map annotations.geojson --transform registration -o on-ihc.geojson", name="map")
def map_(
    points: Annotated[Path, Argument(help="GeoJSON (QuPath), or CSV with the columns X and Y, in level-0 px.")],
    transform: Annotated[
        Path, Option("--transform", help="Result of 'restain register', or a file with an affine matrix.")
    ],
    out: Annotated[Path, Option("-o", "--out", help="Output file, in the format of the input.")],
    inverse: Annotated[bool, Option("--inverse", help="Map from the moving slide to the fixed one.")] = False,
) -> None:
    """Map annotations from the fixed slide to the moving one, or back."""
    from restain.registration.annotations import map_file
    from restain.registration.transform_file import read_transform

    with progress_bar("mapping"):
        count = map_file(points, read_transform(transform), out, inverse=inverse)
    show(f"{count} points mapped. Result: {out}")
