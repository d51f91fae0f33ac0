"""Commands on many slides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import (
    ModelOption,
    MppOption,
    OutOption,
    OverrideMppOption,
    app,
    command_line,
    out_console,
    progress_bar,
    say,
)


@app.command(epilog="Example: restain cohort patients.csv -o cohort")
def cohort(
    table: Annotated[
        Path, typer.Argument(help="CSV with the columns slide, patient, block; slides relative to the CSV.")
    ],
    out: OutOption,
    model: ModelOption = None,
    mpp: MppOption = None,
    override_mpp: OverrideMppOption = False,
    field: Annotated[float, typer.Option(min=250, max=5000, help="Side of a field in µm.")] = 1000.0,
    reader: Annotated[
        Path | None,
        typer.Option(help="Reader for a second opinion; without it the shipped one, which knows the phantom."),
    ] = None,
    rule_only: Annotated[bool, typer.Option("--rule-only", help="Ask no reader.")] = False,
    tile: Annotated[int, typer.Option(min=256, help="Largest side in px of what the network takes at a time.")] = 1024,
    engine: Annotated[str, typer.Option(help="What runs the network: auto, or a name (docs/speed.md).")] = "auto",
) -> None:
    """Stain the slides of patients, read HER2 per field, slide and patient, and write one page."""
    from restain.bundle import load_bundle
    from restain.cohort import run_cohort
    from restain.evaluate.reading import load_reader
    from restain.stain import Restainer

    with progress_bar("cohort") as progress:
        page = run_cohort(
            table,
            out,
            restainer=Restainer(load_bundle(model), tile=tile, engine=engine),
            reader=None if rule_only else load_reader(reader),
            mpp=mpp,
            override_mpp=override_mpp,
            side_um=field,
            command=command_line(),
            progress=progress,
            warn=say,
        )
    out_console.print(f"{page}")
