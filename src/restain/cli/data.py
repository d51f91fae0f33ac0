"""Commands on data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import (
    app,
    err_console,
    out_console,
    plain,
    progress_bar,
)


@app.command(epilog="Example: restain check BCI_dataset")
def check(data: Annotated[Path, typer.Argument(help="Folder of pairs.")]) -> None:
    """Count a folder's pairs per split and level and list all its faults; exits with 2 when there are any."""
    from restain.data import check_folder

    with progress_bar("reading") as progress:
        report = check_folder(data, progress)
    out_console.print(plain(report.describe()))
    for fault in report.faults:
        err_console.print(f"[red]fault:[/red] {plain(fault.sentence)}")
    if report.faults:
        raise typer.Exit(2)


@app.command(epilog="Example: restain phantom data/phantom --pairs 40 --size 512 --seed 1")
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder for the data set (BCI layout).")],
    pairs: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 40,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Side of the images in px.")] = 512,
    levels: Annotated[str, typer.Option(help="HER2 levels, comma-separated; they take turns.")] = "0,1+,2+,3+",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same data set.")] = 0,
    mpp: Annotated[float, typer.Option(min=0.1, max=2.0, help="Micrometres per pixel.")] = 0.46,
    test_share: Annotated[float, typer.Option(min=0, max=1, help="Share of pairs in the test split.")] = 0.2,
    misalign: Annotated[float, typer.Option(min=0, help="RMS of an elastic misalignment in µm.")] = 0.0,
    from_he: Annotated[
        list[Path] | None, typer.Option(help="Real H&E image or folder: keep its pixels, invent only the IHC.")
    ] = None,
    from_he_mpp: Annotated[float | None, typer.Option(min=0.05, help="mpp of the real H&E images.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Write synthetic paired tissue with known truth. It is never real tissue and says so."""
    from restain.her2 import Her2Level
    from restain.phantom import write_phantom

    with progress_bar("phantom") as progress:
        summary = write_phantom(
            out,
            pairs=pairs,
            size=size,
            levels=[Her2Level.parse(text.strip()) for text in levels.split(",")],
            seed=seed,
            mpp=mpp,
            test_share=test_share,
            misalign_um=misalign,
            from_he=from_he or (),
            from_he_mpp=from_he_mpp,
            progress=progress,
            workers=workers,
        )
    out_console.print(plain(summary.describe()))
