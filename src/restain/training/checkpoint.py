"""Checkpoints that are whole or absent, and stopping between two steps."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from restain.errors import RestainError
from restain.files import whole_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its name and rename it when whole.

    Raises:
        RestainError: if it cannot be written.
    """
    try:
        with whole_file(path) as partial:
            torch.save(state, partial)
    except RuntimeError as fault:
        raise RestainError(f"{path}: the checkpoint cannot be written ({fault}).") from None


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint (tensors and plain values only; no code in it is run); None where there is none.

    Raises:
        RestainError: if the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        raise RestainError(f"{path}: the checkpoint is damaged; delete it to start this stage anew.") from None
    return state


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a request to stop between two steps; a second signal stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._before: list[Any] = []

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> StopRequest:
        self._before = [signal.signal(number, self._request) for number in self.SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in zip(self.SIGNALS, self._before, strict=True):
            signal.signal(number, handler)
