"""Errors for users: :class:`RestainError`, :class:`Interrupted`, and :func:`needs` for a missing extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class RestainError(Exception):
    """An error in the input, described in one sentence.

    The command line prints the sentence and exits with 2. Any other exception is a bug.
    """


class Interrupted(Exception):  # noqa: N818  (not an error: the user requested it)
    """A job was stopped on request; the sentence says how far it got and how to resume it.

    The command line prints the sentence and exits with 130.
    """


@contextmanager
def needs(extra: str, what: str, error: type[RestainError] = RestainError) -> Iterator[None]:
    """Turn a failed import inside the block into one sentence that names the extra of pyproject.toml to install.

    ``what`` is the subject of the sentence: the command, option or file that needs the extra. Raises RestainError, or
    ``error``, if a package is missing.
    """
    try:
        yield
    except ImportError as fault:
        package = (fault.name or "").partition(".")[0]
        if package in ("", "restain"):
            raise
        raise error(f"{what} needs the package {package}: pip install 'restain[{extra}]'.") from None
