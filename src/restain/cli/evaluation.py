"""Commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain import RestainError
from restain.cli.console import (
    DataOption,
    ModelOption,
    OutOption,
    app,
    command_line,
    out_console,
    plain,
    progress_bar,
)


@app.command(epilog="Example: restain evaluate --model runs/x/bundle --data data/phantom --split test -o report")
def evaluate(
    data: DataOption,
    out: OutOption,
    model: ModelOption = None,
    images: Annotated[
        Path | None, typer.Option(help="Score the pictures in this folder (named as the pairs) instead of a model's.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    fit_on: Annotated[
        list[Path] | None, typer.Option(help="Data whose training split the trivial answers are fitted on.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(min=0.05, help="mpp of the data where it is not the model's.")] = None,
) -> None:
    """Measure virtual against real images, with trivial answers beside every figure; writes OUT/report.html."""
    from restain.evaluate import evaluate_folder

    if model is not None and images is not None:
        raise RestainError("--model and --images exclude one another: score a model, or pictures made elsewhere.")
    with progress_bar("evaluating") as progress:
        summary = evaluate_folder(
            data,
            out,
            model=model,
            images=images,
            split=split,
            fit_on=fit_on or (),
            mpp=mpp,
            command=command_line(),
            progress=progress,
        )
    out_console.print(plain(summary.describe()))
    out_console.print(f"report: {plain(str(summary.report))}")
