"""PyTorch as it is, operation by operation: the reference, and the engine that every network and device has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restain.engines.engine import Engine
from restain.models.blocks import channels_last
from restain.models.heads import Stained
from restain.models.network import StainingNetwork
from restain.models.state_grid import LocalState, State, is_local
from restain.models.streamed import AttentionState

Precision = Literal["fp32", "bf16"]
Forward = Callable[..., Stained]


class EagerEngine(Engine):
    """A generator on a device, in float32 or in bfloat16 by autocast.

    On the CPU tiles of a batch run one after the other, since side by side they would only need more memory; one tile's
    result is then the same, bit by bit, whatever batch it comes in.

    Args:
        generator: the network; moved to ``device``, laid out channels_last and set to evaluation in place.
        device: where it runs.
        precision: ``bf16`` runs under autocast; attention, densities and rendering stay in float32.
        threads: of PyTorch, in the thread that calls; None leaves it as it is.
    """

    def __init__(
        self,
        generator: StainingNetwork,
        device: torch.device,
        precision: Precision = "fp32",
        threads: int | None = None,
    ) -> None:
        self.name = f"eager-{precision}"
        self.device = device
        self.precision = precision
        self.threads = threads
        self.generator = channels_last(generator.to(device)).eval()
        self._forward: Forward = self.generator

    def __call__(
        self,
        he: NDArray[np.uint8],
        white: NDArray[np.float32] | None = None,
        context: Sequence[State] | None = None,
    ) -> NDArray[np.float32]:
        if self.threads is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        together = 1 if self.device.type == "cpu" else len(he)
        parts = [self._run(he[i : i + together], white, context) for i in range(0, len(he), together)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(
        self, he: NDArray[np.uint8], white: NDArray[np.float32] | None, context: Sequence[State] | None
    ) -> NDArray[np.float32]:
        options: dict[str, object] = {}
        if white is not None:
            options["white"] = torch.from_numpy(white).to(self.device)[None] / 255
        if context is not None:
            options["context"] = [_for_each(state, len(he), self.device) for state in context]
        # A compiler would begin anew at every place.
        forward = self.generator if is_local(context) else self._forward
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), autocast:
            return to_planes(forward(to_batch(he, self.device), **options))


def to_batch(he: NDArray[np.uint8], device: torch.device) -> Tensor:
    """``(N, H, W, 3)`` uint8 RGB to ``(N, 3, H, W)`` in [0, 1], channels_last, on ``device``."""
    batch = torch.from_numpy(np.ascontiguousarray(he)).to(device).permute(0, 3, 1, 2).float() / 255
    return batch.contiguous(memory_format=torch.channels_last)


def to_planes(stained: Stained) -> NDArray[np.float32]:
    """A virtual image on any device to ``(N, H, W, 3 or 4)``: RGB, then DAB where there is one."""
    planes = stained.rgb if stained.dab is None else torch.cat([stained.rgb, stained.dab], dim=1)
    result: NDArray[np.float32] = planes.permute(0, 2, 3, 1).float().cpu().numpy()
    return result


def _for_each(state: State, images: int, device: torch.device) -> State:
    if isinstance(state, LocalState):
        return state.to(device)
    return AttentionState(state.log_mass.to(device), state.mean.to(device)).for_each(images)
