"""Streamed FAVOR+ attention beside performer-pytorch's ``FastAttention``, in one run on one machine.

    python benchmarks/attention.py [--quick] [--threads 2]

Both compute the same block from tokens to output, with the same weights and the same random features: query, key and
value projection, attention in 4 heads of 16 channels with 32 features each, output projection. Tokens are 64 channels
of a smooth random image with some noise, normalised per token, as in the generator. Prints one JSON object last:

- ``forward_speedup``, ``train_speedup``: FastAttention's time over restain's, in inference and forward + backward.
  The two take turns; each one's least time counts.
- ``memory_ratio``: restain's peak memory over FastAttention's, the larger of the ratios in inference and in training.
  Peak of the resident set of a fresh process (Linux, ``VmHWM``), less what was resident once the inputs and the
  output's gradient were there, less the output and all gradients. ``memory_slack_mb`` is how far that can be off: what
  the same measure gives for no work at all.
- ``max_error``: largest absolute difference of the outputs, float32. FastAttention adds a constant ``eps = 1e-4`` to
  each feature, which is not part of FAVOR+ and biases its result; here it runs with ``eps = 0``. The effect of that
  constant is ``performer_eps_error``. ``max_gradient_error``: the same for gradients, relative to each one's largest
  entry.
- ``slope_tokens``, ``slope_tokens_train``, ``slope_memory``: exponent of restain's inference time, training time and
  peak memory, inputs and outputs included, over tokens from 128² to 2048² (least squares in log-log).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

# Threads that wait give way instead of spinning. Otherwise, where another process holds one of the cores, the short
# products of the streamed form spend most of their time waiting for a thread that is not running.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restain.models.attention import FavorAttention

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from performer_pytorch import performer_pytorch as performer

CHANNELS, HEADS, FEATURES = 64, 4, 32
MB = 2**20


class FastAttentionBlock(nn.Module):
    """``attention`` with performer-pytorch's FastAttention in place of the streamed passes; weights are shared."""

    def __init__(self, attention: FavorAttention) -> None:
        super().__init__()
        self.favor = attention
        self.fast = performer.FastAttention(CHANNELS // HEADS, nb_features=FEATURES)
        self.fast.projection_matrix.copy_(attention.projection[0])

    def forward(self, tokens: Tensor) -> Tensor:
        projections = (self.favor.to_q, self.favor.to_k, self.favor.to_v)
        q, k, v = (p(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in projections)
        attended: Tensor = self.fast(q, k, v)
        output: Tensor = self.favor.to_out(attended.transpose(1, 2).flatten(2))
        return output


def make_blocks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    attention = FavorAttention(CHANNELS, HEADS, FEATURES)
    attention.projection[:] = attention.projection[:1].clone()  # FastAttention has one draw for all heads
    return {"restain": attention, "performer": FastAttentionBlock(attention)}


def make_tokens(side: int) -> Tensor:
    """``(1, side², CHANNELS)``."""
    torch.manual_seed(1)
    image = F.interpolate(torch.randn(1, CHANNELS, 16, 16), size=(side, side), mode="bilinear")
    image += 0.3 * torch.randn(1, CHANNELS, side, side)
    return F.layer_norm(image.permute(0, 2, 3, 1).flatten(1, 2), (CHANNELS,))


def infer(block: nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = block(tokens)
    return output


def train(block: nn.Module, tokens: Tensor, d_output: Tensor) -> tuple[Tensor, ...]:
    """The output, then the gradients of the tokens and of all weights."""
    tokens = tokens.detach().requires_grad_()
    output = block(tokens)
    return (output.detach(), *torch.autograd.grad(output, [tokens, *block.parameters()], d_output))


def least_seconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least time of each call; they take turns, so that a busy machine slows all of them."""
    least = dict.fromkeys(calls, math.inf)
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def compare(side: int, repeats: int) -> dict[str, float]:
    blocks, tokens = make_blocks(), make_tokens(side)
    d_output = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(2))
    for block in blocks.values():
        train(block, tokens[:, :4096], d_output[:, :4096])
    forward = least_seconds({name: partial(infer, b, tokens) for name, b in blocks.items()}, repeats)
    training = least_seconds({name: partial(train, b, tokens, d_output) for name, b in blocks.items()}, repeats)

    ours, *our_gradients = train(blocks["restain"], tokens, d_output)
    with_eps = infer(blocks["performer"], tokens)
    with mock.patch.object(performer, "softmax_kernel", partial(performer.softmax_kernel, eps=0.0)):
        theirs, *their_gradients = train(blocks["performer"], tokens, d_output)
    gradient_errors = [
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(our_gradients, their_gradients, strict=True)
    ]
    return {
        "forward_speedup": forward["performer"] / forward["restain"],
        "train_speedup": training["performer"] / training["restain"],
        "forward_s": forward["restain"],
        "train_s": training["restain"],
        "performer_forward_s": forward["performer"],
        "performer_train_s": training["performer"],
        "max_error": (ours - theirs).abs().max().item(),
        "max_gradient_error": max(gradient_errors),
        "performer_eps_error": (theirs - with_eps).abs().max().item(),
        "output_std": ours.std(1).mean().item(),
    }


def resident_bytes(field: str) -> int:
    """``VmRSS``, what is resident, or ``VmHWM``, its peak so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("memory can only be measured where /proc/self/status tells VmRSS and VmHWM (Linux)")


def settled_resident_bytes() -> int:
    """What is resident once the C library has given back what is free, so that no later use hides in it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes("VmRSS")


def measure_memory(name: str, mode: str, side: int) -> dict[str, float]:
    """Run one block once, in this fresh process: its peak in MB, without and with inputs and outputs."""
    block = make_blocks().get(name)
    if block is not None:  # what libraries load at their first use is not the block's
        train(block, torch.randn(1, 5000, CHANNELS), torch.randn(1, 5000, CHANNELS))
    at_start = settled_resident_bytes()
    tokens = make_tokens(side)
    d_output = torch.randn(tokens.shape if mode == "train" else (1,))
    before = settled_resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    results: tuple[Tensor, ...] = ()
    if block is not None:
        results = (infer(block, tokens),) if mode == "infer" else train(block, tokens, d_output)
    peak = resident_bytes("VmHWM")
    beyond = peak - before - sum(r.nbytes for r in results)
    return {"beyond_mb": beyond / MB, "whole_mb": (peak - at_start) / MB}


def memory_in_fresh_process(name: str, mode: str, side: int, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--threads", str(threads), "--memory-of", name, mode, str(side)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured: dict[str, float] = json.loads(answer.splitlines()[-1])
    return measured


def slope(sides: list[int], figures: list[float]) -> float:
    """Least-squares exponent of the figures over the number of tokens."""
    x = torch.tensor([2 * math.log(side) for side in sides], dtype=torch.float64)
    y = torch.tensor(figures, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return ((x * y).sum() / x.square().sum()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="compare at 512² and fit slopes up to 512²")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", nargs=3, metavar=("BLOCK", "MODE", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        name, mode, memory_side = options.memory_of
        print(json.dumps(measure_memory(name, mode, int(memory_side))))
        return

    side, repeats = (512, 2) if options.quick else (1024, 3)
    sides = [128, 256, 512] if options.quick else [128, 256, 512, 1024, 2048]
    result: dict[str, object] = {"quick": options.quick, "side": side, "threads": options.threads}
    result |= {
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    print(f"speed and agreement at {side}²", flush=True)
    result |= compare(side, repeats)

    print(f"memory at {side}²", flush=True)
    memory = partial(memory_in_fresh_process, threads=options.threads)
    beyond = {
        (name, mode): memory(name, mode, side)["beyond_mb"]
        for name in ("restain", "performer")
        for mode in ("infer", "train")
    }
    result["memory_slack_mb"] = memory("nothing", "infer", side)["beyond_mb"]
    result["memory_mb"] = {f"{name}_{mode}": value for (name, mode), value in beyond.items()}
    result["memory_ratio"] = max(beyond["restain", mode] / beyond["performer", mode] for mode in ("infer", "train"))

    print(f"time and memory from {sides[0]}² to {sides[-1]}²", flush=True)
    attention = make_blocks()["restain"]
    forward: list[float] = []
    training: list[float] = []
    whole: list[float] = []
    for each in sides:
        tokens = make_tokens(each)
        some = max(2, min(20, 1024**2 // each**2))
        forward += least_seconds({"": partial(infer, attention, tokens)}, some).values()
        training += least_seconds({"": partial(train, attention, tokens, tokens)}, some).values()
        whole.append(memory("restain", "train", each)["whole_mb"])
    result |= {"slope_tokens": slope(sides, forward), "slope_tokens_train": slope(sides, training)}
    result["slope_memory"] = slope(sides, whole)
    result["sides"] = {"side": sides, "forward_s": forward, "train_s": training, "train_peak_mb": whole}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
