"""What all commands share: the app, the two consoles, progress bars, options that mean the same everywhere."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from restain import NOTICE

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


def plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, or lines where that is no terminal, as the ``progress(done, total)`` callback of the jobs."""
    from restain.progress import Bar

    with Bar(what, err_console) as bar:
        yield bar.update


DataOption = Annotated[
    list[Path], typer.Option("--data", help="Folder of pairs (BCI, challenge, AB or MIST layout); may be repeated.")
]
SwapOption = Annotated[bool, typer.Option("--swap", help="Exchange the H&E and IHC sides of the data on reading.")]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Model bundle; without it the shipped one, which knows only the phantom.")
]
MppOption = Annotated[
    float | None, typer.Option("--mpp", min=0.01, help="Micrometres per pixel of an image that does not say.")
]
OverrideMppOption = Annotated[
    bool, typer.Option("--override-mpp", help="Take the given mpp also where a file states another.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(help="Where the network runs: cpu, cuda, cuda:1 or mps; without it CUDA where there is one."),
]
EngineOption = Annotated[
    str | None,
    typer.Option(help="What runs the network, by name (docs/speed.md); else the fastest that agrees (auto)."),
]
OutOption = Annotated[Path, typer.Option("-o", "--out", help="Folder for the results; made where needed.")]


def say(line: Any) -> None:
    err_console.print(plain(str(line)))


def given(**options: Any) -> dict[str, Any]:
    """The options that were given on the command line; the others keep the default of what they are passed to."""
    return {name: value for name, value in options.items() if value is not None}


def command_line() -> str:
    """How restain was called, for reports."""
    return shlex.join(["restain", *sys.argv[1:]])
