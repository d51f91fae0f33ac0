"""Tiles survive a kill at any moment, a full disk, and threads; other tiles than asked for are never taken over."""

from __future__ import annotations

import multiprocessing
import random
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.slides.store import FILE, TileStore
from restain.slides.store_view import StoreView

SIZE = Size(150, 100)
IDENTITY = {"slide": "a", "bundle": "b"}


def _open(folder: Path, **changes: object) -> TileStore:
    given: dict[str, object] = {"identity": IDENTITY, "size": SIZE, "tile": 64, "kind": "rgb"}
    return TileStore.open(folder, **{**given, **changes})  # type: ignore[arg-type]


def _smooth(value: int, height: int = 64, width: int = 64) -> np.ndarray:
    ramp = np.linspace(0, 60, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    return (ramp + np.array([value, 2 * value, 60])).clip(0, 255).astype(np.uint8)


def test_tiles_come_back_cut_to_the_slide(tmp_path: Path) -> None:
    with _open(tmp_path / "s.part", quality=95) as store:
        assert store.grid == (2, 3)
        store.put(0, 0, _smooth(10))
        store.put(1, 2, _smooth(40))
        store.put_blank(0, 1, (240, 241, 242))
        assert store.has(0, 0)
        assert not store.has(1, 1)
        assert store.missing == 3
        assert np.abs(store.read(0, 0).astype(int) - _smooth(10)).max() <= 4
        assert store.read(1, 2).shape == (36, 22, 3)
        assert np.abs(store.read(1, 2).astype(int) - _smooth(40)[:36, :22]).max() <= 4
        assert np.abs(store.read(0, 1).astype(int) - [240, 241, 242]).max() <= 1
        with pytest.raises(RestainError, match="has no tile"):
            store.read(1, 1)


def test_lossless_tiles_come_back_as_they_were_here_and_where_they_are_watched(tmp_path: Path) -> None:
    noise = np.random.default_rng([7]).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with _open(tmp_path / "s.part", quality=None) as store:
        store.put(0, 0, noise)
        store.put(1, 2, noise)
        np.testing.assert_array_equal(store.read(0, 0), noise)
        np.testing.assert_array_equal(store.read(1, 2), noise[:36, :22])
        view = StoreView(tmp_path / "s.part")
        assert view.refresh() == 2
        np.testing.assert_array_equal(view.read(0, 0), noise)
        halved = noise.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(view.read(0, 0, 2) - halved).max() <= 0.5
    with _open(tmp_path / "s.part", quality=90) as store:
        assert store.missing == 6


def test_density_is_kept_to_half_a_count(tmp_path: Path) -> None:
    density = np.random.default_rng([1]).random((64, 64)).astype(np.float32) * 3
    density[0, :3] = [-1, 9, np.nan]
    with _open(tmp_path / "d.part", kind="dab") as store:
        store.put(0, 0, density)
        store.put_blank(0, 1)
        kept = store.read(0, 0)
        assert kept[0, :3] == pytest.approx([0, 6.5535, 0])
        assert np.abs(kept[1:] - density[1:]).max() <= 0.51e-4
        assert not store.read(0, 1).any()


def test_tiles_survive_a_kill_at_any_moment(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def job(put: Connection) -> None:
        with _open(tmp_path / "s.part", size=Size(640, 640)) as store:
            for at in store.cells():
                if not store.has(*at):
                    store.put(*at, noise)
                    put.send(at)

    moments = random.Random(0)
    kept = 0
    for lines in (3, 11, 17):
        told, put = fork.Pipe(duplex=False)
        child = fork.Process(target=job, args=(put,))
        child.start()
        for _ in range(lines):
            assert told.poll(30)
            told.recv()
        time.sleep(moments.uniform(0, 0.003))
        child.kill()
        child.join()
        kept += lines
        with _open(tmp_path / "s.part", size=Size(640, 640)) as store:
            there = [at for at in store.cells() if store.has(*at)]
            assert len(there) >= kept
            assert there == list(store.cells())[: len(there)]
            assert len({store.encoded(*at) for at in there}) == 1
            kept = len(there)


@pytest.mark.parametrize("place", ["tile", "head"])
def test_damage_is_never_read(tmp_path: Path, place: str) -> None:
    noise = np.random.default_rng([7]).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with _open(tmp_path / "s.part") as store:
        store.put(0, 0, _smooth(1))
        store.put(0, 1, noise)
        payload = store.encoded(0, 1)
    file = tmp_path / "s.part" / FILE
    data = bytearray(file.read_bytes())
    at = data.index(payload[:200]) + 150 if place == "tile" else 0
    data[at : at + 4] = b"\x00\x01\x02\x03"
    file.write_bytes(data)
    view = StoreView(tmp_path / "s.part")
    assert view.refresh() == (2 if place == "tile" else 0)
    assert view.read(0, 1) is None
    with _open(tmp_path / "s.part") as store:
        assert store.has(0, 0) == (place == "tile")
        assert not store.has(0, 1)
        store.put(0, 1, noise)
        assert store.encoded(0, 1) == payload


@pytest.mark.parametrize(
    "change", [{"identity": {"slide": "z"}}, {"size": Size(151, 100)}, {"tile": 32}, {"kind": "dab"}, {"quality": 50}]
)
def test_tiles_of_another_plan_are_not_taken_over(tmp_path: Path, change: dict[str, object]) -> None:
    with _open(tmp_path / "s.part") as store:
        store.put_blank(0, 0)
    with _open(tmp_path / "s.part") as store:
        assert store.has(0, 0)
    with _open(tmp_path / "s.part", **change) as store:
        assert not store.has(0, 0)
    with _open(tmp_path / "s.part") as store:
        assert not store.has(0, 0)


def test_a_hole_is_listed_marked_and_can_be_filled(tmp_path: Path) -> None:
    with _open(tmp_path / "s.part") as store:
        store.put_hole(1, 0, "the tile does not decode: é")
    with _open(tmp_path / "s.part") as store:
        assert store.holes == [(1, 0, "the tile does not decode: é")]
        assert store.has(1, 0)
        assert np.ptp(store.read(1, 0)) > 100
        store.put(1, 0, _smooth(5))
        assert store.holes == []


def test_threads_may_put_and_read_at_once(tmp_path: Path) -> None:
    with _open(tmp_path / "s.part", size=Size(640, 640)) as store:

        def work(i: int) -> int:
            store.put(i // 10, i % 10, _smooth(i))
            return int(store.read(i // 10, i % 10).astype(int)[0, 0, 0])

        with ThreadPoolExecutor(4) as pool:
            seen = list(pool.map(work, range(100)))
        assert store.missing == 0
        assert np.abs(np.array(seen) - np.arange(100)).max() <= 8
    with _open(tmp_path / "s.part", size=Size(640, 640)) as store:
        assert store.missing == 0


def test_a_full_disk_is_one_sentence_and_keeps_what_was_written(tmp_path: Path) -> None:
    # A limit on the size of a file stands for the end of the disk: write() is cut short, then refused.
    noise = np.random.default_rng([3]).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with _open(tmp_path / "s.part") as store:
        store.put(0, 0, noise)
        size = max(file.stat().st_size for file in (tmp_path / "s.part").iterdir())
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, before[1]))
            with pytest.raises(RestainError, match=r"cannot be written: .*kept\)\.$"):
                store.put(0, 1, noise)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        store.put(0, 2, noise)
    with _open(tmp_path / "s.part") as store:
        assert store.has(0, 0)
        assert not store.has(0, 1)
        assert store.has(0, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
def test_a_second_process_is_turned_away_until_the_first_is_killed(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    opened = fork.Event()

    def hold() -> None:
        with _open(tmp_path / "s.part") as store:
            store.put_blank(0, 0)
            opened.set()
            time.sleep(60)

    holder = fork.Process(target=hold)
    holder.start()
    try:
        assert opened.wait(30)
        with pytest.raises(RestainError, match="in use by another process"):
            _open(tmp_path / "s.part")
    finally:
        holder.kill()
        holder.join()
    with _open(tmp_path / "s.part") as store:
        assert store.has(0, 0)


def test_discard_removes_the_folder_and_a_missing_parent_is_one_sentence(tmp_path: Path) -> None:
    store = _open(tmp_path / "s.part")
    store.put_blank(0, 0)
    store.discard()
    assert not (tmp_path / "s.part").exists()
    with pytest.raises(RestainError, match="cannot be written"):
        _open(tmp_path / "no" / "s.part")


def watch(folder: Path, end: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    view = StoreView(folder)
    while not end.is_set():  # type: ignore[attr-defined]
        view.refresh()


def test_a_store_that_is_watched_can_be_discarded(tmp_path: Path) -> None:
    """The browser reads the tiles of a job until its folder is gone."""
    context = multiprocessing.get_context("fork")
    end = context.Event()
    watchers = [context.Process(target=watch, args=(tmp_path / "a.part", end)) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(40):
            with TileStore.open(tmp_path / "a.part", {}, Size(64, 64), 64, "rgb") as store:
                store.put_blank(0, 0, (255, 255, 255))
                store.discard()
    finally:
        end.set()
        for watcher in watchers:
            watcher.join()
    assert not (tmp_path / "a.part").exists()


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    with _open(tmp_path / "s.part") as store:
        with pytest.raises(ValueError, match="64x64"):
            store.put(0, 0, _smooth(1)[:50])
        with pytest.raises(IndexError):
            store.put_blank(2, 0)
    with pytest.raises(ValueError, match="multiple of 16"):
        _open(tmp_path / "t.part", tile=50)


def test_any_region_is_put_together_from_the_tiles_that_it_meets(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((70, 90)).astype(np.float32)
    with TileStore.open(tmp_path / "s.part", {}, Size(90, 70), 32, "dab") as store:
        for row in range(3):
            for column in range(3):
                store.put(row, column, image[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32])
        for x, y, width, height in ((0, 0, 90, 70), (31, 5, 2, 60), (40, 40, 1, 1), (64, 64, 26, 6)):
            region = Region(Point(x, y), Size(width, height))
            np.testing.assert_allclose(store.read_region(region), image[region.slices], atol=1e-4)
