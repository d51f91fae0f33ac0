"""The commands ``review create``, ``results`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from restain.cli import options as opt
from restain.cli.console import app, command_line, progress_bar, say, show
from restain.cli.serve import PANEL

review = typer.Typer(name="review", help="Create and analyse blinded reader studies.", no_args_is_help=True)
app.add_typer(review, rich_help_panel=PANEL)

FolderArgument = Annotated[Path, Argument(help="Folder of the study.")]
StoreOption = Annotated[
    str | None, Option("--store", help="SQLAlchemy URL of the database. Default: a SQLite file in the folder.")
]


@review.command(epilog="Example: restain review create study.yaml -o trial")
def create(
    study: Annotated[Path, Argument(help="YAML file of images, questions and readers (docs/review.md).")],
    out: opt.Out,
    store: StoreOption = None,
) -> None:
    """Create a study with a random reading order for each reader."""
    from restain.review import create_study, read_definition

    definition = read_definition(study)
    with progress_bar("images") as progress, create_study(definition, out, store, progress=progress, warn=say) as made:
        total = made.progress(made.readers[0]).total
    show(f"{out}: {len(definition.readers)} readers, {total} images to read for each.")


@review.command(epilog="Example: restain review results trial -o results")
def results(folder: FolderArgument, out: opt.Out, store: StoreOption = None) -> None:
    """Compute agreement, discrimination of virtual from real, and non-inferiority, with 95 % intervals.

    Write a page, CSV and JSON.
    """
    from restain.review import Study

    with Study.open(folder, store) as study:
        from restain.review.results import write_results

        with progress_bar("analysing"):
            page = write_results(study, out, command=command_line())
    show(f"page: {page}")


@review.command(epilog="Example: restain review export trial -o answers.csv")
def export(
    folder: FolderArgument,
    out: Annotated[Path, Option("-o", "--out", help="Output CSV; .imrmc for the iMRMC program in Java.")],
    question: Annotated[str | None, Option(help="Name of the question. Default: the HER2 level.")] = None,
    store: StoreOption = None,
) -> None:
    """Export the answers in the format of iMRMC, for an independent analysis."""
    from restain.review import Study

    with Study.open(folder, store) as study:
        from restain.review.export import export_scores

        unknown = export_scores(study, out, question)
    if unknown:
        say(f"{unknown} cases have no true level and therefore no truth row, which iMRMC requires for every case.")
    show(f"answers: {out}")
