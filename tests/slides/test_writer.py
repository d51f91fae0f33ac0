"""One file that OpenSlide, tifffile and libvips read alike at every level, with its scale and provenance."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import resource
import signal
import time
from pathlib import Path

import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from restain import NOTICE
from restain.errors import RestainError
from restain.geometry import Size
from restain.slides.metadata import read_metadata
from restain.slides.pyramid import halve, level_sizes
from restain.slides.store import TileStore
from restain.slides.writer import write_ome_tiff

MPP = 0.4967


def _fill(store: TileStore, seed: int = 1) -> TileStore:
    rng = np.random.default_rng([seed])
    for row in range(store.grid[0]):
        for column in range(store.grid[1]):
            if row > 1 and column < 2:
                store.put_blank(row, column, (243, 242, 244))
            elif store.kind == "dab":
                store.put(row, column, rng.random((store.tile, store.tile)).astype(np.float32))
            else:
                blocks = rng.integers(0, 255, (store.tile // 16, store.tile // 16, 3), dtype=np.uint8)
                store.put(row, column, blocks.repeat(16, axis=0).repeat(16, axis=1))
    return store


def _levels(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.series) == 1
        return [level.asarray() for level in tiff.series[0].levels]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rgb")
    with _fill(TileStore.open(folder / "s.part", {"s": "1"}, Size(2051, 1310), 256, "rgb")) as store:
        write_ome_tiff(store, folder / "s.ome.tif", mpp=MPP, metadata={"bundle": "µ <b> & é", "seed": "3"})
    return folder / "s.ome.tif"


def test_openslide_tifffile_and_libvips_read_the_same_pixels_at_every_level(slide: Path) -> None:
    levels = _levels(slide)
    sizes = [(size.width, size.height) for size in level_sizes(Size(2051, 1310))]
    assert [level.shape for level in levels] == [(h, w, 3) for w, h in sizes]
    assert len(sizes) == 4
    with openslide.OpenSlide(slide) as read:
        assert list(read.level_dimensions) == sizes
        for number, level in enumerate(levels):
            seen = np.asarray(read.read_region((0, 0), number, sizes[number]).convert("RGB"))
            assert np.array_equal(seen, level)
    for number, level in enumerate(levels):
        assert np.array_equal(pyvips.Image.new_from_file(str(slide), page=number).numpy(), level)
        assert np.array_equal(pyvips.Image.new_from_file(str(slide), subifd=number - 1).numpy(), level)


def test_every_reader_finds_the_scale(slide: Path) -> None:
    with openslide.OpenSlide(slide) as read:
        assert float(read.properties["openslide.mpp-x"]) == pytest.approx(MPP, rel=1e-5)
        assert float(read.properties["openslide.mpp-y"]) == pytest.approx(MPP, rel=1e-5)
    assert 1000 / pyvips.Image.new_from_file(str(slide)).xres == pytest.approx(MPP, rel=1e-5)
    with tifffile.TiffFile(slide) as tiff:
        assert tiff.is_ome
        assert tiff.is_bigtiff
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert pixels["PhysicalSizeX"] == MPP
        assert pixels["PhysicalSizeXUnit"] == "µm"
        # Reduced levels are marked as such, and the same directories in the chain as in the SubIFDs.
        assert [page.subfiletype for page in tiff.pages] == [0, 1, 1, 1]
        assert [page.offset for page in tiff.pages][1:] == list(tiff.pages.first.subifds)


def test_provenance_comes_back_and_says_that_the_stain_is_virtual(slide: Path) -> None:
    assert read_metadata(slide) == {"notice": NOTICE, "bundle": "µ <b> & é", "seed": "3"}


def test_level_0_is_the_store_and_the_next_its_mean(tmp_path: Path) -> None:
    with _fill(TileStore.open(tmp_path / "d.part", {}, Size(1100, 700), 256, "dab")) as store:
        write_ome_tiff(store, tmp_path / "d.ome.tif", mpp=MPP, metadata={})
        levels = _levels(tmp_path / "d.ome.tif")
        assert levels[0].dtype == np.uint16
        rows = [np.concatenate([store.read(r, c) for c in range(store.grid[1])], axis=1) for r in range(store.grid[0])]
        density = np.concatenate(rows)
        with tifffile.TiffFile(tmp_path / "d.ome.tif") as tiff:
            page, data = tiff.pages.first, (tmp_path / "d.ome.tif").read_bytes()
            taken = [data[o : o + n] for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            assert taken == [store.encoded(r, c) for r in range(store.grid[0]) for c in range(store.grid[1])]
    assert np.abs(levels[0] * 1e-4 - density).max() < 1e-6
    means = density[:700, :1100].reshape(350, 2, 550, 2).mean(axis=(1, 3))
    assert np.abs(levels[1] * 1e-4 - means).max() <= 0.51e-4
    for number, level in enumerate(levels):
        assert np.array_equal(pyvips.Image.new_from_file(str(tmp_path / "d.ome.tif"), page=number).numpy(), level)


def test_holes_are_listed_and_missing_tiles_refused(tmp_path: Path) -> None:
    with TileStore.open(tmp_path / "s.part", {}, Size(300, 200), 256, "rgb") as store:
        store.put_blank(0, 0)
        with pytest.raises(RestainError, match="1 of its tiles"):
            write_ome_tiff(store, tmp_path / "s.tif", mpp=MPP, metadata={})
        assert not (tmp_path / "s.tif").exists()
        store.put_hole(0, 1, "does not decode")
        write_ome_tiff(store, tmp_path / "s.tif", mpp=MPP, metadata={})
    assert json.loads(read_metadata(tmp_path / "s.tif")["holes"]) == [[256, 0, 44, 200, "does not decode"]]
    with openslide.OpenSlide(tmp_path / "s.tif") as read:
        assert read.level_dimensions == ((300, 200),)


def test_tiles_put_since_are_in_the_reduced_levels(tmp_path: Path) -> None:
    with TileStore.open(tmp_path / "s.part", {}, Size(1024, 600), 512, "rgb") as store:
        for row, column in np.ndindex(*store.grid):
            store.put_blank(row, column)
        write_ome_tiff(store, tmp_path / "s.tif", mpp=MPP, metadata={})
        assert _levels(tmp_path / "s.tif")[1].min() >= 254
        store.put_blank(0, 0, (0, 0, 0))
        write_ome_tiff(store, tmp_path / "s.tif", mpp=MPP, metadata={})
    assert _levels(tmp_path / "s.tif")[1][:200, :200].max() <= 2


@pytest.mark.parametrize("after", [7, 70])
def test_killed_and_called_again_gives_the_same_file(slide: Path, tmp_path: Path, after: int) -> None:
    with _fill(TileStore.open(tmp_path / "s.part", {"s": "1"}, Size(2051, 1310), 256, "rgb")):
        pass
    fork = multiprocessing.get_context("fork")
    reached = fork.Event()
    text = {"bundle": "µ <b> & é", "seed": "3"}

    def step(done: int, total: int) -> None:
        if done >= after:
            reached.set()
            time.sleep(60)

    def write() -> None:
        with TileStore.open(tmp_path / "s.part", {"s": "1"}, Size(2051, 1310), 256, "rgb") as store:
            write_ome_tiff(store, tmp_path / "s.ome.tif", mpp=MPP, metadata=text, progress=step)

    job = fork.Process(target=write)
    job.start()
    assert reached.wait(30)
    job.kill()
    job.join()
    assert not (tmp_path / "s.ome.tif").exists()
    seen: list[tuple[int, int]] = []
    with TileStore.open(tmp_path / "s.part", {"s": "1"}, Size(2051, 1310), 256, "rgb") as store:
        write_ome_tiff(
            store,
            tmp_path / "s.ome.tif",
            mpp=MPP,
            metadata=text,
            progress=lambda done, total: seen.append((done, total)),
        )
    assert (tmp_path / "s.ome.tif").read_bytes() == slide.read_bytes()
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s.ome.tif", "s.part"]


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_levels_halve_down_to_512(width: int, height: int) -> None:
    sizes = level_sizes(Size(width, height))
    assert max(sizes[-1].width, sizes[-1].height) <= 512 or len(sizes) == 1
    assert all(0 <= a.width - 2 * b.width + 1 <= 1 for a, b in itertools.pairwise(sizes))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 255))
def test_halving_keeps_a_flat_picture_and_rounds_up(height: int, width: int, value: int) -> None:
    half = halve(np.full((height, width, 3), value, np.uint8))
    assert half.shape == ((height + 1) // 2, (width + 1) // 2, 3)
    assert (half == value).all()
    assert halve(np.array([[0, 1], [0, 1]], np.uint8)).tolist() == [[1]]


def test_a_file_that_is_no_tiff_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(b"no tiff at all, but long enough")
    with pytest.raises(RestainError, match="not a TIFF"):
        read_metadata(tmp_path / "x.tif")


def test_a_full_disk_is_one_sentence_and_leaves_no_file_that_looks_whole(slide: Path, tmp_path: Path) -> None:
    # A limit on the size of a file stands for the end of the disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with _fill(TileStore.open(tmp_path / "s.part", {"s": "1"}, Size(2051, 1310), 256, "rgb")) as store:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (slide.stat().st_size - 5000, before[1]))
            with pytest.raises(RestainError, match=r"s\.ome\.tif cannot be written"):
                write_ome_tiff(store, tmp_path / "s.ome.tif", mpp=MPP, metadata={})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert [entry.name for entry in tmp_path.iterdir()] == ["s.part"]
        assert store.missing == 0


def test_blank_tiles_show_a_pattern_at_every_level_and_take_no_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pattern = rng.integers(220, 255, (64, 64, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    with TileStore.open(tmp_path / "a.part", {}, Size(2000, 1500), 256, "rgb") as store:
        store.pattern = pattern
        for row, column in itertools.product(*map(range, store.grid)):
            store.put_blank(row, column, (240, 240, 240))
        write_ome_tiff(store, tmp_path / "a.ome.tiff", mpp=MPP, metadata={})
    first, second, third = _levels(tmp_path / "a.ome.tiff")
    wanted = np.tile(pattern, (3, 4, 1))[:1500, :2000].astype(int)
    assert np.abs(first.astype(int) - wanted).mean() < 2
    for finer, coarser in ((first, second), (second, third)):
        assert coarser.std() > 0.5
        assert np.abs(coarser.astype(int) - halve(finer)).mean() < 4
