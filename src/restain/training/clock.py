"""What training costs: seconds by the wall clock and of computing, without validation, through kills and resumes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch


@dataclass
class Seconds:
    """Seconds of training steps, their data included."""

    wall: float = 0.0
    busy: float = 0.0
    """Seconds of computing: on a CPU the processor time of the process, divided by its threads, so that other jobs on the same
    machine do not count; on another device the wall clock."""


def _now(device: torch.device) -> tuple[float, float]:
    wall = time.monotonic()
    return wall, time.process_time() / torch.get_num_threads() if device.type == "cpu" else wall


class Clock:
    """Adds up laps from its making, or from what an earlier run took."""

    def __init__(self, device: torch.device, before: Seconds | None = None) -> None:
        self.device = device
        self.seconds = before or Seconds()
        self._last = _now(device)

    def lap(self) -> None:
        """Count the time since the last lap or skip."""
        now = _now(self.device)
        self.seconds.wall += now[0] - self._last[0]
        self.seconds.busy += now[1] - self._last[1]
        self._last = now

    def skip(self) -> None:
        """Leave the time since the last lap out."""
        self._last = _now(self.device)
