import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from restain import NOTICE, RestainError
from restain.bundle import Bundle
from restain.geometry import Point, Region, Size
from restain.slides import Slide, TileStore, open_slide, read_geojson, read_image, read_metadata
from restain.slides.store_view import StoreView
from restain.stain import Model, Provenance, StainedSlide, StainOptions, stain_slide
from restain.stain.area import rectangle
from restain.stain.figures import SlideFigures


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model(bundle)


@pytest.fixture(scope="module")
def white(model: Model) -> np.ndarray:
    return np.rint(model.own_white)


@pytest.fixture(scope="module")
def stained(slide: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> StainedSlide:
    return stain_slide(slide, tmp_path_factory.mktemp("out"), model, model.options.having(dab=True))


def pixels(path: Path) -> np.ndarray:
    return tifffile.imread(path, key=0)


def test_the_result_is_a_slide_that_every_reader_opens_with_scale_and_origin(
    stained: StainedSlide, slide: Path, bundle: Bundle
) -> None:
    with open_slide(stained.path) as opened:
        assert opened.size == Size(1500, 1100)
        assert opened.mpp == pytest.approx(0.5)
        assert len(opened.levels) == 3
    with openslide.OpenSlide(stained.path) as other:
        assert other.level_dimensions == ((1500, 1100), (750, 550), (375, 275))
    text = read_metadata(stained.path)
    assert text["notice"] == NOTICE
    assert text["bundle_hash"] == bundle.card.hash
    assert text["source"] == slide.name
    assert text["ood"] == "unknown"
    assert Provenance.from_metadata(text) == stained.provenance
    assert json.loads(stained.report.read_bytes())["provenance"] == {
        key: value for key, value in text.items() if key != "holes"
    }
    assert SlideFigures.read(stained.report) == stained.figures


def test_glass_has_the_models_white_and_no_dab(stained: StainedSlide, white: np.ndarray) -> None:
    rgb, dab = pixels(stained.path), pixels(stained.dab)
    for corner in (np.s_[:60, :60], np.s_[-60:, :60], np.s_[:60, -60:]):
        assert np.abs(rgb[corner].astype(int) - white).max() <= 1
        assert (dab[corner] == 0).all()
    assert dab.shape == rgb.shape[:2]
    assert dab.max() > 0
    assert read_geojson(stained.tissue)
    assert stained.figures.tissue_mm2 == pytest.approx(np.pi * 1.5 * 1.1 / 4 * (0.28 * 0.22 + 0.3 * 0.18), rel=0.15)


@pytest.mark.slow
def test_a_finished_result_is_kept_until_something_that_decides_it_changes(
    slide: Path, model: Model, tmp_path: Path
) -> None:
    first = stain_slide(slide, tmp_path, model)
    stamp = first.path.stat().st_mtime_ns
    again = stain_slide(slide, tmp_path, model)
    assert (again.kept, again.path.stat().st_mtime_ns, again.figures) == (True, stamp, first.figures)
    other = stain_slide(
        slide, tmp_path, model, model.options.having(roi=(rectangle(Region(Point(0, 0), Size(700, 700))),))
    )
    assert not other.kept
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "block_1.ome.tiff",
        "block_1.stain.json",
        "block_1.tissue.geojson",
    ]


def test_outside_the_region_of_interest_tissue_is_grey_and_glass_is_glass(
    slide: Path, model: Model, stained: StainedSlide, white: np.ndarray, tmp_path: Path
) -> None:
    options = model.options.having(dab=True, roi=(rectangle(Region(Point(300, 250), Size(200, 100))),))
    result = stain_slide(slide, tmp_path, model, options)
    rgb, dab = pixels(result.path).astype(int), pixels(result.dab)
    full = pixels(stained.path).astype(int)
    inside = np.s_[262:338, 312:488]  # JPEG bleeds over the edge
    assert np.abs(rgb[inside] - full[inside]).mean() < 4
    assert np.abs(rgb[600:700, 1050:1200] - 200).max() < 6
    assert (dab[600:700, 1050:1200] == 0).all()
    assert np.abs(rgb[:60, :60] - white).max() <= 1
    with pytest.raises(RestainError, match="holds no tissue"):
        stain_slide(slide, tmp_path, model, replace(options, roi=(rectangle(Region(Point(0, 0), Size(50, 50))),)))


class Torn(Slide):
    """A slide of which one place cannot be decoded."""

    def __init__(self, of: Slide) -> None:
        super().__init__(of._source)

    def read(self, region: Region, mpp: float) -> np.ndarray:
        if mpp < 4 and region.origin.x <= 400 < region.right and region.origin.y <= 400 < region.bottom:
            raise RestainError(f"{self.path} is truncated or damaged: a tile cannot be decoded.")
        return super().read(region, mpp)


@pytest.mark.slow
def test_what_cannot_be_read_is_a_marked_hole_or_with_strict_the_end(
    slide: Path, model: Model, white: np.ndarray, tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(RestainError, match=r"block_1\.ome\.tiff is truncated"):
        stain_slide(Torn(open_slide(slide)), tmp_path, model, StainOptions(strict=True))
    assert not (tmp_path / "block_1.ome.tiff").exists()
    result = stain_slide(Torn(open_slide(slide)), tmp_path, model, warn=said.append)
    (hole,) = result.figures.holes
    assert (hole.x, hole.y, hole.width, hole.height) == (0, 0, 512, 512)
    assert "cannot be decoded" in hole.reason
    assert json.loads(read_metadata(result.path)["holes"]) == [list(asdict(hole).values())]
    assert any("marked holes" in sentence for sentence in said)
    rgb = pixels(result.path)
    assert np.abs(rgb[250:262, 250:262].astype(int)).mean() < 60  # the arms of the cross
    assert np.abs(rgb[:60, -60:].astype(int) - white).max() <= 1


def test_a_slide_of_glass_alone_is_refused_unless_all_is_wanted_and_a_picture_is_glass(
    model: Model, write_slide: Callable[..., Path], white: np.ndarray, tmp_path: Path
) -> None:
    glass = np.full((700, 700, 3), 240, np.uint8)
    slide = write_slide(tmp_path / "glass.ome.tiff", glass)
    with pytest.raises(RestainError, match="no tissue was found; --everywhere"):
        stain_slide(slide, tmp_path / "out", model)
    assert stain_slide(slide, tmp_path / "out", model, model.options.having(everywhere=True)).path.is_file()
    Image.fromarray(glass).save(tmp_path / "picture.png")
    said: list[str] = []
    made = stain_slide(
        tmp_path / "picture.png", tmp_path / "out", model, model.options.having(mpp=0.5), warn=said.append
    )
    assert any("no tissue was found" in sentence for sentence in said)
    assert (read_image(made.path) == white).all()


@pytest.mark.slow
def test_the_source_is_never_overwritten_and_dab_never_invented(
    slide: Path, model: Model, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    copy = Path(shutil.copy(slide, tmp_path / "a.ome.tiff"))
    before = copy.read_bytes()
    with pytest.raises(RestainError, match="overwrite its source"):
        stain_slide(copy, tmp_path, model)
    assert copy.read_bytes() == before
    rgb_model = Model(make_bundle(tmp_path / "rgb", output="rgb"))
    with pytest.raises(RestainError, match="no stain output"):
        stain_slide(slide, tmp_path / "out", rgb_model, StainOptions(dab=True))
    assert stain_slide(slide, tmp_path / "out", rgb_model).path.is_file()


@pytest.mark.slow
def test_two_processes_never_write_one_slide(slide: Path, model: Model, tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from restain.geometry import Size; "
        "from restain.slides import TileStore; "
        "s = TileStore.open(Path(sys.argv[1]), {}, Size(9, 9), 512, 'rgb'); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, tmp_path / "block_1.rgb.part"], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RestainError, match="in use by another process"):
            stain_slide(slide, tmp_path, model)
        other.kill()
    assert stain_slide(slide, tmp_path, model).path.is_file()


JOB = """
import sys
from pathlib import Path
from restain.stain import StainOptions, load, stain_slide
slide, out, bundle = map(Path, sys.argv[1:])
stain_slide(slide, out, load(bundle), StainOptions(dab=True),
            progress=lambda done, total: print(done, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_killed_at_any_moment_it_resumes_with_the_same_result(
    seed: int, slide: Path, bundle: Bundle, stained: StainedSlide, tmp_path: Path
) -> None:
    moments = random.Random(seed)
    kept = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", JOB, slide, tmp_path, bundle.path], stdout=subprocess.PIPE, text=True
        ) as job:
            last = moments.randint(150, 980)
            assert job.stdout is not None
            for line in job.stdout:
                if int(line) >= last:
                    break
            job.kill()
        kept = max(kept, StoreView(tmp_path / "block_1.rgb.part").refresh())
        assert not (tmp_path / "block_1.stain.json").exists() or (tmp_path / "block_1.ome.tiff").exists()
    assert kept > 0
    subprocess.run([sys.executable, "-c", JOB, slide, tmp_path, bundle.path], check=True, stdout=subprocess.PIPE)
    for name in ("block_1.ome.tiff", "block_1.dab.ome.tiff"):
        with tifffile.TiffFile(tmp_path / name) as got, tifffile.TiffFile(stained.path.parent / name) as wanted:
            for a, b in zip(got.pages, wanted.pages, strict=True):
                assert a.databytecounts == b.databytecounts
                np.testing.assert_array_equal(a.asarray(), b.asarray())
    texts = [read_metadata(folder / "block_1.ome.tiff") for folder in (tmp_path, stained.path.parent)]
    assert {k: v for k, v in texts[0].items() if k != "created"} == {
        k: v for k, v in texts[1].items() if k != "created"
    }
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_a_store_of_other_options_is_not_resumed(slide: Path, model: Model, white: np.ndarray, tmp_path: Path) -> None:
    with TileStore.open(tmp_path / "block_1.rgb.part", {"bundle": "other"}, Size(1500, 1100), 512, "rgb") as store:
        for row in range(3):
            for column in range(3):
                store.put_blank(row, column, (255, 0, 0))
    rgb = pixels(stain_slide(slide, tmp_path, model).path)
    assert np.abs(rgb[:60, :60].astype(int) - white).max() <= 1
