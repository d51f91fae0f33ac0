"""The commands ``models`` and ``models get``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from typer import Argument, Context, Option

from restain.cli.console import app, out_console, plain, progress_bar, show

models = typer.Typer(name="models", help="List the models at hand, or download one.", invoke_without_command=True)
app.add_typer(models, rich_help_panel="Staining")


@models.callback(epilog="Example: restain models")
def list_models(context: Context) -> None:
    """List the models at hand: the shipped one, those in 'bundles' of a checkout, and downloaded ones.

    Each can be given by its name, as in 'restain stain --model real'.
    """
    if context.invoked_subcommand is not None:
        return
    from restain.bundle import cards_at_hand

    table = Table("name", "trained on", "terms", show_lines=True)
    table.add_column("folder", overflow="fold")
    for name, (path, card) in cards_at_hand().items():
        table.add_row(*map(plain, (name, card.data, card.licence, path)))
    out_console.print(table, soft_wrap=False)


@models.command(epilog="Example: restain models get https://example.org/real.zip --sha256 3f0c…")
def get(
    url: Annotated[str, Argument(help="Address of a zip archive of a model bundle.")],
    sha256: Annotated[str, Option(help="SHA-256 of the archive, from the page that offers it.")],
    name: Annotated[str | None, Option(help="Name of the model. Default: that of the archive.")] = None,
) -> None:
    """Download a model and check it; re-run the command to resume. RESTAIN_MODELS sets the folder."""
    from restain.bundle import load_bundle
    from restain.model_store import get_model

    with progress_bar("downloading") as progress:
        folder = get_model(url, sha256, name=name, progress=progress)
    card = load_bundle(folder).card
    show(f"{folder.name}: {folder}\ntrained on: {card.data}\nterms: {card.licence}")
