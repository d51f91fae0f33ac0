"""Commands on data sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import (
    MppOption,
    OutOption,
    OverrideMppOption,
    SwapOption,
    app,
    err_console,
    out_console,
    plain,
    progress_bar,
)
from restain.errors import RestainError
from restain.geometry import Size
from restain.her2 import Her2Level


@app.command(epilog="Example: restain check BCI_dataset")
def check(data: Annotated[Path, typer.Argument(help="Folder of pairs.")], swap: SwapOption = False) -> None:
    """Count a folder's pairs per split and level and list all its faults; exits with 2 when there are any."""
    from restain.data import check_folder

    with progress_bar("reading") as progress:
        report = check_folder(data, progress, swap=swap)
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
    from_he_mpp: Annotated[float | None, typer.Option(min=0.05, help="mpp of real H&E images that do not say.")] = None,
    scanned_at: Annotated[
        float | None,
        typer.Option(min=0.05, help="Draw at this mpp, compress, average to --mpp: like patches of slides."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Write synthetic paired tissue with known truth. It is never real tissue and says so."""
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
            scanned_at=scanned_at,
            progress=progress,
            workers=workers,
        )
    out_console.print(plain(summary.describe()))


def _size(text: str) -> Size:
    match = re.fullmatch(r"([1-9]\d{0,6})\s*[x×]\s*([1-9]\d{0,6})", text.strip())
    if match is None:
        raise RestainError(f"'{text}' is not a size; write width and height in px, for example 20000x16000.")
    return Size(int(match[1]), int(match[2]))


def _mixture(text: str) -> dict[Her2Level, float]:
    shares: dict[Her2Level, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        level = Her2Level.parse(name.strip())
        if level in shares:
            raise RestainError(f"The mixture '{text}' names level {level.text} twice.")
        try:
            shares[level] = float(share)
        except ValueError:
            raise RestainError(f"'{part}' is not a share of a level; write for example 0=0.3,2+=0.7.") from None
    return shares


def _shift(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise RestainError(f"--shift takes two numbers, x,y, not '{text}'.") from None
    return x, y


@app.command(
    "phantom-slide", epilog="Example: restain phantom-slide data/slide --size 20000x16000 --mixture 0=0.3,2+=0.7"
)
def phantom_slide(
    out: Annotated[Path, typer.Argument(help="Folder for the pair of slides and its truth.")],
    size: Annotated[str, typer.Option(help="Width and height of the H&E slide in px.")] = "20000x16000",
    mpp: Annotated[float, typer.Option(help="Micrometres per pixel, 0.1 to 2.")] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same slides.")] = 0,
    level: Annotated[str | None, typer.Option(help="HER2 level of all tissue; 2+ where nothing is said.")] = None,
    mixture: Annotated[
        str | None, typer.Option(help="Share of the tissue's area at each level, for example 0=0.3,2+=0.7.")
    ] = None,
    islands: Annotated[int | None, typer.Option(min=1, help="Pieces of tissue; chosen by area otherwise.")] = None,
    tissue_share: Annotated[float, typer.Option(help="Share of the slide that is tissue.")] = 0.3,
    rotate: Annotated[float, typer.Option(help="Turn of the IHC slide in degrees, clockwise.")] = 7.0,
    mirror: Annotated[bool, typer.Option("--mirror", help="Mirror the IHC slide.")] = False,
    scale: Annotated[float, typer.Option(help="Scale of the IHC slide.")] = 1.01,
    shift: Annotated[str, typer.Option(help="Shift of the IHC slide, x,y in µm.")] = "120,-80",
    elastic: Annotated[float, typer.Option(min=0, help="RMS of its smooth displacement in µm.")] = 15.0,
    tear: Annotated[float, typer.Option(min=0, help="Opening of its tear in µm; 0: no tear.")] = 60.0,
    missing: Annotated[bool, typer.Option(help="Whether the IHC section lacks a piece.")] = True,
    deform: Annotated[bool, typer.Option(help="Whether to deform the IHC slide at all.")] = True,
    ihc: Annotated[bool, typer.Option(help="Whether to write the IHC slide.")] = True,
    registered: Annotated[bool, typer.Option("--registered", help="Also the IHC on the H&E's grid.")] = False,
    dab: Annotated[bool, typer.Option("--dab", help="Also its DAB density, 4 times smaller.")] = False,
) -> None:
    """Write a pair of synthetic whole slides with truth, tile by tile; killed and called again it goes on."""
    from restain.phantom import Distortion, write_phantom_slide

    if level is not None and mixture is not None:
        raise RestainError("Give --level or --mixture, not both.")
    distortion = Distortion(rotate, mirror, scale, _shift(shift), elastic, tear, missing)
    with progress_bar("phantom slide") as progress:
        truth = write_phantom_slide(
            out,
            size=_size(size),
            mpp=mpp,
            seed=seed,
            mixture=_mixture(mixture) if mixture else {Her2Level.parse(level or "2+"): 1.0},
            deformation=distortion if deform else None,
            ihc=ihc,
            registered=registered,
            dab=dab,
            islands=islands,
            tissue_share=tissue_share,
            progress=progress,
        )
    out_console.print(plain(truth.describe()))


@app.command(epilog="Example: restain tissue slide.svs -o results")
def tissue(
    slide: Annotated[Path, typer.Argument(help="Whole slide or picture.")],
    out: OutOption,
    mpp: MppOption = None,
    override_mpp: OverrideMppOption = False,
) -> None:
    """Find a slide's tissue; writes NAME.tissue.geojson (QuPath reads it) and NAME.tissue.png, the outline drawn."""
    from restain.slides.mask import write_tissue

    with progress_bar("reading") as progress:
        summary = write_tissue(slide, out, mpp=mpp, override_mpp=override_mpp, progress=progress)
    out_console.print(plain(summary))


@app.command(epilog="Example: restain info slide.svs")
def info(
    slide: Annotated[
        Path, typer.Argument(help="Slide, picture, DICOM folder or OME-Zarr; '#N' behind it is image N of several.")
    ],
    mpp: MppOption = None,
    override_mpp: OverrideMppOption = False,
) -> None:
    """Print what an image file says of itself, and what is wrong with it; exits with 2 when anything is."""
    from restain.slides import open_slide

    with open_slide(slide, mpp, override_mpp=override_mpp, inspect=True) as opened:
        out_console.print(plain(opened.describe()))
        for fault in opened.faults:
            err_console.print(f"[red]fault:[/red] {plain(fault)}")
    if opened.faults:
        raise typer.Exit(2)
