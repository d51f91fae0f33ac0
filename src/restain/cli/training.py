"""Commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import DataOption, OutOption, app, command_line, out_console, plain, progress_bar, say


@app.command(epilog="Example: restain train phantom-small --data data/phantom --out runs/phantom-small")
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of one shipped with restain.")],
    data: DataOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="The run's folder; the same folder resumes.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: --set train.steps=100.")] = None,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    devices: Annotated[str, typer.Option(help="Devices per node, or auto.")] = "1",
    nodes: Annotated[int, typer.Option(min=1, help="Nodes.")] = 1,
) -> None:
    """Train the expression classifier, then the generator against the discriminator; writes OUT/bundle."""
    from restain.recipe import find_recipe, load_recipe

    chosen = load_recipe(find_recipe(recipe), set_)
    from restain.training import train as train_job

    bundle = train_job(
        chosen,
        data,
        out,
        accelerator=accelerator,
        devices=devices,
        nodes=nodes,
    )
    out_console.print(f"bundle: {plain(str(bundle))}")


@app.command(
    epilog="Example: restain benchmark bench peers/pix2pix peers/asp --data data/phantom --budget 10min -o runs/peers"
)
def benchmark(
    recipes: Annotated[
        list[str], typer.Argument(help="Recipe files or names; the first is what others are compared with.")
    ],
    data: DataOption,
    budget: Annotated[str, typer.Option(help="What each may spend: 500steps, or 10min of computing.")],
    out: OutOption,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value in all: --set data.crop=192.")] = None,
    split: Annotated[str, typer.Option(help="The split that is scored: val or test.")] = "test",
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """Train recipes one after another under one budget, score them, and write one table; the same folder resumes."""
    from restain.recipe import find_recipe, load_recipe

    chosen = [load_recipe(find_recipe(recipe), set_) for recipe in recipes]
    from restain.benchmark import Budget
    from restain.benchmark import benchmark as benchmark_job

    page = benchmark_job(
        chosen,
        data,
        Budget.parse(budget),
        out,
        split=split,
        accelerator=accelerator,
        command=command_line(),
        bar=progress_bar,
        say=say,
    )
    out_console.print(f"page: {plain(str(page))}")


@app.command(epilog="Example: restain crossval few-shot --data bci_sample --data mist_sample -o runs/crossval")
def crossval(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of one shipped with restain.")],
    data: DataOption,
    out: OutOption,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: --set 'data.same_slide=[[00052*, 00057*]]'.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """Leave one slide out: train without each slide in turn and score it; writes OUT/crossval.html. OUT resumes."""
    from restain.recipe import find_recipe, load_recipe

    chosen = load_recipe(find_recipe(recipe), set_)
    from restain.crossval import crossval as crossval_job

    page = crossval_job(chosen, data, out, accelerator=accelerator, command=command_line(), bar=progress_bar, say=say)
    out_console.print(f"report: {plain(str(page))}")
