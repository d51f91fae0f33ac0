"""Refused requests."""

from __future__ import annotations


class RequestError(Exception):
    """A refused request: the HTTP status, the key of its sentence in the catalogue, and the values to fill in."""

    def __init__(self, status: int, key: str, **values: object) -> None:
        super().__init__(key)
        self.status, self.key, self.values = status, key, values
