"""The commands that make and remove the accounts of ``restain serve``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restain.cli.console import app, out_console, plain, say
from restain.errors import RestainError

if TYPE_CHECKING:
    from restain.web.accounts.store import AccountStore

accounts = typer.Typer(name="accounts", help="Who may sign in to restain serve.", no_args_is_help=True)
app.add_typer(accounts)


class RoleChoice(StrEnum):
    """As :class:`restain.web.accounts.account.Role`, which needs the extra web."""

    OWNER = "owner"
    READER = "reader"


FolderArgument = Annotated[Path, typer.Argument(help="Folder that restain serve shows.")]
NameArgument = Annotated[str, typer.Argument(help="Name to sign in with; a reader's is their name in the study.")]
StateOption = Annotated[Path | None, typer.Option(help="The --state of restain serve, where it has one.")]
DatabaseOption = Annotated[
    str | None, typer.Option(envvar="RESTAIN_DATABASE", help="The --database of restain serve, where it has one.")
]
StdinOption = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input, one line.")]


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
        raise RestainError("A password is asked for on a terminal; elsewhere, give it with --password-stdin.")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt="Again", err=True)
    return password


@accounts.command(epilog="Example: restain accounts add slides anna --role reader")
def add(
    folder: FolderArgument,
    name: NameArgument,
    role: Annotated[
        RoleChoice, typer.Option(help="owner: may do everything; reader: only their own readings of blinded reviews.")
    ],
    state: StateOption = None,
    database: DatabaseOption = None,
    password_stdin: StdinOption = False,
) -> None:
    """Make an account; the password (10 characters or more) is asked for twice. From the first on, all must sign in."""
    with _account_store(folder, state, database) as store:
        from restain.web.accounts.account import Role

        account = store.add(name, Role(role.value), _password(password_stdin))
    out_console.print(plain(f"{account.name} can sign in as {role.value}."))


@accounts.command("list", epilog="Example: restain accounts list slides")
def list_accounts(folder: FolderArgument, state: StateOption = None, database: DatabaseOption = None) -> None:
    """Name, role, day of making, and in how many browsers each account is signed in."""
    with _account_store(folder, state, database) as store:
        entries = store.entries()
    if not entries:
        say("There are no accounts: whoever sits at this machine may do everything, and others may not connect.")
    for one in entries:
        role = "" if one.account.role is None else one.account.role.value
        out_console.print(plain(f"{one.account.name:<30} {role:<7} {one.created:%Y-%m-%d} {one.sessions:>3}"))


@accounts.command(epilog="Example: restain accounts remove slides anna")
def remove(
    folder: FolderArgument, name: NameArgument, state: StateOption = None, database: DatabaseOption = None
) -> None:
    """Remove an account and end its sessions. What it answered in studies stays."""
    with _account_store(folder, state, database) as store:
        store.remove(name)
        left = [one.account.role for one in store.entries()]
    out_console.print(plain(f"{name} can no longer sign in."))
    if left and "owner" not in left:
        say("No owner is left: nobody can open the slides until 'restain accounts add' makes one.")


@accounts.command(epilog="Example: restain accounts password slides anna")
def password(
    folder: FolderArgument,
    name: NameArgument,
    state: StateOption = None,
    database: DatabaseOption = None,
    password_stdin: StdinOption = False,
) -> None:
    """Set another password and end the account's sessions."""
    with _account_store(folder, state, database) as store:
        store.set_password(name, _password(password_stdin))
    out_console.print(plain(f"{name} has another password and must sign in again."))
