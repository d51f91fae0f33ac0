import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import restain.evaluation.sweep as module
from restain import NOTICE, RestainError
from restain.bundle import Bundle, load_bundle, save_bundle
from restain.data import open_pairs
from restain.data.augment import vary_he
from restain.evaluation.held_out import HeldOut
from restain.evaluation.her2_classifier import Reading
from restain.evaluation.sweep import FAMILIES, STRENGTH, normalisers, sweep
from restain.her2 import Her2Level
from restain.models.build import build_generator
from restain.optics import EOSIN, HEMATOXYLIN, hematoxylin_density, mix, transmit, unmix
from restain.phantom import write_phantom
from restain.prediction import Prediction
from restain.recipe import AttentionRecipe, ExpressionRecipe, GeneratorRecipe, Recipe
from restain.stain import Model


@pytest.fixture
def few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = tuple(replace(family, values=(family.values[0], family.values[-1])) for family in FAMILIES)
    monkeypatch.setattr(module, "FAMILIES", ends)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_phantom(root, pairs=4, size=128, seed=1, test_share=0.5)
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    recipe = Recipe(
        name="tiny",
        generator=GeneratorRecipe(width=8, depth=1, attention=AttentionRecipe(kind="none"), label_feature=False),
        expression=ExpressionRecipe(width=4),
    )
    path = tmp_path_factory.mktemp("model") / "bundle"
    save_bundle(path, build_generator(recipe), recipe, step=1, data="made up", figures={})
    return load_bundle(path)


@given(h=st.floats(0.5, 1.5), e=st.floats(0.5, 1.5))
@settings(max_examples=40, deadline=None)
def test_strengths_scale_the_densities(h: float, e: float) -> None:
    densities = np.random.default_rng(0).uniform(0.1, 0.4, (6, 7, 2))
    he = transmit(mix(densities, (HEMATOXYLIN, EOSIN))).round().astype(np.uint8)
    swept = unmix(-np.log10((vary_he(he, (h, e)).astype(float) + 1) / 256), (HEMATOXYLIN, EOSIN))
    np.testing.assert_allclose(swept, densities * (h, e), atol=0.02)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_every_setting_changes_the_image_and_the_unchanged_one_does_not(family, data: Path) -> None:
    he, _ = open_pairs(data, val_share=0).split("test")[0].load()
    for value in family.values:
        assert family.change(he, value).shape == he.shape
        assert not np.array_equal(family.change(he, value), he)
    if family.key != "jpeg":
        np.testing.assert_array_equal(family.change(he, family.unchanged), he)


def test_normalisers_bring_swept_images_together(data: Path) -> None:
    pairs = open_pairs(data, val_share=0)
    lines, target = normalisers(pairs.split("train"))
    assert set(lines) == {"macenko", "reinhard"}
    assert "_train_" in target
    he, _ = pairs.split("test")[0].load()
    strong = vary_he(he, (1.3, 1.3))
    apart = np.abs(he.astype(int) - strong).mean()
    for normalise in lines.values():
        assert np.abs(normalise(he).astype(int) - normalise(strong)).mean() < apart
        assert normalise(np.full((32, 32, 3), 245, np.uint8)).shape == (32, 32, 3)
    assert normalisers([])[0] == {}


class ByHematoxylin(Model):
    """Its DAB is the H&E's hematoxylin: a stronger stain gives a stronger answer."""

    def predict(self, he) -> Prediction:
        return Prediction(np.full_like(he, 220), hematoxylin_density(he))


class ByMean:
    """Reads 3+ where the mean DAB is above the limit."""

    label = "mean <classifier>"

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def read(self, rgb: NDArray[np.uint8], dab: NDArray[np.float32], mpp: float) -> Reading:
        level = Her2Level.THREE if dab.mean() > self.limit else Her2Level.ZERO
        return Reading(classifier=level, rule=Her2Level.ZERO)


@pytest.mark.slow
@pytest.mark.usefixtures("few_values")
def test_a_reading_that_follows_the_stain_is_found_out(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    pairs = open_pairs(data, val_share=0)
    he, _ = sorted(pairs.split("test"), key=lambda pair: pair.name)[0].load()
    classifier = ByMean(float(hematoxylin_density(he).mean()) * 1.1)
    told: list[tuple[int, int]] = []
    held_out = HeldOut(ByHematoxylin(bundle), pairs.split("test"), 0.46, pairs.split("train"), classifier)
    result = sweep(
        held_out,
        tmp_path,
        images=1,
        command="restain evaluate --stain-sweep",
        progress=lambda done, total: told.append((done, total)),
    )
    settings_count = sum(len(family.values) for family in module.FAMILIES)
    assert told[-1] == (3 * (1 + settings_count),) * 2
    rows = {(row["method"], row["family"], row["value"]): row for row in result["rows"]}
    assert rows["model", "unchanged", 0.0]["classifier_changed"]["mean"] == 0
    assert rows["model", "unchanged", 0.0]["dab_mean_change"]["mean"] == 0
    assert rows["model", "hematoxylin", 1.3]["classifier_changed"]["mean"] == 1
    assert rows["model", "hematoxylin", 0.7]["classifier_changed"]["mean"] == 0
    assert rows["model", "hematoxylin", 0.7]["dab_mean_change"]["mean"] < 0
    shares = result["strength"]["methods"]["model"]
    changed = [
        rows["model", f.key, v]["classifier_changed"]["mean"]
        for f in module.FAMILIES
        if f.key in STRENGTH
        for v in f.values
    ]
    assert shares["classifier"]["mean"] == pytest.approx(np.mean(changed))
    assert shares["rule"]["mean"] == 0
    assert json.loads((tmp_path / "sweep.json").read_text())["strength"]["methods"]["model"] == shares
    page = (tmp_path / "sweep.html").read_text()
    assert NOTICE in page
    assert "mean &lt;classifier&gt;" in page
    assert "missed" in page
    assert page.count("<svg") >= 4 * len(module.FAMILIES)


@pytest.mark.slow
@pytest.mark.usefixtures("few_values")
def test_without_classifier_training_or_pairs_it_says_so(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    pairs = open_pairs(data, val_share=0).split("test")
    result = sweep(HeldOut(ByHematoxylin(bundle), pairs, 0.46, classifier_note="not shipped"), tmp_path, images=1)
    assert {row["method"] for row in result["rows"]} == {"model"}
    assert result["classifier"] == "absent: not shipped"
    assert result["normalisation"].startswith("absent")
    assert "not shipped" in (tmp_path / "sweep.html").read_text()
    with pytest.raises(RestainError, match="no pairs"):
        sweep(HeldOut(ByHematoxylin(bundle), [], 0.46), tmp_path)
