"""Progress of several jobs as one."""

from __future__ import annotations

from collections.abc import Callable

PREPARED, STAINED = 60, 940
"""Thousandths of a job's progress at which preparation and staining end; then files are written."""


class Steps:
    """Each job has its share of a thousand."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self._progress, self._before = progress, 0

    def part(self, share: int) -> Callable[[int, int], None] | None:
        before, self._before = self._before, self._before + share
        if (tell := self._progress) is None:
            return None
        return lambda done, total: tell(before + share * done // max(total, 1), 1000)
