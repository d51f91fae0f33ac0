"""The command that compares virtual staining with spatial transcriptomics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import (
    DeviceOption,
    ModelOption,
    MppOption,
    OutOption,
    OverrideMppOption,
    app,
    command_line,
    out_console,
    plain,
    progress_bar,
    say,
)


@app.command(name="evaluate-spots", epilog="Example: restain evaluate-spots C2.jpg --spots C2.csv --mpp 0.69 -o c2")
def evaluate_spots(
    slide: Annotated[Path, typer.Argument(help="H&E image that the spots were measured on.")],
    spots: Annotated[
        Path,
        typer.Option(help="CSV (spot, x_px, y_px, total, GENE), 10x Visium folder, or AnnData file (.h5ad)."),
    ],
    out: OutOption,
    gene: Annotated[str, typer.Option(help="Symbol of the gene.")] = "ERBB2",
    spot_um: Annotated[
        float | None, typer.Option(min=1, help="Diameter of a spot in µm; else what the file states, or 100.")
    ] = None,
    model: ModelOption = None,
    mpp: MppOption = None,
    override_mpp: OverrideMppOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    device: DeviceOption = None,
) -> None:
    """Compare virtual DAB with the mRNA counts of spatial transcriptomics, spot by spot, beside baselines of the H&E."""
    from restain.spots import evaluate_spots as evaluate
    from restain.stain import load

    with progress_bar("spots") as progress:
        found = evaluate(
            slide,
            spots,
            out,
            model=load(model, device=device),
            gene=gene,
            spot_um=spot_um,
            mpp=mpp,
            override_mpp=override_mpp,
            seed=seed,
            command=command_line(),
            progress=progress,
            warn=say,
        )
    out_console.print(plain(found.describe()))
    out_console.print(plain(f"page: {found.page}"))
