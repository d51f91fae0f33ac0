"""The server: one process, one address."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path

from restain.errors import RestainError
from restain.web.settings import settings


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    state: Path | None = None,
    show_labels: bool = False,
    told: Callable[[str], None] | None = None,
) -> None:
    """Serve the slides of ``folder`` to browsers on this machine until interrupted.

    Args:
        folder: slides and images, with everything below it; nothing is written there.
        host: an address of this machine's own (loopback).
        port: 0 takes a free one.
        state: for thumbnails and annotations; see :func:`restain.web.settings.settings`.
        show_labels: serve label and macro images, which can name a patient.
        told: called with the page's address before the first request is answered.

    Raises:
        RestainError: if the folder is none, the address is not this machine's own, or the port is taken.
    """
    import uvicorn

    from restain.web.app import create_app

    check_host(host)
    chosen = settings(folder, state, show_labels=show_labels)
    config = uvicorn.Config(
        create_app(chosen),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    try:
        listening = config.bind_socket()
    except SystemExit:
        raise RestainError(
            f"port {port} of {host} cannot be used; it is taken or forbidden. Give another --port."
        ) from None
    # From here on requests wait instead of being refused, so the address can be told.
    listening.listen(128)
    if told is not None:
        shown = f"[{host}]" if ":" in host else host
        told(f"http://{shown}:{listening.getsockname()[1]}/")
    uvicorn.Server(config).run(sockets=[listening])


def check_host(host: str) -> None:
    """Refuse what others can reach: there are no accounts yet that would keep them out.

    Raises:
        RestainError: if ``host`` is not a loopback address.
    """
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RestainError(
            f"--host {host}: restain serve has no accounts yet, so it listens on 127.0.0.1 only; "
            "from another machine, use an SSH tunnel."
        )
