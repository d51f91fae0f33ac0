"""How many kernels does a training step of the recipe bci start, and how many of them are attention's?

    python benchmarks/kernels.py [--quick]

Counts operators in PyTorch's profiler on a CPU, as a proxy for launches on a GPU: those that call no other operator and
make no view. A step runs twice: in blocks of 4096 tokens, as on a CPU, and with each batch as one block, as on a GPU.
Crops are 64 px with blocks of 256 tokens, which gives as many blocks per level as 256 px with blocks of 4096. ``--quick``
takes 2 images per step in place of 16. Prints one JSON object last: ``launches_blocks``, ``launches_batch``, and
``launches_ratio``, the second over the first.
"""

from __future__ import annotations

import argparse
import json

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from restain.models.build import build_generator
from restain.recipe import Recipe, find_recipe, load_recipe
from restain.training.batches import LEVEL_PX, Batch
from restain.training.devices import choose_devices
from restain.training.peers import second_stage

CROP, BLOCK = 64, 256
NO_KERNEL = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "transpose",
        "t",
        "numpy_T",
        "permute",
        "expand",
        "slice",
        "select",
        "as_strided",
        "unsqueeze",
        "squeeze",
        "split",
        "split_with_sizes",
        "unflatten",
        "flatten",
        "detach",
        "detach_",
        "alias",
        "empty",
        "empty_like",
        "empty_strided",
        "resize_",
        "narrow",
        "chunk",
        "unbind",
        "result_type",
        "lift_fresh",
        "movedim",
        "is_nonzero",
        "item",
        "_local_scalar_dense",
        "diagonal",
        "set_",
        "mT",
        "new_empty",
    ]
)


def launches(recipe: Recipe) -> int:
    """Operators of one step of stage two that stand for a kernel."""
    torch.manual_seed(0)
    fabric = choose_devices("cpu").fabric(recipe.train)
    stage = second_stage(fabric, recipe, build_generator(recipe))
    n, crop = recipe.data.batch, recipe.data.crop
    image = torch.rand(n, 3, crop, crop)
    cells = torch.zeros(n, crop // LEVEL_PX, crop // LEVEL_PX, dtype=torch.long)
    batch = Batch(image, image.flip(0), torch.zeros(n, dtype=torch.long), torch.ones(n, 3), cells)
    stage.step(0, batch)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        stage.step(1, batch)
    events = profiler.events()
    assert events is not None
    return sum(map(_is_kernel, events))


def _is_kernel(event: FunctionEvent) -> bool:
    space, _, name = event.name.partition("::")
    calls = any(child.name.startswith("aten::") for child in event.cpu_children)
    return space == "aten" and not calls and name not in NO_KERNEL


def compare(batch: int) -> dict[str, float]:
    settings = [f"data.crop={CROP}", f"data.batch={batch}"]
    found = {
        name: launches(load_recipe(find_recipe("bci"), [*settings, f"generator.attention.chunk={chunk}"]))
        for name, chunk in (("launches_blocks", BLOCK), ("launches_batch", batch * CROP**2))
    }
    return {**found, "launches_ratio": found["launches_batch"] / found["launches_blocks"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 images per step")
    options = parser.parse_args()
    batch = 2 if options.quick else 16
    print(json.dumps({"quick": options.quick, "batch": batch, "torch": torch.__version__, **compare(batch)}))


if __name__ == "__main__":
    main()
