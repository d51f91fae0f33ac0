"""The error that a user meets: a sentence that names the file and the fault. And the sentence of a job that was stopped."""

from __future__ import annotations


class RestainError(Exception):
    """A fault in what the user gave, told in one sentence.

    The command line prints the sentence and exits with 2. Any other exception that reaches a user is a bug of restain.
    """


class Interrupted(Exception):  # noqa: N818  (it is no error: the user asked for it)
    """A job was asked to stop and did, between two steps; the sentence says where it stands and how it goes on.

    The command line prints the sentence and exits with 130.
    """
