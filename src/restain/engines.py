"""Engines: what runs a generator, eager or compiled, in float32 or bfloat16."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from restain.errors import RestainError
from restain.models.blocks import channels_last
from restain.models.generator import Generator
from restain.models.network import StainingNetwork
from restain.models.strips import run_in_strips
from restain.models.tensors import batch_of, planes_of, to_uint8
from restain.optics import EOSIN, HEMATOXYLIN, mix, round_to_uint8, transmit
from restain.prediction import Prediction

Precision = Literal["fp32", "bf16"]

AUTO = "auto"
NAMES = (AUTO, "eager-fp32", "eager-bf16", "compile-fp32", "compile-bf16")
"""The names that :func:`choose_engine` takes."""
TOLERANCE = 1 / 255
"""Mean absolute difference in RGB from ``eager-fp32`` beyond which ``auto`` leaves an engine out."""
PROBE = 192
"""Side in px of the H&E on which ``auto`` compares engines."""
COMPILERS = ("g++", "c++", "clang++")


class EngineError(RestainError):
    """An engine that this machine cannot have; the message says why."""


class Engine:
    """A generator made ready to run. Called from one thread at a time; other threads run meanwhile.

    The generator is moved to ``device``, laid out channels_last and set to evaluation in place. On a CPU the images of
    a batch run one after the other, since side by side they would only need more memory; an image's result is then the
    same, bit by bit, whatever batch it comes in. ``bf16`` runs under autocast; attention, densities and rendering stay
    in float32. ``compiled``: ``torch.compile`` compiles for each shape at its first call, which takes a minute.
    ``threads`` of PyTorch, in the thread that calls; None leaves them as they are.

    Raises EngineError if it is to be compiled on a CPU and this machine has no C++ compiler.
    """

    def __init__(
        self,
        generator: StainingNetwork,
        device: torch.device,
        precision: Precision = "fp32",
        *,
        compiled: bool = False,
        threads: int | None = None,
    ) -> None:
        self.name = f"{'compile' if compiled else 'eager'}-{precision}"
        self.device, self.precision, self.threads = device, precision, threads
        self.generator = channels_last(generator.to(device)).eval()
        self._forward: Callable[..., Any] = self.generator
        if compiled:
            if device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
                raise EngineError(
                    "torch.compile needs a C++ compiler on the path (g++ or clang++), and there is none; use another engine."
                )
            self._forward = torch.compile(self.generator, dynamic=False)
        elif device.type == "cpu" and isinstance(generator, Generator):
            self._forward = partial(run_in_strips, generator)

    def __call__(self, he: NDArray[np.uint8], white: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Restain ``(N, H, W, 3)`` uint8 RGB to ``(N, H, W, 3 or 4)``: RGB in [0, 1], then DAB in OD units with a stain
        head.

        ``white`` ``(3,)`` in [0, 255] is the glass to render on in place of the model's own; it needs a stain head.
        """
        if self.threads is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        together = 1 if self.device.type == "cpu" else len(he)
        return np.concatenate([self._run(he[i : i + together], white) for i in range(0, len(he), together)])

    def _run(self, he: NDArray[np.uint8], white: NDArray[np.float32] | None) -> NDArray[np.float32]:
        options = {} if white is None else {"white": torch.from_numpy(white).to(self.device)[None] / 255}
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), autocast:
            return planes_of(self._forward(batch_of(he, self.device), **options))


def choose_engine(
    generator: StainingNetwork, *, device: torch.device, name: str = AUTO, threads: int | None = None
) -> Engine:
    """The engine of that name; RestainError if there is none, or this machine cannot have it. See :class:`Engine`.

    ``auto`` is ``eager-bf16`` where the device multiplies bfloat16 and the result on a small image is, on average,
    within ``TOLERANCE`` of that of ``eager-fp32``; else ``eager-fp32``.
    """
    if name not in NAMES:
        raise EngineError(f"Unknown engine {name!r}; choose from {', '.join(NAMES)}.")
    if name != AUTO:
        mode, _, precision = name.partition("-")
        return Engine(
            generator, device, "bf16" if precision == "bf16" else "fp32", compiled=mode == "compile", threads=threads
        )
    exact = Engine(generator, device, threads=threads)
    if device.type != "cpu" or multiplies_bf16(device):
        fast, he = Engine(generator, device, "bf16", threads=threads), he_colours(PROBE)[None]
        if np.abs(fast(he) - exact(he))[..., :3].mean() <= TOLERANCE:
            return fast
    return exact


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16 products; without them they are many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def he_colours(side: int) -> NDArray[np.uint8]:
    """``(side, side, 3)``: eosin that grows from the left, with dark spots of hematoxylin the size of nuclei, and noise."""
    rng = np.random.default_rng(0)
    spots = ndimage.gaussian_filter(rng.standard_normal((side, side)), 4.0, mode="wrap")
    hematoxylin = np.clip(spots / spots.std() - 0.8, 0, 1)
    eosin = np.broadcast_to(np.linspace(0, 0.5, side), (side, side))
    light = transmit(mix(np.stack([hematoxylin, eosin], axis=-1), (HEMATOXYLIN, EOSIN)), 240)
    return round_to_uint8(light + rng.normal(0, 2, light.shape))


def predict_at_once(
    generator: StainingNetwork, he: NDArray[np.uint8], white: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Restain an image of any size in one piece, on the generator's device: what training validates.

    ``(H, W, 3)`` uint8 RGB to ``(H, W, 3 or 4)``; ``white`` and the result as :meth:`Engine.__call__` has them.
    """
    planes: NDArray[np.float32] = Engine(generator, next(generator.parameters()).device)(he[None], white)[0]
    return planes


def to_prediction(planes: NDArray[np.float32]) -> Prediction:
    """The planes of one image as an 8-bit image and a DAB map."""
    return Prediction(to_uint8(planes[..., :3]), planes[..., 3] if planes.shape[2] == 4 else None)
