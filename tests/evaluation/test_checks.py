from pathlib import Path

import numpy as np
import pytest
import torch

from restain import RestainError
from restain.bundle import add_ood_detector, load_bundle, save_bundle
from restain.data import open_pairs
from restain.evaluation import abstention
from restain.evaluation.checks import trust_folder
from restain.images import write_png
from restain.models.build import build_generator
from restain.ood.detector import fit_ood_detector
from restain.phantom import write_phantom
from restain.recipe import AttentionRecipe, AugmentRecipe, GeneratorRecipe, Recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_phantom(root, pairs=6, size=100, seed=1, test_share=0.34)
    return root


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    attention = AttentionRecipe(kind="none")
    recipe = Recipe(generator=GeneratorRecipe(width=8, depth=1, attention=attention, label_feature=False))
    save_bundle(tmp_path / "b", build_generator(recipe), recipe, step=1, data="made up", figures={})
    return tmp_path / "b"


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abstention, "RESAMPLES", 5)


def test_a_bundle_without_an_ood_detector_gets_one_for_the_page_and_it_is_said(
    data: Path, model: Path, tmp_path: Path
) -> None:
    result = trust_folder([data], tmp_path / "out", model=model, images=1)
    assert "The bundle has none; learnt" in result["ood"]
    assert result["flags"]
    assert not (model / "ood.safetensors").exists()
    memory = fit_ood_detector(open_pairs(data, val_share=0).split("train"), AugmentRecipe())
    add_ood_detector(model, memory)
    again = trust_folder([data], tmp_path / "out", model=model, ensemble=[model], images=1)
    assert again["ood"].startswith("The bundle's own")
    assert again["disagreement"] == "ensemble of 2 models"
    assert again["means"]["disagreement"]["mean"] == pytest.approx(0, abs=1e-6)


def test_without_training_images_nothing_is_flagged(model: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "only", pairs=2, size=100, seed=1, test_share=1.0)
    result = trust_folder([tmp_path / "only"], tmp_path / "out", model=model, images=1)
    assert result["ood"].startswith("absent")
    assert result["flags"] == []


def test_wrong_paths_are_told_in_a_sentence(data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="no such image"):
        trust_folder([data], tmp_path / "out", model=model, foreign=[tmp_path / "none.png"], images=1)
    with pytest.raises(RestainError, match="split 'dev'"):
        trust_folder([data], tmp_path / "out", model=model, split="dev", images=1)
    write_png(tmp_path / "x.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(RestainError, match="not a model bundle"):
        trust_folder([data], tmp_path / "out", model=tmp_path, images=1)


def test_the_shipped_bundle_knows_its_training_images() -> None:
    assert load_bundle().ood is not None
