"""Phantom slide pairs: the same from the same seed, true to their truth, and read by every reader."""

from __future__ import annotations

import functools
import hashlib
import itertools
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from typer.testing import CliRunner

from restain.cli import app
from restain.errors import RestainError
from restain.evaluation.her2_classifier import rule_level
from restain.evaluation.membrane import ihc_hematoxylin
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.optics import hematoxylin_density, optical_density, unmix
from restain.phantom import Deformation, Distortion, SlideTruth, read_slide_truth, slide, write_phantom_slide
from restain.phantom.quilting import _cheapest_path
from restain.phantom.slide_tiles import TileRenderer
from restain.progress import Steps
from restain.slides import (
    open_slide,
    rasterize,
    read_geojson,
    read_metadata,
    tissue_mask,
)
from restain.slides.geojson import Polygon

from ..samples import little_tissue

SIZE, MPP = Size(1500, 1200), 0.5
MIXTURE = {Her2Level.ZERO: 0.3, Her2Level.THREE: 0.7}
SMALL, ALONE = Size(900, 700), {Her2Level.THREE: 1.0}


@pytest.fixture(scope="module", autouse=True)
def grown_once() -> Iterator[None]:
    with little_tissue():
        yield


def write(out: Path, **options: Any) -> SlideTruth:
    return write_phantom_slide(
        out, **{"size": SIZE, "mpp": MPP, "seed": 4, "mixture": MIXTURE, "tissue_share": 0.35} | options
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SlideTruth:
    return write(tmp_path_factory.mktemp("slides") / "pair", registered=True, dab=True)


def pixels(truth: SlideTruth, name: str) -> np.ndarray:
    return np.asarray(tifffile.imread(truth.folder / truth.files[name]))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SlideTruth:
    return write(tmp_path_factory.mktemp("slides") / "small", size=SMALL, mixture=ALONE)


@pytest.mark.slow
def test_killed_and_called_again_gives_the_same_files(small: SlideTruth, tmp_path: Path) -> None:
    """Amid the H&E's tiles, its pyramid, the IHC's tiles and its pyramid."""
    totals: list[int] = []
    for step in (4, 21, 33, 43):

        def stop(done: int, total: int, step: int = step) -> None:
            totals.append(total)
            # What is left counts, since a finished slide is no part of the next call's total.
            if total - done <= totals[0] - step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "pair", size=SMALL, mixture=ALONE, progress=stop)
        assert not (tmp_path / "pair" / "truth.json").exists()
        assert list((tmp_path / "pair").glob("*.part"))
    write(tmp_path / "pair", size=SMALL, mixture=ALONE)
    assert digests(tmp_path / "pair") == digests(small.folder)


def test_what_is_finished_is_kept_and_more_can_be_requested(tmp_path: Path) -> None:
    out = tmp_path / "pair"
    make = functools.partial(write, out, size=SMALL, mixture=ALONE, deformation=None)
    first = make(ihc=False)
    stamp = (out / "he.ome.tiff").stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    again = make(ihc=False, progress=lambda done, total: calls.append((done, total)))
    assert calls == []
    assert again.files == first.files == {"he": "he.ome.tiff"}
    more = make(progress=lambda done, total: calls.append((done, total)))
    assert more.files == {"he": "he.ome.tiff", "ihc": "ihc.ome.tiff"}
    assert (out / "he.ome.tiff").stat().st_mtime_ns == stamp
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    with pytest.raises(RestainError, match="other parameters"):
        make(seed=5)


@pytest.mark.slow
def test_another_seed_gives_other_islands(pair: SlideTruth) -> None:
    other = slide.SlidePair(SIZE, MPP, 5, MIXTURE, None, None, 0.35).plan
    assert not np.array_equal(other.islands[0].outline[:10], pair.plan.islands[0].outline[:10])


def test_the_slides_say_that_they_are_synthetic_and_how_large(pair: SlideTruth) -> None:
    for name, size in (("he", SIZE), ("ihc", pair.plan.deformation.target_size), ("ihc-registered", SIZE)):
        path = pair.folder / pair.files[name]
        notice = read_metadata(path)["notice"]
        assert "synthetic" in notice
        assert "never real" in notice
        with open_slide(path) as slide_file:
            assert slide_file.size == size
            assert slide_file.mpp == pytest.approx(MPP)
            assert not slide_file.faults
            assert len(slide_file.levels) > 1


def test_openslide_and_tifffile_see_the_same_levels(pair: SlideTruth) -> None:
    for name in ("he", "ihc"):
        path = pair.folder / pair.files[name]
        with openslide.OpenSlide(path) as seen, tifffile.TiffFile(path) as tiff:
            levels = tiff.series[0].levels
            assert [level.shape[1::-1] for level in levels] == list(seen.level_dimensions)
            small = levels[-1].asarray()
            other = np.asarray(seen.read_region((0, 0), len(levels) - 1, seen.level_dimensions[-1]).convert("RGB"))
            assert np.abs(small.astype(int) - other).max() <= 2


def test_the_truth_reads_back(pair: SlideTruth) -> None:
    again = read_slide_truth(pair.folder)
    assert again.plan.deformation == pair.plan.deformation
    assert again.parameters["seed"] == 4
    assert again.plan.level_shares == pair.plan.level_shares
    for a, b in zip(again.plan.islands, pair.plan.islands, strict=True):
        np.testing.assert_array_equal(a.outline, b.outline)
        assert a.level == b.level
    outlines = read_geojson(pair.folder / "truth.geojson")
    assert [p.area * MPP**2 / 1e6 for p in outlines] == pytest.approx([i.area_mm2 for i in pair.plan.islands])


def test_area_shares_are_those_requested(pair: SlideTruth) -> None:
    assert pair.plan.level_shares == pytest.approx(MIXTURE, abs=0.002)
    assert pair.plan.tissue_share == pytest.approx(0.35, abs=0.02)
    assert sum(pair.plan.tumour_area_shares.values()) == pytest.approx(1)


def test_tissue_is_found_where_the_truth_has_it(pair: SlideTruth) -> None:
    with open_slide(pair.folder / pair.files["he"]) as slide_file:
        found = tissue_mask(slide_file, 4.0)
    size = Size(found.mask.shape[1], found.mask.shape[0])
    true = rasterize([Polygon(i.outline) for i in pair.plan.islands], size, found.mpp / MPP)
    inked = rasterize([Polygon(mark.outline) for mark in pair.plan.pens], size, found.mpp / MPP)
    plain = ~ndimage.binary_dilation(inked, iterations=12)
    both, either = (found.mask & true & plain).sum(), ((found.mask | true) & plain).sum()
    assert both / either > 0.9


def test_glass_has_one_colour(pair: SlideTruth) -> None:
    image = pixels(pair, "he")
    edge = np.concatenate([image[:12].reshape(-1, 3), image[-12:].reshape(-1, 3)])
    colour, count = np.unique(edge, axis=0, return_counts=True)
    assert count.max() > 0.98 * len(edge)
    assert (colour[count.argmax()] < 255).any()


def mapped(deformation: Deformation, points: np.ndarray) -> np.ndarray:
    """Rows and columns of the IHC picture, as ``map_coordinates`` takes them."""
    return deformation.forward(points)[:, ::-1].T - 0.5


def test_the_true_deformation_brings_both_slides_together(pair: SlideTruth) -> None:
    smooth = 1.5
    he = ndimage.gaussian_filter(hematoxylin_density(pixels(pair, "he"), pair.appearance["he"]["white"]), smooth)
    ihc = ndimage.gaussian_filter(
        ihc_hematoxylin(pixels(pair, "ihc"), np.array(pair.appearance["ihc"]["white"])), smooth
    )
    plan = pair.plan
    zero = next(i for i in plan.islands if i.level == Her2Level.ZERO)
    keep = rasterize([Polygon(zero.outline)], SIZE, 1.0)
    marked = [*(m.outline for m in plan.pens), *(f.outline for f in (*plan.folds_he, *plan.folds_ihc))]
    assert plan.deformation.missing is not None
    marked.append(np.array(plan.deformation.missing))
    keep &= ~rasterize([Polygon(ring) for ring in marked], SIZE, 1.0)
    rows, columns = np.nonzero(ndimage.binary_erosion(keep, iterations=8))
    at = np.stack([columns, rows], axis=1) + 0.5

    def correlation(where: np.ndarray) -> float:
        return float(np.corrcoef(he[rows, columns], ndimage.map_coordinates(ihc, where, order=1))[0, 1])

    exact = correlation(mapped(pair.plan.deformation, at))
    assert exact > 0.75
    # The same turn and shift without the smooth part, and a few µm beside the truth, are worse than the truth.
    assert correlation(mapped(replace(pair.plan.deformation, waves=()), at)) < exact - 0.4
    for shift in ((3, 0), (0, 3), (-3, -3)):
        assert correlation(mapped(pair.plan.deformation, at + np.array(shift) / MPP)) < exact - 0.2


def test_a_turned_and_mirrored_slide_is_the_registered_one_moved(tmp_path: Path) -> None:
    distortion = Distortion(rotation_deg=100, mirror=True, scale=0.97, missing=False)
    turned = write(tmp_path / "turned", size=SMALL, mixture=ALONE, registered=True, deformation=distortion)
    still, moved = (
        ndimage.gaussian_filter(pixels(turned, n)[..., 1].astype(float), 1) for n in ("ihc-registered", "ihc")
    )
    rows, columns = np.nonzero(rasterize([Polygon(turned.plan.islands[0].outline)], SMALL, 1.0))
    where = mapped(turned.plan.deformation, np.stack([columns, rows], axis=1) + 0.5)
    found = ndimage.map_coordinates(moved, where, order=1, mode="nearest")
    assert np.corrcoef(found, still[rows, columns])[0, 1] > 0.97


def test_missing_piece_and_gap_are_glass(pair: SlideTruth) -> None:
    image = pixels(pair, "ihc").astype(int)
    white = np.round(pair.appearance["ihc"]["white"])
    deformation = pair.plan.deformation
    tear, missing = deformation.tear, deformation.missing
    assert tear is not None
    assert missing is not None
    middle = np.mean(missing, axis=0)[None]
    in_gap = deformation.forward(np.array([[tear.start, tear.end]]).mean(axis=1) + 1e-6 * tear.normal)
    # The lip is half the opening from the middle of the gap.
    in_gap = in_gap - deformation.matrix @ tear.normal * tear.opening / 2
    for x, y in np.concatenate([deformation.forward(middle), in_gap]):
        patch = image[round(y) - 4 : round(y) + 4, round(x) - 4 : round(x) + 4]
        assert np.abs(patch - white).max() <= 3


@pytest.mark.parametrize("level", list(Her2Level))
def test_an_island_reads_as_its_level(level: Her2Level) -> None:
    job = slide.SlidePair(SIZE, MPP, 6, {level: 1.0}, None, 1, 0.45)
    renderer = TileRenderer(job.plan, job.grow(Steps(1)), *job.appearances, 256)
    x, y = job.plan.islands[0].outline.mean(axis=0)
    column, row = int(x / 256 - 0.5), int(y / 256 - 0.5)
    appearance = job.appearances[1]
    image, true = (
        np.concatenate([np.concatenate([make(r, c) for c in (column, column + 1)], 1) for r in (row, row + 1)])
        for make in (lambda r, c: renderer.tile("ihc-registered", r, c), lambda r, c: renderer._cut(r, c)[..., 1])
    )
    white = np.array(appearance.white)
    hematoxylin = ihc_hematoxylin(image, white)
    seen = np.maximum(unmix(optical_density(image, white), appearance.vectors)[..., 1], 0)
    assert rule_level(true, hematoxylin, MPP) == level
    assert rule_level(seen, hematoxylin, MPP) == level


def test_dab_truth_is_that_of_the_registered_slide(pair: SlideTruth) -> None:
    appearance = pair.appearance["ihc"]
    found = unmix(optical_density(pixels(pair, "ihc-registered"), appearance["white"]), appearance["vectors"])[..., 1]
    coarse = found[:1200, :1500].reshape(300, 4, 375, 4).mean(axis=(1, 3))
    true = pixels(pair, "dab") * 1e-4
    assert true.shape == (300, 375)
    assert np.abs(coarse - true).mean() < 0.01
    assert np.corrcoef(coarse.ravel(), true.ravel())[0, 1] > 0.99


def test_tile_borders_do_not_show() -> None:
    """Across the borders of tiles the tissue changes as much as elsewhere, and much less than between unrelated tiles."""
    job = slide.SlidePair(SIZE, MPP, 4, MIXTURE, None, None, 0.35)
    quilt = TileRenderer(job.plan, job.grow(Steps(1)), *job.appearances, 256)._quilt
    tiles = [[quilt.tile(1, row, column)[:3].astype(float) for column in range(3)] for row in range(3)]
    joined = np.concatenate([np.concatenate(line, axis=2) for line in tiles], axis=1)
    for axis in (1, 2):
        steps = np.abs(np.diff(joined, axis=axis)).mean(axis=(0, 3 - axis))
        assert steps[[255, 511]].mean() < steps.mean() + 3 * steps.std()
        unrelated = np.abs(tiles[0][0].take(-1, axis) - tiles[2][1].take(0, axis)).mean()
        assert steps[[255, 511]].mean() < 0.5 * unrelated


@given(seed=st.integers(0, 10_000), pinned=st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_joint_is_the_cheapest_path(seed: int, pinned: bool) -> None:
    cost = np.random.default_rng(seed).random((5, 5), dtype=np.float32)
    paths = [
        path
        for path in itertools.product(range(5), repeat=5)
        if np.abs(np.diff(path)).max() <= 1 and (not pinned or path[0] == path[-1] == 2)
    ]

    def price(path: Sequence[int]) -> float:
        return float(sum(cost[i, at] for i, at in enumerate(path) if not (pinned and i == 0)))

    found = _cheapest_path(cost, pinned)
    assert tuple(found) in paths
    assert price(list(found)) == pytest.approx(min(map(price, paths)), rel=1e-5)


def test_memory_does_not_grow_with_the_slide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restain.phantom.quilting._CACHED", 3)
    monkeypatch.setattr("restain.phantom.slide_tiles._SECTIONS", 3)

    def peak(size: Size) -> int:
        job = slide.SlidePair(size, MPP, 4, {Her2Level.THREE: 1.0}, None, 2, 0.3)
        textures = slide.SlidePair(SIZE, MPP, 4, MIXTURE, None, None, 0.35).grow(Steps(1))
        tracemalloc.start()
        try:
            renderer = TileRenderer(job.plan, textures, *job.appearances, 256)
            for row, column in slide._order((-(-size.height // 256), -(-size.width // 256))):
                renderer.tile("he", row, column)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(Size(2000, 800)) < 1.1 * peak(Size(1000, 800))


def test_the_order_visits_every_tile_once() -> None:
    visited = list(slide._order((5, 19)))
    assert len(visited) == len(set(visited)) == 5 * 19


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mpp": 5.0}, "mpp must lie"),
        ({"size": Size(100, 100)}, "too small"),
        ({"mixture": {Her2Level.ZERO: 0.0}}, "mixture"),
        ({"tissue_share": 0.95}, "share of tissue"),
        ({"islands": 1}, "as many islands"),
        ({"seed": -1}, "seed"),
        ({"deformation": Distortion(elastic_um=500)}, "fold"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=words):
        write(tmp_path / "pair", **options)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RestainError, match="not empty"):
        write(tmp_path)
    with pytest.raises(RestainError, match="no finished phantom slide"):
        read_slide_truth(tmp_path)
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(RestainError, match="not the truth"):
        read_slide_truth(tmp_path)


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "slide"
    words = [
        "phantom-slide",
        str(out),
        "--size",
        "1200x1000",
        "--mpp",
        "0.5",
        "--seed",
        "4",
        "--rotate",
        "30",
        "--no-ihc",
    ]
    result = CliRunner().invoke(app, [*words, "--mixture", "0=0.3,3+=0.7"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "never real" in result.stdout
    truth = read_slide_truth(out)
    assert truth.plan.size == Size(1200, 1000)
    assert set(truth.files) == {"he"}
    assert truth.plan.deformation.rotation_deg == 30
    with open_slide(out / "he.ome.tiff") as slide_file:
        assert slide_file.read(Region(Point(0, 0), Size(10, 10)), 0.5).shape == (10, 10, 3)


@pytest.mark.parametrize(
    "words",
    [
        ["--size", "20000"],
        ["--mixture", "0:0.3"],
        ["--mixture", "0=a"],
        ["--mixture", "0=0.3,0=0.7"],
        ["--mixture", "5+=1"],
        ["--shift", "12"],
        ["--level", "2+", "--mixture", "0=1"],
    ],
)
def test_command_refuses(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(RestainError):
        CliRunner().invoke(app, ["phantom-slide", str(tmp_path / "x"), *words], catch_exceptions=False)
    assert not (tmp_path / "x").exists()
