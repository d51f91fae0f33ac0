"""Between 8-bit images in NumPy and tensors, once for all."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restain.models.heads import Stained


def batch_of(rgb: NDArray[np.uint8] | NDArray[np.float32] | Tensor, device: torch.device | None = None) -> Tensor:
    """``(N, H, W, 3)`` or ``(H, W, 3)`` RGB in [0, 255] to ``(N, 3, H, W)`` in [0, 1], channels_last, on ``device``."""
    images = (rgb if isinstance(rgb, Tensor) else torch.from_numpy(np.ascontiguousarray(rgb))).to(device)
    images = images if images.ndim == 4 else images[None]
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def planes_of(stained: Stained) -> NDArray[np.float32]:
    """A virtual image on any device to ``(N, H, W, 3 or 4)``: RGB in [0, 1], then DAB where there is one."""
    planes = stained.rgb if stained.dab is None else torch.cat([stained.rgb, stained.dab], dim=1)
    found: NDArray[np.float32] = planes.permute(0, 2, 3, 1).float().cpu().numpy()
    return found


def to_uint8(rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGB in [0, 1], of any shape and cut off there, to 8 bit."""
    return np.rint(rgb.clip(0, 1) * np.float32(255)).astype(np.uint8)
