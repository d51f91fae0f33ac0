"""Passwords, hashed by argon2id."""

from __future__ import annotations

import unicodedata
from functools import cache

import argon2

from restain.web.errors import RequestError

SHORTEST, LONGEST = 10, 200
"""Characters."""
_hasher = argon2.PasswordHasher()


def check_length(password: str) -> None:
    """Raise RequestError 422 if the password is too short or too long."""
    if len(password) < SHORTEST:
        raise RequestError(422, "account.error.short", least=SHORTEST)
    if len(password) > LONGEST:
        raise RequestError(422, "account.error.long", most=LONGEST)


def hash_password(password: str) -> str:
    """The argon2id hash of a password, with salt and costs."""
    return _hasher.hash(_typed(password))


def verify(password: str, stored: str | None) -> bool:
    """Whether the password has the hash ``stored``; for None, False after the same time."""
    # Made for every name, or the first unknown name would take longer.
    unknown = _unknown_hash()
    try:
        return _hasher.verify(stored or unknown, _typed(password[:LONGEST])) and stored is not None
    except argon2.exceptions.VerificationError:
        return False


def is_outdated(stored: str) -> bool:
    """Whether the hash was made at other costs than today's."""
    return _hasher.check_needs_rehash(stored)


def _typed(password: str) -> bytes:
    # Keyboards compose the same letters in several ways; a lone surrogate stays a difference.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


@cache
def _unknown_hash() -> str:
    return _hasher.hash("nobody")
