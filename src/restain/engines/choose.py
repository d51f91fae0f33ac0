"""Which engine runs a generator: the fastest that is there and whose result is that of PyTorch in float32.

The order of preference is what ``benchmarks/generator.py`` shows (see ``docs/speed.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from restain.engines.compiled import CompiledEngine, CudaCompiledEngine
from restain.engines.eager import EagerEngine, to_batch
from restain.engines.engine import Engine, EngineError
from restain.engines.on_onnxruntime import OnnxRuntimeEngine
from restain.engines.on_openvino import OpenVinoEngine
from restain.models.network import StainingNetwork
from restain.models.streamed import AttentionState
from restain.optics import EOSIN, HEMATOXYLIN, mix, transmit

AUTO = "auto"
TOLERANCE = 1 / 255
"""Mean absolute difference in RGB from PyTorch in float32, beyond which an engine is not chosen by itself."""
PROBE = 192
"""Side in px of the H&E on which engines are compared when a model is loaded."""


@dataclass(frozen=True)
class Job:
    """What an engine is made for; see :func:`choose_engine`."""

    generator: StainingNetwork
    device: torch.device
    tile: int
    threads: int | None


_ON_CPU: dict[str, Callable[[Job], Engine]] = {
    "eager-fp32": lambda job: EagerEngine(job.generator, job.device, "fp32", job.threads),
    "eager-bf16": lambda job: EagerEngine(job.generator, job.device, "bf16", job.threads),
    "compile-fp32": lambda job: CompiledEngine(job.generator, job.tile, "fp32", job.threads),
    "compile-bf16": lambda job: CompiledEngine(job.generator, job.tile, "bf16", job.threads),
    "openvino-fp32": lambda job: OpenVinoEngine(job.generator, job.tile, "fp32", job.threads),
    "openvino-bf16": lambda job: OpenVinoEngine(job.generator, job.tile, "bf16", job.threads),
    "openvino-int8": lambda job: OpenVinoEngine(
        job.generator, job.tile, "int8", job.threads, probe(job.generator, job.tile)
    ),
    "onnxruntime-fp32": lambda job: OnnxRuntimeEngine(job.generator, job.tile, "fp32", job.threads),
    "onnxruntime-int8": lambda job: OnnxRuntimeEngine(job.generator, job.tile, "int8", job.threads),
}
_ON_CUDA: dict[str, Callable[[Job], Engine]] = {
    "eager-fp32": lambda job: EagerEngine(job.generator, job.device, "fp32"),
    "eager-bf16": lambda job: EagerEngine(job.generator, job.device, "bf16"),
    "compile-fp32": lambda job: CudaCompiledEngine(job.generator, job.device, "fp32"),
    "compile-bf16": lambda job: CudaCompiledEngine(job.generator, job.device, "bf16"),
}
NAMES = (AUTO, *_ON_CPU)
"""What ``choose_engine`` can be asked for by name."""


def names_on(device: torch.device) -> tuple[str, ...]:
    """The names that ``choose_engine`` takes on a device."""
    return (AUTO, *(_ON_CPU if device.type == "cpu" else _ON_CUDA))


def choose_engine(
    generator: StainingNetwork,
    *,
    device: torch.device,
    tile: int,
    name: str = AUTO,
    threads: int | None = None,
) -> Engine:
    """Make a generator ready to run.

    Args:
        generator: the network; moved to ``device`` and set to evaluation in place.
        device: where it runs.
        tile: side in px of the tiles that it will be given most.
        name: an engine's name, or ``auto``: the first in the order of preference that is there and whose result on a
            small image is, on average, within ``TOLERANCE`` of that of ``eager-fp32``. A named engine is not compared.
        threads: of the engine on a CPU; None for as many as it takes by itself.

    Raises:
        RestainError: if there is no engine of that name, or this machine or network cannot have it.
    """
    makers = _ON_CPU if device.type == "cpu" else _ON_CUDA
    job = Job(generator, device, tile, threads)
    if name != AUTO:
        if name not in makers:
            raise EngineError(f"{name}: is no engine on {device.type}; the engines are {', '.join(names_on(device))}.")
        return makers[name](job)
    reference = EagerEngine(generator, device, "fp32", threads)
    return first_in_agreement((makers[each], job) for each in preference(device)) or reference


def preference(device: torch.device) -> list[str]:
    """The engines that are worth trying on a device before ``eager-fp32``, the fastest first."""
    return ["eager-bf16"] if device.type != "cpu" or multiplies_bf16() else []


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16 products; without them they are slower than float32."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def first_in_agreement(candidates: Iterable[tuple[Callable[[Job], Engine], Job]]) -> Engine | None:
    """The first engine that can be made and whose result is near enough to that of ``eager-fp32``; None if none is."""
    he: NDArray[np.uint8] | None = None
    for make, job in candidates:
        if he is None:
            he, context = probe(job.generator, PROBE)
            expected = EagerEngine(job.generator, job.device, "fp32", job.threads)(he, None, context)
        try:
            engine = make(job)
            difference = np.abs(engine(he, None, context) - expected)[..., :3].mean()
        except EngineError:
            continue
        if difference <= TOLERANCE:
            return engine
    return None


def probe(generator: StainingNetwork, side: int) -> tuple[NDArray[np.uint8], Sequence[AttentionState] | None]:
    """A tile of H&E colours ``(1, side, side, 3)``, always the same, and its survey for a network that takes one."""
    he = he_colours(side)[None]
    if not generator.surveys:
        return he, None
    with torch.inference_mode():
        return he, generator.survey(to_batch(he, next(generator.parameters()).device))


def he_colours(side: int) -> NDArray[np.uint8]:
    """``(side, side, 3)``: eosin that grows from the left, with dark spots of hematoxylin the size of nuclei, and noise."""
    rng = np.random.default_rng(0)
    spots = ndimage.gaussian_filter(rng.standard_normal((side, side)), 4.0, mode="wrap")
    hematoxylin = np.clip(spots / spots.std() - 0.8, 0, 1)
    eosin = np.broadcast_to(np.linspace(0, 0.5, side), (side, side))
    light = transmit(mix(np.stack([hematoxylin, eosin], axis=-1), (HEMATOXYLIN, EOSIN)), 240)
    return np.clip(np.rint(light + rng.normal(0, 2, light.shape)), 0, 255).astype(np.uint8)
