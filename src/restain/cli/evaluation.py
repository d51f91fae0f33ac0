"""The commands that evaluate: ``evaluate``, ``compare``, ``compare-slides``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from restain import RestainError
from restain.cli import options as opt
from restain.cli.console import Panel, command_line, progress_bar, say, show

command = Panel("Evaluation")


@command("restain evaluate --model runs/x/bundle --data data/phantom --split test -o report")
def evaluate(
    data: opt.Data,
    out: opt.Out,
    model: opt.Model = None,
    images: Annotated[
        Path | None, Option(help="Folder of virtual images, named as the pairs, to score instead of a model.")
    ] = None,
    split: opt.Split = "test",
    fit_on: Annotated[
        list[Path] | None, Option(help="Data set whose training split the baselines are fitted on. Repeatable.")
    ] = None,
    mpp: Annotated[
        float | None, Option(min=0.05, help="Micrometres per pixel of the data. Default: that of the model.")
    ] = None,
    swap: opt.Swap = False,
    baselines: Annotated[bool, Option(help="Score the baselines too.")] = True,
    align: Annotated[bool, Option(help="Also score after a small registration.")] = True,
    features: Annotated[
        str,
        Option(help="Network for FID, KID and Inception Score: efficientnet-lite0, a TorchScript Inception, or none."),
    ] = "efficientnet-lite0",
    lpips: Annotated[
        str | None, Option(help="Network for LPIPS: a TorchScript file (StyleGAN's vgg16.pt). Default: as --features.")
    ] = None,
    classifier: opt.Her2Classifier = None,
    quick: Annotated[
        bool, Option("--quick", help="Score PSNR, SSIM, DAB and colour of the model alone, without baselines.")
    ] = False,
    workers: Annotated[
        int | None,
        Option(min=0, help="Processes that score. Default: one per core, at most 8; 0 for fewer than 16 images."),
    ] = None,
    uncertainty: Annotated[
        bool,
        Option(
            "--uncertainty", help="Also test uncertainty against error and OOD detection; write OUT/uncertainty.html."
        ),
    ] = False,
    uncertainty_images: Annotated[
        int, Option(min=1, help="Largest number of pairs for --uncertainty, in order of name.")
    ] = 24,
    ensemble: Annotated[
        list[Path] | None,
        Option(help="Further bundle whose disagreement gives the uncertainty, with --uncertainty. Repeatable."),
    ] = None,
    foreign: Annotated[
        list[Path] | None,
        Option(help="Picture, or folder, of other tissue as OOD input, with --uncertainty. Repeatable."),
    ] = None,
    stain_sweep: Annotated[
        bool, Option("--stain-sweep", help="Also vary stain, white point and JPEG of the H&E; write OUT/sweep.html.")
    ] = False,
    sweep_images: Annotated[
        int, Option(min=1, help="Largest number of pairs for --stain-sweep, in order of name.")
    ] = 12,
) -> None:
    """Score virtual against real images, with baselines beside every figure; write OUT/report.html.

    Re-run the same command to resume.
    """
    from restain.evaluation import evaluate as evaluate_model
    from restain.evaluation.held_out import HeldOut

    if model is not None and images is not None:
        raise RestainError("--model and --images exclude each other: score a model, or images made elsewhere.")
    if images is not None and (uncertainty or stain_sweep):
        raise RestainError("--uncertainty and --stain-sweep need a model and exclude --images.")
    common: dict[str, Any] = {
        "split": split,
        "fit_on": fit_on or (),
        "classifier": classifier,
        "mpp": mpp,
        "swap": swap,
    }
    if uncertainty:
        from restain.evaluation.uncertainty_report import evaluate_uncertainty
        from restain.stain import load

        held_out = HeldOut.open(data, model=model, **common)
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
        show(f"uncertainty: {out / 'uncertainty.html'}")
    if stain_sweep:
        from restain.evaluation.sweep import sweep

        held_out = HeldOut.open(data, model=model, **common)
        with progress_bar("stain sweep") as progress:
            sweep(held_out, out, images=sweep_images, command=command_line(), progress=progress)
        show(f"stain sweep: {out / 'sweep.html'}")
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
            quick=quick,
            workers=workers,
            progress=progress,
            **common,
        )
    show(summary.describe())
    show(f"report: {summary.report}")


@command("restain compare runs/a/test runs/b/test -o runs/compared")
def compare(
    runs: Annotated[list[Path], Argument(help="Folders of finished evaluations; the first is the reference.")],
    out: opt.Out = Path("compared"),
    metric: Annotated[
        list[str] | None, Option(help="Metric to compare, a column of per_image.csv. Default: all. Repeatable.")
    ] = None,
    baselines: Annotated[
        bool, Option("--baselines", help="Also compare the baselines of the first evaluation.")
    ] = False,
    seed: opt.Seed = 0,
) -> None:
    """Test paired differences between evaluations of the same pairs, and plot them; write OUT/compare.html."""
    from restain.evaluation.comparison import compare_runs

    with progress_bar("comparing"):
        comparison = compare_runs(
            runs, out, metrics=metric or (), baselines=baselines, seed=seed, command=command_line()
        )
    show(comparison.describe())
    show(f"report: {comparison.report}")


@command("restain compare-slides virtual/a.ome.tiff ihc/a.svs -o comparison", name="compare-slides")
def compare_slides(
    virtual: Annotated[Path, Argument(help="Virtual IHC slide.")],
    real: Annotated[Path, Argument(help="Real IHC slide.")],
    out: opt.Out,
    he: Annotated[Path | None, Option("--he", help="H&E slide of the virtual one, for the baseline.")] = None,
    mpp: opt.Mpp = None,
    override_mpp: opt.OverrideMpp = False,
    transform: Annotated[
        Path | None,
        Option(help="Transform from the virtual to the real slide (docs/register.md). Default: register them."),
    ] = None,
    field: Annotated[float, Option(min=100, max=5000, help="Side of a field in µm.")] = 250.0,
) -> None:
    """Register a virtual and a real slide, score every field, and draw heat maps."""
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
    show(page)


@command("restain evaluate-spots C2.jpg --spots C2.csv --mpp 0.69 -o c2", name="evaluate-spots")
def evaluate_spots(
    slide: Annotated[Path, Argument(help="H&E image of the spatial transcriptomics.")],
    spots: Annotated[
        Path, Option(help="CSV (spot, x_px, y_px, total, GENE), 10x Visium folder, or AnnData file (.h5ad).")
    ],
    out: opt.Out,
    gene: Annotated[str, Option(help="Symbol of the gene.")] = "ERBB2",
    spot_um: Annotated[
        float | None, Option(min=1, help="Diameter of a spot in µm. Default: that of the file, or 100.")
    ] = None,
    model: opt.Model = None,
    mpp: opt.Mpp = None,
    override_mpp: opt.OverrideMpp = False,
    seed: opt.Seed = 0,
    device: opt.Device = None,
) -> None:
    """Compare virtual DAB with mRNA counts of spatial transcriptomics per spot, beside baselines from the H&E."""
    from restain.spots import evaluate_spots as evaluate
    from restain.stain import load

    with progress_bar("spots") as progress:
        found = evaluate(
            slide,
            spots,
            out,
            model=load(model, device=device),
            gene=gene,
            spot_um=spot_um,
            mpp=mpp,
            override_mpp=override_mpp,
            seed=seed,
            command=command_line(),
            progress=progress,
            warn=say,
        )
    show(found.describe())
    show(f"page: {found.page}")
