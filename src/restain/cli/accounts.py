"""The commands ``accounts add``, ``list``, ``remove`` and ``password``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from restain.cli.console import app, say, show
from restain.cli.serve import PANEL
from restain.errors import RestainError

if TYPE_CHECKING:
    from restain.web.accounts.store import AccountStore

accounts = typer.Typer(name="accounts", help="Manage the accounts of 'restain serve'.", no_args_is_help=True)
app.add_typer(accounts, rich_help_panel=PANEL)


class RoleChoice(StrEnum):
    """As :class:`restain.web.accounts.account.Role`, which needs the extra web."""

    OWNER = "owner"
    READER = "reader"


FolderArgument = Annotated[Path, Argument(help="Folder that 'restain serve' serves.")]
NameArgument = Annotated[str, Argument(help="Sign-in name; for a reader, the name in the study.")]
StateOption = Annotated[Path | None, Option(help="The --state of 'restain serve', if set.")]
DatabaseOption = Annotated[
    str | None, Option(envvar="RESTAIN_DATABASE", help="The --database of 'restain serve', if set.")
]
StdinOption = Annotated[bool, Option("--password-stdin", help="Read the password from standard input.")]


@contextmanager
def _account_store(folder: Path, state: Path | None, database: str | None) -> Iterator[AccountStore]:
    from restain.web.accounts.store import AccountStore
    from restain.web.database import open_database
    from restain.web.settings import Settings

    settings = Settings(folder, state, database=database)
    opened = open_database(settings.state_folder, database)
    try:
        yield AccountStore(opened)
    finally:
        opened.close()


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise RestainError("The password prompt needs a terminal; elsewhere use --password-stdin.")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt="Repeat", err=True)
    return password


@accounts.command(epilog="Example: restain accounts add slides anna --role reader")
def add(
    folder: FolderArgument,
    name: NameArgument,
    role: Annotated[RoleChoice, Option(help="owner: full access; reader: only their own readings in studies.")],
    state: StateOption = None,
    database: DatabaseOption = None,
    password_stdin: StdinOption = False,
) -> None:
    """Create an account. The password must have at least 10 characters.

    As soon as one account exists, everybody must sign in.
    """
    with _account_store(folder, state, database) as store:
        from restain.web.accounts.account import Role

        account = store.add(name, Role(role.value), _password(password_stdin))
    show(f"{account.name} can sign in as {role.value}.")


@accounts.command("list", epilog="Example: restain accounts list slides")
def list_accounts(folder: FolderArgument, state: StateOption = None, database: DatabaseOption = None) -> None:
    """List the accounts: name, role, creation date and number of open sessions."""
    with _account_store(folder, state, database) as store:
        entries = store.entries()
    if not entries:
        say("There are no accounts: users of this machine have full access, and nobody else can connect.")
    for one in entries:
        role = "" if one.account.role is None else one.account.role.value
        show(f"{one.account.name:<30} {role:<7} {one.created:%Y-%m-%d} {one.sessions:>3}")


@accounts.command(epilog="Example: restain accounts remove slides anna")
def remove(
    folder: FolderArgument, name: NameArgument, state: StateOption = None, database: DatabaseOption = None
) -> None:
    """Remove an account and end its sessions. Answers in studies are kept."""
    with _account_store(folder, state, database) as store:
        store.remove(name)
        left = [one.account.role for one in store.entries()]
    show(f"{name} can no longer sign in.")
    if left and "owner" not in left:
        say("No owner is left, so nobody can open the slides. Create one with 'restain accounts add'.")


@accounts.command(epilog="Example: restain accounts password slides anna")
def password(
    folder: FolderArgument,
    name: NameArgument,
    state: StateOption = None,
    database: DatabaseOption = None,
    password_stdin: StdinOption = False,
) -> None:
    """Change the password of an account and end its sessions."""
    with _account_store(folder, state, database) as store:
        store.set_password(name, _password(password_stdin))
    show(f"The password of {name} was changed; {name} must sign in again.")
