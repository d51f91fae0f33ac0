"""Commands on data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import (
    OutOption,
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


@app.command(epilog="Example: restain tissue slide.svs -o results")
def tissue(
    slide: Annotated[Path, typer.Argument(help="Whole slide or picture.")],
    out: OutOption,
    mpp: Annotated[float | None, typer.Option(min=0.01, help="mpp of a slide that does not say.")] = None,
) -> None:
    """Find a slide's tissue; writes NAME.tissue.geojson (QuPath reads it) and NAME.tissue.png, the outline drawn."""
    from restain.slides.mask import write_tissue

    with progress_bar("reading") as progress:
        summary = write_tissue(slide, out, mpp=mpp, progress=progress)
    out_console.print(plain(summary))


@app.command(epilog="Example: restain info slide.svs")
def info(
    slide: Annotated[Path, typer.Argument(help="Slide file, DICOM folder or OME-Zarr.")],
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel, in place of what the file says.")] = None,
) -> None:
    """Print what a slide file says of itself, and what is wrong with it; exits with 2 when anything is."""
    from restain.slides import open_slide

    with open_slide(slide, mpp) as opened:
        size = opened.size
        lines = [
            ("format", opened.format),
            ("vendor", opened.vendor or "unknown"),
            ("size", f"{size.width} x {size.height} px"),
            ("mpp", f"{opened.mpp:g} µm per px" if opened.has_mpp else "unknown; give it with --mpp"),
            ("objective", f"{opened.objective:g}x" if opened.objective else "unknown"),
            ("ICC profile", f"{len(opened.icc)} bytes" if opened.icc else "none"),
        ]
        for number, level in enumerate(opened.levels):
            side = f"{level.size.width} x {level.size.height} px"
            lines.append((f"level {number}", f"{side}, {level.downsample:g} times smaller"))
        lines += [(name, f"{of.width} x {of.height} px (associated)") for name, of in opened.associated.items()]
        for name, value in lines:
            out_console.print(plain(f"{name:<12} {value}"))
        for fault in opened.faults:
            err_console.print(f"[red]fault:[/red] {plain(fault)}")
    if opened.faults:
        raise typer.Exit(2)
