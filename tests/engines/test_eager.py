import threading
from typing import Any

import numpy as np
import pytest
import torch

from restain.engines.eager import EagerEngine
from restain.models.build import build_generator
from restain.models.network import batch_of
from restain.recipe import parse_recipe
from restain.stain import restain_whole

CPU = torch.device("cpu")


@pytest.mark.parametrize("white", [None, np.array([200, 210, 220], np.float32)])
@pytest.mark.parametrize("with_context", [False, True])
def test_a_tile_is_the_same_alone_and_in_a_batch(
    make: Any, he: Any, survey: Any, white: Any, with_context: Any
) -> None:
    network = make()
    engine = EagerEngine(network, CPU)
    context = survey(network, he[:1, :32]) if with_context else None
    together = engine(he, white, context)
    assert together.shape == (2, 64, 64, 4)
    for tile, planes in zip(he, together, strict=True):
        assert np.array_equal(restain_whole(network, tile, white, context), planes)


@pytest.mark.parametrize("kind", ["unet256", "resnet9"])
def test_it_runs_the_peers(kind: str, he: Any) -> None:
    torch.manual_seed(0)
    recipe = parse_recipe({"peer": {"kind": "pix2pix", "network": kind, "width": 4}}, "test")
    network = build_generator(recipe).eval()
    planes = EagerEngine(network, CPU)(he)
    with torch.inference_mode():
        expected = network(batch_of(he[0])).rgb[0].permute(1, 2, 0).numpy()
    assert planes.shape == (2, 64, 64, 3)
    assert np.array_equal(planes[0], expected)


def test_bfloat16_is_near_and_not_the_same(make: Any, he: Any, survey: Any) -> None:
    network = make()
    context = survey(network, he[:1])
    exact = EagerEngine(network, CPU)(he, None, context)
    near = EagerEngine(network, CPU, "bf16")(he, None, context)
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact)[..., :3].mean() < 2 / 255


def test_threads_are_those_that_were_asked_for_in_whatever_thread_calls(make: Any, he: Any) -> None:
    engine, before = EagerEngine(make(), CPU, threads=2), torch.get_num_threads()
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
