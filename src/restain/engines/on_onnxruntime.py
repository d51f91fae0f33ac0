"""ONNX Runtime, which runs on nearly every machine."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restain.engines.engine import EngineError
from restain.engines.exported import ExportedEngine, export
from restain.errors import needs
from restain.models.network import StainingNetwork


class OnnxRuntimeEngine(ExportedEngine):
    """Ready after ten seconds or so, of which the export takes nearly all.

    Args:
        generator: the network.
        side: of the tiles in px.
        precision: ``int8`` has its weights quantised beforehand and its activations on the way.
        threads: None for as many as ONNX Runtime takes.

    Raises:
        EngineError: if ONNX Runtime is not installed or the network cannot be exported.
    """

    def __init__(
        self,
        generator: StainingNetwork,
        side: int,
        precision: Literal["fp32", "int8"] = "fp32",
        threads: int | None = None,
    ) -> None:
        with needs("onnx", "The engine onnxruntime", EngineError):
            import onnx  # noqa: F401
            import onnxruntime
            import onnxscript  # noqa: F401
        super().__init__(generator, side, threads)
        self.name = f"onnxruntime-{precision}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.onnx"
            self._write(path)
            if precision == "int8":
                path = _quantised(path)
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def _write(self, path: Path) -> None:
        program = export(self.graph, self.side)
        talkative = logging.getLogger("torch.onnx")
        before = talkative.level
        talkative.setLevel(logging.ERROR)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(program, (), path, dynamo=True, external_data=False, verbose=False)
        finally:
            talkative.setLevel(before)

    def run(self, inputs: list[Tensor]) -> NDArray[np.float32]:
        feed = {name: value.numpy() for name, value in zip(self._names, inputs, strict=True)}
        result: NDArray[np.float32] = self._session.run(None, feed)[0]
        return result


def _quantised(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = path.with_name("int8.onnx")
    quantize_dynamic(path, quantised, weight_type=QuantType.QInt8)
    return quantised
