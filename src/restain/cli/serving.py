"""The command that serves a folder to browsers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import app, out_console, plain
from restain.errors import RestainError


@app.command(epilog="Example: restain serve slides")
def serve(
    folder: Annotated[Path, typer.Argument(help="Folder with slides and images; nothing is written there.")],
    host: Annotated[str, typer.Option(help="Address of this machine's own; others need accounts, not there yet.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    state: Annotated[
        Path | None, typer.Option(help="Folder for thumbnails and annotations; without it one of the user's own.")
    ] = None,
    show_labels: Annotated[
        bool, typer.Option("--show-labels", help="Show label and macro images, which can name a patient.")
    ] = False,
) -> None:
    """Show slides in the browser: H&E and virtual or real IHC side by side, overlays, annotations."""
    try:
        from restain.web import serve as serve_folder
    except ImportError as fault:
        raise RestainError(f"restain serve needs 'pip install restain[web]' ({fault.name} is missing).") from None

    def told(address: str) -> None:
        out_console.print(plain(f"{folder} is shown at {address} (Ctrl-C stops)."))

    serve_folder(folder, host=host, port=port, state=state, show_labels=show_labels, told=told)
