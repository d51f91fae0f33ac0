"""The command ``explain``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from restain import RestainError
from restain.cli import options as opt
from restain.cli.console import command_line, progress_bar, show
from restain.cli.evaluation import command
from restain.errors import Interrupted
from restain.geometry import Point


class BaselineChoice(StrEnum):
    glass = "glass"
    blur = "blur"


def _point(text: str) -> Point:
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise RestainError(f"'{text}' is not a point; give X,Y in whole px, for example --point 120,80.") from None
    return Point(x, y)


@command("restain explain he.png --point 120,80 -o why   or: restain explain --data data/phantom -o check")
def explain(
    out: opt.Out,
    image: Annotated[Path | None, Argument(help="H&E image to explain.")] = None,
    model: opt.Model = None,
    point: Annotated[
        list[str] | None, Option(help="Point whose DAB density is explained: X,Y in px of the image. Repeatable.")
    ] = None,
    level: Annotated[
        str | None, Option(help="HER2 level to explain: 0, 1+, 2+ or 3+. Default: the predicted one.")
    ] = None,
    mpp: opt.Mpp = None,
    override_mpp: opt.OverrideMpp = False,
    window: Annotated[
        int | None, Option(min=64, max=512, help="Side of the explained window in px. Default: 256 (level), 192 (DAB).")
    ] = None,
    baseline: Annotated[
        BaselineChoice, Option(help="Reference input without evidence: glass colour, or the blurred H&E.")
    ] = BaselineChoice.glass,
    data: Annotated[
        Path | None, Option("--data", help="Phantom on whose ground truth the maps are tested, instead of IMAGE.")
    ] = None,
    split: opt.Split = "test",
    images: Annotated[int, Option(min=1, help="Number of images, with --data.")] = 12,
    seed: opt.Seed = 0,
) -> None:
    """Show which H&E structures drive the HER2 level and the DAB at a point, or test such maps on a phantom."""
    if (image is None) == (data is None):
        raise RestainError("Give either an image to explain, or --data with a phantom to test the maps on.")
    from restain.her2 import Her2Level

    try:
        if data is not None:
            from restain.explain.check import check_phantom

            if point or level is not None or mpp is not None or override_mpp or window is not None:
                raise RestainError("--point, --level, --mpp and --window need an image and exclude --data.")
            with progress_bar("testing maps") as progress:
                report = check_phantom(
                    data,
                    out,
                    model=model,
                    split=split,
                    images=images,
                    baseline=baseline.value,
                    seed=seed,
                    command=command_line(),
                    progress=progress,
                )
        else:
            from restain.explain.image import explain_image

            assert image is not None
            with progress_bar("explaining") as progress:
                report = explain_image(
                    image,
                    out,
                    model=model,
                    points=[_point(text) for text in point or ()],
                    level=None if level is None else Her2Level.parse(level),
                    mpp=mpp,
                    override_mpp=override_mpp,
                    baseline=baseline.value,
                    window=window,
                    command=command_line(),
                    progress=progress,
                )
    except KeyboardInterrupt:
        raise Interrupted("Interrupted. No report was written; re-run the command to start again.") from None
    for sentence in report.sentences:
        show(sentence)
    show(f"report: {report.path}")
