"""The command line. It holds no logic: every command is one call into the layer below, which is imported when used.

Each module holds one group of commands and adds them to the app when it is imported here.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from restain import RestainError, __version__
from restain.errors import Interrupted

# The help lists commands in the order of these imports.
# isort: off
from restain.cli.console import app as app, err_console, out_console, plain, show_fault
from restain.cli import (  # noqa: F401
    staining,
    models,
    cohort,
    data,
    register,
    build,
    training,
    evaluation,
    explain,
    serve,
    accounts,
    review,
)
# isort: on


def main() -> NoReturn:
    """Entry point: errors become one sentence and exit code 2, Ctrl-C exit code 130."""
    try:
        code = app(standalone_mode=False)
    except RestainError as fault:
        show_fault(str(fault))
        sys.exit(2)
    except Interrupted as stop:
        err_console.print(plain(stop))
        sys.exit(130)
    except (KeyboardInterrupt, typer.Abort):
        err_console.print("Interrupted. Finished parts are kept; re-run the same command to resume.")
        sys.exit(130)
    except Exception as fault:
        # Errors in how a command was typed; typer's own class for them is not public.
        if not hasattr(fault, "format_message"):
            raise
        show_fault(fault.format_message())
        if (context := getattr(fault, "ctx", None)) is not None:
            err_console.print(f"Try: {context.command_path} --help")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _show_version(requested: bool) -> None:
    if requested:
        out_console.print(f"restain {__version__}")
        raise typer.Exit


@app.callback()
def restain(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
