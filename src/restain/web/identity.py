"""Who asks, and what they may open."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request


class Role(StrEnum):
    """An owner may do everything; a reader sees their own readings of studies and nothing else, or a study is not blinded."""

    OWNER = "owner"
    READER = "reader"


@dataclass(frozen=True)
class Account:
    """``name`` of a reader is their name in the studies."""

    name: str
    role: Role


SOMEBODY_HERE = Account("", Role.OWNER)
"""Whoever sits at the machine, where a server that only this machine reaches has no accounts."""


def account_of(request: Request) -> Account:
    """The account that the guard found behind a request; :data:`SOMEBODY_HERE` where there are none."""
    account: Account = getattr(request.state, "account", SOMEBODY_HERE)
    return account


READERS_PLACES = ("/review", "/api/review", "/static", "/account")
"""Beginnings of the addresses that readers may open; all others are the owners'."""


def may_open(account: Account, path: str) -> bool:
    """Whether an account may open the address ``path``."""
    return account.role is Role.OWNER or any(path == one or path.startswith(f"{one}/") for one in READERS_PLACES)
