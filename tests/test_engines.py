"""Engines give what PyTorch gives, in batches, with another white, in lower precision and compiled."""

import threading

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restain import engines
from restain.engines import NAMES, TOLERANCE, Engine, EngineError, choose_engine, he_colours, predict_at_once
from restain.errors import RestainError
from restain.models.attention import ResidualAttentionBlock
from restain.models.build import build_generator
from restain.models.generator import Generator
from restain.models.tensors import batch_of
from restain.recipe import AttentionRecipe, ExpressionRecipe, GeneratorRecipe, parse_recipe

CPU = torch.device("cpu")


def make(**changes: object) -> Generator:
    """A small generator in which attention matters."""
    torch.manual_seed(0)
    recipe = GeneratorRecipe(width=8, depth=2, white="measured", attention=AttentionRecipe(head_dim=8, features=8))
    generator = Generator(recipe.model_copy(update=changes), ExpressionRecipe(width=4)).eval()
    for block in generator.modules():
        if isinstance(block, ResidualAttentionBlock):
            torch.nn.init.ones_(block.scale)
    return generator


@pytest.fixture
def he() -> NDArray[np.uint8]:
    """``(2, 64, 64, 3)``."""
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("white", [None, np.array([200, 210, 220], np.float32)])
def test_an_image_is_the_same_alone_and_in_a_batch(he: NDArray[np.uint8], white: NDArray[np.float32] | None) -> None:
    network = make()
    together = Engine(network, CPU)(he, white)
    assert together.shape == (2, 64, 64, 4)
    for one, planes in zip(he, together, strict=True):
        np.testing.assert_array_equal(predict_at_once(network, one, white), planes)


@pytest.mark.parametrize("kind", ["unet256", "resnet9"])
def test_it_runs_the_peers(kind: str, he: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    recipe = parse_recipe({"peer": {"kind": "pix2pix", "network": kind, "width": 4}}, "test")
    network = build_generator(recipe).eval()
    planes = Engine(network, CPU)(he)
    with torch.inference_mode():
        expected = network(batch_of(he[0])).rgb[0].permute(1, 2, 0).numpy()
    assert planes.shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(planes[0], expected)


def test_bfloat16_is_near_and_not_the_same(he: NDArray[np.uint8]) -> None:
    network = make()
    exact, near = Engine(network, CPU)(he), Engine(network, CPU, "bf16")(he)
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact)[..., :3].mean() < 2 / 255


def test_threads_are_set_in_whatever_thread_calls(he: NDArray[np.uint8]) -> None:
    engine, before = Engine(make(), CPU, threads=2), torch.get_num_threads()
    seen = []

    def call() -> None:
        engine(he)
        seen.append(torch.get_num_threads())

    try:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [2]


@pytest.mark.parametrize(("near", "chosen"), [(True, "eager-bf16"), (False, "eager-fp32")])
def test_the_automatic_choice_agrees_with_float32(near: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "multiplies_bf16", lambda device: True)
    monkeypatch.setattr(engines, "TOLERANCE", TOLERANCE if near else 0.0)
    network = make()
    engine = choose_engine(network, device=CPU)
    assert engine.name == chosen
    colours = he_colours(64)[None]
    assert np.abs(engine(colours) - Engine(network, CPU)(colours))[..., :3].mean() <= TOLERANCE


def test_an_unknown_engine_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(RestainError, match=r"Unknown engine 'steam'.*eager-bf16"):
        choose_engine(make(), device=CPU, name="steam")
    assert set(NAMES) == {"auto", "eager-fp32", "eager-bf16", "compile-fp32", "compile-bf16"}


def test_compiling_without_a_compiler_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match=r"C\+\+ compiler"):
        choose_engine(make(), device=CPU, name="compile-fp32")


@pytest.mark.slow
def test_the_compiled_network_gives_the_same(he: NDArray[np.uint8]) -> None:
    network = make(depth=1, label_feature=False)
    engine = choose_engine(network, device=CPU, name="compile-fp32")
    white = np.array([200, 210, 220], np.float32)
    np.testing.assert_allclose(engine(he, white), Engine(network, CPU)(he, white), atol=1e-4)
