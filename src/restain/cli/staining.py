"""The commands ``stain`` and ``demo``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from typer import Argument, Option

from restain import NOTICE
from restain.cli import options as opt
from restain.cli.console import Panel, out_console, plain, progress_bar, say, show, show_fault
from restain.errors import RestainError

if TYPE_CHECKING:
    from restain.stain import Outcome

command = Panel("Staining")


class ResultFormat(StrEnum):
    """File format of a virtual image."""

    auto = "auto"
    png = "png"
    ome_tiff = "ome-tiff"
    dicom = "dicom"


@command("restain stain slides/*.svs HE/*.png -o virtual --dab")
def stain(
    sources: Annotated[
        list[Path],
        Argument(help="H&E slides and pictures, folders or patterns of them, or a CSV with a column 'slide'."),
    ],
    out: opt.Run,
    model: opt.Model = None,
    mpp: opt.Mpp = None,
    override_mpp: opt.OverrideMpp = False,
    dab: Annotated[bool, Option("--dab", help="Also write the DAB density as a separate file.")] = False,
    region: Annotated[
        tuple[int, int, int, int] | None, Option(help="Stain only this region: X Y WIDTH HEIGHT in level-0 px.")
    ] = None,
    roi: Annotated[
        Path | None, Option(help="Stain only inside the outlines of this GeoJSON file, in level-0 px.")
    ] = None,
    everywhere: Annotated[
        bool, Option("--everywhere", help="Skip tissue detection and stain the glass as well.")
    ] = False,
    form: Annotated[
        ResultFormat, Option("--format", help="Output format. auto: PNG for pictures, OME-TIFF for slides.")
    ] = ResultFormat.auto,
    quality: Annotated[
        int | None, Option(min=1, max=100, help="JPEG quality of slides. Default: 90. Pictures are stored losslessly.")
    ] = None,
    white: Annotated[
        tuple[float, float, float] | None,
        Option(help="White point of the result: R G B, up to 255. Default: that of the model."),
    ] = None,
    strict: Annotated[
        bool, Option("--strict", help="Stop at a tile that cannot be read, instead of marking a hole.")
    ] = False,
    normalization: Annotated[
        bool,
        Option(
            "--normalization/--no-normalization",
            help="Normalise the white point and stain strength of the H&E, for models that were trained so.",
        ),
    ] = True,
    engine: opt.Engine = None,
    device: opt.Device = None,
    ray: Annotated[
        str | None, Option(help="Run on the Ray cluster at this address (HOST:PORT or auto); needs extra 'ray'.")
    ] = None,
    ray_cpus: Annotated[float, Option(min=0.1, help="CPU cores per slide, with --ray.")] = 2,
    ray_gpus: Annotated[float, Option(min=0, help="GPUs per slide, or a fraction of one, with --ray.")] = 0,
) -> None:
    """Stain H&E pictures and whole slides as virtual HER2 IHC.

    A failed input does not stop the others. Re-run the same command to resume.
    """
    from restain.slides import read_geojson
    from restain.stain import StainOptions, find_sources, load, stain_many
    from restain.stain.cluster import Cluster, stain_on_cluster
    from restain.stain.model import region_outline

    if region is not None and roi is not None:
        raise RestainError("--region and --roi exclude each other: give one of them.")
    outlines = None if roi is None else read_geojson(roi)
    if region is not None:
        outlines = [region_outline(region)]
    options = StainOptions().having(
        **opt.chosen(mpp=mpp, roi=outlines, white=white, quality=quality, engine=engine),
        override_mpp=override_mpp,
        dab=dab,
        everywhere=everywhere,
        strict=strict,
        normalization=normalization,
        format=form.value,
    )
    loaded = load(model, device=device)
    loaded.check(options)
    found = find_sources(sources)
    with progress_bar("staining") as progress:
        if ray is not None:
            cluster = Cluster(ray, ray_cpus, ray_gpus)
            outcomes = stain_on_cluster(
                found, out, loaded.bundle, options, cluster=cluster, progress=progress, warn=say
            )
        else:
            outcomes = stain_many(found, out, loaded, options, progress=progress, warn=say)
    _show_outcomes(outcomes)
    if any(outcome.result for outcome in outcomes):
        out_console.print(f"[bold]{NOTICE}[/bold]; training data of the model: {plain(loaded.bundle.card.data)}")
    if any(outcome.outcome == "failed" for outcome in outcomes):
        raise typer.Exit(2)


def _show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print the paths of the results, a table if there are several sources, and the faults."""
    for outcome in outcomes:
        if outcome.result is not None:
            show(outcome.result)
    if len(outcomes) > 1:
        table = Table("source", "outcome", "seconds", "tissue, mm²", "Mpx/s", "seam ratio", "holes", box=None)
        for o in outcomes:
            figures = (o.seconds, o.tissue_mm2, o.megapixels_per_second, o.seam_ratio)
            cells = ["" if v is None else f"{v:.3g}" for v in figures]
            table.add_row(plain(o.source.name), o.outcome, *cells, "" if o.holes is None else str(o.holes))
        out_console.print(table)
    for outcome in outcomes:
        if outcome.fault:
            show_fault(outcome.fault)


@command("restain demo -o demo --real ../shared/data")
def demo(
    out: opt.Out = Path("demo"),
    real: Annotated[
        Path | None, Option(help="Folder of real data sets to stain as well (BCI, challenge, AB or MIST layout).")
    ] = None,
    pairs: Annotated[int, Option(min=4, help="Number of phantom pairs to generate.")] = 8,
) -> None:
    """Generate phantom pairs, stain and evaluate them beside real data, and write one HTML page."""
    from restain.demo import run_demo

    with progress_bar("demo") as progress:
        page = run_demo(out, real=real, pairs=pairs, progress=progress, say=say)
    show(page)
