"""The command that makes a data set of slides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from restain.cli.console import OverrideMppOption, app, command_line, err_console, out_console, plain, progress_bar, say
from restain.errors import RestainError

if TYPE_CHECKING:
    from restain.dataset_builder import Built, Settings, SlidePair


@app.command(epilog="Example: restain build he.svs ihc.svs --level 2+ -o data/mine")
def build(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the data set; the same folder goes on.")],
    he: Annotated[Path | None, typer.Argument(help="H&E slide.")] = None,
    ihc: Annotated[Path | None, typer.Argument(help="HER2 IHC slide of the same block.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Many pairs: CSV with he, ihc, level, patient, block and, where needed, mpp_he, mpp_ihc, transform."
        ),
    ] = None,
    level: Annotated[str | None, typer.Option(help="HER2 level of the slide: 0, 1+, 2+ or 3+.")] = None,
    patient: Annotated[str | None, typer.Option(help="Patient; the H&E slide's name where not given.")] = None,
    block: Annotated[str, typer.Option(help="Block.")] = "",
    transform: Annotated[
        Path | None, typer.Option(help="Use this in place of a registration: restain's, or an affine matrix.")
    ] = None,
    mpp: Annotated[float, typer.Option(help="Micrometres per pixel of the patches.")] = 0.46,
    size: Annotated[int, typer.Option(help="Side of the patches in px.")] = 1024,
    overlap: Annotated[int, typer.Option(help="Px that neighbouring patches share.")] = 0,
    mpp_he: Annotated[float | None, typer.Option(min=0.01, help="mpp of the H&E where it does not say.")] = None,
    mpp_ihc: Annotated[float | None, typer.Option(min=0.01, help="mpp of the IHC where it does not say.")] = None,
    override_mpp: OverrideMppOption = False,
    rule: Annotated[
        list[str] | None, typer.Option(help="Change a rule: --rule focus=0.5, --rule fold=off (docs/build.md).")
    ] = None,
    test_share: Annotated[float, typer.Option(help="Share of slides for testing; whole patients.")] = 0.2,
    val_share: Annotated[float, typer.Option(help="Share of slides for validation; whole patients.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of what balance leaves out.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what each rule takes out; write no pairs.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write manifest.parquet too; needs pyarrow.")] = False,
) -> None:
    """Register H&E and IHC slides and cut checked pairs: a data set in BCI layout with a manifest. A pair that fails stops no other."""
    from restain.dataset_builder import Grid, Settings, build_dataset, parse_rules, read_table

    if csv is not None:
        if he is not None or level is not None or transform is not None:
            raise RestainError("With --csv slides, levels and transforms come from the table; give them there.")
        pairs = read_table(csv)
    elif he is None or ihc is None:
        raise RestainError("Give an H&E and an IHC slide with --level, or a table of pairs with --csv.")
    else:
        pairs = [_pair(he, ihc, level, patient, block, mpp_he, mpp_ihc, transform)]
    pairs = [replace(pair, override_mpp=override_mpp) for pair in pairs]
    settings = Settings(Grid(mpp, size, overlap), parse_rules(rule or ()), test_share, val_share, seed)
    with progress_bar("building") as progress:
        built = build_dataset(
            pairs, out, settings, dry_run=dry_run, parquet=parquet, command=command_line(), progress=progress, warn=say
        )
    _show(built, settings, dry_run=dry_run)
    if built.failed:
        raise typer.Exit(2)


def _pair(
    he: Path,
    ihc: Path,
    level: str | None,
    patient: str | None,
    block: str,
    mpp_he: float | None,
    mpp_ihc: float | None,
    transform: Path | None,
) -> SlidePair:
    from restain.dataset_builder import SlidePair
    from restain.her2 import Her2Level

    if level is None:
        raise RestainError(f"{he}: the slide's HER2 level is needed; give it with --level.")
    return SlidePair(
        he, ihc, Her2Level.parse(level), patient or he.name, block, mpp_he=mpp_he, mpp_ihc=mpp_ihc, transform=transform
    )


def _show(built: Built, settings: Settings, *, dry_run: bool) -> None:
    """What each rule took out, then what became of each slide pair; faults on standard error."""
    rules = Table("rule", "threshold", "windows out", box=None)
    for name, threshold in settings.thresholds.items():
        removed = sum(one.removed.get(name, 0) for one in built.outcomes)
        rules.add_row(name, "off" if threshold is None else f"{threshold:g}", str(removed))
    out_console.print(rules)
    slides = Table("H&E", "level", "part", "outcome", "windows", "glass", "out", "pairs", box=None)
    for one in built.outcomes:
        counts = (one.windows, one.glass, sum(one.removed.values()), one.kept)
        slides.add_row(plain(one.pair.he.name), one.pair.level.text, one.split, one.outcome, *map(str, counts))
    out_console.print(slides)
    kept = sum(one.kept for one in built.outcomes)
    out_console.print(plain(f"{kept} pairs {'would be cut' if dry_run else f'in {built.out}'}; look at {built.page}"))
    for one in built.failed:
        err_console.print(f"[bold red]error:[/bold red] {plain(one.fault)}")
