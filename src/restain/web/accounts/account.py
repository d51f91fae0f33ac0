"""Accounts, their roles, and what a role may open."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request


class Role(StrEnum):
    """An owner may do everything. A reader sees only their own part of studies, so that studies stay blinded."""

    OWNER = "owner"
    READER = "reader"


@dataclass(frozen=True)
class Account:
    """``name`` of a reader is their name in the studies. ``role`` is None if nobody is signed in."""

    name: str
    role: Role | None


LOCAL_OWNER = Account("", Role.OWNER)
"""The user of a server without accounts, which only this machine reaches."""
ANONYMOUS = Account("", None)
PUBLIC_PATHS = ("/static", "/account/sign-in")
"""Beginnings of addresses that need no account."""
READER_PATHS = (*PUBLIC_PATHS, "/review", "/api/review", "/account")
"""Beginnings of addresses that readers may open; all others are for owners."""


def account_of(request: Request) -> Account:
    """The account that :class:`~restain.web.accounts.authentication.Authentication` found for a request."""
    account: Account = getattr(request.state, "account", ANONYMOUS)
    return account


def may_open(account: Account, path: str) -> bool:
    """Whether an account may open the address ``path``."""
    if account.role is Role.OWNER:
        return True
    allowed = READER_PATHS if account.role is Role.READER else PUBLIC_PATHS
    return any(path == one or path.startswith(f"{one}/") for one in allowed)


def home(account: Account) -> str:
    """The first page of an account."""
    return "/" if account.role is Role.OWNER else "/review"
