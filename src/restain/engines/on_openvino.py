"""OpenVINO, Intel's runtime for CPUs, which also runs on others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from restain.engines.engine import EngineError
from restain.engines.exported import ExportedEngine, export
from restain.errors import needs
from restain.models.network import StainingNetwork
from restain.models.streamed import AttentionState


class OpenVinoEngine(ExportedEngine):
    """Ready after a few seconds, of which the export takes most.

    Args:
        generator: the network.
        side: of the tiles in px.
        precision: ``bf16`` lets OpenVINO compute in bfloat16 where it finds that faster; ``int8`` quantises weights and
            activations by ranges measured on ``calibration``.
        threads: None for as many as OpenVINO takes.
        calibration: tiles ``(N, side, side, 3)`` and their context, for ``int8``.

    Raises:
        EngineError: if OpenVINO (or NNCF, for ``int8``) is not installed, or the network cannot be exported.
    """

    def __init__(
        self,
        generator: StainingNetwork,
        side: int,
        precision: Literal["fp32", "bf16", "int8"] = "fp32",
        threads: int | None = None,
        calibration: tuple[NDArray[np.uint8], Sequence[AttentionState] | None] | None = None,
    ) -> None:
        with needs("openvino", "The engine openvino", EngineError):
            import openvino
        super().__init__(generator, side, threads)
        self.name = f"openvino-{precision}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(export(self.graph, side))
        if calibration is not None and precision == "int8":
            tiles, context = calibration
            model = _quantised(model, [self._arrays(self.graph.inputs(t[None], None, context)) for t in tiles])
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(self, inputs: list[Tensor]) -> NDArray[np.float32]:
        answer = self._request.infer(self._arrays(inputs), share_inputs=True)
        result: NDArray[np.float32] = answer[0]
        return result.copy()

    @staticmethod
    def _arrays(inputs: list[Tensor]) -> list[NDArray[Any]]:
        return [value.numpy() for value in inputs]


def _quantised(model: Any, tiles: Sequence[list[NDArray[Any]]]) -> Any:
    with needs("openvino", "The engine openvino-int8", EngineError):
        import nncf
    nncf.set_log_level(40)
    return nncf.quantize(model, nncf.Dataset(tiles), preset=nncf.QuantizationPreset.MIXED, subset_size=len(tiles))
