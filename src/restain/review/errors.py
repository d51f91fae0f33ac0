"""What a study refuses; the pages have a sentence of their own for each, in the language of the reader."""

from __future__ import annotations

from restain.errors import RestainError


class UnknownItem(RestainError):  # noqa: N818  (as RestainError: an error of the request, not of the program)
    """The reader has no item with this token, or it was not offered yet."""


class ItemClosed(RestainError):  # noqa: N818
    """The reader has since seen the case in the other modality."""


class InvalidAnswer(RestainError):  # noqa: N818
    """The value is not an answer to the question, or the study has no such question."""


class AnswerConflict(RestainError):  # noqa: N818
    """The answer to be replaced is not the current one."""
