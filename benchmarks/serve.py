"""How `restain serve` bears readers who pan: a real server in a process of its own, and readers in threads of this one.

    python benchmarks/serve.py [--quick] [--readers 20] [--seconds 60] [--minutes 30]

A slide of texture (16384 px a side, 8192 with ``--quick``) is served. Every reader moves once a second and asks for the four
tiles of 512 px that come into view, one after the other: first tiles that nobody has asked for before, each once, then the
same tiles again, which the server holds by then. All are signed in. Afterwards four readers answer a blinded review, the server is killed
(SIGKILL) in the middle and started again. Readers and server share the machine's cores. Prints one JSON object last:

- ``p95_uncached_ms``, ``p95_cached_ms``: 95th percentile of the time from a request to its whole answer; ``p50_...`` the median.
- ``tiles_uncached``, ``tiles_cached``: how many were asked for; ``failed``: how many were not answered with 200.
- ``rss_growth_ratio``: the server's resident memory at the end of the cached part to that at the end of the uncached one; with
  ``--minutes``, at the end of panning over all levels for so long to that after its first minute. ``rss_mb`` at the end.
  ``p95_long_ms``: of those tiles, some kept and some not; null without ``--minutes``.
- ``lost_answers``: answers that were confirmed before the kill and are not there after it; ``kept_answers``; ``doubled_answers``.
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
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from restain.geometry import Size
from restain.images import write_png
from restain.review import Study, create_study, parse_definition
from restain.slides import TileStore, write_ome_tiff
from restain.web.accounts.account import Role
from restain.web.accounts.store import AccountStore
from restain.web.database import open_database
from restain.web.grid import TILE, Grid

NAME = "slide.ome.tiff"
MPP = 0.25
OWNER, READERS, PASSWORD = "olga", ("anna", "bo", "chi", "dan"), "brown membranes all around"
IMAGES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of tiles and memory of the server under readers who pan.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=0, help="Of panning over all levels, after the two parts.")
    parser.add_argument("--seconds", type=float, default=60, help="Of the cached part.")
    options = parser.parse_args()
    side, seconds = (8192, 6.0) if options.quick else (16384, options.seconds)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        folder, state = Path(name) / "slides", Path(name) / "state"
        folder.mkdir()
        make_accounts(state)
        make_slide(folder / NAME, side)
        with Server(folder, state) as server:
            grid = Grid(Size(side, side), MPP)
            across = -(-side // TILE)
            places = [f"{grid.top}/{x}/{y}" for y in range(across) for x in range(across)]
            uncached, failed = pan(server, options.readers, places, len(places) / options.readers / 4)
            middle, long = server.rss(), []
            cached, also = pan(server, options.readers, places[: 12 * options.readers], seconds)
            end = server.rss()
            if options.minutes:
                # All levels in an order of each reader's own: more than the server keeps, so that it has to let go.
                levels = [
                    f"{level}/{x}/{y}" for level in range(grid.top + 1) for x, y in across_level(side, grid.top - level)
                ]
                long, more = pan(server, options.readers, np.random.default_rng(2).permutation(levels).tolist(), 60)
                middle, also = server.rss(), also + more
                long, more = pan(server, options.readers, levels, 60 * options.minutes)
                end, also = server.rss(), also + more
        images = Path(name) / "images"
        images.mkdir()
        kept, lost, doubled = killed_in_the_middle(folder, state, make_study(images))
    result = {
        "p50_uncached_ms": percentile(uncached, 50),
        "p95_uncached_ms": percentile(uncached, 95),
        "p50_cached_ms": percentile(cached, 50),
        "p95_cached_ms": percentile(cached, 95),
        "p95_long_ms": percentile(long, 95) if long else None,
        "minutes": options.minutes,
        "tiles_uncached": len(uncached),
        "tiles_cached": len(cached),
        "failed": failed + also,
        "rss_growth_ratio": round(end / middle, 3),
        "rss_mb": round(end / 2**20),
        "kept_answers": kept,
        "lost_answers": lost,
        "doubled_answers": doubled,
        "readers": options.readers,
        "side": side,
        "cores": os.cpu_count(),
        "load": round(load, 2),
    }
    print(json.dumps(result))


def across_level(side: int, halvings: int) -> list[tuple[int, int]]:
    count = -(-side // (TILE * 2**halvings))
    return [(x, y) for y in range(count) for x in range(count)]


def make_accounts(state: Path) -> None:
    state.mkdir()
    database = open_database(state)
    for name, role in {OWNER: Role.OWNER, **dict.fromkeys(READERS, Role.READER)}.items():
        AccountStore(database).add(name, role, PASSWORD)
    database.close()


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

    def __init__(self, folder: Path, state: Path, study: Path | None = None) -> None:
        command = [sys.executable, "-m", "restain", "serve", str(folder), "--state", str(state), "--port", "0"]
        command += [] if study is None else ["--study", str(study)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "400"})
        assert self.process.stdout is not None
        found = re.search(r"http://[\d.:]+", line := self.process.stdout.readline())
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        self.url = found[0]

    @contextmanager
    def signed_in(self, name: str) -> Iterator[httpx.Client]:
        with httpx.Client(timeout=60, headers={"Origin": self.url}) as client:
            self._sign_in(client, name)
            yield client

    def _sign_in(self, client: httpx.Client, name: str) -> None:
        form = re.search(r'name="form" value="(\w+)"', client.get(f"{self.url}/account/sign-in").text)
        given = {"name": name, "password": PASSWORD, "form": form[1] if form else ""}
        if client.post(f"{self.url}/account/sign-in", data=given).status_code != 303:
            raise SystemExit(f"{name} could not sign in.")

    def image(self, path: str) -> str:
        return f"{self.url}/api/images/{hashlib.sha256(NAME.encode()).hexdigest()[:20]}/{path}"

    def rss(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> Server:
        # The first request of all lists the folder.
        try:
            with self.signed_in(OWNER) as client:
                client.get(self.url).raise_for_status()
                self.cookies = dict(client.cookies)
        except BaseException:
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
        with httpx.Client(timeout=60, cookies=server.cookies) as client:
            for move in range(max(1, round(seconds))):
                time.sleep(max(0.0, start + move - time.perf_counter()))
                for step in range(4):
                    began = time.perf_counter()
                    answer = client.get(server.image(f"tiles/{mine[(move * 4 + step) % len(mine)]}.jpg"))
                    times[number].append(time.perf_counter() - began)
                    failed[number] += answer.status_code != 200

    run(read, readers)
    return [one for each in times for one in each], sum(failed)


def make_study(folder: Path) -> Path:
    """A study of small images, enough of them that no reader comes to the end before the kill."""
    rng = np.random.default_rng(1)
    images = []
    for number in range(IMAGES):
        path = folder / f"{number}.png"
        write_png(path, rng.integers(0, 255, (64, 64, 3)).astype(np.uint8), {}, mpp=MPP)
        images.append({"path": path, "case": f"case {number}", "modality": "chemical", "level": "1+"})
    asked = {"title": "Benchmark", "questions": ["her2", "modality"], "readers": list(READERS), "images": images}
    create_study(parse_definition(asked, "benchmark"), folder / "study").close()
    return folder / "study"


def killed_in_the_middle(folder: Path, state: Path, study: Path) -> tuple[int, int, int]:
    """Answers that were confirmed and are there after a kill, those that are not, and those that are there twice."""
    server = Server(folder, state, study)
    with Study.open(study) as opened:
        study_id = opened.id
    place = f"{server.url}/api/review/{study_id}"
    confirmed: set[tuple[str, str, str]] = set()
    lock = threading.Lock()

    def answer(number: int) -> None:
        name = READERS[number]
        try:
            with server.signed_in(name) as client:
                while "token" in (item := client.post(f"{place}/next", json={}).json()):
                    for question, value in (("her2", "2+"), ("modality", "virtual")):
                        given = {"value": value, "replaces": [None], "seconds": 1.0}
                        kept = client.put(f"{place}/{item['token']}/answers/{question}", json=given)
                        if kept.status_code == 200:
                            with lock:
                                confirmed.add((name, item["token"], question))
        except (httpx.HTTPError, ValueError):
            return

    killer = threading.Timer(6.0, lambda: os.kill(server.process.pid, signal.SIGKILL))
    killer.start()
    run(answer, len(READERS))
    killer.join()
    server.process.wait(20)
    # Through the server again, as a reader's browser would look.
    with Server(folder, state, study) as again:
        there = set()
        for name in READERS:
            with again.signed_in(name) as client:
                for token in {token for reader, token, _ in confirmed if reader == name}:
                    answers = client.post(f"{again.url}/api/review/{study_id}/{token}/open", json={}).json()["answers"]
                    there |= {(name, token, question) for question in answers}
    with Study.open(study) as opened:
        given = Counter((one.reader, one.case, one.question) for one in opened.answers())
    return len(confirmed & there), len(confirmed - there), sum(count > 1 for count in given.values())


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
