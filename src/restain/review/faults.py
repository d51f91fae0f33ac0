"""What a reader can meet; the pages have a sentence of their own for each, in the reader's language."""

from __future__ import annotations

from restain.errors import RestainError


class NoSuchItem(RestainError):  # noqa: N818  (as RestainError: a fault of what was asked, not of the program)
    """No item of the reader's has this token, or they were not offered it yet."""


class ItemClosed(RestainError):  # noqa: N818
    """The reader saw the case in the other modality since."""


class NoAnswer(RestainError):  # noqa: N818
    """The value is none of the question's, or the study does not ask it."""


class AnsweredSince(RestainError):  # noqa: N818
    """The answer that the caller meant to replace is not the one that counts now."""
