"""Where to compute and in what precision."""

from __future__ import annotations

import torch

from restain.recipe import TrainRecipe


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware; emulated bf16 is many times slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(probe() for probe in probes if probe is not None)
    return False


def precision(recipe: TrainRecipe, device: torch.device) -> str:
    """Lightning's name of the precision that the recipe asks for on this device."""
    if recipe.precision == "bf16" or (recipe.precision == "auto" and multiplies_bf16(device)):
        return "bf16-mixed"
    return "32-true"
