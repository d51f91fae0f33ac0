"""How much memory does a whole slide take, and what does all that is not the network cost? Two slides in one run.

    python benchmarks/memory.py [--quick] [--folder FOLDER] [--engine auto] [--threads 2]

Two phantom H&E slides at 0.25 µm per px, of 10^8 px and of 4 * 10^9 px (``--quick``: 2.5 * 10^7 and 10^9), the larger one mostly of
glass, are stained by ``restain stain SLIDE --dab``, each in a process of its own. Prints one JSON object last:

- ``peak_gib_small``, ``peak_gib_large``: largest resident memory of the process; ``growth``: the second over the first, less 1.
- ``overhead_share``: of the small slide, the wall time from opening the slide to its finished files that is neither the
  network's, over that of the network.
- ``overhead_share_large``: the same of the large slide, of which most is glass.
- ``megapixels_per_second`` through the network, what windows share counted each time, and ``minutes`` per slide.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from restain.geometry import Size
from restain.phantom.slide import write_phantom_slide

MPP = 0.25


def made(folder: Path, side: int, share: float) -> Path:
    """An H&E slide, kept for the next run."""

    def progress(done: int, total: int) -> None:
        print(f"\r{folder.name}: {done}/{total}", end="", flush=True)

    size = Size(side, side)
    write_phantom_slide(folder, size=size, mpp=MPP, seed=1, ihc=False, tissue_share=share, progress=progress)
    print()
    return folder / "he.ome.tiff"


def peak_of(process: subprocess.Popen[bytes]) -> float:
    """GiB, read while the process runs: the kernel's own high-water mark of its resident memory."""
    peak = 0
    while process.poll() is None:
        try:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]))
        except OSError:
            break
        time.sleep(0.05)
    return peak / 2**20


def stained(slide: Path, out: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "restain", "stain", slide, "-o", out, "--dab"]
    command += ["--engine", options.engine]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    found: list[float] = []
    with subprocess.Popen([str(part) for part in command], env=environment) as process:
        watcher = threading.Thread(target=lambda: found.append(peak_of(process)))
        watcher.start()
        if process.wait() != 0:
            raise SystemExit(f"{slide} could not be stained")
        watcher.join()
    figures = json.loads((out / "he.stain.json").read_bytes())
    seconds = figures["seconds"]
    network = seconds["network"]
    return {
        "peak_gib": found[0],
        "overhead_share": seconds["all"] / network - 1,
        "megapixels": figures["megapixels"],
        "megapixels_per_second": figures["megapixels_per_second"],
        "minutes": seconds["all"] / 60,
        "seam_ratio": figures["seams"] and figures["seams"]["ratio"],
        "reading_cpu_share": seconds["reading"] / network,
        "writing_cpu_share": seconds["writing"] / network,
        "engine": figures["provenance"]["engine"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="slides a quarter as large")
    parser.add_argument("--folder", type=Path, help="where slides are made and kept; without it a temporary one")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    small, large = (5_000, 31_623) if options.quick else (10_000, 63_246)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = options.folder or Path(scratch)
        results = []
        for side, share in ((small, 0.35), (large, 0.35 * small**2 / large**2)):
            slide = made(folder / f"slide-{side}", side, share)
            results.append(stained(slide, Path(scratch) / f"out-{side}", options))
            print(json.dumps(results[-1]), flush=True)
    first, second = results
    print(
        json.dumps(
            {
                "peak_gib_small": first["peak_gib"],
                "peak_gib_large": second["peak_gib"],
                "growth": second["peak_gib"] / first["peak_gib"] - 1,
                "overhead_share": first["overhead_share"],
                "overhead_share_large": second["overhead_share"],
                "small": first,
                "large": second,
                "pixels": [small**2, large**2],
                "threads": options.threads,
                "machine": platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
