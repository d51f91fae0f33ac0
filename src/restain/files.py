"""Folders and files of results: made where needed, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restain.errors import RestainError


def make_folder(out: Path) -> None:
    """Make the folder of the results.

    Raises:
        RestainError: if that fails, or the system does not let files be written into it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise RestainError(f"{out}: the output folder cannot be made ({fault.strerror}).") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise RestainError(f"{out}: the output folder cannot be written to.")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to, renamed to ``path`` on success and removed on any failure.

    The name ends in ``.part``, so a writer that goes by suffix must be told its format.

    Raises:
        RestainError: if the system refuses to write (no folder, no right, no space).
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as fault:
        raise RestainError(f"{path} cannot be written ({fault.strerror or fault}).") from None
    finally:
        partial.unlink(missing_ok=True)
