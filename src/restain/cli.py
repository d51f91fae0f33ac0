"""The command line. It holds no logic: every command is one call into the layer below, which is imported when used."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from restain import NOTICE, RestainError, __version__
from restain.errors import Interrupted

app = typer.Typer(
    name="restain",
    help=f"Virtual HER2 staining of breast tissue: H&E in, HER2 IHC out. [bold]{NOTICE.capitalize()}, never a diagnosis.[/bold]",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
out_console = Console(highlight=False, soft_wrap=True)
err_console = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> NoReturn:
    """Entry point: errors become one sentence and exit code 2, Ctrl-C exit code 130."""
    try:
        code = app(standalone_mode=False)
    except RestainError as fault:
        err_console.print(f"[bold red]error:[/bold red] {_plain(str(fault))}")
        sys.exit(2)
    except Interrupted as stop:
        err_console.print(_plain(str(stop)))
        sys.exit(130)
    except (KeyboardInterrupt, typer.Abort):
        err_console.print("interrupted; what was finished is kept, and the same command goes on.")
        sys.exit(130)
    except Exception as fault:
        # Faults in how a command was typed; typer's own class for them is not public.
        if not hasattr(fault, "format_message"):
            raise
        err_console.print(f"[bold red]error:[/bold red] {_plain(fault.format_message())}")
        if (context := getattr(fault, "ctx", None)) is not None:
            err_console.print(f"try: {context.command_path} --help")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, as the ``progress(done, total)`` callback that the jobs take."""
    columns: tuple[ProgressColumn, ...] = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns += (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=err_console, transient=True, disable=not err_console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show_version(asked: bool) -> None:
    if asked:
        out_console.print(f"restain {__version__}")
        raise typer.Exit


@app.callback()
def restain(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


DataOption = Annotated[
    list[Path], typer.Option("--data", help="Folder of pairs (BCI, challenge, AB or MIST layout); may be repeated.")
]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Model bundle; without it the shipped one, which knows only the phantom.")
]
OutOption = Annotated[Path, typer.Option("-o", "--out", help="Folder for the results; made where needed.")]


@app.command(epilog="Example: restain check BCI_dataset")
def check(data: Annotated[Path, typer.Argument(help="Folder of pairs.")]) -> None:
    """Count a folder's pairs per split and level and list all its faults; exits with 2 when there are any."""
    from restain.data import check_folder

    with _progress("reading") as progress:
        report = check_folder(data, progress)
    out_console.print(_plain(report.describe()))
    for fault in report.faults:
        err_console.print(f"[red]fault:[/red] {_plain(fault.sentence)}")
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
    from_he_mpp: Annotated[float | None, typer.Option(min=0.05, help="mpp of the real H&E images.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Write synthetic paired tissue with known truth. It is never real tissue and says so."""
    from restain.her2 import Her2Level
    from restain.phantom import write_phantom

    with _progress("phantom") as progress:
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
            progress=progress,
            workers=workers,
        )
    out_console.print(_plain(summary.describe()))


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
    out_console.print(f"bundle: {_plain(str(bundle))}")


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
        list[Path] | None, typer.Option(help="Data whose training split the trivial answers are fitted on.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(min=0.05, help="mpp of the data where it is not the model's.")] = None,
) -> None:
    """Measure virtual against real images, with trivial answers beside every figure; writes OUT/report.html."""
    from restain.evaluate import evaluate_folder

    if model is not None and images is not None:
        raise RestainError("--model and --images exclude one another: score a model, or pictures made elsewhere.")
    with _progress("evaluating") as progress:
        summary = evaluate_folder(
            data,
            out,
            model=model,
            images=images,
            split=split,
            fit_on=fit_on or (),
            mpp=mpp,
            command=shlex.join(["restain", *sys.argv[1:]]),
            progress=progress,
        )
    out_console.print(_plain(summary.describe()))
    out_console.print(f"report: {_plain(str(summary.report))}")


@app.command(epilog="Example: restain stain HE/*.png -o virtual")
def stain(
    images: Annotated[list[Path], typer.Argument(help="H&E images (PNG, JPEG, TIFF) or folders of them.")],
    out: OutOption,
    model: ModelOption = None,
    mpp: Annotated[float | None, typer.Option(min=0.05, help="Micrometres per pixel of the images.")] = None,
    dab: Annotated[bool, typer.Option("--dab", help="Write the DAB density too, as NAME.dab.tif.")] = False,
    tile: Annotated[int, typer.Option(min=128, help="Largest tile side in px.")] = 1024,
) -> None:
    """Restain H&E images of any size as HER2 IHC: tiled, blended, with provenance in the file."""
    from restain.bundle import load_bundle
    from restain.stain import Restainer, expand, stain_images

    sources = expand(images)
    bundle = load_bundle(model)
    with _progress("staining") as progress:
        results = stain_images(sources, out, Restainer(bundle, tile=tile), mpp=mpp, dab=dab, progress=progress)
    for result in results:
        out_console.print(_plain(str(result)))
    out_console.print(f"[bold]{NOTICE}[/bold]; the model was trained on: {_plain(bundle.card.data)}")


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

    with _progress("demo") as progress:
        page = run_demo(out, real=real, pairs=pairs, progress=progress, say=_say)
    out_console.print(f"{page}")


def _say(line: Any) -> None:
    err_console.print(_plain(str(line)))
