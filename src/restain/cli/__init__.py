"""The command line. It holds no logic: every command is one call into the layer below, which is imported when used.

Each module holds one group of commands and adds them to the app when it is imported here.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from restain import RestainError, __version__
from restain.cli import (
    accounts,
    build,
    data,
    evaluation,
    explaining,
    register,
    review,
    serving,
    slides,
    spots,
    staining,
    training,
)
from restain.cli.console import app, err_console, out_console, plain
from restain.errors import Interrupted

__all__ = [
    "accounts",
    "app",
    "build",
    "data",
    "evaluation",
    "explaining",
    "main",
    "register",
    "review",
    "serving",
    "slides",
    "spots",
    "staining",
    "training",
]


def main() -> NoReturn:
    """Entry point: errors become one sentence and exit code 2, Ctrl-C exit code 130."""
    try:
        code = app(standalone_mode=False)
    except RestainError as fault:
        err_console.print(f"[bold red]error:[/bold red] {plain(str(fault))}")
        sys.exit(2)
    except Interrupted as stop:
        err_console.print(plain(str(stop)))
        sys.exit(130)
    except (KeyboardInterrupt, typer.Abort):
        err_console.print("interrupted; what was finished is kept, and the same command goes on.")
        sys.exit(130)
    except Exception as fault:
        # Faults in how a command was typed; typer's own class for them is not public.
        if not hasattr(fault, "format_message"):
            raise
        err_console.print(f"[bold red]error:[/bold red] {plain(fault.format_message())}")
        if (context := getattr(fault, "ctx", None)) is not None:
            err_console.print(f"try: {context.command_path} --help")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


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
