"""Where to compute and in what precision."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.logger import Logger
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from restain.engines import multiplies_bf16
from restain.errors import RestainError
from restain.recipe import TrainRecipe

_COUNTS: dict[str, Callable[[], int]] = {
    "cpu": lambda: os.cpu_count() or 1,
    "cuda": torch.cuda.device_count,
    "mps": lambda: int(torch.backends.mps.is_available()),
}
"""Devices that this machine has of each kind; a process per core at most."""
_LAUNCHERS = (
    SLURMEnvironment,
    TorchElasticEnvironment,
    LSFEnvironment,
)


@dataclass(frozen=True, slots=True)
class Devices:
    """What Lightning computes on: kind, number per node and number of nodes."""

    accelerator: str
    devices: int
    nodes: int

    def fabric(self, recipe: TrainRecipe, logger: Logger | None = None) -> Fabric:
        """Lightning's Fabric on these devices, in the recipe's precision."""
        return Fabric(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            strategy="auto" if self.devices == 1 and self.nodes == 1 else "ddp",
            precision=precision(recipe, torch.device(self.accelerator)),  # type: ignore[arg-type]
            loggers=logger,
        )


def choose_devices(accelerator: str = "auto", devices: str | int = 1, nodes: int = 1) -> Devices:
    """Check that this machine has the requested devices.

    Args:
        accelerator: ``cpu``, ``cuda``, ``mps``, or ``auto`` for the best that is there.
        devices: number per node, or ``auto`` for all (of the CPU, one).
        nodes: number of nodes; more than one need a launcher.

    Raises:
        RestainError: naming the option, if there are no such devices or fewer of them, or no launcher.
    """
    if accelerator == "auto":
        accelerator = next(kind for kind in ("cuda", "mps", "cpu") if _COUNTS[kind]())
    if accelerator not in _COUNTS:
        raise RestainError(
            f"--accelerator {accelerator}: there is none of this name; give {', '.join(_COUNTS)} or auto."
        )
    there = _COUNTS[accelerator]()
    if not there:
        raise RestainError(f"--accelerator {accelerator}: this machine has no such device that PyTorch can use.")
    text = str(devices).strip()
    if text == "auto":
        text = "1" if accelerator == "cpu" else str(there)
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise RestainError(f"--devices {devices}: give a number of devices, 1 or more, or auto.")
    if int(text) > there:
        what = f"{there} {'core' if accelerator == 'cpu' else 'device'}{'' if there == 1 else 's'}"
        raise RestainError(f"--devices {devices}: this machine has {what} for the accelerator {accelerator}.")
    if nodes < 1:
        raise RestainError(f"--nodes {nodes}: give a number of nodes, 1 or more.")
    if nodes > 1:
        _require_launcher(nodes)
    return Devices(accelerator, int(text), nodes)


def _require_launcher(nodes: int) -> None:
    """Without one, or the variables that Lightning reads in its stead, the first node waits for the others for ever."""
    slurm = os.environ.get("SLURM_NNODES") if SLURMEnvironment.detect() else None
    if slurm is not None and slurm != str(nodes):
        raise RestainError(f"--nodes {nodes}: the SLURM job has {slurm} nodes (SLURM_NNODES).")
    by_hand = all(os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"))
    if not by_hand and not any(launcher.detect() for launcher in _LAUNCHERS):
        raise RestainError(
            f"--nodes {nodes}: start the command on every node by SLURM or torchrun, or set MASTER_ADDR, MASTER_PORT "
            "and NODE_RANK on each."
        )


def precision(recipe: TrainRecipe, device: torch.device) -> str:
    """Lightning's name of the recipe's precision on this device."""
    if recipe.precision == "bf16" or (recipe.precision == "auto" and multiplies_bf16(device)):
        return "bf16-mixed"
    return "32-true"
