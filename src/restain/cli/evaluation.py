"""Commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain import RestainError
from restain.cli.console import (
    DataOption,
    ModelOption,
    OutOption,
    OverrideMppOption,
    SwapOption,
    app,
    command_line,
    out_console,
    plain,
    progress_bar,
)


@app.command(epilog="Example: restain evaluate --model runs/x/bundle --data data/phantom --split test -o report")
def evaluate(
    data: DataOption,
    out: OutOption,
    model: ModelOption = None,
    images: Annotated[
        Path | None, typer.Option(help="Score the pictures in this folder (named as the pairs) instead of a model's.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    fit_on: Annotated[
        list[Path] | None, typer.Option(help="Data whose training split the baselines are fitted on.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(min=0.05, help="mpp of the data where it is not the model's.")] = None,
    swap: SwapOption = False,
    baselines: Annotated[bool, typer.Option(help="Score the baselines too.")] = True,
    align: Annotated[bool, typer.Option(help="Measure after alignment too, beside the raw figures.")] = True,
    features: Annotated[
        str,
        typer.Option(help="For FID, KID and Inception Score: efficientnet-lite0, a TorchScript Inception, or none."),
    ] = "efficientnet-lite0",
    lpips: Annotated[
        str | None, typer.Option(help="For LPIPS: a TorchScript file (StyleGAN's vgg16.pt); otherwise as --features.")
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option(help="The classifier of HER2 levels (see train-her2-classifier) instead of the shipped one."),
    ] = None,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty", help="Also OUT/uncertainty.html: uncertainty against error, and detection of corruptions."
        ),
    ] = False,
    uncertainty_images: Annotated[
        int, typer.Option(min=1, help="Most pairs for --uncertainty, the first by name.")
    ] = 24,
    ensemble: Annotated[
        list[Path] | None, typer.Option(help="For --uncertainty: another bundle of the ensemble; may be repeated.")
    ] = None,
    foreign: Annotated[
        list[Path] | None, typer.Option(help="For --uncertainty: image (or folder) of other tissue, to be flagged.")
    ] = None,
    stain_sweep: Annotated[
        bool, typer.Option("--stain-sweep", help="Also OUT/sweep.html: the same H&E in other stains, whites and JPEGs.")
    ] = False,
    sweep_images: Annotated[int, typer.Option(min=1, help="Most pairs for --stain-sweep, the first by name.")] = 12,
) -> None:
    """Measure virtual against real images, with baselines beside every figure; writes OUT/report.html."""
    from restain.evaluation import evaluate as evaluate_model
    from restain.evaluation.held_out import HeldOut

    if model is not None and images is not None:
        raise RestainError("--model and --images exclude one another: score a model, or pictures made elsewhere.")
    if images is not None and (uncertainty or stain_sweep):
        raise RestainError("--uncertainty and --stain-sweep stain images again, so they need a model and not --images.")
    given = {"split": split, "fit_on": fit_on or (), "classifier": classifier, "mpp": mpp, "swap": swap}
    if uncertainty:
        from restain.evaluation.uncertainty_report import evaluate_uncertainty
        from restain.stain import load

        held_out = HeldOut.open(data, model=model, **given)
        models = [load(path) for path in ensemble or ()]
        with progress_bar("uncertainty") as progress:
            evaluate_uncertainty(
                held_out,
                out,
                ensemble=models,
                foreign=foreign or (),
                images=uncertainty_images,
                command=command_line(),
                progress=progress,
            )
        out_console.print(f"uncertainty: {plain(str(out / 'uncertainty.html'))}")
    if stain_sweep:
        from restain.evaluation.sweep import sweep

        held_out = HeldOut.open(data, model=model, **given)
        with progress_bar("stain sweep") as progress:
            sweep(held_out, out, images=sweep_images, command=command_line(), progress=progress)
        out_console.print(f"stain sweep: {plain(str(out / 'sweep.html'))}")
    with progress_bar("evaluating") as progress:
        summary = evaluate_model(
            model,
            data,
            out=out,
            images=images,
            command=command_line(),
            baselines=baselines,
            align=align,
            features=None if features == "none" else features,
            lpips=lpips,
            progress=progress,
            **given,
        )
    out_console.print(plain(summary.describe()))
    out_console.print(f"report: {plain(str(summary.report))}")


@app.command(epilog="Example: restain compare runs/a/test runs/b/test -o runs/compared")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished evaluations; the first is the baseline.")],
    out: OutOption = Path("compared"),
    metric: Annotated[
        list[str] | None, typer.Option(help="Compare this figure only (a column of per_image.csv); may be repeated.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Compare the baselines of the first evaluation too.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Test paired differences between evaluations of the same pairs, and draw them; writes OUT/compare.html."""
    from restain.evaluation.comparison import compare_runs

    with progress_bar("comparing"):
        comparison = compare_runs(
            runs, out, metrics=metric or (), baselines=baselines, seed=seed, command=command_line()
        )
    out_console.print(plain(comparison.describe()))
    out_console.print(f"report: {plain(str(comparison.report))}")


@app.command(
    name="train-her2-classifier", epilog="Example: restain train-her2-classifier --data BCI_dataset -o runs/classifier"
)
def train_her2_classifier(
    data: DataOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="The classifier's folder.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and data give the same classifier.")] = 0,
    mpp: Annotated[float, typer.Option(min=0.05, help="Micrometres per pixel of the data.")] = 0.46,
    swap: SwapOption = False,
    tile: Annotated[int, typer.Option(min=64, help="Side of the crops and of the tiles that vote, in px.")] = 256,
    describe: Annotated[str, typer.Option(help="What the data is, in words.")] = "",
) -> None:
    """Train the network that reads HER2 levels from real IHC images of the training split, for 'evaluate --her2-classifier'."""
    from restain.training.her2_classifier import train_her2_classifier as train

    with progress_bar("classifier") as progress:
        facts = train(
            data,
            out,
            steps=steps,
            seed=seed,
            mpp=mpp,
            swap=swap,
            tile=tile,
            description=describe,
            progress=progress,
        )
    told = f"{facts.accuracy:.0%} of {facts.images}" if facts.accuracy is not None else "no"
    out_console.print(f"classifier: {plain(str(out))}; {told} real validation images read right")


@app.command("compare-slides", epilog="Example: restain compare-slides virtual/a.ome.tiff ihc/a.svs -o comparison")
def compare_slides(
    virtual: Annotated[Path, typer.Argument(help="Virtual IHC slide.")],
    real: Annotated[Path, typer.Argument(help="Real IHC slide.")],
    out: OutOption,
    he: Annotated[
        Path | None, typer.Option("--he", help="The H&E slide beneath the virtual one, for the baseline.")
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(min=0.01, help="Micrometres per pixel of the real slide, where it does not say.")
    ] = None,
    override_mpp: OverrideMppOption = False,
    transform: Annotated[
        Path | None,
        typer.Option(help="Registration to use, from the virtual slide to the real one (docs/register.md)."),
    ] = None,
    field: Annotated[float, typer.Option(min=100, max=5000, help="Side of a field in µm.")] = 250.0,
) -> None:
    """Bring a virtual and a real slide into register, score every field, and draw heat maps."""
    from restain.evaluation.slide_pair import compare_slides as compare

    with progress_bar("comparing") as progress:
        page = compare(
            virtual,
            real,
            out,
            he=he,
            mpp=mpp,
            override_mpp=override_mpp,
            transform=transform,
            side_um=field,
            command=command_line(),
            progress=progress,
        )
    out_console.print(f"{page}")
