"""The server: one process, one address."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from restain.errors import RestainError
from restain.web.security import host_name
from restain.web.settings import LOOPBACK, settings

WILDCARDS = ("0.0.0.0", "::")
"""Addresses to listen on that are none to ask for."""


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    state: Path | None = None,
    show_labels: bool = False,
    models: Sequence[Path] = (),
    upload_bytes: int = 2 << 30,
    studies: Sequence[Path | str] = (),
    database: str | None = None,
    allow_hosts: Sequence[str] = (),
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    behind_proxy: bool = False,
    told: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Serve the slides of ``folder`` to browsers until interrupted; to others than this machine's, accounts are needed.

    Args:
        folder: slides and images, with everything below it; nothing is written there.
        host: an address of this machine: a loopback one, or one that others reach.
        port: 0 takes a free one.
        state: for thumbnails and annotations; see :func:`restain.web.settings.settings`.
        show_labels: serve label and macro images, which can name a patient.
        models: bundles that stain; without one there is no staining page.
        upload_bytes: the most that an uploaded image may have.
        studies: folders of blinded reviews, or URLs of their databases, that are open to their readers.
        database: SQLAlchemy URL of the store, in place of the SQLite file in ``state``.
        allow_hosts: names or addresses, without port, under which browsers ask, beside ``host``.
        tls_certificate: PEM file; with it browsers ask by https.
        tls_key: PEM file, where the key is not in the certificate's.
        behind_proxy: believe what a proxy on this machine says of the browser's address and of TLS (``X-Forwarded-For``,
            ``X-Forwarded-Proto``).
        told: called with the page's address before the first request is answered.
        warn: called with a sentence, if passwords can be read on their way.

    Raises:
        RestainError: if the folder is none, others reach the server and there is no account, the certificate cannot be used,
            or the port is taken.
    """
    import uvicorn

    from restain.web.app import create_app

    hosts, reached = allowed_hosts(host, allow_hosts, behind_proxy=behind_proxy)
    chosen = settings(
        folder,
        state,
        hosts=hosts,
        accounts=reached,
        database=database,
        show_labels=show_labels,
        models=models,
        upload_bytes=upload_bytes,
        studies=studies,
    )
    check_tls(tls_certificate, tls_key)
    config = uvicorn.Config(
        create_app(chosen),
        host=host,
        port=port,
        ssl_certfile=tls_certificate,
        ssl_keyfile=tls_key,
        proxy_headers=behind_proxy,
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
            f"port {port} of {host} cannot be used; it is taken or forbidden. Give another --port."
        ) from None
    # From here on requests wait instead of being refused, so the address can be told.
    listening.listen(128)
    if reached and tls_certificate is None and not behind_proxy and warn is not None:
        warn(
            "passwords travel in clear, and others on the network can read them, unless a proxy in front does TLS; "
            "--tls-certificate and --tls-key do it here."
        )
    if told is not None:
        name = host if host not in WILDCARDS else allow_hosts[0]
        shown = f"[{name}]" if ":" in name else name
        told(f"{'http' if tls_certificate is None else 'https'}://{shown}:{listening.getsockname()[1]}/")
    uvicorn.Server(config).run(sockets=[listening])


def allowed_hosts(host: str, names: Sequence[str], *, behind_proxy: bool = False) -> tuple[tuple[str, ...], bool]:
    """The names under which browsers may ask, and whether others than this machine can.

    Raises:
        RestainError: if one is neither a name nor an address, or ``host`` is all addresses and no name is given.
    """
    for option, one in (("--host", host), *(("--allow-host", one) for one in names)):
        if host_name(f"[{one}]" if ":" in one else one) is None:
            raise RestainError(f"{option} {one}: give a name or an address, without port.")
    if host in WILDCARDS and not names:
        raise RestainError(
            f"--host {host} listens on every address of this machine; say with --allow-host NAME under which name or address "
            "browsers ask for it."
        )
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    own = () if host in WILDCARDS else (host.lower(),)
    # A name that others use, or a proxy, says that they come, wherever this listens.
    reached = not local or behind_proxy or any(name.lower() not in LOOPBACK for name in names)
    return tuple(dict.fromkeys((*LOOPBACK, *own, *(name.lower() for name in names)))), reached


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """Refuse a certificate or key that cannot be used.

    Raises:
        RestainError: if so.
    """
    if certificate is None:
        if key is not None:
            raise RestainError("--tls-key needs --tls-certificate.")
        return
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise RestainError(f"{path} is not a file; TLS needs a certificate and its key, as PEM files.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError, ValueError) as fault:
        why = getattr(fault, "reason", None) or getattr(fault, "strerror", None) or type(fault).__name__
        raise RestainError(f"{certificate} cannot be used for TLS ({why}).") from None
