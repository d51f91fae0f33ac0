"""Tiles survive a kill at any byte, a full disk, and threads; other tiles than asked for are never taken over."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.slides.store import TileStore
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


def test_whole_records_survive_a_cut_at_any_byte(tmp_path: Path) -> None:
    ends = []
    with _open(tmp_path / "s.part") as store:
        for place, value in [((0, 0), 1), ((1, 1), 2), ((0, 2), 3)]:
            store.put(*place, _smooth(value)) if value != 2 else store.put_blank(*place)
            ends.append((tmp_path / "s.part" / "records.bin").stat().st_size)
        first, last = store.encoded(0, 0), store.encoded(0, 2)
    whole = (tmp_path / "s.part" / "records.bin").read_bytes()
    assert ends[1] - ends[0] < 20
    cuts = {0, 1, *ends, *(e - 1 for e in ends), *(e + 5 for e in ends[:2])}
    cuts |= set(np.random.default_rng([2]).integers(0, len(whole), 20).tolist())
    for cut in sorted(cuts):
        folder = tmp_path / f"cut{cut}.part"
        shutil.copytree(tmp_path / "s.part", folder)
        (folder / "records.bin").write_bytes(whole[:cut])
        with _open(folder) as store:
            assert [store.has(0, 0), store.has(1, 1), store.has(0, 2)] == [cut >= end for end in ends]
            if cut >= ends[0]:
                assert store.encoded(0, 0) == first
            store.put(0, 2, _smooth(3))
        with _open(folder) as store:
            assert store.encoded(0, 2) == last


def test_damage_inside_a_record_ends_what_is_kept_and_is_never_read(tmp_path: Path) -> None:
    with _open(tmp_path / "s.part") as store:
        store.put(0, 0, _smooth(1))
        middle = (tmp_path / "s.part" / "records.bin").stat().st_size
        store.put(0, 1, _smooth(2))
        with open(tmp_path / "s.part" / "records.bin", "r+b") as file:
            file.seek(middle + 200)
            file.write(b"\x00\x01\x02\x03")
        with pytest.raises(RestainError, match="damaged"):
            store.read(0, 1)
    with _open(tmp_path / "s.part") as store:
        assert store.has(0, 0)
        assert not store.has(0, 1)


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
        size = (tmp_path / "s.part" / "records.bin").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, before[1]))
            with pytest.raises(RestainError, match=r"cannot be written: .*kept\)\.$"):
                store.put(0, 1, noise)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert (tmp_path / "s.part" / "records.bin").stat().st_size == size
        store.put(0, 2, noise)
    with _open(tmp_path / "s.part") as store:
        assert store.has(0, 0)
        assert not store.has(0, 1)
        assert store.has(0, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
def test_a_second_process_is_turned_away_until_the_first_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from restain.slides.store import TileStore; from restain.geometry import"
        f" Size; s = TileStore.open(Path(sys.argv[1]), {IDENTITY!r}, Size(150, 100), 64, 'rgb');"
        " s.put_blank(0, 0); print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s.part")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"open"
        with pytest.raises(RestainError, match="in use by another process"):
            _open(tmp_path / "s.part")
    finally:
        holder.kill()
        holder.communicate()
    with _open(tmp_path / "s.part") as store:
        assert store.has(0, 0)


def test_discard_removes_the_folder_and_a_missing_parent_is_one_sentence(tmp_path: Path) -> None:
    store = _open(tmp_path / "s.part")
    store.put_blank(0, 0)
    store.discard()
    assert not (tmp_path / "s.part").exists()
    with pytest.raises(RestainError, match="cannot be written"):
        _open(tmp_path / "no" / "s.part")


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
