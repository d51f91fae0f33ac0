"""The command that serves a folder to browsers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restain.cli.console import app, out_console, plain, say


@app.command(epilog="Example: restain serve slides")
def serve(
    folder: Annotated[Path, typer.Argument(help="Folder with slides and images; nothing is written there.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach needs accounts (restain accounts add).")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    state: Annotated[
        Path | None, typer.Option(help="Folder for thumbnails and annotations; without it one of the user's own.")
    ] = None,
    show_labels: Annotated[
        bool, typer.Option("--show-labels", help="Show label and macro images, which can name a patient.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="Bundle that stains from the browser; 'default' for the shipped one; may be repeated."
        ),
    ] = None,
    upload_gib: Annotated[
        float, typer.Option(min=0.01, help="The most that an uploaded image may have, in GiB.")
    ] = 2.0,
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study", help="Folder of a blinded review, or its database's URL, open to its readers; may be repeated."
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="RESTAIN_DATABASE", help="Postgres in place of the state's SQLite file, as an SQLAlchemy URL."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Name or address under which browsers ask, beside --host; may be repeated."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate as a PEM file: browsers ask by https.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, where it is in a PEM file of its own.")] = None,
    behind_proxy: Annotated[
        bool,
        typer.Option("--behind-proxy", help="Believe a proxy on this machine about the browser's address and TLS."),
    ] = False,
) -> None:
    """Show slides in the browser: H&E and virtual or real IHC side by side, overlays, annotations."""
    from restain.bundle import DEFAULT
    from restain.web import Settings
    from restain.web import serve as start_server

    def started(address: str) -> None:
        out_console.print(plain(f"{folder} is shown at {address} (Ctrl-C stops)."))

    settings = Settings(
        folder,
        host=host,
        port=port,
        state=state,
        show_labels=show_labels,
        models=[DEFAULT if one == "default" else Path(one) for one in model or ()],
        upload_bytes=int(upload_gib * (1 << 30)),
        studies=study or (),
        database=database,
        allow_hosts=allow_host or (),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        behind_proxy=behind_proxy,
    )
    start_server(settings, started=started, warn=say)
