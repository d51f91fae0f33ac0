"""Commands on many slides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import (
    DeviceOption,
    EngineOption,
    ModelOption,
    MppOption,
    OutOption,
    OverrideMppOption,
    app,
    command_line,
    given,
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
    classifier: Annotated[
        Path | None,
        typer.Option(help="Her2Classifier for a second opinion; without it the shipped one, which knows the phantom."),
    ] = None,
    rule_only: Annotated[bool, typer.Option("--rule-only", help="Ask no classifier.")] = False,
    engine: EngineOption = None,
    device: DeviceOption = None,
) -> None:
    """Stain the slides of patients, read HER2 per field, slide and patient, and write one page."""
    from restain.cohort import run_cohort
    from restain.evaluation.her2_classifier import load_her2_classifier
    from restain.stain import StainOptions, load

    stains = load(model, device=device, options=StainOptions().having(**given(engine=engine)))
    with progress_bar("cohort") as progress:
        page = run_cohort(
            table,
            out,
            model=stains,
            classifier=None if rule_only else load_her2_classifier(classifier),
            mpp=mpp,
            override_mpp=override_mpp,
            side_um=field,
            command=command_line(),
            progress=progress,
            warn=say,
        )
    out_console.print(f"{page}")
