"""Which engine runs a generator: the fastest that is there and whose result is the eager one's."""

from __future__ import annotations

import torch

from restain.engines.eager import EagerEngine
from restain.engines.engine import Engine, EngineUnavailable
from restain.models.network import StainingNetwork


def choose_engine(
    generator: StainingNetwork,
    *,
    device: torch.device,
    tile: int,
    name: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Make a generator ready to run.

    Args:
        generator: the network; moved to ``device`` and set to evaluation in place.
        device: where it runs.
        tile: side in px of the tiles that it will be given most.
        name: an engine's name, or ``auto``.
        threads: of the engine; None for as many as it takes by itself.

    Raises:
        RestainError: if there is no engine of that name, or this machine or network cannot have it.
    """
    if name in ("auto", "eager-fp32"):
        return EagerEngine(generator, device, "fp32", threads)
    if name == "eager-bf16":
        return EagerEngine(generator, device, "bf16", threads)
    raise EngineUnavailable(f"{name}: there is no such engine.")
