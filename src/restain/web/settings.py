"""What a server is told when it starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restain.errors import RestainError
from restain.files import make_folder

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """``folder`` holds the slides and is only read; ``state`` gets thumbnails, annotations, and what is stained.

    ``models`` are the bundles that stain, ``upload_bytes`` the most that an upload may have, ``studies`` the folders or
    databases of blinded reviews that are open to their readers, ``database`` the SQLAlchemy URL of a store in place of the SQLite file in ``state``.

    ``hosts`` are the names under which a browser may ask (without port), which keeps a foreign page from reaching a local
    server under a name of its own; ``accounts``: whether one is demanded even where none was made yet, because others reach the
    server; ``show_labels``: whether label and macro images, which name patients, are served.
    """

    folder: Path
    state: Path
    hosts: tuple[str, ...] = LOOPBACK
    accounts: bool = False
    show_labels: bool = False
    models: tuple[Path, ...] = ()
    upload_bytes: int = 2 << 30
    studies: tuple[str, ...] = ()
    database: str | None = None


def settings(
    folder: Path,
    state: Path | None = None,
    *,
    hosts: tuple[str, ...] = LOOPBACK,
    accounts: bool = False,
    show_labels: bool = False,
    models: Sequence[Path] = (),
    upload_bytes: int = 2 << 30,
    studies: Sequence[Path | str] = (),
    database: str | None = None,
) -> Settings:
    """The settings for a folder; where none is given, ``state`` is a folder of the user's own, one for each ``folder``.

    Raises:
        RestainError: if there is no such folder, or ``state`` cannot be made.
    """
    if not folder.is_dir():
        raise RestainError(f"{folder} is not a folder; restain serve shows the slides of one.")
    root = folder.resolve()
    if state is None:
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        state = home / "restain" / f"{root.name or 'root'}-{hashlib.sha256(str(root).encode()).hexdigest()[:10]}"
    make_folder(state)
    return Settings(
        root,
        state.resolve(),
        hosts=hosts,
        accounts=accounts,
        show_labels=show_labels,
        models=tuple(models),
        upload_bytes=upload_bytes,
        studies=tuple(str(one) for one in studies),
        database=database,
    )
