"""Commands that stain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain import NOTICE
from restain.cli.console import (
    ModelOption,
    OutOption,
    app,
    out_console,
    plain,
    progress_bar,
    say,
)


@app.command(epilog="Example: restain stain HE/*.png -o virtual")
def stain(
    images: Annotated[list[Path], typer.Argument(help="H&E images (PNG, JPEG, TIFF) or folders of them.")],
    out: OutOption,
    model: ModelOption = None,
    mpp: Annotated[float | None, typer.Option(min=0.05, help="Micrometres per pixel of the images.")] = None,
    dab: Annotated[bool, typer.Option("--dab", help="Write the DAB density too, as NAME.dab.tif.")] = False,
    tile: Annotated[int, typer.Option(min=256, help="Largest tile side in px.")] = 1024,
    white: Annotated[
        tuple[float, float, float] | None, typer.Option(help="Glass of the IHC to imitate: R G B, up to 255.")
    ] = None,
) -> None:
    """Restain H&E images of any size as HER2 IHC: tiled, blended, with provenance in the file."""
    from restain.bundle import load_bundle
    from restain.stain import Restainer, expand, stain_images

    sources = expand(images)
    bundle = load_bundle(model)
    with progress_bar("staining") as progress:
        results = stain_images(
            sources, out, Restainer(bundle, tile=tile, white=white), mpp=mpp, dab=dab, progress=progress, warn=say
        )
    for result in results:
        out_console.print(plain(str(result)))
    out_console.print(f"[bold]{NOTICE}[/bold]; the model was trained on: {plain(bundle.card.data)}")


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
