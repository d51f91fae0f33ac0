"""Progress where standard error is no terminal: lines in time, whether the job calls back or not."""

import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from restain import progress
from restain.progress import Bar


class Clock:
    """Seconds pass only in :meth:`wait`, which says that the job is over when ``end`` is reached."""

    def __init__(self, end: float) -> None:
        self.now, self.end = 0.0, end

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self.now > self.end


def bar_of(clock: Clock) -> tuple[Bar, io.StringIO]:
    text = io.StringIO()
    bar = Bar("staining [x]", Console(file=text, width=40, soft_wrap=True))
    bar._progress.get_time = clock  # type: ignore[method-assign]
    for task in bar._progress.tasks:
        task._get_time, task.start_time = clock, 0.0
    return bar, text


def test_lines_come_in_time_and_tell_what_is_left() -> None:
    clock = Clock(end=120)
    bar, text = bar_of(clock)
    times: list[float] = []

    def wait(seconds: float) -> bool:
        over = clock.wait(seconds)
        times.append(clock.now)
        bar.update(int(clock.now), 1000, "l1=0.5")
        return over

    bar.print_lines(wait)
    lines = text.getvalue().splitlines()
    assert len(lines) == len(times) - 1
    assert times[0] <= 5
    assert max(b - a for a, b in itertools.pairwise(times)) <= 30
    assert min(b - a for a, b in itertools.pairwise(times)) >= 10
    assert lines[0] == "staining [x]: 0 % (3 of 1000); l1=0.5"
    assert lines[-1] == "staining [x]: 10 % (103 of 1000), 15 min left; l1=0.5"


def test_a_job_that_never_calls_back_is_seen_to_run() -> None:
    clock = Clock(end=4000)
    bar, text = bar_of(clock)
    bar.print_lines(clock.wait)
    lines = text.getvalue().splitlines()
    assert lines[0] == "staining [x]: running for 3 s"
    assert "staining [x]: running for 1 h 0 min" in lines


def test_a_short_job_says_nothing_and_a_quiet_console_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for quiet, seconds in ((False, 60.0), (True, 0.0)):
        monkeypatch.setattr(progress, "FIRST", seconds)
        monkeypatch.setattr(progress, "EVERY", 60.0)
        text = io.StringIO()
        with Bar("check", Console(file=text, quiet=quiet)) as bar:
            bar.update(1, 2)
        assert text.getvalue() == ""


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.0)
    text = io.StringIO()
    with Bar("check", Console(file=text, force_terminal=True, width=100)) as bar:
        bar.update(1, 2)
    assert "━" in text.getvalue()
    assert "1 of 2" not in text.getvalue()


@pytest.mark.slow
def test_a_command_without_a_terminal_tells_its_progress_on_standard_error(tmp_path: Path) -> None:
    code = (
        "import sys, restain.progress as p; p.FIRST = p.EVERY = 0.01; "
        "from restain.cli import main; sys.argv[0] = 'restain'; main()"
    )
    job = [sys.executable, "-c", code, "phantom", tmp_path / "p", "--pairs", "8", "--size", "128"]
    result = subprocess.run(job, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"}, check=True)
    lines = result.stderr.splitlines()
    assert any(re.fullmatch(r"phantom: \d+ % \(\d of 8\)(, \d+ s left)?", one) for one in lines), lines[-3:]
    assert all(one.startswith("phantom: ") for one in lines)
    assert "%" not in result.stdout
