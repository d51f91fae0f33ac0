"""Engines that run an exported graph give what PyTorch gives, for every white and context."""

from typing import Any

import numpy as np
import pytest
import torch

from restain.engines import EngineError, choose_engine
from restain.engines.compiled import CompiledEngine
from restain.engines.eager import EagerEngine
from restain.engines.exported import Graph, export
from restain.models.build import build_generator
from restain.models.state_grid import LocalState
from restain.recipe import parse_recipe

CPU = torch.device("cpu")
PACKAGES = {"openvino-fp32": "openvino", "onnxruntime-fp32": "onnxruntime"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_one_graph_serves_every_white_and_context(name: str, make: Any, he: Any, survey: Any) -> None:
    pytest.importorskip(PACKAGES[name])
    network = make(depth=1, label_feature=False)
    reference = EagerEngine(network, CPU)
    engine = choose_engine(network, device=CPU, tile=64, name=name, threads=1)
    assert engine.name == name
    for white in (None, np.array([200, 210, 220], np.float32)):
        for seen in (he[:1], 255 - he[:1]):
            context = survey(network, seen)
            assert np.abs(engine(he, white, context) - reference(he, white, context)).max() < 1e-4
    without, small = engine(he), engine(he[:, :30, :20], None, context)
    assert np.array_equal(without, reference(he))
    assert np.array_equal(small, reference(he[:, :30, :20], None, context))


def test_a_network_without_attention_needs_no_context(he: Any) -> None:
    torch.manual_seed(0)
    recipe = parse_recipe({"peer": {"kind": "pix2pix", "network": "resnet9", "width": 2}}, "test")
    network = build_generator(recipe).eval()
    graph = Graph(network)
    assert graph.serves(64, he, None, None)
    planes = export(graph, 64).module()(*graph.inputs(he[:1], None, None)).detach().numpy()
    assert np.abs(planes - EagerEngine(network, CPU)(he[:1])).max() < 1e-5


def test_a_white_field_that_the_model_predicts_is_left_to_pytorch(make: Any, he: Any, survey: Any) -> None:
    network = make(white="predicted")
    graph, context = Graph(network), survey(network, he[:1])
    white = np.array([200, 210, 220], np.float32)
    assert not graph.serves(64, he, None, context)
    assert graph.serves(64, he, white, context)


def test_compiling_without_a_compiler_says_what_is_missing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match=r"C\+\+ compiler"):
        CompiledEngine(make(), 64)


def test_states_that_depend_on_the_place_are_left_to_pytorch(make: Any, he: Any, survey: Any) -> None:
    network = make()
    graph, context, white = Graph(network), survey(network, he), np.array([200, 210, 220], np.float32)
    index = np.array([[0, 1]])
    local = [LocalState(state, index, (0.0, 0.4), (1 / 64, 1 / 64)) for state in context]
    assert graph.serves(64, he, white, [state.one(0) for state in context])
    assert not graph.serves(64, he, white, local)
    planes = EagerEngine(network, CPU)(he, white, local)
    assert np.array_equal(planes[0], EagerEngine(network, CPU)(he[:1], white, local)[0])
