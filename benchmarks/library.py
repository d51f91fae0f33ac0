"""How fast `restain serve` opens a library of many slides: a real server in a process of its own, one client.

    python benchmarks/library.py [--quick] [--slides 500] [--repeats 5]

One tiled pyramid of 2048 px is linked under many names, in folders of ten patients with two blocks each. Every name is a
file of its own for the server, and the system's disk cache holds their bytes: "cold" is a server that knows no file yet,
not a disk that was not read. Two sizes are compared in one run, a tenth of the slides and all of them. Prints one JSON
object last, with milliseconds for each size:

- ``first_ms``: first page of a new server, which reads the header of every file; ``restarted_ms`` that of the next server
  with the same state folder.
- ``warm_ms``: median of the page within two seconds of a scan; ``scan_ms``: of the page that scans the folder again.
- ``sorted_ms``, ``unreadable_ms``: median of the page sorted by case, and filtered to unreadable images; ``unreadable_first_ms``
  the first such page, which must know every file.
- ``viewer_ms``, ``thumbnail_ms``, ``tile_ms``, ``annotations_ms``: median of a slide's page and of the viewer's API, warm.
- ``load``: the machine's load average before the run, over its cores; above 0 something else was running too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from restain.geometry import Size
from restain.slides import TileStore, write_ome_tiff
from restain.web.library import MAX_AGE_S

SIDE, TILE, MPP = 2048, 512, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to open a library of many slides.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--slides", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    repeats = 2 if options.quick else options.repeats
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    sizes = {}
    with tempfile.TemporaryDirectory() as name:
        slide = Path(name) / "slide.ome.tiff"
        make_slide(slide)
        for count in (max(1, options.slides // 10), options.slides):
            folder = Path(name) / str(count) / "slides"
            names = link(slide, folder, count)
            sizes[str(count)] = measure(folder, folder.parent / "state", names, repeats)
            print(count, sizes[str(count)])
    print(json.dumps({"slides": sizes, "cores": os.cpu_count(), "load": round(load, 2)}))


def make_slide(path: Path) -> None:
    rng = np.random.default_rng(0)
    with TileStore.open(path.with_suffix(".part"), {}, Size(SIDE, SIDE), TILE, "rgb", quality=85) as store:
        for row in range(store.grid[0]):
            for column in range(store.grid[1]):
                store.put(row, column, rng.integers(90, 230, (TILE, TILE, 3)).astype(np.uint8))
        write_ome_tiff(store, path, mpp=MPP, metadata={"notice": "texture"})
        store.discard()


def link(slide: Path, folder: Path, count: int) -> list[str]:
    names = [f"patient {n % 10}/block {n // 10 % 2}/{n:04}.ome.tiff" for n in range(count)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(slide, folder / name)
    return names


class Server:
    """`restain serve` in a process of its own, on a free port."""

    def __init__(self, folder: Path, state: Path) -> None:
        command = [sys.executable, "-m", "restain", "serve", str(folder), "--state", str(state), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "400"})
        assert self.process.stdout is not None
        found = re.search(r"http://[\d.:]+", line := self.process.stdout.readline())
        if found is None:
            self.process.kill()
            raise SystemExit(f"the server did not start: {line}")
        self.client = httpx.Client(base_url=found[0], timeout=120)
        # Imports are not what is measured.
        self.ms("/review")

    def ms(self, path: str) -> float:
        """Time from a request to its whole answer."""
        began = time.perf_counter()
        self.client.get(path).raise_for_status()
        return 1000 * (time.perf_counter() - began)

    def median(self, path: str, repeats: int, pause: float = 0.0) -> float:
        times = []
        for _ in range(repeats):
            time.sleep(pause)
            times.append(self.ms(path))
        return round(statistics.median(times), 1)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(20)


def measure(folder: Path, state: Path, names: list[str], repeats: int) -> dict[str, float]:
    """Milliseconds of each kind of request, as the text at the top says."""
    image = hashlib.sha256(names[-1].encode()).hexdigest()[:20]
    with Server(folder, state) as server:
        found = {"first_ms": round(server.ms("/"), 1)}
        found["scan_ms"] = server.median("/", repeats, MAX_AGE_S + 0.1)
        found["warm_ms"] = server.median("/", repeats)
        found["sorted_ms"] = server.median("/?sort=case", repeats)
        found["unreadable_first_ms"] = round(server.ms("/?kind=unreadable"), 1)
        found["unreadable_ms"] = server.median("/?kind=unreadable", repeats)
        api = f"/api/images/{image}"
        paths = {"viewer": f"/view/{image}", "thumbnail": f"{api}/thumbnail.jpg", "tile": f"{api}/tiles/2/0/0.jpg"}
        for key, path in (paths | {"annotations": f"{api}/annotations"}).items():
            server.ms(path)
            found[f"{key}_ms"] = server.median(path, repeats)
    with Server(folder, state) as server:
        found["restarted_ms"] = round(server.ms("/"), 1)
    return found


if __name__ == "__main__":
    main()
