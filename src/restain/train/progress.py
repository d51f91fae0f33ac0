"""What a person sees while a training runs: a bar with the time left, and a line at every validation."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class StageProgress:
    """A bar for one stage; silent in all processes but the first."""

    def __init__(self, stage: str, done: int, steps: int, enabled: bool) -> None:
        self.console = Console(stderr=True, quiet=not enabled)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=self.console,
        )
        self._task = self._bar.add_task(stage, total=steps, completed=done, terms="")

    def __enter__(self) -> StageProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, done: int, terms: dict[str, float]) -> None:
        """Show the state after ``done`` steps."""
        shown = " ".join(f"{name}={value:.3f}" for name, value in terms.items())
        self._bar.update(self._task, completed=done, terms=shown)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, highlight=False)
