"""What can be wrong with a database."""

from __future__ import annotations

import sqlalchemy as sql

from restain.errors import RestainError


class StoreFault(RestainError):  # noqa: N818  (as RestainError)
    """The database does not answer, or refuses: no space, no rights, gone."""


def words_of(fault: sql.exc.SQLAlchemyError, url: sql.URL) -> str:
    """What the driver said, in one line and without the password."""
    said = str(getattr(fault, "orig", None) or type(fault).__name__).strip()
    line = said.splitlines()[0] if said else type(fault).__name__
    return line.replace(str(url.password), "***") if url.password else line
