"""Options of the server."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restain.errors import RestainError
from restain.files import make_folder
from restain.web.security import host_name

LOOPBACK = ("127.0.0.1", "localhost", "::1")
WILDCARDS = ("0.0.0.0", "::")
"""Addresses that can be listened on but not requested."""


@dataclass(frozen=True)
class Settings:
    """Options of a server, checked when they are made.

    Args:
        folder: slides and images, with all folders in it; only read.
        state: thumbnails, annotations, uploads and results; by default a folder of the user, one for each ``folder``.
        host: the address to listen on.
        port: 0 takes a free one.
        allow_hosts: names or addresses, without port, that browsers may request, besides ``host``.
        behind_proxy: trust ``X-Forwarded-For`` and ``X-Forwarded-Proto`` of a proxy on this machine.
        root_path: path under which a proxy shows the server; the proxy removes it from requests.
        tls_certificate: PEM file; the server then answers by https.
        tls_key: PEM file, if the key is not in the file of the certificate.
        models: bundles for the staining page; without one there is no such page.
        upload_bytes: largest upload.
        studies: folders, or URLs of databases, of blinded reviews.
        database: SQLAlchemy URL that replaces the SQLite file in ``state``.
        show_labels: serve label and macro images, which can show a patient's name.

    Raises:
        RestainError: if ``folder`` is not a folder, ``state`` cannot be made, or a host is not valid.
    """

    folder: Path
    state: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    allow_hosts: Sequence[str] = ()
    behind_proxy: bool = False
    root_path: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    models: Sequence[Path] = ()
    upload_bytes: int = 2 << 30
    studies: Sequence[Path | str] = ()
    database: str | None = None
    show_labels: bool = False
    state_folder: Path = field(init=False)
    """``state`` or its default, made."""
    hosts: tuple[str, ...] = field(init=False)
    """All names that browsers may request."""
    public: bool = field(init=False)
    """Whether other machines can reach the server, so that accounts are required."""

    def __post_init__(self) -> None:
        hosts, public = allowed_hosts(self.host, self.allow_hosts, behind_proxy=self.behind_proxy)
        if not self.folder.is_dir():
            raise RestainError(f"{self.folder} is not a folder; restain serve shows the slides of one.")
        if not re.fullmatch(r"(/[\w.~-]+)*", self.root_path):
            raise RestainError(f"--root-path {self.root_path}: give a path such as /stain, without / at its end.")
        root = self.folder.resolve()
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "restain"
        own = f"{root.name or 'root'}-{hashlib.sha256(str(root).encode()).hexdigest()[:10]}"
        state = self.state or home / own
        make_folder(state)
        for name, value in (("folder", root), ("state_folder", state.resolve()), ("hosts", hosts), ("public", public)):
            object.__setattr__(self, name, value)


def allowed_hosts(host: str, names: Sequence[str], *, behind_proxy: bool = False) -> tuple[tuple[str, ...], bool]:
    """The names that browsers may request, and whether other machines can reach the server.

    Raises:
        RestainError: if one is neither a name nor an address, or ``host`` is a wildcard and there are no names.
    """
    for option, one in (("--host", host), *(("--allow-host", one) for one in names)):
        if host_name(f"[{one}]" if ":" in one else one) is None:
            raise RestainError(f"{option} {one}: give a name or an address, without port.")
    if host in WILDCARDS and not names:
        raise RestainError(
            f"--host {host} listens on every address of this machine; give the name or address that browsers request "
            "with --allow-host NAME."
        )
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    own = () if host in WILDCARDS else (host.lower(),)
    # A proxy, or a name that is not this machine's, brings others wherever the server listens.
    public = not local or behind_proxy or any(name.lower() not in LOOPBACK for name in names)
    return tuple(dict.fromkeys((*LOOPBACK, *own, *(name.lower() for name in names)))), public
