"""What a request can be refused for: a status, and a sentence of the catalogue."""

from __future__ import annotations


class Fault(Exception):  # noqa: N818  (as RestainError: a fault of what was asked, not of the program)
    """``key`` names the sentence in the catalogue; ``values`` are filled into it."""

    def __init__(self, status: int, key: str, **values: object) -> None:
        super().__init__(key)
        self.status = status
        self.key = key
        self.values = values
