"""The one error a user meets: a sentence that names the file and the fault."""

from __future__ import annotations


class RestainError(Exception):
    """A fault in what the user gave, told in one sentence.

    The command line prints the sentence and exits with 2. Any other exception that reaches a user is a bug of restain.
    """
