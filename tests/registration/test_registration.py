"""Registration of phantom pairs whose deformation is known, and of pairs that do not belong together."""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from restain.cli import app
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.phantom import make_pair
from restain.registration import (
    Registration,
    Transform,
    Verdict,
    acceptance,
    read_transform,
    register_images,
    slide_of,
    warp_region,
)
from restain.registration.acceptance import ACCEPTED_FROM, DOUBTFUL_FROM, judge
from restain.registration.affine import InitialAlignment
from restain.registration.block_matching import best_shifts, correlations
from restain.registration.correlation import prominence
from restain.registration.fitting import robust_affine, smooth_field
from restain.registration.output import register_files
from restain.registration.register import align
from restain.slides import tissue_of

SIDE, MPP = 256, 3.0
TEAR, LOST, LOST_PX = 110.0, (180.0, 150.0), 16.0
"""In px of the H&E section: where the other one is torn, downwards from its border; middle and radius of the piece that it lost."""
POINTS = np.array([[80.0, 100.0], [170.0, 150.0], [128.0, 128.0]])
Rgb = NDArray[np.uint8]


@cache
def sections(seed: int) -> tuple[Rgb, Rgb]:
    """An H&E and an IHC section of one piece of phantom tissue on glass."""
    pair = make_pair(seed, 0, Her2Level.TWO, size=SIDE, mpp=MPP)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    wave = 0.05 * np.sin(9 * columns + seed) + 0.04 * np.sin(13 * rows + 2 * seed)
    island = ndimage.gaussian_filter(((columns / 0.42) ** 2 + ((rows + wave) / 0.34) ** 2 < 1).astype(float), 0.7)
    he, ihc = (np.rint(246 + island[..., None] * (rgb - 246.0)).astype(np.uint8) for rgb in (pair.he, pair.ihc))
    return he, ihc


def turned(
    rgb: Rgb, degrees: float, mirrored: bool, wave_px: float = 0.0, tear_px: float = 0.0
) -> tuple[Rgb, NDArray[np.float64]]:
    """The section on another slide, and where each of its pixels comes from, ``(SIDE, SIDE, 2)`` (x, y).

    A tear of ``tear_px`` gapes at the section's upper border at :data:`TEAR` and narrows to its middle; a torn section has also
    lost the piece about :data:`LOST`.
    """
    a = math.radians(degrees)
    matrix = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) @ np.diag([-1 if mirrored else 1, 1])
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    source = np.stack([x, y], axis=-1) @ matrix.T + (SIDE / 2 - matrix @ (SIDE / 2, SIDE / 2)) + (5.0, -3.0)
    source = source + wave_px * np.stack([np.sin(source[..., 1] / 30), np.cos(source[..., 0] / 35)], axis=-1)
    gape = tear_px * np.clip(1 - source[..., 1] / (0.5 * SIDE), 0, 1)
    glass = (source[..., 0] > TEAR) & (source[..., 0] < TEAR + gape)
    source[..., 0] -= np.where(source[..., 0] > TEAR, gape, 0)
    if tear_px > 0:
        glass |= np.hypot(source[..., 0] - LOST[0], source[..., 1] - LOST[1]) < LOST_PX
    at = source[..., ::-1].transpose(2, 0, 1) - 0.5
    planes = [ndimage.map_coordinates(rgb[..., i].astype(float), at, order=1, cval=246) for i in range(3)]
    return np.rint(np.where(glass[..., None], 246, np.stack(planes, axis=-1))).astype(np.uint8), source


def errors(found: Registration, he: Rgb, source: NDArray[np.float64], affine: bool = False) -> NDArray[np.float64]:
    """Distances in px, over tissue that both have whole, from where a point of the H&E section came to lie to where it is said to."""
    transform = found.affine if affine else found.transform
    points = np.argwhere(tissue_of(he, MPP).mask)[::17, ::-1] + 0.5
    beside = (np.abs(points[:, 0] - TEAR) < 20) & (points[:, 1] < SIDE / 2)
    points = points[~beside & (np.hypot(*(points - LOST).T) > LOST_PX + 6)]
    there = transform.forward(points)
    inside = ((there > 1) & (there < SIDE - 1)).all(axis=1)
    back = [ndimage.map_coordinates(source[..., i], there[inside, ::-1].T - 0.5, order=1) for i in (0, 1)]
    return np.hypot(*(np.stack(back, axis=1) - points[inside]).T)


@pytest.fixture(scope="module")
def torn() -> tuple[Registration, Rgb, Rgb, NDArray[np.float64]]:
    """Registered: a section that is turned, mirrored, bent, torn, and has lost a piece."""
    he, ihc = sections(1)
    moving, source = turned(ihc, 140.0, True, wave_px=1.5, tear_px=5.0)
    return register_images(he, moving, MPP), he, moving, source


@pytest.mark.slow
def test_a_turned_mirrored_bent_and_torn_section_is_found(
    torn: tuple[Registration, Rgb, Rgb, NDArray[np.float64]],
) -> None:
    found, he, _, source = torn
    assert found.initial.mirrored
    assert np.percentile(errors(found, he, source, affine=True), 95) < 4
    error = errors(found, he, source)
    assert np.median(error) < 0.5
    assert np.percentile(error, 95) < 1.5
    assert np.median(error) < 0.7 * np.median(errors(found, he, source, affine=True))
    assert found.transform.folding().folded_share == 0
    assert np.nanmedian(found.quality.error) < MPP


@pytest.mark.slow
def test_the_warped_section_lies_on_the_fixed_one(torn: tuple[Registration, Rgb, Rgb, NDArray[np.float64]]) -> None:
    found, he, moving, _ = torn
    slide = slide_of(moving, MPP)
    whole = Region(Point(0, 0), Size(SIDE, SIDE))
    warped = warp_region(slide, found.transform, whole, MPP)
    truth = sections(1)[1]
    tissue = ndimage.binary_erosion(tissue_of(he, MPP).mask, iterations=12)
    # Two interpolations blur single nuclei, which are three pixels wide here.
    seen = [ndimage.gaussian_filter(rgb.mean(axis=-1), 1.5)[tissue] for rgb in (warped, moving, truth)]
    assert np.corrcoef(seen[0], seen[2])[0, 1] > 0.9
    assert np.corrcoef(seen[1], seen[2])[0, 1] < 0.4
    # Any part is read as it is in the whole.
    part = Region(Point(70, 40), Size(64, 56))
    np.testing.assert_allclose(
        warp_region(slide, found.transform, part, MPP).astype(int), warped[part.slices].astype(int), atol=1
    )
    beyond = warp_region(slide, found.transform, Region(Point(5000, 0), Size(8, 8)), MPP, outside=(1, 2, 3))
    assert (beyond == (1, 2, 3)).all()


@pytest.mark.slow
def test_a_section_bent_far_beyond_its_affine_map_is_followed() -> None:
    he, ihc = sections(1)
    moving, source = turned(ihc, -20.0, False, wave_px=8.0)
    found = register_images(he, moving, MPP)
    assert np.percentile(errors(found, he, source, affine=True), 95) > 15
    # Once round, without a look at finer detail, it ends at 0.6 and 1.9 px.
    error = errors(found, he, source)
    assert np.median(error) < 0.3
    assert np.percentile(error, 95) < 1.0


@pytest.mark.slow
def test_files_without_a_scale_in_and_a_finished_result_is_kept(tmp_path: Path) -> None:
    he, ihc = sections(1)
    Image.fromarray(he).save(tmp_path / "he.png")
    Image.fromarray(ihc).resize((205, 205), Image.Resampling.BOX).save(tmp_path / "ihc.png")
    seen: list[int] = []
    pair = (tmp_path / "he.png", tmp_path / "ihc.png", tmp_path / "out")
    report = register_files(*pair, elastic=False, progress=lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == 1000
    names = {"transform.json", "report.json", "checkerboard.png", "overlay.png", "error-map.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content.pop("identity")
    assert content == asdict(report)
    transform = read_transform(tmp_path / "out")
    np.testing.assert_allclose(transform.forward(POINTS), POINTS * 205 / 256, atol=1.5)
    assert transform.fixed_mpp is None
    stamp = (tmp_path / "out" / "report.json").stat().st_mtime_ns
    assert register_files(*pair, elastic=False) == report
    assert (tmp_path / "out" / "report.json").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_sections_of_different_blocks_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    Image.fromarray(sections(1)[0]).save(tmp_path / "he.png")
    Image.fromarray(turned(sections(2)[1], 20.0, False)[0]).save(tmp_path / "ihc.png")
    with pytest.raises(RestainError, match="do not show the same tissue") as refused:
        register_files(tmp_path / "he.png", tmp_path / "ihc.png", tmp_path / "out", mpps=(MPP, MPP), elastic=False)
    assert f"{tmp_path / 'he.png'} and {tmp_path / 'ihc.png'}" in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_shared_tissue_stands_out_and_sections_in_place_need_no_search() -> None:
    he, ihc = sections(1)
    seen: list[int] = []
    one, two, found = align(slide_of(he, MPP), slide_of(ihc, MPP), lambda done, _: seen.append(done))
    assert not seen
    assert found.unrotated
    assert judge(found) is Verdict.ACCEPTED
    np.testing.assert_allclose(found.transform.forward(POINTS), POINTS, atol=1)
    shifted = replace(found.transform, matrix=found.transform.matrix @ np.array([[1.0, 0, 6], [0, 1, -4], [0, 0, 1]]))
    back = prominence(one, two, shifted)
    assert back.shift == (-6, 4)
    other = replace(two, slide=slide_of(sections(2)[1], MPP))
    assert prominence(one, other, found.transform).value < 0.5 * back.value


def test_the_verdict_follows_the_limits() -> None:
    still = Transform(np.eye(3), Size(9, 9), Size(9, 9), 1.0, 1.0)
    turned_over = replace(still, matrix=np.diag([-1.0, 1.0, 1.0]))
    for patch, least in ACCEPTED_FROM.items():
        assert judge(InitialAlignment(turned_over, 1.01 * least, patch)) is Verdict.ACCEPTED
        assert judge(InitialAlignment(turned_over, 0.99 * least, patch)) is Verdict.DOUBTFUL
        assert judge(InitialAlignment(turned_over, 0.99 * DOUBTFUL_FROM, patch)) is Verdict.REFUSED
        assert judge(InitialAlignment(still, 0.99 * DOUBTFUL_FROM, patch)) is Verdict.DOUBTFUL


@pytest.mark.slow
def test_a_doubtful_pair_is_written_and_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "ACCEPTED_FROM", dict.fromkeys((True, False), 1e6))
    he, ihc, out = tmp_path / "he.png", tmp_path / "ihc.png", tmp_path / "out"
    for path, rgb in zip((he, ihc), sections(1), strict=True):
        Image.fromarray(rgb).save(path)
    mpps = ["--fixed-mpp", str(MPP), "--moving-mpp", str(MPP)]
    for _ in range(2):
        said = CliRunner().invoke(app, ["register", str(he), str(ihc), "-o", str(out), "--affine", *mpps])
        assert said.exit_code == 0
        assert "warning: he.png and ihc.png are a doubtful pair" in " ".join(said.stderr.split())
    assert json.loads((out / "report.json").read_text())["verdict"] == "doubtful"
    assert (out / "overlay.png").is_file()
    pair = ["build", str(he), str(ihc), "--level", "2+", "--mpp-he", str(MPP), "--mpp-ihc", str(MPP)]
    pair += ["--mpp", str(MPP), "--size", "64", "-o", str(tmp_path / "data"), "--rule", "fold=off"]
    said = CliRunner().invoke(app, pair)
    assert said.exit_code == 2
    assert "--accept doubtful uses the pair" in " ".join(said.stderr.split())
    assert "doubtful" in (tmp_path / "data" / "summary.csv").read_text()
    said = CliRunner().invoke(app, [*pair, "--accept", "doubtful"])
    assert said.exit_code == 0
    assert (tmp_path / "data" / "manifest.csv").read_text().count("he.png") > 0


def test_a_slide_without_tissue_is_refused() -> None:
    glass = np.full((128, 128, 3), 245, np.uint8)
    with pytest.raises(RestainError, match="the moving picture shows no tissue"):
        register_images(sections(1)[0], glass, MPP)


def restain(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "restain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.slow
def test_map_as_a_user_types_it(tmp_path: Path) -> None:
    (tmp_path / "affine.json").write_text("[[1, 0, 5], [0, 1, 7]]")
    (tmp_path / "points.csv").write_text("X,Y\n1,2\n")
    done = restain("map", tmp_path / "points.csv", "--transform", tmp_path / "affine.json", "-o", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text() == "X,Y\n6.0000,9.0000\n"
    failed = restain("map", tmp_path / "none.csv", "--transform", tmp_path / "affine.json", "-o", tmp_path / "out.csv")
    assert failed.returncode == 2
    assert "does not exist" in failed.stderr


def test_blocks_find_a_known_shift() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 160, 170))
    fixed = (5 * ndimage.gaussian_filter(noise, (0, 2, 2))).astype(np.float32)
    moving = ndimage.shift(fixed, (0, 3.0, -4.4), order=3)
    centres = np.array([[60, 60], [80, 70], [110, 95]])
    surfaces = correlations(fixed, moving, centres, 48, 8)
    assert surfaces.max() <= 1.0 + 1e-3
    match = best_shifts(surfaces.mean(axis=1))
    np.testing.assert_allclose(match.shift, np.tile([-4.4, 3.0], (3, 1)), atol=0.15)
    assert not match.edge.any()


def test_wrong_shifts_do_not_bend_the_field() -> None:
    places = np.argwhere(np.ones((12, 15), bool))
    truth = np.stack([0.3 * places[:, 1], np.sin(places[:, 0] / 6)], axis=1)
    rng = np.random.default_rng(0)
    shifts = truth.copy()
    wrong = rng.permutation(len(shifts))[:45]
    shifts[wrong] = rng.uniform(-20, 20, (45, 2))
    field, misfit = smooth_field((12, 15), places, shifts, np.ones(len(shifts)), 0.3, 1.5)
    assert np.abs(field.reshape(-1, 2) - truth).max() < 0.5
    assert np.median(misfit[wrong]) > 5
    matrix, _ = robust_affine(
        places.astype(float), np.where(misfit[:, None] > 5, 99.0, places * 2.0 + 1), np.ones(len(places)), 1.0
    )
    np.testing.assert_allclose(matrix, [[2, 0, 1], [0, 2, 1], [0, 0, 1]], atol=0.05)
