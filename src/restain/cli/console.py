"""The app, its two consoles and progress bars."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import typer
from rich.console import Console

from restain import NOTICE
from restain.progress import Progress

app = typer.Typer(
    name="restain",
    help=f"Virtual HER2 staining of breast tissue: H&E in, HER2 IHC out.\n\n[bold]{NOTICE.capitalize()}, never a diagnosis.[/bold]",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
out_console = Console(highlight=False, soft_wrap=True)
err_console = Console(stderr=True, highlight=False, soft_wrap=True)


Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Panel:
    """A heading of the help; ``@panel(example, name=None)`` adds a command under it."""

    title: str

    def __call__(self, example: str, name: str | None = None) -> Callable[[Command], Command]:
        return app.command(name, rich_help_panel=self.title, epilog=f"Example: {example}")


def plain(text: object) -> str:
    """Text in which rich finds no markup."""
    from rich.markup import escape

    return escape(str(text))


def say(line: Any) -> None:
    """Print a line on standard error."""
    err_console.print(plain(line))


def show(line: Any) -> None:
    """Print a line on standard output."""
    out_console.print(plain(line))


def show_fault(sentence: str, label: str = "error") -> None:
    """Print a fault on standard error."""
    err_console.print(f"[bold red]{label}:[/bold red] {plain(sentence)}")


@contextmanager
def progress_bar(name: str) -> Iterator[Progress]:
    """A ``progress(done, total)`` callback that draws a bar on standard error, or prints lines if that is no terminal."""
    from restain.progress import Bar

    with Bar(name, err_console) as bar:
        yield bar.update


def command_line() -> str:
    """The command as typed, for reports."""
    return shlex.join(["restain", *sys.argv[1:]])
