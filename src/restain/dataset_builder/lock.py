"""One ``restain build`` at a time in a folder: two would write over one another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restain.errors import RestainError

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".restain-build.lock"
"""Stays in the data set: whoever removed it could remove the one that another process has just taken."""


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder ``out``, which exists, until the end of the block or of the process; on Windows nothing is held.

    Raises:
        RestainError: if another process holds it, or the lock's file cannot be written.
    """
    try:
        file = open(out / LOCK_FILE, "ab")  # noqa: SIM115
    except OSError as fault:
        raise RestainError(f"{out / LOCK_FILE} cannot be written ({fault.strerror}).") from None
    with file:
        if sys.platform != "win32":
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RestainError(f"{out} is in use by another restain build.") from None
        yield
