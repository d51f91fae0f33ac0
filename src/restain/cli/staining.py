"""Commands that stain."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from restain import NOTICE
from restain.cli.console import (
    DeviceOption,
    EngineOption,
    ModelOption,
    OutOption,
    app,
    err_console,
    given,
    out_console,
    plain,
    progress_bar,
    say,
)
from restain.errors import RestainError

if TYPE_CHECKING:
    from restain.stain import Outcome


class ResultFormat(StrEnum):
    """Of a virtual image."""

    auto = "auto"
    png = "png"
    ome_tiff = "ome-tiff"
    dicom = "dicom"


@app.command(epilog="Example: restain stain slides/*.svs HE/*.png -o virtual --dab")
def stain(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Slides and pictures of H&E, folders or patterns of them, or a CSV with a column slide."),
    ],
    out: OutOption,
    model: ModelOption = None,
    mpp: Annotated[
        float | None, typer.Option(min=0.01, help="Micrometres per pixel, where a file does not say.")
    ] = None,
    override_mpp: Annotated[
        bool, typer.Option("--override-mpp", help="Let --mpp hold also where a file states another.")
    ] = False,
    dab: Annotated[bool, typer.Option("--dab", help="Write the DAB density too, as a file of its own.")] = False,
    white: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Unstained glass to imitate: R G B, up to 255; else the model's own."),
    ] = None,
    region: Annotated[
        tuple[int, int, int, int] | None, typer.Option(help="Stain only X Y WIDTH HEIGHT, in level-0 px.")
    ] = None,
    roi: Annotated[
        Path | None, typer.Option(help="Stain only inside the outlines of this GeoJSON, in level-0 px.")
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Do not look for tissue, stain glass as well.")
    ] = False,
    form: Annotated[
        ResultFormat, typer.Option("--format", help="auto is PNG for pictures, OME-TIFF for slides.")
    ] = ResultFormat.auto,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of the JPEG tiles of slides; else 90. Pictures are lossless.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Slides: stop at a tile that cannot be read; else it is a marked hole.")
    ] = False,
    normalization: Annotated[
        bool,
        typer.Option(
            "--normalization/--no-normalization",
            help="Normalise the H&E's white point and stain strength, for models that were trained so.",
        ),
    ] = True,
    engine: EngineOption = None,
    device: DeviceOption = None,
    ray: Annotated[
        str | None, typer.Option(help="Work on the Ray cluster at this address (HOST:PORT or auto); extra 'ray'.")
    ] = None,
    ray_cpus: Annotated[float, typer.Option(min=0.1, help="With --ray: cores per slide.")] = 2,
    ray_gpus: Annotated[float, typer.Option(min=0, help="With --ray: GPUs per slide, or a share of one.")] = 0,
) -> None:
    """Restain H&E pictures and whole slides as HER2 IHC; goes on where it was killed. One that fails stops no other."""
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
        **given(mpp=mpp, roi=outlines, white=white, quality=quality, engine=engine),
        override_mpp=override_mpp,
        dab=dab,
        everywhere=everywhere,
        strict=strict,
        normalization=normalization,
        format=form.value,
    )
    stains = load(model, device=device)
    stains.check(options)
    found = find_sources(sources)
    with progress_bar("staining") as progress:
        if ray is not None:
            cluster = Cluster(ray, ray_cpus, ray_gpus)
            outcomes = stain_on_cluster(
                found, out, stains.bundle, options, cluster=cluster, progress=progress, warn=say
            )
        else:
            outcomes = stain_many(found, out, stains, options, progress=progress, warn=say)
    show_outcomes(outcomes)
    if any(outcome.result for outcome in outcomes):
        out_console.print(f"[bold]{NOTICE}[/bold]; the model was trained on: {plain(stains.bundle.card.data)}")
    if any(outcome.outcome == "failed" for outcome in outcomes):
        raise typer.Exit(2)


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """The paths of results; with several sources, a table of what happened to each; faults on standard error."""
    for outcome in outcomes:
        if outcome.result is not None:
            out_console.print(plain(str(outcome.result)))
    if len(outcomes) > 1:
        table = Table("source", "outcome", "seconds", "tissue, mm²", "Mpx/s", "seam ratio", "holes", box=None)
        for o in outcomes:
            figures = (o.seconds, o.tissue_mm2, o.megapixels_per_second, o.seam_ratio)
            cells = ["" if v is None else f"{v:.3g}" for v in figures]
            table.add_row(plain(o.source.name), o.outcome, *cells, "" if o.holes is None else str(o.holes))
        out_console.print(table)
    for outcome in outcomes:
        if outcome.fault:
            err_console.print(f"[bold red]error:[/bold red] {plain(outcome.fault)}")


@app.command(epilog="Example: restain demo -o demo --real ../shared/data")
def demo(
    out: OutOption = Path("demo"),
    real: Annotated[
        Path | None, typer.Option(help="Folder whose data sets (BCI, challenge, AB or MIST layout) are restained too.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=4, help="Phantom pairs to make.")] = 24,
) -> None:
    """Make phantom pairs, restain and evaluate them and the real images, and write one HTML page."""
    from restain.demo import run_demo

    with progress_bar("demo") as progress:
        page = run_demo(out, real=real, pairs=pairs, progress=progress, say=say)
    out_console.print(f"{page}")
