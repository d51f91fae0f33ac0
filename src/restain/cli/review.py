"""The commands of a blinded review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restain.cli.console import OutOption, app, command_line, out_console, plain, progress_bar, say

if TYPE_CHECKING:
    from restain.review import Study

review = typer.Typer(
    name="review", help="Blinded review: who tells virtual from real, and do readers agree?", no_args_is_help=True
)
app.add_typer(review)

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the study.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Database in place of the folder's SQLite file, as an SQLAlchemy URL.")
]


def _open(folder: Path, store: str | None) -> Study:
    from restain.review import Study

    return Study.open(folder, store)


@review.command(epilog="Example: restain review create study.yaml -o trial")
def create(
    study: Annotated[Path, typer.Argument(help="YAML file: images, questions, readers (docs/review.md).")],
    out: OutOption,
    store: StoreOption = None,
) -> None:
    """Make a study: random orders, tokens, an empty store. It is there whole or not at all."""
    from restain.review import create_study, read_definition

    definition = read_definition(study)
    with progress_bar("images") as progress, create_study(definition, out, store, progress=progress, warn=say) as made:
        total = made.progress(made.readers[0]).total
    out_console.print(plain(f"{out}: {len(definition.readers)} readers, {total} images to read for each."))


@review.command(epilog="Example: restain review results trial -o results")
def results(folder: FolderArgument, out: OutOption, store: StoreOption = None) -> None:
    """Agreement, telling virtual from real, non-inferiority, each with its interval: a page, CSV and JSON."""
    with _open(folder, store) as study:
        from restain.review.results import write_results

        with progress_bar("measuring"):
            page = write_results(study, out, command=command_line())
    out_console.print(plain(f"look at {page}"))


@review.command(epilog="Example: restain review export trial -o answers.csv")
def export(
    folder: FolderArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="CSV; a name ending in .imrmc is for iMRMC's Java program.")],
    question: Annotated[str | None, typer.Option(help="Name of the question; the HER2 level if not given.")] = None,
    store: StoreOption = None,
) -> None:
    """Write the answers with iMRMC's columns, for an independent analysis."""
    with _open(folder, store) as study:
        from restain.review.export import export_scores

        unknown = export_scores(study, out, question)
    if unknown:
        say(f"{unknown} cases have no known level and so no truth row, which iMRMC demands of every case.")
    out_console.print(plain(f"answers are in {out}"))
