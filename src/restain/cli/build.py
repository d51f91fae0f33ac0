"""The command ``build``."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from typer import Argument, Option

from restain.cli import options as opt
from restain.cli.console import command_line, out_console, plain, progress_bar, say, show, show_fault
from restain.cli.register import command
from restain.errors import RestainError

if TYPE_CHECKING:
    from restain.dataset_builder import Built, Settings


class Accept(StrEnum):
    """Least verdict of registration for a pair to be used."""

    ACCEPTED = "accepted"
    DOUBTFUL = "doubtful"


@command("restain build he.svs ihc.svs --level 2+ -o data/mine")
def build(
    out: opt.Run,
    he: Annotated[Path | None, Argument(help="H&E slide.")] = None,
    ihc: Annotated[Path | None, Argument(help="HER2 IHC slide of the same block.")] = None,
    csv: Annotated[
        Path | None,
        Option(help="Table of pairs: he, ihc, level, patient, block; optionally mpp_he, mpp_ihc, transform."),
    ] = None,
    level: Annotated[str | None, Option(help="HER2 level of the slide: 0, 1+, 2+ or 3+.")] = None,
    patient: Annotated[str | None, Option(help="Patient. Default: the name of the H&E slide.")] = None,
    block: Annotated[str, Option(help="Tissue block.")] = "",
    transform: Annotated[
        Path | None,
        Option(help="Transform to use instead of a new registration: a result of restain, or an affine matrix."),
    ] = None,
    mpp: Annotated[float, Option(help="Micrometres per pixel of the patches.")] = 0.46,
    size: Annotated[int, Option(help="Side of the patches in px.")] = 1024,
    overlap: Annotated[int, Option(help="Overlap of neighbouring patches in px.")] = 0,
    mpp_he: Annotated[
        float | None, Option(min=0.01, help="Micrometres per pixel of the H&E slide, if it states none.")
    ] = None,
    mpp_ihc: Annotated[
        float | None, Option(min=0.01, help="Micrometres per pixel of the IHC slide, if it states none.")
    ] = None,
    override_mpp: opt.OverrideMpp = False,
    rule: Annotated[
        list[str] | None,
        Option(help="Change a quality rule: --rule focus=0.5, --rule fold=off (docs/build.md). Repeatable."),
    ] = None,
    test_share: Annotated[float, Option(help="Share of slides in the test split; whole patients.")] = 0.2,
    val_share: Annotated[float, Option(help="Share of slides in the validation split; whole patients.")] = 0.1,
    seed: opt.Seed = 0,
    accept: Annotated[
        Accept, Option(help="Lowest verdict of the registration to use: accepted, or doubtful pairs as well.")
    ] = Accept.ACCEPTED,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what each rule rejects; write no pairs.")] = False,
    parquet: Annotated[bool, Option("--parquet", help="Also write manifest.parquet; needs extra 'parquet'.")] = False,
) -> None:
    """Register H&E and IHC slides and cut quality-checked pairs: a data set in BCI layout with a manifest.

    A failed slide pair does not stop the others.
    """
    from restain.dataset_builder import Grid, Settings, SlidePair, build_dataset, parse_rules, read_table
    from restain.her2 import Her2Level
    from restain.registration import Verdict

    if csv is not None:
        if he is not None or level is not None or transform is not None:
            raise RestainError("With --csv, slides, levels and transforms come from the table; give them there.")
        pairs = read_table(csv)
    elif he is None or ihc is None:
        raise RestainError("Give an H&E and an IHC slide with --level, or a table of pairs with --csv.")
    elif level is None:
        raise RestainError(f"{he}: the HER2 level of the slide is missing; give it with --level.")
    else:
        pairs = [
            SlidePair(
                he, ihc, Her2Level.parse(level), patient or he.name, block, mpp_he=mpp_he, mpp_ihc=mpp_ihc, transform=transform
            )
        ]  # fmt: skip
    pairs = [replace(pair, override_mpp=override_mpp) for pair in pairs]
    settings = Settings(Grid(mpp, size, overlap), parse_rules(rule or ()), test_share, val_share, seed, Verdict(accept))
    with progress_bar("building") as progress:
        built = build_dataset(
            pairs, out, settings, dry_run=dry_run, parquet=parquet, command=command_line(), progress=progress, warn=say
        )
    _show_result(built, settings, dry_run=dry_run)
    if built.failed or not any(one.kept for one in built.outcomes):
        raise typer.Exit(2)


def _show_result(built: Built, settings: Settings, *, dry_run: bool) -> None:
    """Print what each rule rejected, the outcome of each slide pair, and the faults."""
    rules = Table("rule", "threshold", "rejected", box=None)
    for name, threshold in settings.thresholds.items():
        removed = sum(one.removed.get(name, 0) for one in built.outcomes)
        rules.add_row(name, "off" if threshold is None else f"{threshold:g}", str(removed))
    out_console.print(rules)
    slides = Table("H&E", "level", "split", "outcome", "windows", "glass", "rejected", "pairs", box=None)
    for one in built.outcomes:
        counts = (one.windows, one.glass, sum(one.removed.values()), one.kept)
        slides.add_row(plain(one.pair.he.name), one.pair.level.text, one.split, one.outcome, *map(str, counts))
    out_console.print(slides)
    kept = sum(one.kept for one in built.outcomes)
    show(f"{kept} pairs {'would be cut' if dry_run else f'in {built.out}'}; contact sheet: {built.page}")
    for one in built.outcomes:
        if one.fault:
            show_fault(one.fault, "error" if one.outcome == "failed" else "warning")
