"""Starts the server: one process, one address."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from restain.errors import RestainError
from restain.web.settings import WILDCARDS, Settings


def serve(
    settings: Settings,
    *,
    started: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Serve a folder until interrupted. A server that other machines can reach needs an account.

    Args:
        settings: all options.
        started: called with the page's address once requests are accepted.
        warn: called with a sentence if passwords are sent unencrypted.

    Raises:
        RestainError: if an account is missing, the certificate cannot be used, or the port is taken.
    """
    import uvicorn

    from restain.web.app import create_app

    app = create_app(settings)
    certificate = settings.tls_certificate
    check_tls(certificate, settings.tls_key)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=certificate,
        ssl_keyfile=settings.tls_key,
        proxy_headers=settings.behind_proxy,
        root_path=settings.root_path,
        forwarded_allow_ips="127.0.0.1,::1",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    try:
        listening = config.bind_socket()
    except SystemExit:
        raise RestainError(
            f"port {settings.port} of {settings.host} cannot be used; it is taken or forbidden. Give another --port."
        ) from None
    # Else the body of an answer waits up to 40 ms for the receipt of its header. asyncio sets this only on sockets that
    # state their protocol, which uvicorn's does not; accepted sockets inherit it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # From here on requests wait instead of being refused.
    listening.listen(128)
    if warn is not None and settings.public and certificate is None and not settings.behind_proxy:
        warn(
            "passwords are sent unencrypted, and others on the network can read them, unless a proxy adds TLS; "
            "use --tls-certificate and --tls-key for TLS here."
        )
    if started is not None:
        name = settings.allow_hosts[0] if settings.host in WILDCARDS else settings.host
        scheme, shown = "http" if certificate is None else "https", f"[{name}]" if ":" in name else name
        started(f"{scheme}://{shown}:{listening.getsockname()[1]}/")
    uvicorn.Server(config).run(sockets=[listening])


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """Raise RestainError if the certificate or its key cannot be used."""
    if certificate is None:
        if key is not None:
            raise RestainError("--tls-key needs --tls-certificate.")
        return
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise RestainError(f"{path} is not a file; TLS needs a certificate and its key, as PEM files.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key would otherwise prompt on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise RestainError(f"{certificate} cannot be used for TLS ({why}).") from None
