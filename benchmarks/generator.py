"""The default generator beside pix2pix's U-Net 256 and the nine-block ResNet, and the engines, in one run on one machine.

    python benchmarks/generator.py [--quick] [--threads 2] [--side 1024]

The default generator is the shipped bundle's, with attention at every skip. The peers have their published width, 64, and fresh weights, since time does not
depend on them. One tile of synthetic H&E; uint8 in, float32 planes out. What is compared takes turns, and the median of
the turns counts. Prints one JSON object last:

- ``ratio_unet256``, ``ratio_resnet9``: the default generator's time over the peer's, all in PyTorch, eager, float32.
  ``ratio_unet256_cpu`` and so on: the same of the processor time of all threads, which other processes disturb less.
- ``ratio_flop_limit``: the default generator's time over its operations divided by the rate of a 2048 x 2048 x 2048
  matrix product, float32, measured in the same turns. An operation is a multiplication or an addition: two per
  multiply-add of convolutions and matrix products, attention's included, counted by ``torch.utils.flop_counter`` as
  the network runs on the whole tile. Normalisation, activation, softmax, resizing and rendering count as nothing.
- ``engine``: the fastest engine for the default generator whose mean absolute difference in RGB from eager float32 is
  within 1/255 on this tile, ``chosen``: the one that ``restain`` chooses. ``engines``: of each, the median time, the
  processor time, megapixels per second, the differences in units of 1/255 (RGB) and OD (DAB), and how long it takes to
  make it ready; an engine that this machine cannot have says why.
- ``peers_chosen``: the three networks with the chosen engine.
- ``peak_mb``: of each engine, the peak of the resident set of a fresh process that makes it ready and restains two tiles
  of 512 px; Linux. ``tiles``: megapixels per second of the chosen engine by the tile's side, and the same where each
  tile gives the quarter of its side that it shares with its neighbours but once.

``--quick``: fewer turns; no engine that takes minutes to compile or is known to be slow; memory of the chosen engine and eager float32 alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

# Threads that wait give way instead of spinning, since another process may hold one of the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from restain.bundle import load_bundle
from restain.engines import AUTO, NAMES, Engine, EngineError, choose_engine
from restain.her2 import Her2Level
from restain.models.blocks import channels_last
from restain.models.network import StainingNetwork
from restain.models.peers.resnet9 import ResNet9
from restain.models.peers.unet256 import UNet256
from restain.models.tensors import batch_of
from restain.phantom import make_pair

CPU = torch.device("cpu")
EAGER = "eager-fp32"
SLOW = ("compile-fp32", "compile-bf16")
"""Minutes to compile."""
MEMORY_SIDE = 512

Call = Callable[[], object]


def tile_of_he(side: int) -> NDArray[np.uint8]:
    """``(1, side, side, 3)`` synthetic H&E, repeated where it is larger than what is quickly made."""
    he = make_pair(0, 0, Her2Level.TWO, size=512).he
    times = -(-side // len(he))
    return np.tile(he, (times, times, 1))[None, :side, :side].copy()


def timed(calls: dict[str, Call], turns: int) -> dict[str, dict[str, float]]:
    """Median wall and processor seconds of calls that take turns."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    busy: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            start, start_busy = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - start)
            busy[name].append(time.process_time() - start_busy)
    return {n: {"s": statistics.median(wall[n]), "cpu_s": statistics.median(busy[n])} for n in calls}


def operations(generator: StainingNetwork, he: NDArray[np.uint8]) -> float:
    """Operations for a tile, two per multiply-add, without the halos of strips."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        generator(batch_of(he))
    return float(counter.get_total_flops())


def megapixels(he: NDArray[np.uint8]) -> float:
    return he.shape[0] * he.shape[1] * he.shape[2] / 1e6


def compare_engines(
    names: Sequence[str], generator: StainingNetwork, he: NDArray[np.uint8], turns: int, threads: int
) -> dict[str, dict[str, float | str]]:
    ready: dict[str, Engine] = {}
    found: dict[str, dict[str, float | str]] = {}
    expected: NDArray[np.float32] | None = None
    for name in names:
        start = time.perf_counter()
        try:
            engine = choose_engine(generator, device=CPU, name=name, threads=threads)
            planes = engine(he)
        except EngineError as fault:
            found[name] = {"missing": str(fault)}
            continue
        expected = planes if expected is None else expected
        difference = np.abs(planes - expected)
        ready[name] = engine
        found[name] = {
            "ready_s": round(time.perf_counter() - start, 2),
            "mean_255": float(difference[..., :3].mean() * 255),
            "max_255": float(difference[..., :3].max() * 255),
            "mean_dab_od": float(difference[..., 3].mean()),
            "max_dab_od": float(difference[..., 3].max()),
        }
        print(f"  {name}: ready", flush=True)
    times = timed({name: partial(engine, he) for name, engine in ready.items()}, turns)
    for name, measured in times.items():
        found[name] |= {
            "ms": measured["s"] * 1e3,
            "cpu_ms": measured["cpu_s"] * 1e3,
            "megapixels_per_s": megapixels(he) / measured["s"],
        }
    return found


def compare_networks(
    networks: dict[str, StainingNetwork], he: NDArray[np.uint8], engine: str, turns: int, threads: int
) -> dict[str, dict[str, float]]:
    """Seconds of each network and, among their turns, of a matrix product."""
    calls: dict[str, Call] = {}
    for name, network in networks.items():
        ready = choose_engine(network, device=CPU, name=engine, threads=threads)
        ready(he[:, :256, :256])  # what is set up at the first call is not the network's
        calls[name] = partial(ready, he)
    a, b = torch.randn(2, 2048, 2048)
    out = a @ b
    calls["product"] = partial(torch.mm, a, b, out=out)
    return timed(calls, turns)


def peak_mb(engine: str, threads: int) -> float | None:
    """Peak resident memory of a fresh process; None where it fails or the system does not say."""
    command = [sys.executable, __file__, "--threads", str(threads), "--memory-of", engine]
    answer = subprocess.run(command, capture_output=True, text=True)
    return float(answer.stdout.split()[-1]) if answer.returncode == 0 else None


def measure_memory(engine: str, threads: int) -> float:
    generator = load_bundle().generator
    he = np.random.default_rng(0).integers(0, 256, (1, MEMORY_SIDE, MEMORY_SIDE, 3), dtype=np.uint8)
    ready = choose_engine(generator, device=CPU, name=engine, threads=threads)
    for _ in range(2):
        ready(he)
    # Not getrusage's figure, which a process takes over from the one that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


def by_tile(
    generator: StainingNetwork, engine: str, sides: Sequence[int], turns: int, threads: int
) -> dict[int, dict[str, float]]:
    ready = choose_engine(generator, device=CPU, name=engine, threads=threads)
    tiles = {side: tile_of_he(side) for side in sides}
    ready(tiles[min(sides)])
    times = timed({str(side): partial(ready, he) for side, he in tiles.items()}, turns)
    return {
        side: {
            "megapixels_per_s": side**2 / 1e6 / times[str(side)]["s"],
            "new_megapixels_per_s": (0.75 * side) ** 2 / 1e6 / times[str(side)]["s"],
        }
        for side in sides
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns, no slow engines")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=1024, help="side of the tile in px")
    parser.add_argument("--memory-of", metavar="ENGINE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads: int = options.threads
    torch.set_num_threads(threads)
    if options.memory_of:
        print(measure_memory(options.memory_of, threads))
        return

    torch.manual_seed(0)
    he = tile_of_he(options.side)
    networks: dict[str, StainingNetwork] = {
        "default": load_bundle().generator,
        "unet256": UNet256(64),
        "resnet9": ResNet9(64),
    }
    networks = {name: channels_last(network).eval() for name, network in networks.items()}
    generator = networks["default"]
    result: dict[str, object] = {
        "quick": options.quick,
        "side": options.side,
        "threads": threads,
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }

    print("networks, eager float32", flush=True)
    times = compare_networks(networks, he, EAGER, 3 if options.quick else 5, threads)
    count = operations(generator, he)
    rate = 2 * 2048**3 / times["product"]["s"]
    for peer in ("unet256", "resnet9"):
        result[f"ratio_{peer}"] = times["default"]["s"] / times[peer]["s"]
        result[f"ratio_{peer}_cpu"] = times["default"]["cpu_s"] / times[peer]["cpu_s"]
    result["ratio_flop_limit"] = times["default"]["s"] / (count / rate)
    result["ratio_flop_limit_cpu"] = times["default"]["cpu_s"] / (count / (2 * 2048**3) * times["product"]["cpu_s"])
    result |= {"gflop": count / 1e9, "product_gflop_per_s": rate / 1e9, "networks": times}

    print("engines", flush=True)
    names = [name for name in NAMES if name != AUTO and not (options.quick and name in SLOW)]
    engines = compare_engines(names, generator, he, 3 if options.quick else 9, threads)
    near = {n: e["ms"] for n, e in engines.items() if "ms" in e and e["mean_255"] <= 1}  # type: ignore[operator]
    chosen = choose_engine(generator, device=CPU, threads=threads).name
    result |= {"engine": min(near, key=near.__getitem__), "chosen": chosen, "engines": engines}

    print(f"networks, {chosen}", flush=True)
    result["peers_chosen"] = compare_networks(networks, he, chosen, 2 if options.quick else 3, threads)

    print("memory and tiles", flush=True)
    measured = [EAGER, chosen] if options.quick else [name for name in names if name not in SLOW]
    result["peak_mb"] = {name: peak_mb(name, threads) for name in measured}
    sides = [512, 1024] if options.quick else [256, 512, 768, 1024, 1536]
    result["tiles"] = by_tile(generator, chosen, sides, 3, threads)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
