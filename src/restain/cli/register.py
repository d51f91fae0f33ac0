"""Commands that lay one slide on another and carry annotations between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import OutOption, OverrideMppOption, app, out_console, plain, progress_bar


@app.command(epilog="Example: restain register he.svs ihc.svs -o registration")
def register(
    fixed: Annotated[Path, typer.Argument(help="Slide or picture on whose grid the other is to lie.")],
    moving: Annotated[Path, typer.Argument(help="Slide or picture, of any stain, turned or mirrored.")],
    out: OutOption,
    fixed_mpp: Annotated[float | None, typer.Option(min=0.01, help="mpp of FIXED where it does not say.")] = None,
    moving_mpp: Annotated[float | None, typer.Option(min=0.01, help="mpp of MOVING where it does not say.")] = None,
    override_mpp: OverrideMppOption = False,
    elastic: Annotated[bool, typer.Option("--elastic/--affine", help="Or an affine matrix alone.")] = True,
    finest: Annotated[float, typer.Option(min=0.1, help="Finest resolution that is looked at, in µm per px.")] = 1.0,
) -> None:
    """Register two sections of one block; writes the transform, pictures to judge it by, and a report.

    Without an mpp for both, they are plain pictures and lengths are px. Sections of different blocks are refused.
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
    turned = f"turned by {report.orientation['degrees']:.1f}°"
    if report.orientation["mirrored"]:
        turned += " and mirrored"
    out_console.print(
        plain(
            f"{fixed} and {moving} show the same tissue (agreement {report.agreement:.1f}), {turned}; estimated error: "
            f"median {error['median']:.1f}, 95th percentile {error['p95']:.1f} {report.unit}; "
            f"folded share {report.folding['folded_share']:.2%}. Wrote {out}."
        )
    )


@app.command("map", epilog="Example: restain map annotations.geojson --transform registration -o on-ihc.geojson")
def map_(
    points: Annotated[Path, typer.Argument(help="GeoJSON (QuPath), or CSV with columns X and Y, in px of level 0.")],
    transform: Annotated[
        Path, typer.Option("--transform", help="Result of `restain register`, or a file with an affine matrix.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write, in the same format.")],
    inverse: Annotated[
        bool, typer.Option("--inverse", help="The points are of the moving slide; carry them to the fixed one.")
    ] = False,
) -> None:
    """Carry annotations from the fixed slide to the moving one, or back."""
    from restain.registration.annotations import map_file
    from restain.registration.transform_file import read_transform

    with progress_bar("mapping"):
        count = map_file(points, read_transform(transform), out, inverse=inverse)
    out_console.print(plain(f"{count} points carried. Wrote {out}."))
