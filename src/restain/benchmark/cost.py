"""What a trained model costs: parameters, training time, staining time and memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from restain.errors import RestainError
from restain.files import write_json

SIDE = 1024
"""Side in px of the image that is stained to measure."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of one recipe."""

    parameters: int
    """Parameters of the network that stains, with the frozen classifier."""
    train_seconds: float
    """Computing time of training (:class:`restain.training.clock.Seconds`), both stages."""
    train_wall_seconds: float
    stain_seconds_per_megapixel: float
    """Computing time of staining one image of ``SIDE`` px, per 10⁶ px."""
    threads: int
    device: str
    peak_memory_mib: float
    """Most memory that the staining process had in use, Python and PyTorch included."""


def read_cost(path: Path) -> Cost:
    """Read a cost back. Raises RestainError if the file is damaged."""
    try:
        return Cost(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise RestainError(f"{path}: the file is damaged; delete it to measure again.") from None


def staining_cost(bundle: Path, out: Path, *, train_seconds: float, train_wall_seconds: float) -> Cost:
    """Stain one image in a process of its own, and write what that and the training took to ``out``.

    Raises RestainError if the process fails.
    """
    # A program of its own, so that its memory is its own and the caller's script needs no guard.
    call = [sys.executable, "-c", f"from {__name__} import stain_once; stain_once()", str(bundle)]
    result = subprocess.run(call, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["killed"])[-1]
        raise RestainError(f"{bundle}: staining to measure its cost failed ({last}).")
    parameters, seconds, threads, device, memory = json.loads(result.stdout.splitlines()[-1])
    cost = Cost(parameters, train_seconds, train_wall_seconds, seconds, threads, device, memory)
    write_json(out, asdict(cost))
    return cost


def stain_once() -> None:
    """Stain one image with the bundle that the command line names, and print what it took as one line of JSON."""
    import numpy as np
    import torch

    from restain.stain import load

    model = load(Path(sys.argv[1]))
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    model.predict(image[:256, :256])
    cpu = model.device.type == "cpu"
    clock = time.process_time if cpu else time.monotonic
    began = clock()
    model.predict(image)
    threads = torch.get_num_threads() if cpu else 1
    seconds = (clock() - began) / threads / (image.shape[0] * image.shape[1] / 1e6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = peak / (2**20 if sys.platform == "darwin" else 2**10)
    parameters = sum(p.numel() for p in model.generator.parameters())
    print(json.dumps([parameters, seconds, threads, str(model.device), mib]))
