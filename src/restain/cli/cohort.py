"""The command ``cohort``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from restain.cli import options as opt
from restain.cli.console import command_line, progress_bar, say, show
from restain.cli.staining import command


@command("restain cohort patients.csv -o cohort")
def cohort(
    table: Annotated[Path, Argument(help="CSV with the columns slide, patient and block; paths are relative to it.")],
    out: opt.Run,
    model: opt.Model = None,
    mpp: opt.Mpp = None,
    override_mpp: opt.OverrideMpp = False,
    field: Annotated[float, Option(min=250, max=5000, help="Side of a field in µm.")] = 1000.0,
    classifier: opt.Her2Classifier = None,
    rule_only: Annotated[
        bool, Option("--rule-only", help="Score by the HER2 rule alone, without a classifier.")
    ] = False,
    engine: opt.Engine = None,
    device: opt.Device = None,
) -> None:
    """Stain the slides of several patients, score HER2 per field, slide and patient, and write one page.

    A failed slide does not stop the others. Re-run the same command to resume.
    """
    from restain.cohort import run_cohort
    from restain.evaluation.her2_classifier import load_her2_classifier
    from restain.stain import StainOptions, load

    loaded = load(model, device=device, options=StainOptions().having(**opt.chosen(engine=engine)))
    with progress_bar("cohort") as progress:
        page = run_cohort(
            table,
            out,
            model=loaded,
            classifier=None if rule_only else load_her2_classifier(classifier),
            mpp=mpp,
            override_mpp=override_mpp,
            side_um=field,
            command=command_line(),
            progress=progress,
            warn=say,
        )
    show(page)
