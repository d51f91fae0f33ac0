import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from restain import NOTICE, RestainError
from restain.bundle import OOD, Bundle, add_ood_detector, load_bundle, save_bundle
from restain.data import open_pairs
from restain.evaluation import abstention
from restain.evaluation.corruptions import CORRUPTIONS
from restain.evaluation.held_out import HeldOut
from restain.evaluation.uncertainty import TYPICAL_OD, assess, confidence, unview, view
from restain.evaluation.uncertainty_report import evaluate_uncertainty
from restain.images import read_text, write_png
from restain.models.build import build_generator
from restain.ood.detector import fit_ood_detector
from restain.phantom import write_phantom
from restain.prediction import Prediction
from restain.recipe import AttentionRecipe, AugmentRecipe, ExpressionRecipe, GeneratorRecipe, Recipe
from restain.slides import read_image
from restain.stain import Model, Provenance, StainOptions, stain_slide

SIDE = 128


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abstention, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_phantom(root, pairs=8, size=SIDE, seed=1, test_share=0.5, workers=1)
    return root


def make_bundle(folder: Path, seed: int = 0, **generator: object) -> Bundle:
    torch.manual_seed(seed)
    recipe = Recipe(
        name="tiny",
        generator=GeneratorRecipe(width=8, depth=1, attention=AttentionRecipe(kind="none"), **generator),
        expression=ExpressionRecipe(width=4),
    )
    save_bundle(folder, build_generator(recipe), recipe, step=1, data="made up", figures={})
    return load_bundle(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


@given(number=st.integers(0, 7), height=st.integers(1, 5), width=st.integers(1, 5))
def test_a_view_is_turned_back_exactly(number: int, height: int, width: int) -> None:
    image = np.arange(height * width * 3).reshape(height, width, 3)
    np.testing.assert_array_equal(unview(view(image, number), number), image)


def test_the_eight_views_are_all_different() -> None:
    image = np.arange(6).reshape(2, 3)
    assert len({(view(image, k).shape, view(image, k).tobytes()) for k in range(8)}) == 8


class Fixed(Model):
    """Restains by a function in place of the bundle's network."""

    def __init__(self, bundle: Bundle, answer) -> None:
        super().__init__(bundle)
        self.answer = answer

    def predict(self, he) -> Prediction:
        return self.answer(he)


def brown(he: NDArray[np.uint8], od: NDArray[np.float32]) -> Prediction:
    return Prediction(np.full_like(he, 200), od.astype(np.float32))


def test_a_model_that_knows_no_direction_has_no_uncertainty(bundle: Bundle) -> None:
    he = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    found = assess(Fixed(bundle, lambda x: brown(x, x[..., 0] / 255)), he)
    np.testing.assert_allclose(found.uncertainty, 0, atol=1e-6)
    np.testing.assert_allclose(found.prediction.dab, he[..., 0] / 255, atol=1e-6)
    assert found.confidence == pytest.approx(1)
    assert found.in_distribution is None
    assert found.score is None


def test_uncertainty_is_the_standard_deviation_over_the_views(bundle: Bundle) -> None:
    he = np.full((12, 12, 3), 200, np.uint8)

    def left_is_stained(x: NDArray[np.uint8]) -> Prediction:
        dab = np.zeros(x.shape[:2], np.float32)
        dab[:, :6] = 1
        return brown(x, dab)

    found = assess(Fixed(bundle, left_is_stained), he)
    np.testing.assert_allclose(found.uncertainty, 0.5, atol=1e-5)
    assert found.disagreement == pytest.approx(0.5, abs=1e-5)
    assert found.confidence == pytest.approx(1 / (1 + 0.5 / TYPICAL_OD), rel=1e-4)
    two = [Fixed(bundle, lambda x, v=v: brown(x, np.full(x.shape[:2], v))) for v in (0.1, 0.3)]
    np.testing.assert_allclose(assess(two, he, views=1).uncertainty, 0.1, atol=1e-6)


def test_a_model_of_colours_only_has_uncertainty_too(tmp_path: Path) -> None:
    he = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    found = assess(Model(make_bundle(tmp_path / "rgb", output="rgb")), he, views=2)
    assert found.prediction.dab is None
    assert found.uncertainty.shape == (32, 32)
    assert found.colour_uncertainty.mean() > 0


def test_confidence_falls_with_disagreement_and_with_the_ood_score() -> None:
    assert confidence(0.0, None) == confidence(0.0, 0.9) == 1
    assert confidence(TYPICAL_OD, 1.0) == pytest.approx(0.5)
    assert confidence(TYPICAL_OD, 4.0) == pytest.approx(0.125)


def test_wrong_arguments_are_refused(bundle: Bundle) -> None:
    he = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="views"):
        assess(Model(bundle), he, views=9)
    with pytest.raises(ValueError, match="at least one model"):
        assess([], he)


@pytest.mark.slow
def test_the_job_writes_figures_curves_and_flags(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    pairs = open_pairs(data, val_share=0)
    write_png(tmp_path / "other.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    told: list[tuple[int, int]] = []
    held_out = HeldOut(Model(bundle), pairs.split("test"), 0.46, pairs.split("train"), classifier_note="none <here>")
    result = evaluate_uncertainty(
        held_out,
        tmp_path,
        foreign=[tmp_path / "other.png"],
        images=3,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(k, 10) for k in range(1, 11)]
    assert json.loads((tmp_path / "uncertainty.json").read_text()) == json.loads(json.dumps(result))
    flags = {flag["key"]: flag for flag in result["flags"]}
    assert set(flags) == {"good", "foreign", *(kind.key for kind in CORRUPTIONS)}
    assert flags["good"]["n"] == 3
    assert flags["foreign"]["mean"] == 1
    assert all(flag["low"] <= flag["mean"] <= flag["high"] for flag in flags.values())
    assert {curve["error"] for curve in result["curves"]} == {
        "cell_error",
        "mean_error",
        "background_de",
        "cells",
        "pixels",
    }
    assert len(result["rows"]) == 6
    page = (tmp_path / "uncertainty.html").read_text()
    assert NOTICE in page
    assert "none &lt;here&gt;" in page
    assert "The bundle has none; fitted for this page on 4 training images" in page
    assert "<script" not in page
    for kind in CORRUPTIONS:
        assert (tmp_path / "figures" / f"wrong-{kind.key}.virtual.jpg").is_file()


@pytest.mark.slow
def test_without_an_ood_detector_nothing_is_flagged_and_the_page_says_why(
    bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    pairs = open_pairs(data, val_share=0).split("test")[:2]
    result = evaluate_uncertainty(HeldOut(Model(bundle), pairs, 0.46), tmp_path)
    assert result["flags"] == []
    assert "absent: the bundle has no detector" in (tmp_path / "uncertainty.html").read_text()
    with pytest.raises(RestainError, match="no pairs"):
        evaluate_uncertainty(HeldOut(Model(bundle), [], 0.46), tmp_path)


@pytest.mark.slow
def test_a_bundles_own_detector_is_used_and_an_ensemble_spreads(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    pairs = open_pairs(data, val_share=0)
    knowing = replace(bundle, ood=fit_ood_detector(pairs.split("train"), AugmentRecipe()))
    held_out = HeldOut(Model(knowing), pairs.split("test"), 0.46)
    result = evaluate_uncertainty(held_out, tmp_path, ensemble=[Model(bundle)], images=1)
    assert result["ood"].startswith("The bundle's own")
    assert result["disagreement"] == "ensemble of 2 models"
    assert result["means"]["disagreement"]["mean"] == pytest.approx(0, abs=1e-6)


def test_wrong_paths_are_one_sentence(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    held_out = HeldOut.open(data, model=bundle.path)
    assert held_out.model.bundle.card.hash == bundle.card.hash
    with pytest.raises(RestainError, match="no such image"):
        evaluate_uncertainty(held_out, tmp_path / "out", foreign=[tmp_path / "none.png"], images=1)
    with pytest.raises(RestainError, match="split 'dev'"):
        HeldOut.open(data, model=bundle.path, split="dev")
    with pytest.raises(RestainError, match="not a model bundle"):
        HeldOut.open(data, model=tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_shipped_bundle_knows_its_training_images() -> None:
    assert load_bundle().ood is not None


def test_a_bundle_keeps_its_ood_detector_until_it_is_replaced(data: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert bundle.ood is None
    memory = fit_ood_detector(open_pairs(data, val_share=0).split("train"), AugmentRecipe())
    add_ood_detector(tmp_path / "bundle", memory)
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.card.hash == bundle.card.hash
    assert loaded.ood is not None
    other = make_bundle(tmp_path / "other", seed=1)
    (tmp_path / "other" / OOD).write_bytes((tmp_path / "bundle" / OOD).read_bytes())
    with pytest.raises(RestainError, match="another bundle"):
        load_bundle(other.path)
    assert make_bundle(tmp_path / "bundle", seed=2).ood is None


def test_staining_warns_once_per_strange_image_and_writes_it_down(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    pairs = open_pairs(data, val_share=0)
    knowing = replace(bundle, ood=fit_ood_detector(pairs.split("train"), AugmentRecipe()))
    strange = tmp_path / "strange.png"
    write_png(strange, np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    known = pairs.split("train")[0].he_path
    for _ in range(2):
        told: list[str] = []
        model = Model(knowing, options=StainOptions(mpp=knowing.card.mpp))
        results = [stain_slide(path, tmp_path / "out", model, warn=told.append) for path in (strange, known)]
        assert len(told) == 1
        assert told[0].startswith(f"{strange}: the image is unlike")
        assert [result.provenance.ood.is_ood for result in results] == [True, False]
        assert Provenance.from_metadata(read_text(results[0].path)) == results[0].provenance
    silent = stain_slide(strange, tmp_path / "silent", Model(bundle, options=model.options), warn=told.append)
    assert len(told) == 1
    assert silent.provenance.ood is None
    assert read_text(silent.path)["ood"] == "unknown"
    assert read_image(silent.path).shape == (SIDE, SIDE, 3)
