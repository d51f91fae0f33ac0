from typing import Any

import numpy as np
import pytest
import torch

from restain.engines import Engine, EngineError, choose_engine
from restain.engines.choose import TOLERANCE, Job, first_in_agreement, probe
from restain.engines.eager import EagerEngine
from restain.errors import RestainError

CPU = torch.device("cpu")


class Off(Engine):
    """Eager, and a little off."""

    def __init__(self, job: Job, by: float) -> None:
        self.name, self.eager, self.by = f"off by {by}", EagerEngine(job.generator, job.device), by

    def __call__(self, *given: Any) -> Any:
        return self.eager(*given) + np.float32(self.by)


def missing(job: Job) -> Engine:
    raise EngineError("It is not installed.")


def test_the_first_that_is_there_and_agrees_is_taken(make: Any) -> None:
    job = Job(make(), CPU, 64, None)

    def off(by: float) -> Any:
        return lambda job: Off(job, by)

    makers = [missing, off(2 * TOLERANCE), off(0.5 * TOLERANCE), off(0)]
    chosen = first_in_agreement((maker, job) for maker in makers)
    assert chosen is not None
    assert chosen.name == f"off by {0.5 * TOLERANCE}"
    assert first_in_agreement((maker, job) for maker in makers[:2]) is None


def test_the_automatic_choice_agrees_with_eager(make: Any) -> None:
    network = make()
    engine = choose_engine(network, device=CPU, tile=64)
    he, context = probe(network, 64)
    assert context is not None
    exact = choose_engine(network, device=CPU, tile=64, name="eager-fp32")(he, None, context)
    assert np.abs(engine(he, None, context) - exact)[..., :3].mean() <= TOLERANCE


def test_an_unknown_engine_is_an_error_that_names_those_there_are(make: Any) -> None:
    with pytest.raises(RestainError, match=r"steam.*eager-bf16"):
        choose_engine(make(), device=CPU, tile=64, name="steam")


def test_an_engine_that_is_not_installed_says_which_extra_to_install(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, extra in (("openvino", "openvino-fp32", "openvino"), ("onnxruntime", "onnxruntime-fp32", "onnx")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(RestainError, match=rf"restain\[{extra}\]"):
            choose_engine(make(), device=CPU, tile=64, name=name)
