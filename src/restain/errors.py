"""The error that a user meets, the sentence of a job that was stopped, and the one of an extra that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class RestainError(Exception):
    """A fault in what the user gave, told in one sentence.

    The command line prints the sentence and exits with 2. Any other exception that reaches a user is a bug of restain.
    """


class Interrupted(Exception):  # noqa: N818  (it is no error: the user asked for it)
    """A job was asked to stop and did, between two steps; the sentence says where it stands and how it goes on.

    The command line prints the sentence and exits with 130.
    """


@contextmanager
def needs(extra: str, what: str, error: type[RestainError] = RestainError) -> Iterator[None]:
    """Turn the failed import of a package that only an extra installs into one sentence; stands around such imports.

    Args:
        extra: the extra's name in pyproject.toml.
        what: subject of the sentence: the command, option or file that needs the extra.
        error: what is raised.

    Raises:
        RestainError: if a package is missing, with the command that installs it.
    """
    try:
        yield
    except ImportError as fault:
        package = (fault.name or "").partition(".")[0]
        if package in ("", "restain"):
            raise
        raise error(f"{what} needs the package {package}: pip install 'restain[{extra}]'.") from None
