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
    """``name`` of a reader is their name in the studies. Without a role, nobody is signed in."""

    name: str
    role: Role | None


SOMEBODY_HERE = Account("", Role.OWNER)
"""Whoever sits at the machine, where a server that only this machine reaches has no accounts."""
NOBODY = Account("", None)
"""Whoever has not signed in yet."""


def account_of(request: Request) -> Account:
    """The account that the guard found behind a request; :data:`SOMEBODY_HERE` where there are none."""
    account: Account = getattr(request.state, "account", NOBODY)
    return account


OPEN_PLACES = ("/static", "/account/sign-in")
"""Beginnings of the addresses that anybody may open."""
READERS_PLACES = (*OPEN_PLACES, "/review", "/api/review", "/account")
"""Beginnings of the addresses that readers may open; all others are the owners'."""


def may_open(account: Account, path: str) -> bool:
    """Whether an account may open the address ``path``."""
    if account.role is Role.OWNER:
        return True
    places = READERS_PLACES if account.role is Role.READER else OPEN_PLACES
    return any(path == one or path.startswith(f"{one}/") for one in places)


def home(account: Account) -> str:
    """The page that an account begins with."""
    return "/" if account.role is Role.OWNER else "/review"
