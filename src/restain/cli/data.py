"""Commands on images and data sets: ``info``, ``tissue``, ``check``, ``phantom``, ``phantom-slide``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from restain.cli import options as opt
from restain.cli.console import Panel, progress_bar, show, show_fault
from restain.errors import RestainError
from restain.geometry import Size
from restain.her2 import Her2Level

command = Panel("Images and data sets")


@command("restain info slide.svs")
def info(
    slide: Annotated[
        Path, Argument(help="Slide, picture, DICOM folder or OME-Zarr; append '#N' for image N of several.")
    ],
    mpp: opt.Mpp = None,
    override_mpp: opt.OverrideMpp = False,
) -> None:
    """Print the metadata of an image file and its faults. The exit code is 2 if there are any."""
    from restain.slides import open_slide

    with open_slide(slide, mpp, override_mpp=override_mpp, inspect=True) as opened:
        show(opened.describe())
        for fault in opened.faults:
            show_fault(fault, "fault")
    if opened.faults:
        raise typer.Exit(2)


@command("restain tissue slide.svs -o results")
def tissue(
    slide: Annotated[Path, Argument(help="Whole slide or picture.")],
    out: opt.Out,
    mpp: opt.Mpp = None,
    override_mpp: opt.OverrideMpp = False,
) -> None:
    """Detect the tissue of a slide; write NAME.tissue.geojson (for QuPath) and NAME.tissue.png (outline overlay)."""
    from restain.slides.mask import write_tissue

    with progress_bar("detecting tissue") as progress:
        show(write_tissue(slide, out, mpp=mpp, override_mpp=override_mpp, progress=progress))


@command("restain check BCI_dataset")
def check(data: Annotated[Path, Argument(help="Folder of pairs.")], swap: opt.Swap = False) -> None:
    """Count the pairs of a data set per split and level and list all faults. The exit code is 2 if there are any."""
    from restain.data import check_folder

    with progress_bar("checking") as progress:
        report = check_folder(data, progress, swap=swap)
    show(report.describe())
    for fault in report.faults:
        show_fault(fault.sentence, "fault")
    if report.faults:
        raise typer.Exit(2)


@command("restain phantom data/phantom --pairs 40 --size 512 --seed 1")
def phantom(
    out: Annotated[Path, Argument(help="Output folder of the data set (BCI layout).")],
    pairs: Annotated[int, Option(min=1, help="Number of pairs.")] = 40,
    size: Annotated[int, Option(min=64, max=4096, help="Side of the images in px.")] = 512,
    levels: Annotated[str, Option(help="HER2 levels, comma-separated; pairs take them in turn.")] = "0,1+,2+,3+",
    seed: opt.Seed = 0,
    mpp: Annotated[float, Option(min=0.1, max=2.0, help="Micrometres per pixel.")] = 0.46,
    test_share: Annotated[float, Option(min=0, max=1, help="Share of pairs in the test split.")] = 0.2,
    misalign: Annotated[float, Option(min=0, help="RMS of an elastic misalignment in µm.")] = 0.0,
    from_he: Annotated[
        list[Path] | None, Option(help="Real H&E image or folder; only the IHC is synthesised. Repeatable.")
    ] = None,
    from_he_mpp: Annotated[
        float | None, Option(min=0.05, help="Micrometres per pixel of real H&E images that state no scale.")
    ] = None,
    spots: Annotated[
        list[Path] | None,
        Option(
            help="Spots with mRNA of the --from-he image, in the same order: CSV, Visium folder or .h5ad. "
            "HER2 then follows the ERBB2 measured there. Repeatable."
        ),
    ] = None,
    scanned_at: Annotated[
        float | None,
        Option(min=0.05, help="Render at this mpp, compress as JPEG, and average to --mpp, as patches of slides."),
    ] = None,
    workers: Annotated[int, Option(min=1, help="Number of processes.")] = 1,
) -> None:
    """Generate synthetic H&E/IHC pairs with ground truth. The data set is marked as synthetic.

    Re-run the same command to resume.
    """
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
            spots=spots or (),
            scanned_at=scanned_at,
            progress=progress,
            workers=workers,
        )
    show(summary.describe())


@command("restain render-pairs bci_sample mist_sample -o rendered")
def render_pairs(
    data: Annotated[list[Path], Argument(help="Folders of real pairs.")],
    out: opt.Run,
    seed: opt.Seed = 0,
    mpp: Annotated[float, Option(min=0.1, max=2.0, help="Micrometres per pixel of the pairs.")] = 0.46,
) -> None:
    """Write real pairs with an IHC rendered on the cells of their H&E, for training where sections match only roughly.

    The HER2 of a cell follows the DAB that the real IHC shows around it.
    """
    from restain.phantom.from_pair import write_rendered_pairs

    with progress_bar("rendering") as progress:
        count = write_rendered_pairs(data, out, mpp=mpp, seed=seed, progress=progress)
    show(f"{out}: {count} pairs with rendered IHC")


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


@command("restain phantom-slide data/slide --size 20000x16000 --mixture 0=0.3,2+=0.7", name="phantom-slide")
def phantom_slide(
    out: Annotated[Path, Argument(help="Output folder of the slides and the ground truth.")],
    size: Annotated[str, Option(help="Width and height of the H&E slide in px.")] = "20000x16000",
    mpp: Annotated[float, Option(help="Micrometres per pixel, 0.1 to 2.")] = 0.25,
    seed: opt.Seed = 0,
    level: Annotated[str | None, Option(help="HER2 level of all tissue. Default: 2+.")] = None,
    mixture: Annotated[
        str | None, Option(help="Share of the tissue area per HER2 level, for example 0=0.3,2+=0.7.")
    ] = None,
    islands: Annotated[
        int | None, Option(min=1, help="Number of tissue pieces. Default: follows from the area.")
    ] = None,
    tissue_share: Annotated[float, Option(help="Share of the slide area covered by tissue.")] = 0.3,
    rotate: Annotated[float, Option(help="Rotation of the IHC slide in degrees, clockwise.")] = 7.0,
    mirror: Annotated[bool, Option("--mirror", help="Mirror the IHC slide.")] = False,
    scale: Annotated[float, Option(help="Scale factor of the IHC slide.")] = 1.01,
    shift: Annotated[str, Option(help="Shift of the IHC slide: X,Y in µm.")] = "120,-80",
    elastic: Annotated[float, Option(min=0, help="RMS of the elastic deformation in µm.")] = 15.0,
    tear: Annotated[float, Option(min=0, help="Width of a tear in the IHC section in µm; 0 for none.")] = 60.0,
    missing: Annotated[bool, Option(help="Remove a piece of the IHC section.")] = True,
    deform: Annotated[bool, Option(help="Deform the IHC slide.")] = True,
    ihc: Annotated[bool, Option(help="Write the IHC slide.")] = True,
    registered: Annotated[
        bool, Option("--registered", help="Also write the IHC slide on the grid of the H&E slide.")
    ] = False,
    dab: Annotated[bool, Option("--dab", help="Also write the true DAB density, reduced 4 times.")] = False,
) -> None:
    """Generate a pair of synthetic whole slides with ground truth, tile by tile.

    Re-run the same command to resume.
    """
    from restain.phantom import Distortion, write_phantom_slide

    if level is not None and mixture is not None:
        raise RestainError("--level and --mixture exclude each other: give one of them.")
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
    show(truth.describe())
