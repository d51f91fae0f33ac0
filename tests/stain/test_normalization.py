"""Staining normalises the H&E from the whole image where the bundle's card says that training did."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from restain import RestainError
from restain.bundle import CARD, Bundle, load_bundle, save_bundle
from restain.data.normalization import HENormalization, describe_normalization, normalization_of_picture
from restain.geometry import Point, Region, Size
from restain.slides import Slide, tissue_mask
from restain.slides.mask import TissueMask
from restain.slides.source_picture import ArraySource
from restain.stain import Model, Provenance, StainOptions
from restain.stain import normalization as sampling
from restain.stain.area import rectangle
from restain.stain.normalization import slide_normalization

DIM = (200, 196, 204)


@pytest.fixture(scope="module")
def trained_so(bundle: Bundle) -> Bundle:
    return replace(bundle, card=bundle.card.model_copy(update={"normalization": describe_normalization()}))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(5)
    texture = rng.integers((140, 60, 120), (200, 150, 190), (24, 24, 3)).astype(np.uint8)
    rgb = np.kron(texture, np.ones((25, 25, 1), np.uint8))
    rgb[:, 420:] = DIM
    return rgb


def test_a_picture_is_stained_as_if_it_had_been_normalised_beforehand(
    bundle: Bundle, trained_so: Bundle, picture: np.ndarray
) -> None:
    found = normalization_of_picture(picture, trained_so.card.mpp)
    assert found.white == pytest.approx(DIM, abs=1)
    given = Model(trained_so).stain(picture, mpp=trained_so.card.mpp, everywhere=True, glass_noise=False)
    plain = Model(bundle).stain(found.apply(picture), mpp=bundle.card.mpp, everywhere=True, glass_noise=False)
    np.testing.assert_array_equal(given.dab[:, :380], plain.dab[:, :380])
    assert given.provenance.normalization == found
    assert Provenance.from_metadata(given.provenance.metadata()) == given.provenance


@pytest.mark.slow
def test_it_can_be_switched_off_and_other_bundles_do_without(
    bundle: Bundle, trained_so: Bundle, picture: np.ndarray
) -> None:
    off = Model(trained_so).stain(picture, mpp=trained_so.card.mpp, normalization=False)
    without = Model(bundle).stain(picture, mpp=bundle.card.mpp)
    np.testing.assert_array_equal(off.rgb, without.rgb)
    for made in (off.provenance, without.provenance):
        assert (made.normalized, made.normalization) == (False, None)
    on = Model(trained_so).stain(picture, mpp=trained_so.card.mpp)
    assert on.provenance.identity != off.provenance.identity
    assert np.abs(on.rgb.astype(int) - off.rgb).max() > 0


@pytest.mark.slow
def test_a_region_of_interest_is_normalised_as_the_whole_image_is(trained_so: Bundle, picture: np.ndarray) -> None:
    region = Region(Point(100, 200), Size(150, 120))
    model = Model(trained_so, options=StainOptions(mpp=trained_so.card.mpp))
    whole, part = model.stain(picture), model.stain(picture, roi=[rectangle(region)])
    assert part.provenance.normalization == whole.provenance.normalization
    np.testing.assert_array_equal(part.dab[region.slices], whole.dab[region.slices])


def test_a_slide_is_normalised_from_samples_of_its_tissue_without_its_ink(
    trained_so: Bundle, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Slide(ArraySource(picture, 1.0)) as slide:
        tissue = tissue_mask(slide)
        whole = slide_normalization(slide, tissue, trained_so, StainOptions())
        monkeypatch.setattr(sampling, "WHOLE_PX", 0)
        monkeypatch.setattr(sampling, "SAMPLE_PX", 64)
        sampled = slide_normalization(slide, tissue, trained_so, StainOptions())
        picture_with_ink = picture.copy()
        picture_with_ink[:100, :400] = (20, 60, 20)
        ink = np.zeros_like(tissue.mask)
        ink[: 100 // 8 + 1, : 400 // 8 + 1] = True
    with Slide(ArraySource(picture_with_ink, 1.0)) as slide:
        marked = slide_normalization(
            slide, TissueMask(tissue.mask, tissue.mpp, tissue.glass, ink), trained_so, StainOptions()
        )
    assert sampled.white == pytest.approx(DIM, abs=1.5)
    for other in (sampled, marked):
        assert other.hematoxylin == pytest.approx(whole.hematoxylin, rel=0.1)
        assert other.eosin == pytest.approx(whole.eosin, rel=0.1)


@pytest.mark.slow
def test_the_files_of_a_slide_say_how_it_was_normalised(
    trained_so: Bundle, write_slide: Callable[..., Path], picture: np.ndarray, tmp_path: Path
) -> None:
    slide = write_slide(tmp_path / "slide.ome.tiff", picture)
    made = Model(trained_so).stain_slide(slide, tmp_path / "out")
    assert made.provenance.normalization is not None
    stated = json.loads(made.report.read_text())
    assert made.provenance.normalization.text() in json.dumps(stated)
    kept = Model(trained_so).stain_slide(slide, tmp_path / "out")
    assert kept.kept
    assert kept.provenance.normalization == made.provenance.normalization
    assert not Model(trained_so).stain_slide(slide, tmp_path / "out", normalization=False).kept


def test_a_bundle_states_it_and_one_of_other_targets_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    data = bundle.recipe.data.model_copy(update={"normalization": True})
    recipe = bundle.recipe.model_copy(update={"data": data})
    card = save_bundle(tmp_path / "it", bundle.generator, recipe, step=1, data="made up", figures={})
    assert load_bundle(tmp_path / "it").card.normalization == card.normalization == describe_normalization()
    save_bundle(tmp_path / "other", bundle.generator, bundle.recipe, step=1, data="made up", figures={})
    assert json.loads((tmp_path / "other" / CARD).read_text())["normalization"] is None


def test_targets_of_another_restain_are_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bundle.recipe.data.model_copy(update={"normalization": True})
    recipe = bundle.recipe.model_copy(update={"data": data})
    save_bundle(tmp_path / "it", bundle.generator, recipe, step=1, data="made up", figures={})
    monkeypatch.setattr("restain.data.normalization.TARGET_EOSIN", 0.5)
    with pytest.raises(RestainError, match="normalisation of the H&E is not that"):
        load_bundle(tmp_path / "it")


def test_nothing_but_the_identity_is_assumed_of_glass(trained_so: Bundle) -> None:
    with Slide(ArraySource(np.full((300, 300, 3), 230, np.uint8), 1.0)) as slide:
        found = slide_normalization(slide, tissue_mask(slide), trained_so, StainOptions())
    assert found == HENormalization((230.0, 230.0, 230.0))
