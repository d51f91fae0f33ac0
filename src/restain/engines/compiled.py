"""``torch.compile``: the network as code that its compiler, Inductor, writes for this machine."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restain.engines.eager import EagerEngine, Precision
from restain.engines.engine import EngineError
from restain.engines.exported import ExportedEngine
from restain.models.network import StainingNetwork

COMPILERS = ("g++", "c++", "clang++")


class CompiledEngine(ExportedEngine):
    """Compiled on the first call, which takes a minute; PyTorch keeps what it compiled in its own cache.

    Args:
        generator: the network.
        side: of the tiles in px.
        precision: ``bf16`` runs under autocast.
        threads: of PyTorch, in the thread that calls; None leaves it as it is.

    Raises:
        EngineError: if this machine has no C++ compiler.
    """

    def __init__(
        self, generator: StainingNetwork, side: int, precision: Precision = "fp32", threads: int | None = None
    ) -> None:
        if not any(shutil.which(compiler) for compiler in COMPILERS):
            raise EngineError(
                "torch.compile needs a C++ compiler on the path (g++ or clang++), and there is none; use another engine."
            )
        super().__init__(generator, side, threads)
        self.name = f"compile-{precision}"
        self.threads = threads
        self.precision = precision
        self._compiled: Any = torch.compile(self.graph, dynamic=False)

    def run(self, inputs: list[Tensor]) -> NDArray[np.float32]:
        if self.threads is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), autocast:
            planes: Tensor = self._compiled(*inputs)
        return planes.float().numpy()


class CudaCompiledEngine(EagerEngine):
    """:class:`~restain.engines.eager.EagerEngine` with ``torch.compile``, on CUDA; compiled anew for each size of batch."""

    def __init__(self, generator: StainingNetwork, device: torch.device, precision: Precision = "bf16") -> None:
        super().__init__(generator, device, precision)
        self.name = f"compile-{precision}"
        self._forward = torch.compile(self.generator, dynamic=False)
