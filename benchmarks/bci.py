"""Rehearsal of BCI: a folder of its size, checked, planned, trained for a few steps, killed, resumed and evaluated.

    python benchmarks/bci.py [--quick] [--folder FOLDER] [--workers 2]

The folder has BCI's layout and numbers of pairs, 3896 for training and 977 for testing, of 1024 px. They are hard links
to eight phantom pairs for training and four for testing, so the splits share no picture. ``--quick``: 24 and 6 pairs of
512 px, three evaluated images, and kernels of two images. Prints one JSON object last:

- ``check_s``: ``restain check``. ``open_s``: opening the pairs and all that a training looks at before its first step.
- ``batches_per_s_per_worker``: batches of 16 crops of 256 px that one worker makes from the store; ``decode_s``: time to
  fill it with ``decoded`` pairs. ``peak_gib``: largest proportional set size of the loader, this process and 8 workers
  (``--quick``: 2), after 20 batches.
- ``plan``: what ``restain plan`` prints for a small network on these pairs.
- ``resume_identical``: whether a training of 20 steps that was killed and resumed has the weights of an uninterrupted one.
- ``evaluate_s_per_image``, ``quick_s_per_image``: seconds between finished images, all baselines and ``--quick``, of images
  that are made already, with ``--workers`` processes.
- ``launches_ratio``: see ``benchmarks/kernels.py``.
- ``wall_s``, ``cpu_s``: of the whole rehearsal; processor time of all processes. ``load``: of the machine at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch

import kernels
from restain.data import open_pairs
from restain.data.decoded import PairStore
from restain.evaluation import evaluate
from restain.phantom import write_phantom
from restain.recipe import find_recipe, load_recipe
from restain.training.batches import Crops, batches
from restain.training.prepare import prepare

SMALL = (
    *("data.crop=64", "data.batch=2", "data.workers=1", "expression.steps=0", "generator.width=8"),
    *("discriminator.width=8", "train.steps=20", "train.validate_every=10", "train.validate_pairs=1"),
)
"""The recipe bci with networks that a CPU trains in seconds; its loader reads the same pairs."""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def build(folder: Path, size: int, numbers: dict[str, int], sources: dict[str, int]) -> Path:
    """A folder in BCI's layout of ``numbers`` pairs per split, linked to phantoms."""
    data = folder / "BCI_dataset"
    for split, number in numbers.items():
        source = folder / f"phantom-{split}"
        test_share = float(split == "test")
        write_phantom(source, pairs=sources[split], size=size, seed=len(split), test_share=test_share)
        for stain in ("HE", "IHC"):
            made = sorted((source / stain / split).iterdir())
            (data / stain / split).mkdir(parents=True, exist_ok=True)
            for index in range(number):
                picture = made[index % len(made)]
                level = picture.stem.rsplit("_", 1)[1]
                link = data / stain / split / f"{index:05d}_{split}_{level}.png"
                if not link.exists():
                    link.hardlink_to(picture)
    return data


def restain(*arguments: object) -> tuple[float, str]:
    """Seconds and output of a command."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "restain", *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return time.perf_counter() - began, done.stdout


def proportional_gib() -> float:
    """Memory of this process and its children, shared pages counted once."""
    listed = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid="], capture_output=True, text=True).stdout
    total = 0
    for process in (os.getpid(), *map(int, listed.split())):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 2**20


def loader(data: Path, folder: Path, workers: int) -> dict[str, float]:
    pairs = open_pairs(data).split("train")
    store = PairStore(folder / "store", pairs[: min(len(pairs), 256)])
    began = time.perf_counter()
    store.fill()
    decoding = time.perf_counter() - began
    crops = Crops(store, 256, load_recipe(find_recipe("bci")).data.augment, 0)
    count = 4
    began = time.perf_counter()
    for k in range(count * 16):
        crops[k]
    rate = count / (time.perf_counter() - began)
    peak = 0.0
    cpu = torch.device("cpu")
    for number, _ in enumerate(
        batches(crops, start=0, stop=20, batch=16, workers=workers, rank=0, world=1, device=cpu)
    ):
        if number % 5 == 4:
            peak = max(peak, proportional_gib())
    return {
        "decode_s": decoding,
        "decoded": len(store.pairs),
        "batches_per_s_per_worker": rate,
        "peak_gib": peak,
        "loader_workers": workers,
    }


def resumed_is_identical(data: Path, folder: Path) -> bool:
    recipe = [part for setting in SMALL for part in ("--set", setting)]
    command = ["train", "bci", "--data", data, "--accelerator", "cpu", "--store", folder / "store", *recipe]
    killed = subprocess.Popen(
        [sys.executable, "-m", "restain", *map(str, command), "-o", str(folder / "killed")],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (folder / "killed" / "adversarial.ckpt").is_file() and killed.poll() is None:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    found = []
    for name in ("killed", "straight"):
        restain(*command, "-o", folder / name)
        found.append(safetensors.numpy.load_file(folder / name / "bundle" / "weights.safetensors"))
    return all((found[0][key] == found[1][key]).all() for key in found[1])


def seconds_per_image(data: Path, folder: Path, images: int, workers: int, quick: bool) -> float:
    """Between the finished images of an evaluation of a folder of images, here those of the next pair."""
    pairs = open_pairs(data, val_share=0)
    few = [pair for pair in pairs.pairs if pair.split == "test"][:images]
    answers = folder / "answers"
    answers.mkdir(exist_ok=True)
    for pair, other in zip(few, [*few[1:], few[0]], strict=True):
        path = answers / f"{pair.name}.png"
        path.unlink(missing_ok=True)
        path.hardlink_to(other.ihc_path)
    training = [pair for pair in pairs.pairs if pair.split == "train"][:4]
    chosen = type(pairs)(pairs.roots, pairs.layouts, tuple(sorted((*few, *training), key=lambda pair: pair.name)))
    ticks: list[float] = []
    evaluate(
        None,
        chosen,
        out=folder / f"evaluation-{quick}",
        images=answers,
        quick=quick,
        workers=workers,
        progress=lambda done, total: ticks.append(time.perf_counter()),
    )
    # The first images come when workers have started.
    own = ticks[-(images - max(1, workers)) :]
    return (own[-1] - own[0]) / max(1, len(own) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few small pairs; about 140 processor seconds")
    parser.add_argument("--folder", type=Path, help="where everything is made; by default a temporary folder")
    parser.add_argument("--workers", type=int, default=2, help="processes that score images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quick = options.quick
    numbers = {"train": 24, "test": 6} if quick else {"train": 3896, "test": 977}
    images, size = (6, 512) if quick else (32, 1024)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        began = started = time.perf_counter()
        data = build(folder, size, numbers, {"train": 2, "test": 2} if quick else {"train": 8, "test": 4})
        result: dict[str, Any] = {"quick": quick, "size": size, **numbers, "build_s": time.perf_counter() - began}
        print("check", flush=True)
        result["check_s"] = restain("check", data)[0]
        began = time.perf_counter()
        prepare(load_recipe(find_recipe("bci")), [data], accelerator="cpu")
        result["open_s"] = time.perf_counter() - began
        print("loader", flush=True)
        result |= loader(data, folder, 2 if quick else 8)
        print("plan", flush=True)
        settings = [part for setting in SMALL for part in ("--set", setting)]
        result["plan"] = restain("plan", "bci", "--data", data, "-o", folder, "--accelerator", "cpu", *settings)[1]
        print("kill and resume", flush=True)
        result["resume_identical"] = resumed_is_identical(data, folder)
        print("evaluation", flush=True)
        for name, few in (("evaluate_s_per_image", False), ("quick_s_per_image", True)):
            result[name] = seconds_per_image(data, folder, images, options.workers, few)
        print("kernels", flush=True)
        result |= kernels.compare(2 if quick else 16)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        result["cpu_s"] = sum(each.ru_utime + each.ru_stime for each in used)
        result["wall_s"] = time.perf_counter() - started
        result |= {"workers": options.workers, "load": os.getloadavg()[0], "torch": torch.__version__}
        print(json.dumps(result))


if __name__ == "__main__":
    main()
