"""How `restain serve` bears readers who pan: a real server in a process of its own, and readers in threads of this one.

    python benchmarks/serve.py [--quick] [--readers 20] [--seconds 60]

A slide of texture (16384 px a side, 8192 with ``--quick``) is served. Every reader moves once a second and asks for the four
tiles of 512 px that come into view, one after the other: first tiles that nobody has asked for before, each once, then the
same tiles again, which the server holds by then. Afterwards readers save annotations, the server is killed (SIGKILL) in
the middle and started again. Readers and server share the machine's cores. Prints one JSON object last:

- ``p95_uncached_ms``, ``p95_cached_ms``: 95th percentile of the time from a request to its whole answer; ``p50_...`` the median.
- ``tiles_uncached``, ``tiles_cached``: how many were asked for; ``failed``: how many were not answered with 200.
- ``rss_growth_ratio``: the server's resident memory at the end of the cached part to that at the end of the uncached one, and
  ``rss_mb`` at the end.
- ``lost_answers``: annotations whose save was confirmed before the kill and that are not there after it; ``kept_answers``.
- ``load``: the machine's load average before the run, over its cores; above 0 something else was running too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import httpx
import numpy as np

from restain.geometry import Size
from restain.slides import TileStore, write_ome_tiff
from restain.web.grid import TILE, Grid

NAME = "slide.ome.tiff"
MPP = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of tiles and memory of the server under readers who pan.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="Of the cached part.")
    options = parser.parse_args()
    side, seconds = (8192, 6.0) if options.quick else (16384, options.seconds)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        folder, state = Path(name) / "slides", Path(name) / "state"
        folder.mkdir()
        make_slide(folder / NAME, side)
        with Server(folder, state) as server:
            grid = Grid(Size(side, side), MPP)
            across = -(-side // TILE)
            places = [f"{grid.top}/{x}/{y}" for y in range(across) for x in range(across)]
            uncached, failed = pan(server, options.readers, places, len(places) / options.readers / 4)
            middle = server.rss()
            cached, also = pan(server, options.readers, places[: 12 * options.readers], seconds)
            end = server.rss()
        kept, lost = killed_in_the_middle(folder, state, options.readers)
    result = {
        "p50_uncached_ms": percentile(uncached, 50),
        "p95_uncached_ms": percentile(uncached, 95),
        "p50_cached_ms": percentile(cached, 50),
        "p95_cached_ms": percentile(cached, 95),
        "tiles_uncached": len(uncached),
        "tiles_cached": len(cached),
        "failed": failed + also,
        "rss_growth_ratio": round(end / middle, 3),
        "rss_mb": round(end / 2**20),
        "kept_answers": kept,
        "lost_answers": lost,
        "readers": options.readers,
        "side": side,
        "cores": os.cpu_count(),
        "load": round(load, 2),
    }
    print(json.dumps(result))


def make_slide(path: Path, side: int) -> None:
    rng = np.random.default_rng(0)
    texture = rng.integers(90, 230, (TILE * 2, TILE * 2, 3)).astype(np.uint8)
    texture = (
        texture // 4 + np.roll(texture, 1, 0) // 4 + np.roll(texture, 1, 1) // 4 + np.roll(texture, 2, 1) // 4
    ).astype(np.uint8)
    with TileStore.open(path.with_suffix(".part"), {}, Size(side, side), TILE, "rgb", quality=85) as store:
        for row in range(store.grid[0]):
            for column in range(store.grid[1]):
                y, x = rng.integers(0, TILE, 2)
                store.put(row, column, texture[y : y + TILE, x : x + TILE])
        write_ome_tiff(store, path, mpp=MPP, metadata={"notice": "texture"})
        store.discard()


class Server:
    """`restain serve` in a process of its own, on a free port."""

    def __init__(self, folder: Path, state: Path) -> None:
        command = [sys.executable, "-m", "restain", "serve", str(folder), "--state", str(state), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "400"})
        assert self.process.stdout is not None
        found = re.search(r"http://[\d.:]+", line := self.process.stdout.readline())
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        self.url = found[0]

    def image(self, path: str) -> str:
        return f"{self.url}/api/images/{hashlib.sha256(NAME.encode()).hexdigest()[:20]}/{path}"

    def rss(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> Server:
        # The first request of all lists the folder.
        try:
            httpx.get(self.url, timeout=60).raise_for_status()
        except httpx.HTTPError:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def pan(server: Server, readers: int, places: list[str], seconds: float) -> tuple[list[float], int]:
    """Seconds from request to answer of all tiles, and how many failed; every reader has its own places."""
    times: list[list[float]] = [[] for _ in range(readers)]
    failed = [0] * readers

    def read(number: int) -> None:
        mine = places[number::readers]
        start = time.perf_counter() + number / readers
        with httpx.Client(timeout=60) as client:
            for move in range(max(1, round(seconds))):
                time.sleep(max(0.0, start + move - time.perf_counter()))
                for step in range(4):
                    began = time.perf_counter()
                    answer = client.get(server.image(f"tiles/{mine[(move * 4 + step) % len(mine)]}.jpg"))
                    times[number].append(time.perf_counter() - began)
                    failed[number] += answer.status_code != 200

    run(read, readers)
    return [one for each in times for one in each], sum(failed)


def killed_in_the_middle(folder: Path, state: Path, readers: int) -> tuple[int, int]:
    """Annotations that were confirmed and are there after a kill, and those that are not."""
    server = Server(folder, state)
    confirmed: set[str] = set()
    lock = threading.Lock()

    def answer(number: int) -> None:
        with httpx.Client(timeout=20, headers={"Origin": server.url}) as client:
            try:
                for count in range(1000):
                    name = f"{number}-{count}"
                    feature = {
                        "geometry": {"type": "Point", "coordinates": [number, count]},
                        "properties": {},
                        "id": name,
                    }
                    # Many hands on one image: read, add, save, and again where another was faster.
                    while True:
                        seen = client.get(server.image("annotations")).json()
                        seen["features"].append(feature)
                        if client.put(server.image("annotations"), json=seen).status_code == 200:
                            break
                    with lock:
                        confirmed.add(name)
            except (httpx.HTTPError, ValueError):
                return

    killer = threading.Timer(4.0, lambda: os.kill(server.process.pid, signal.SIGKILL))
    killer.start()
    run(answer, min(readers, 4))
    killer.join()
    server.process.wait(20)
    with Server(folder, state) as again:
        there = {one["id"] for one in httpx.get(again.image("annotations")).json()["features"]}
    return len(confirmed & there), len(confirmed - there)


def run(work: object, readers: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(readers)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def percentile(values: Iterable[float], share: float) -> float:
    return round(1000 * float(np.percentile(list(values), share)), 1)


if __name__ == "__main__":
    main()
