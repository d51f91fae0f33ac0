"""Passwords as argon2id keeps them."""

from __future__ import annotations

import unicodedata
from functools import cache

import argon2

from restain.web.faults import Fault

SHORTEST, LONGEST = 10, 200
"""Characters."""
_hasher = argon2.PasswordHasher()


def check_length(password: str) -> None:
    """Raises Fault 422 if it is too short or too long."""
    if len(password) < SHORTEST:
        raise Fault(422, "account.fault.short", least=SHORTEST)
    if len(password) > LONGEST:
        raise Fault(422, "account.fault.long", most=LONGEST)


def hashed(password: str) -> str:
    """What is kept of a password: argon2id with its salt and costs."""
    return _hasher.hash(_typed(password))


def fits(password: str, kept: str | None) -> bool:
    """Whether it is the password; of a name that has none (``None``), no, after the same time."""
    # Made whichever name is asked for, or the first unknown one would take longer.
    nobodys = _nobodys()
    try:
        return _hasher.verify(kept or nobodys, _typed(password[:LONGEST])) and kept is not None
    except argon2.exceptions.VerificationError:
        return False


def outdated(kept: str) -> bool:
    """Whether it was hashed at other costs than today's."""
    return _hasher.check_needs_rehash(kept)


def _typed(password: str) -> bytes:
    # The same letters whichever way a keyboard composes them; a lone surrogate stays a difference.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


@cache
def _nobodys() -> str:
    return _hasher.hash("nobody")
