"""The commands that train: ``train``, ``plan``, ``benchmark``, ``crossval``, ``train-her2-classifier``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from restain.cli import options as opt
from restain.cli.console import Panel, command_line, progress_bar, say, show

command = Panel("Training")


@command("restain train phantom-small --data data/phantom --out runs/phantom-small")
def train(
    recipe: opt.Recipe,
    data: opt.Data,
    out: opt.Run,
    set_: opt.Set = None,
    accelerator: opt.Accelerator = "auto",
    devices: Annotated[str, Option(help="Number of devices per node, or auto.")] = "1",
    nodes: Annotated[int, Option(min=1, help="Number of nodes.")] = 1,
    store: opt.Store = None,
) -> None:
    """Train the expression classifier, then the generator with its discriminator; write OUT/bundle."""
    from restain.recipe import find_recipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), set_)
    from restain.training import train as train_job

    bundle = train_job(loaded, data, out, accelerator=accelerator, devices=devices, nodes=nodes, store=store)
    show(f"bundle: {bundle}")


@command("restain plan bci --data BCI_dataset -o runs/bci")
def plan(
    recipe: opt.Recipe,
    data: opt.Data,
    out: opt.Run = Path("."),
    set_: opt.Set = None,
    accelerator: opt.Accelerator = "auto",
    store: opt.Store = None,
) -> None:
    """Try ten steps of each stage of a training; print its speed, memory, disk and duration, and warnings."""
    from restain.recipe import find_recipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), set_)
    from restain.training.plan import plan as make_plan

    with progress_bar("planning") as progress:
        found = make_plan(loaded, data, out, accelerator=accelerator, store=store, progress=progress)
    show(found.describe())


@command("restain benchmark bench peers/pix2pix peers/asp --data data/phantom --budget 10min -o runs/peers")
def benchmark(
    recipes: Annotated[
        list[str], Argument(help="Recipe files or names of shipped recipes; the first is the reference.")
    ],
    data: opt.Data,
    budget: Annotated[str, Option(help="Budget of each recipe: 500steps, or 10min of computing time.")],
    out: opt.Run,
    set_: opt.Set = None,
    split: opt.Split = "test",
    accelerator: opt.Accelerator = "auto",
) -> None:
    """Train several recipes one after another under one budget, score them, and write one table."""
    from restain.recipe import find_recipe, load_recipe

    loaded = [load_recipe(find_recipe(recipe), set_) for recipe in recipes]
    from restain.benchmark import Budget
    from restain.benchmark import benchmark as benchmark_job

    page = benchmark_job(
        loaded,
        data,
        Budget.parse(budget),
        out,
        split=split,
        accelerator=accelerator,
        command=command_line(),
        bar=progress_bar,
        say=say,
    )
    show(f"page: {page}")


@command("restain crossval few-shot --data bci_sample --data mist_sample -o runs/crossval")
def crossval(
    recipe: opt.Recipe, data: opt.Data, out: opt.Run, set_: opt.Set = None, accelerator: opt.Accelerator = "auto"
) -> None:
    """Cross-validate by slide: train without each slide in turn and score it; write OUT/crossval.html."""
    from restain.recipe import find_recipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), set_)
    from restain.crossval import crossval as crossval_job

    page = crossval_job(loaded, data, out, accelerator=accelerator, command=command_line(), bar=progress_bar, say=say)
    show(f"report: {page}")


@command("restain train-her2-classifier --data BCI_dataset -o runs/classifier", name="train-her2-classifier")
def train_her2_classifier(
    data: opt.Data,
    out: opt.Out,
    steps: Annotated[int, Option(min=1, help="Number of training steps.")] = 400,
    seed: opt.Seed = 0,
    mpp: Annotated[float, Option(min=0.05, help="Micrometres per pixel of the data.")] = 0.46,
    swap: opt.Swap = False,
    tile: Annotated[int, Option(min=64, help="Side of training crops and of scored tiles in px.")] = 256,
    describe: Annotated[str, Option(help="Description of the data, for reports.")] = "",
) -> None:
    """Train a HER2 classifier on the real IHC images of the training split, for --her2-classifier."""
    from restain.training.her2_classifier import train_her2_classifier as train

    with progress_bar("classifier") as progress:
        facts = train(
            data, out, steps=steps, seed=seed, mpp=mpp, swap=swap, tile=tile, description=describe, progress=progress
        )
    if facts.accuracy is None:
        show(f"classifier: {out}; there are no real validation images to test it on")
    else:
        show(f"classifier: {out}; accuracy {facts.accuracy:.0%} on {facts.images} real validation images")
