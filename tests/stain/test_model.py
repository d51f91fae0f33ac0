"""A model in Python: what can be given to it, what it gives, and that use does not change it."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import restain.stain
from restain import NOTICE, RestainError
from restain.bundle import Bundle
from restain.engines import predict_at_once, to_prediction
from restain.images import read_density, read_text
from restain.optics import optical_density
from restain.slides import open_slide, read_image
from restain.stain import Model, Provenance, StainOptions, expand, load, stain_slide
from restain.stain.inputs import as_rgb


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model(bundle, options=StainOptions(mpp=bundle.card.mpp))


def smooth_he(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(90, 250, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(smooth_he(90, 70)).save(path)
    return path


def test_an_image_of_one_window_is_stained_as_training_stains_its_crops(model: Model, bundle: Bundle) -> None:
    he = smooth_he(300, 500)
    whole = to_prediction(predict_at_once(bundle.generator, he))
    made = model.predict(he)
    tissue = optical_density(he)[..., 1] > 0.15
    assert tissue.mean() > 0.5
    assert np.abs(whole.rgb.astype(int) - made.rgb)[tissue].max() <= 1
    np.testing.assert_array_equal(whole.dab[tissue], made.dab[tissue])


def test_every_form_of_an_image_gives_the_same_pixels(model: Model, source: Path) -> None:
    he = read_image(source)
    result = model.stain(source)
    assert result.rgb.shape == he.shape
    assert result.dab.shape == he.shape[:2]
    assert (result.mpp, result.ood, result.provenance.source) == (0.5, None, "a.png")
    opaque = np.dstack([he, np.full(he.shape[:2], 255, np.uint8)])
    with open_slide(source, 0.5) as slide:
        forms = [str(source), he, opaque, he / 255, he.astype(np.float32) / 255, Image.fromarray(he), slide]
        for one in model.stain(forms):
            np.testing.assert_array_equal(one.rgb, result.rgb)
            np.testing.assert_array_equal(one.dab, result.dab)
    assert np.array_equal(as_rgb(he[..., 0]), he[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (np.zeros((9, 9, 3), np.uint16), "uint16 is no 8-bit"),
        (np.zeros((9, 9, 3), bool), "bool is no 8-bit"),
        (np.zeros((9, 9, 3), int), "int64 is no 8-bit"),
        (np.full((9, 9, 3), 1.5), r"within \[0, 1\]"),
        (np.full((9, 9, 3), np.nan), r"within \[0, 1\]"),
        (np.zeros((9, 9, 3)) - 0.1, r"within \[0, 1\]"),
        (np.zeros((3, 9, 9), np.uint8), "must be last"),
        (np.zeros((9, 9, 5), np.uint8), r"\(9, 9, 5\)"),
        (np.zeros((0, 9, 3), np.uint8), r"\(0, 9, 3\)"),
        (np.zeros((9, 9, 4), np.uint8), "transparent"),
        (np.zeros((1, 9, 9, 3), np.uint8), r"\(1, 9, 9, 3\)"),
        (Image.new("CMYK", (9, 9)), "mode CMYK"),
        (Image.new("I;16", (9, 9)), "mode I;16"),
        (3.5, "float is no image"),
        (torch.zeros(9, 9, 3), "Tensor is no image"),
    ],
)
def test_what_cannot_be_converted_exactly_is_refused(model: Model, image: object, fault: str) -> None:
    with pytest.raises(RestainError, match=fault):
        model.stain(image)


def test_a_picture_that_states_its_scale_is_resampled_to_the_models(bundle: Bundle, tmp_path: Path) -> None:
    model, he = Model(bundle), smooth_he(400, 240)
    Image.fromarray(he).save(tmp_path / "a.png", dpi=(25400 / 0.25, 25400 / 0.25))
    result = model.stain(tmp_path / "a.png")
    assert result.rgb.shape == (200, 120, 3)
    assert result.provenance.source_mpp == pytest.approx(0.25, rel=1e-3)
    halved = he.reshape(200, 2, 120, 2, 3).mean(axis=(1, 3))
    seen = model.stain(np.rint(halved).astype(np.uint8), mpp=0.5)
    np.testing.assert_array_equal(result.rgb, seen.rgb)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(model.stain(picture).rgb, result.rgb)
        with pytest.raises(RestainError, match=r"states 0\.25"):
            model.stain(picture, mpp=0.5)
        assert model.stain(picture, mpp=0.5, override_mpp=True).rgb.shape == he.shape
    written = stain_slide(tmp_path / "a.png", tmp_path / "out", model)
    np.testing.assert_array_equal(read_image(written.path), result.rgb)
    with open_slide(written.path) as opened:
        assert opened.mpp == pytest.approx(0.5, rel=1e-3)


def test_an_mpp_that_nobody_stated_is_the_models_and_that_is_said(bundle: Bundle, source: Path) -> None:
    model, said = Model(bundle), []
    result = model.stain(source, warn=said.append)
    assert result.provenance.mpp_assumed
    (sentence,) = said
    assert "states no mpp" in sentence
    with pytest.warns(UserWarning, match="states no mpp"):
        model.stain(source)
    assert not model.stain(source, mpp=0.5, warn=said.append).provenance.mpp_assumed
    assert len(said) == 1


def test_files_of_a_picture_hold_pixels_density_and_provenance(
    model: Model, bundle: Bundle, source: Path, tmp_path: Path
) -> None:
    made = model.stain_slide(source, str(tmp_path / "out"), dab=True, progress=False)
    result = model.stain(source)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.dab.tif", "a.png"]
    np.testing.assert_array_equal(read_image(made.path), result.rgb)
    np.testing.assert_allclose(read_density(made.dab), result.dab, atol=0.51e-4)
    text = read_text(made.path)
    assert (text["notice"], text["bundle_hash"], text["source"]) == (NOTICE, bundle.card.hash, "a.png")
    assert len(text["source_sha256"]) == 64
    assert Provenance.from_metadata(text) == made.provenance
    result.save(tmp_path / "new" / "b.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "b.tif"), result.rgb)


def test_a_finished_picture_is_kept_and_a_stale_one_is_not(model: Model, source: Path, tmp_path: Path) -> None:
    def again(**options: object) -> bool:
        return stain_slide(source, tmp_path / "out", model, model.options.having(**options)).kept

    assert [again(), again()] == [False, True]
    assert [again(white=(120, 120, 120)), again(white=(120, 120, 120))] == [False, True]
    Image.fromarray(smooth_he(64, 64, seed=1)).save(source)
    assert not again()


def test_a_told_white_is_rendered_on(model: Model, source: Path) -> None:
    bright, dark = (model.stain(source, white=(w, w, w)) for w in (240, 120))
    np.testing.assert_allclose(bright.dab, dark.dab, atol=1e-6)
    assert np.allclose(dark.rgb, bright.rgb / 2, atol=1)
    assert dark.provenance.white == (120, 120, 120)


def test_the_source_is_never_overwritten(model: Model, source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(RestainError, match="overwrite its source"):
        model.stain_slide(source, source.parent)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"white": (0, 10, 300)}, "intensities"),
        ({"white": (10, 10)}, "intensities"),
        ({"engine": "abacus"}, "Unknown engine 'abacus'"),
        ({"format": "bmp"}, "Unknown format 'bmp'"),
        ({"quality": 0}, "quality"),
        ({"tile": 512}, "Unknown option 'tile'"),
        ({"mpp": -1}, "positive"),
        ({"mpp": float("nan")}, "positive"),
        ({"colour": 1}, "Unknown option 'colour'.*everywhere"),
    ],
)
def test_a_wrong_option_is_one_sentence(model: Model, options: dict, fault: str) -> None:
    with pytest.raises(RestainError, match=fault):
        model.stain("not even looked for.png", **options)


def test_a_region_outside_of_the_image_and_a_bad_folder_are_found_first(model: Model, source: Path) -> None:
    with pytest.raises(RestainError, match="outside the image, which has 70 x 90 px"):
        model.stain_slide(source, source.parent / "out", region=(70, 0, 10, 10))
    with pytest.raises(RestainError, match="above 0"):
        model.stain_slide(source, source.parent / "out", region=(0, 0, 0, 10))
    with pytest.raises(RestainError, match="output folder"):
        model.stain_slide(source, source)


def test_a_model_without_a_stain_head_gives_no_density(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    model = Model(make_bundle(tmp_path / "rgb", output="rgb"))
    assert model.stain(smooth_he(64, 64), mpp=0.5).dab is None
    with pytest.raises(RestainError, match="no stain output"):
        model.stain(smooth_he(64, 64), dab=True)
    with pytest.raises(RestainError, match="no stain output"):
        model.stain(smooth_he(64, 64), white=(240, 240, 240))


def test_models_are_loaded_by_folder_and_name(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (bundle.path, str(bundle.path)):
        assert load(given).bundle.card == bundle.card
    assert load().bundle.card == load("default").bundle.card
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "mine").symlink_to(bundle.path)
    monkeypatch.chdir(tmp_path)
    assert load("mine").bundle.card == bundle.card
    with pytest.raises(RestainError, match="not a model bundle"):
        load("yours")


@pytest.mark.parametrize("device", ["cuda:77", "abacus", "meta", "xla"])
def test_a_device_that_is_not_there_is_one_sentence(bundle: Bundle, device: str) -> None:
    with pytest.raises(RestainError, match=device):
        load(bundle.path, device=device)


def test_use_changes_neither_model_nor_the_program_around(bundle: Bundle, source: Path) -> None:
    one, other = Model(bundle), Model(bundle, options=StainOptions(engine="eager-bf16"))
    before = {key: value.clone() for key, value in one.generator.state_dict().items()}
    expected = one.stain(source, mpp=0.5).rgb
    kept = (torch.get_num_threads(), torch.get_rng_state(), np.random.get_state()[1].copy(), logging.root.level)
    filters = list(warnings.filters)
    differs = other.stain(source, mpp=0.5)
    assert differs.provenance.engine == "eager-bf16"
    np.testing.assert_array_equal(one.stain(source, mpp=0.5).rgb, expected)
    np.testing.assert_array_equal(one.stain(source, mpp=0.5, engine="eager-bf16").rgb, differs.rgb)
    assert kept[0] == torch.get_num_threads()
    assert torch.equal(kept[1], torch.get_rng_state())
    assert np.array_equal(kept[2], np.random.get_state()[1])
    assert (kept[3], filters) == (logging.root.level, list(warnings.filters))
    for model in (one, other):
        assert all(torch.equal(value, before[key]) for key, value in model.generator.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in bundle.generator.state_dict().items())


def test_progress_is_a_callback_that_ends_at_the_whole(model: Model, source: Path) -> None:
    told: list[tuple[int, int]] = []
    model.stain([source, source], progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (2000, 2000)
    assert told == sorted(told)


def test_a_slide_too_large_for_memory_names_the_other_way(model: Model, tmp_path: Path) -> None:
    large = tmp_path / "large.tif"
    tifffile.imwrite(large, shape=(8200, 8200, 3), dtype=np.uint8, tile=(512, 512), photometric="rgb")
    with pytest.raises(RestainError, match="stain_slide"):
        model.stain(large)
    with pytest.raises(RestainError, match="too many for PNG"):
        model.stain_slide(large, tmp_path / "out", format="png")


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
    with pytest.raises(RestainError, match="no PNG, JPEG"):
        expand([tmp_path / "empty"])


def test_the_package_names_what_users_need() -> None:
    assert {"Model", "load", "StainOptions", "StainResult", "Ood", "Provenance"} <= vars(restain.stain).keys()
