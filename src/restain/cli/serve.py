"""The command ``serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from restain.cli.console import Panel, say, show

PANEL = "Browser and studies"
command = Panel(PANEL)


@command("restain serve slides")
def serve(
    folder: Annotated[Path, Argument(help="Folder of slides and images; it is never written to.")],
    host: Annotated[
        str, Option(help="Address to listen on. Any but a loopback address needs accounts (restain accounts).")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8000,
    state: Annotated[
        Path | None, Option(help="Folder for thumbnails and annotations. Default: in the user's data folder.")
    ] = None,
    show_labels: Annotated[
        bool, Option("--show-labels", help="Show label and macro images, which may identify patients.")
    ] = False,
    model: Annotated[
        list[str] | None,
        Option("--model", help="Model for staining in the browser, as 'restain models' lists them. Repeatable."),
    ] = None,
    upload_gib: Annotated[float, Option(min=0.01, help="Size limit of an uploaded image in GiB.")] = 2.0,
    study: Annotated[
        list[str] | None,
        Option("--study", help="Folder or database URL of a blinded study to open to its readers. Repeatable."),
    ] = None,
    database: Annotated[
        str | None,
        Option(envvar="RESTAIN_DATABASE", help="SQLAlchemy URL of a Postgres database. Default: SQLite in --state."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, Option("--allow-host", help="Host name accepted in requests, besides --host. Repeatable.")
    ] = None,
    tls_certificate: Annotated[Path | None, Option(help="TLS certificate (PEM); serves over https.")] = None,
    tls_key: Annotated[Path | None, Option(help="TLS key (PEM), if it is not in the certificate file.")] = None,
    behind_proxy: Annotated[
        bool, Option("--behind-proxy", help="Trust the forwarding headers of a proxy on this machine.")
    ] = False,
    root_path: Annotated[str, Option(help="Path under which the proxy shows the server, such as /stain.")] = "",
) -> None:
    """Show slides in the browser: H&E beside virtual or real IHC, overlays, annotations, staining and studies."""
    from restain.model_store import find_model
    from restain.web import Settings
    from restain.web import serve as start_server

    settings = Settings(
        folder,
        host=host,
        port=port,
        state=state,
        show_labels=show_labels,
        models=[find_model(one) for one in model or ()],
        upload_bytes=int(upload_gib * (1 << 30)),
        studies=study or (),
        database=database,
        allow_hosts=allow_host or (),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        behind_proxy=behind_proxy,
        root_path=root_path,
    )
    start_server(settings, started=lambda address: show(f"Serving {folder} at {address} (Ctrl-C stops)."), warn=say)
