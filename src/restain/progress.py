"""Progress of a job: a bar in a terminal or notebook, lines elsewhere, for example in a log file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

Progress = Callable[[int, int], None]
"""Called with work done and work in all."""
Warn = Callable[[str], None]
"""Called with a sentence that names its source."""
OpenBar = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress bar of that name, as the callback that jobs take."""

FIRST = 3.0
"""Seconds before the first line; a shorter job prints none."""
EVERY = 20.0
"""Seconds between lines, whether the job reports or not."""


class Bar:
    """A progress bar, or lines if the console is neither a terminal nor a notebook; a context manager.

    Text printed on the console stays above the bar. ``total`` is None if not known yet; ``keep`` leaves the bar on the
    terminal at the end.
    """

    def __init__(
        self, what: str, console: Console, *, done: int = 0, total: int | None = None, keep: bool = False
    ) -> None:
        # Here, so that jobs which only report their progress do not load it.
        from rich import progress as rich

        self.console = console
        self._progress = rich.Progress(
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeElapsedColumn(),
            rich.TextColumn("left"),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=not keep,
            disable=not is_live(console),
            # Longer than the slowest step, or no remaining time could be estimated.
            speed_estimate_period=600,
        )
        self._task = self._progress.add_task(what, total=total, completed=done, note="")
        self._over = threading.Event()
        # A thread, because one step can take longer than the time between two lines.
        self._lines = threading.Thread(target=self.print_lines, args=(self._over.wait,), daemon=True)

    def __enter__(self) -> Bar:
        if is_live(self.console):
            self._progress.start()
        elif not self.console.quiet:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._over.set()
        if self._lines.is_alive():
            self._lines.join()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` steps are done, and a note."""
        self._progress.update(self._task, completed=done, total=total, note=note)

    def print_lines(self, wait: Callable[[float], bool]) -> None:
        """Print a line after each call of ``wait(seconds)`` until that returns True."""
        pause = FIRST
        while not wait(pause):
            self.console.print(line(self._progress.tasks[0]), markup=False)
            pause = EVERY


def is_live(console: Console) -> bool:
    """Whether a console can show a bar that moves: a terminal or a notebook."""
    return console.is_terminal or console.is_jupyter


def line(task: Task) -> str:
    """For example ``staining: 12 % (123 of 1000), 2 min left``."""
    if task.total is None:
        return f"{task.description}: running for {_duration(task.elapsed or 0)}"
    text = f"{task.description}: {int(task.percentage)} % ({task.completed:.0f} of {task.total:.0f})"
    if task.time_remaining:
        text += f", {_duration(task.time_remaining)} left"
    note = task.fields["note"]
    return f"{text}; {note}" if note else text


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Steps:
    """Counts the steps of a job, ``total`` in all, and reports them."""

    def __init__(self, total: int, progress: Progress | None = None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, count: int = 1) -> None:
        """Count further steps as done, no more than there are."""
        self.done = min(self.done + count, self.total)
        if self.progress is not None:
            self.progress(self.done, self.total)


def part(progress: Progress | None, start: int, end: int, total: int = 1000) -> Progress:
    """Progress of a part of a job: from ``start`` to ``end`` of the job's ``total`` steps; ``progress`` may be None."""

    def tell(done: int, steps: int) -> None:
        if progress is not None:
            progress(start + (end - start) * done // max(steps, 1), total)

    return tell


def item(progress: Progress | None, number: int, items: int, steps: int = 1000) -> Progress:
    """Progress of item ``number`` of ``items``, each of ``steps`` steps of the job."""
    return part(progress, steps * number, steps * (number + 1), steps * items)
