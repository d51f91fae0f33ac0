from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain import NOTICE, RestainError
from restain.bundle import Bundle
from restain.images import read_density, read_text
from restain.models.attention import ResidualAttentionBlock
from restain.models.survey import Survey
from restain.recipe import AttentionRecipe
from restain.slides import read_image
from restain.stain import Restainer, expand, stain_images


@pytest.fixture(scope="module")
def local_bundle(make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Without attention and white field, a pixel's result depends on its neighbourhood only."""
    return make_bundle(
        tmp_path_factory.mktemp("model") / "bundle",
        attention=AttentionRecipe(kind="none"),
        white="fixed",
        label_feature=False,
    )


def smooth_he(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(90, 250, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()


@pytest.mark.parametrize("size", [(300, 500), (132, 128), (128, 700), (40, 32)])
def test_tiled_equals_whole_where_nothing_is_global(local_bundle: Bundle, size: tuple[int, int]) -> None:
    he = smooth_he(*size)
    whole = Restainer(local_bundle, tile=1024, overlap=64)(he)
    tiled = Restainer(local_bundle, tile=128, overlap=96)(he)
    assert whole.rgb.shape == he.shape
    assert np.abs(whole.rgb.astype(int) - tiled.rgb).max() <= 2
    assert whole.dab is not None
    assert tiled.dab is not None
    np.testing.assert_allclose(whole.dab, tiled.dab, atol=0.02)


def test_attention_does_not_know_the_tiles(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", label_feature=False)
    for block in bundle.generator.modules():
        if isinstance(block, ResidualAttentionBlock):
            block.scale.data.fill_(3.0)  # so that it matters
    he = smooth_he(256, 640)
    survey = Survey(window=128)
    one = Restainer(bundle, tile=512, overlap=96, survey=survey)(he).rgb.astype(int)
    other = Restainer(bundle, tile=192, overlap=96, survey=survey)(he).rgb.astype(int)
    assert np.abs(one - other).max() <= 2
    alone = Restainer(bundle, tile=192, overlap=96, survey=None)(he).rgb.astype(int)
    assert np.abs(one - alone).max() > 4


def test_tiles_leave_no_seam(bundle: Bundle) -> None:
    he = smooth_he(256, 640)
    rgb = Restainer(bundle, tile=256, overlap=64)(he).rgb.astype(float)
    steps = np.abs(np.diff(rgb, axis=1)).mean(axis=(0, 2))
    borders = [192, 256, 384, 448]
    beside = np.delete(steps, [b + d for b in borders for d in (-1, 0)])
    for border in borders:
        assert steps[border - 1 : border + 1].max() <= beside.max() * 1.05


def test_a_file_comes_out_with_its_size_and_provenance(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(smooth_he(90, 70)).save(source, format="JPEG")
    target = stain_images([source], tmp_path / "out", Restainer(bundle), dab=True)[0]
    assert target == tmp_path / "out" / "a.png"
    assert read_image(target).shape == (90, 70, 3)
    text = read_text(target)
    assert text["notice"] == NOTICE
    assert text["bundle_hash"] == bundle.card.hash
    assert text["source"] == "a.png"
    assert len(text["source_sha256"]) == 64
    assert read_density(tmp_path / "out" / "a.dab.tif").shape == (90, 70)


def test_a_finished_result_is_kept_and_a_stale_one_is_not(bundle: Bundle, tmp_path: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(smooth_he(64, 64)).save(source)
    target = stain_images([source], out, Restainer(bundle))[0]
    first = target.read_bytes()
    stamp = target.stat().st_mtime_ns
    stain_images([source], out, Restainer(bundle))
    assert target.stat().st_mtime_ns == stamp
    Image.fromarray(smooth_he(64, 64, seed=1)).save(source)
    stain_images([source], out, Restainer(bundle))
    assert target.read_bytes() != first


def test_tiff_in_tiff_out_at_the_files_own_mpp(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "slide.tif"
    pixels_per_cm = 1e4 / 0.25
    tifffile.imwrite(
        source,
        smooth_he(200, 120),
        photometric="rgb",
        resolution=(pixels_per_cm, pixels_per_cm),
        resolutionunit="CENTIMETER",
    )
    target = stain_images([source], tmp_path / "out", Restainer(bundle))[0]
    assert target.suffix == ".tif"
    assert read_image(target).shape == (200, 120, 3)
    assert read_text(target)["mpp"] == "0.25"


def test_mpp_changes_what_the_network_sees(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(smooth_he(128, 128)).save(source)
    same = read_image(stain_images([source], tmp_path / "same", Restainer(bundle), mpp=0.5)[0])
    fine = read_image(stain_images([source], tmp_path / "fine", Restainer(bundle), mpp=0.25)[0])
    assert same.shape == fine.shape
    assert not np.array_equal(same, fine)


def test_dab_is_not_invented_for_a_model_without_it(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(smooth_he(32, 32)).save(source)
    rgb_model = make_bundle(tmp_path / "rgb", output="rgb")
    with pytest.raises(RestainError, match="no stain output"):
        stain_images([source], tmp_path / "out", Restainer(rgb_model), dab=True)


def test_inputs_that_would_meet_are_refused(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.fromarray(smooth_he(32, 32)).save(tmp_path / folder / "same.png")
    assert expand([tmp_path / "x"]) == [tmp_path / "x" / "same.png"]
    with pytest.raises(RestainError, match="would both become same"):
        expand([tmp_path / "x", tmp_path / "y"])
    with pytest.raises(RestainError, match="no such image"):
        expand([tmp_path / "z.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RestainError, match="no PNG, JPEG or TIFF"):
        expand([tmp_path / "empty"])


def test_the_source_is_never_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(smooth_he(32, 32)).save(source)
    before = source.read_bytes()
    with pytest.raises(RestainError, match="overwrite its source"):
        stain_images([source], tmp_path, Restainer(bundle))
    assert source.read_bytes() == before


def test_a_told_white_is_rendered_on_and_is_part_of_what_a_result_is(bundle: Bundle, tmp_path: Path) -> None:
    he = np.full((64, 64, 3), 200, np.uint8)
    Image.fromarray(he).save(tmp_path / "he.png")
    bright, dark = (Restainer(bundle, white=(w, w, w))(he) for w in (240, 120))
    assert np.array_equal(bright.dab, dark.dab)
    assert np.allclose(dark.rgb, bright.rgb / 2, atol=1)
    (path,) = stain_images([tmp_path / "he.png"], tmp_path / "out", Restainer(bundle))
    assert read_text(path)["white"] == "the model's own"
    stain_images([tmp_path / "he.png"], tmp_path / "out", Restainer(bundle, white=(120, 120, 120)))
    assert read_text(path)["white"] == "120 120 120"
    assert np.array_equal(read_image(path), dark.rgb)
    with pytest.raises(RestainError, match="intensities"):
        Restainer(bundle, white=(0, 10, 300))
