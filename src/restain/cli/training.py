"""Commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import (
    DataOption,
    app,
    out_console,
    plain,
)


@app.command(epilog="Example: restain train phantom-small --data data/phantom --out runs/phantom-small")
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of one shipped with restain.")],
    data: DataOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="The run's folder; the same folder resumes.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: --set train.steps=100.")] = None,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    devices: Annotated[str, typer.Option(help="Devices per node, or auto.")] = "1",
    nodes: Annotated[int, typer.Option(min=1, help="Nodes.")] = 1,
) -> None:
    """Train the expression classifier, then the generator against the discriminator; writes OUT/bundle."""
    from restain.recipe import find_recipe, load_recipe

    chosen = load_recipe(find_recipe(recipe), set_)
    from restain.train import train as train_job

    bundle = train_job(
        chosen,
        data,
        out,
        accelerator=accelerator,
        devices=int(devices) if devices.isdigit() else devices,
        nodes=nodes,
    )
    out_console.print(f"bundle: {plain(str(bundle))}")
