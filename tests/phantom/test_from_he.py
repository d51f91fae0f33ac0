"""The phantom from real H&E: pixels kept, cells found, the IHC rendered from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.errors import RestainError
from restain.her2 import Her2Level, asco_cap_level
from restain.optics import dab_density
from restain.phantom import PhantomPair, make_pair, pair_from_image, read_record, write_phantom
from restain.phantom.expression import read_expression
from restain.phantom.from_he import FoundTissue, find_images, find_tissue
from restain.phantom.from_pair import write_rendered_pairs
from restain.slides import read_image

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two H&E pictures, one a JPEG under a PNG's name and one a TIFF."""
    folder = tmp_path_factory.mktemp("he")
    Image.fromarray(make_pair(1, 0, Her2Level.ONE, size=300).he).save(folder / "a.png", "JPEG", quality=95)
    tifffile.imwrite(folder / "b.tif", make_pair(1, 1, Her2Level.THREE, size=300).he)
    return folder


def test_he_pixels_are_kept_exactly(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = write_phantom(out, pairs=4, size=200, test_share=0.5, from_he=[pictures], seed=3)
    assert summary.pairs == 4
    sources: dict[str, set[str]] = {"train": set(), "test": set()}
    for truth in sorted((out / "truth").rglob("*.tif")):
        record = read_record(truth)
        x, y = record["corner_px"]
        split = truth.parent.name
        source = read_image(Path(record["source"]))
        written = np.asarray(Image.open(out / "HE" / split / f"{truth.stem}.png"))
        np.testing.assert_array_equal(written, source[y : y + 200, x : x + 200])
        sources[split].add(record["source"])
        tumour = [cell for cell in record["cells"] if cell[2] == "tumour"]
        level = asco_cap_level([cell[4] for cell in tumour], [cell[5] for cell in tumour])
        assert level.text == truth.stem.rsplit("_", 1)[1]
    assert sources["train"].isdisjoint(sources["test"])


@pytest.fixture(scope="module")
def found() -> list[tuple[PhantomPair, FoundTissue]]:
    """Known tissue of each level, and what is found in its H&E."""
    known = [make_pair(11, int(level), level, size=360) for level in Her2Level]
    return [(pair, find_tissue(pair.he, 0.46, np.random.default_rng(0))) for pair in known]


@pytest.mark.parametrize("level", list(Her2Level))
def test_cells_of_known_tissue_are_found(found: list[tuple[PhantomPair, FoundTissue]], level: Her2Level) -> None:
    true, seen = found[level]
    assert len(seen.cells.tumour) == pytest.approx(len(true.cells.tumour), rel=0.35)
    y, x = true.cells.tumour.y.astype(int), true.cells.tumour.x.astype(int)
    assert (seen.territory[y, x] > 0).mean() > 0.8


def test_found_scores_follow_the_level(found: list[tuple[PhantomPair, FoundTissue]]) -> None:
    means = [float(seen.cells.tumour.score.mean()) for _, seen in found]
    assert means == sorted(means)
    true = [float(pair.cells.tumour.score.mean()) for pair, _ in found]
    assert means == pytest.approx(true, abs=0.7)


def test_a_picture_is_resampled_when_its_pixel_size_is_given() -> None:
    picture = make_pair(5, 0, Her2Level.TWO, size=300).he
    pair = pair_from_image(picture, "p", 0, 0, size=200, mpp=0.46, image_mpp=0.40)
    assert pair.he.shape == (200, 200, 3)
    same = pair_from_image(picture, "p", 0, 0, size=200, mpp=0.46, image_mpp=0.46)
    x, y = same.record["corner_px"]
    np.testing.assert_array_equal(same.he, picture[y : y + 200, x : x + 200])


def test_scores_follow_the_spots_and_not_the_nuclei(tmp_path: Path) -> None:
    picture = make_pair(11, 3, Her2Level.THREE, size=360).he
    Image.fromarray(picture).save(tmp_path / "a.png")
    lines = ["spot,x_px,y_px,total,ERBB2,EPCAM"]
    for n in range(24):
        x, y = 30 + 100 * (n % 4), 30 + 60 * (n // 4)
        lines.append(f"s{n},{x},{y},1000,{400 if x > 180 else n % 4},50")
    (tmp_path / "a.csv").write_text("\n".join(lines))
    # At 4 µm per px as the spots' scale, counts reach no further than 30 px.
    summary = write_phantom(
        tmp_path / "out", pairs=1, size=360, test_share=0, from_he=[tmp_path / "a.png"], spots=[tmp_path / "a.csv"]
    )
    assert summary.cells > 20
    expression = read_expression(tmp_path / "a.csv", 4.0)
    score, epithelium = expression.scores(np.array([[30.0, 200.0], [330.0, 200.0]]))
    assert score[0] <= 1
    assert score[1] >= 2
    assert epithelium.all()
    with pytest.raises(RestainError, match="Each H&E image needs its spots"):
        write_phantom(tmp_path / "no", pairs=1, test_share=0, spots=[tmp_path / "a.csv"])


def test_a_rendered_pair_has_the_stain_where_the_real_one_has_it_and_lies_on_its_cells(tmp_path: Path) -> None:
    pair = make_pair(11, 3, Her2Level.THREE, size=360)
    # The real IHC is stained on its left half only, and its section lies 12 px further down.
    real = np.roll(np.where(np.arange(360)[None, :, None] < 180, pair.ihc, 245), 12, axis=0).astype(np.uint8)
    for folder, image in (("valA", pair.he), ("valB", real)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "set" / folder / "S1_1.png")
    assert write_rendered_pairs([tmp_path / "set"], tmp_path / "out") == 1
    np.testing.assert_array_equal(read_image(tmp_path / "out/set/valA/S1_1.png"), pair.he)
    dab = dab_density(read_image(tmp_path / "out/set/valB/S1_1.png"), 240.0)
    assert dab[:, :150].mean() > 5 * dab[:, 210:].mean()
    left = np.s_[:, :150]
    assert np.corrcoef(dab[left].ravel(), pair.dab[left].ravel())[0, 1] > 0.3


def test_a_picture_without_nuclei_gives_level_zero() -> None:
    pink = np.full((200, 200, 3), (225, 170, 200), np.uint8)
    pink[:40] = 240
    pair = pair_from_image(pink, "pink", 0, 0, size=200)
    assert pair.level == Her2Level.ZERO
    assert pair.dab.max() == 0


def test_what_is_no_picture_is_one_sentence(tmp_path: Path) -> None:
    fake = tmp_path / "slide.png"
    fake.write_text("not an image at all")
    with pytest.raises(RestainError, match=r"slide\.png holds no image that restain reads") as caught:
        write_phantom(tmp_path / "out", pairs=1, test_share=0, from_he=[fake])
    assert "\n" not in str(caught.value)
    broken = tmp_path / "cut.tif"
    broken.write_bytes(b"II*\0\x08\0\0\0\xff\xff")
    with pytest.raises(RestainError, match=r"cut\.tif"):
        read_image(broken)
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((64, 64), np.uint16))
    with pytest.raises(RestainError, match="16-bit grey-scale"):
        read_image(tmp_path / "deep.tif")


def test_unusable_images_are_named(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(RestainError, match="does not exist"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(RestainError, match="holds no image"):
        find_images([tmp_path])
    Image.fromarray(np.full((300, 300, 3), 243, np.uint8)).save(tmp_path / "glass.png")
    with pytest.raises(RestainError, match=r"glass\.png has no crop"):
        write_phantom(tmp_path / "o1", pairs=1, size=200, test_share=0, from_he=[tmp_path / "glass.png"])
    with pytest.raises(RestainError, match="smaller than"):
        write_phantom(tmp_path / "o2", pairs=1, size=400, test_share=0, from_he=[pictures])
    with pytest.raises(RestainError, match="only H&E image"):
        write_phantom(tmp_path / "o3", pairs=4, size=200, test_share=0.5, from_he=[pictures / "a.png"])
    with pytest.raises(RestainError, match="Levels cannot be chosen"):
        write_phantom(tmp_path / "o4", pairs=2, size=200, levels=[Her2Level.ONE], from_he=[pictures])


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared sample images are not beside the checkout")
@pytest.mark.parametrize("name", ["bci_sample/HE/test", "mist_sample/valA", "slides/CMU-1-Small-Region.svs"])
def test_real_he_gives_an_ihc(name: str) -> None:
    path = find_images([SHARED / name])[0]
    pair = pair_from_image(read_image(path), path.name, 0, 0, size=400)
    assert len(pair.cells) > 50
    assert pair.dab.shape == (400, 400)
    assert np.isfinite(pair.dab).all()
