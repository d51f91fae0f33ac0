"""Command that explains results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from restain import RestainError
from restain.cli.console import (
    ModelOption,
    MppOption,
    OutOption,
    OverrideMppOption,
    app,
    command_line,
    out_console,
    plain,
    progress_bar,
)
from restain.errors import Interrupted
from restain.geometry import Point


class BaselineChoice(StrEnum):
    glass = "glass"
    blur = "blur"


def _point(text: str) -> Point:
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise RestainError(
            f"'{text}' is not a point; write it as X,Y in whole px, for example --point 120,80."
        ) from None
    return Point(x, y)


@app.command(
    epilog="Example: restain explain he.png --point 120,80 -o why   or: restain explain --data data/phantom -o check"
)
def explain(
    out: OutOption,
    image: Annotated[Path | None, typer.Argument(help="H&E image to explain.")] = None,
    model: ModelOption = None,
    point: Annotated[
        list[str] | None, typer.Option(help="Point whose DAB is explained: X,Y in px of the image; may be repeated.")
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="Level to explain (0, 1+, 2+, 3+); default: the predicted one.")
    ] = None,
    mpp: MppOption = None,
    override_mpp: OverrideMppOption = False,
    window: Annotated[
        int | None,
        typer.Option(min=64, max=512, help="Side of the windows in px; default: 256 (level) and 192 (DAB)."),
    ] = None,
    baseline: Annotated[
        BaselineChoice, typer.Option(help="Image without evidence: glass colour or blurred H&E.")
    ] = BaselineChoice.glass,
    data: Annotated[
        Path | None, typer.Option("--data", help="Phantom to measure the maps on, instead of an image.")
    ] = None,
    split: Annotated[str, typer.Option(help="With --data: split, train, val or test.")] = "test",
    images: Annotated[int, typer.Option(min=1, help="With --data: number of images.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="With --data: seed of the places and the random map.")] = 0,
) -> None:
    """Map the H&E evidence for the level and the DAB at a place, or measure such maps on a phantom."""
    if (image is None) == (data is None):
        raise RestainError("Give either an image to explain, or --data with a phantom to measure the maps on.")
    from restain.her2 import Her2Level

    try:
        if data is not None:
            from restain.explain.check import check_phantom

            if point or level is not None or mpp is not None or override_mpp or window is not None:
                raise RestainError("--point, --level, --mpp and --window apply to an image, not to --data.")
            with progress_bar("checking") as progress:
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
        raise Interrupted("interrupted; no report was written. Re-run the same command to start again.") from None
    for sentence in report.sentences:
        out_console.print(plain(sentence))
    out_console.print(f"report: {plain(str(report.path))}")
