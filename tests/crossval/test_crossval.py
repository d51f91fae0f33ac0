import json
from pathlib import Path

import numpy as np
import pytest

from restain import RestainError
from restain.crossval import crossval
from restain.crossval.folds import folds
from restain.crossval.limits import limits
from restain.data import open_pairs
from restain.optics import DAB, HEMATOXYLIN, mix, transmit
from restain.recipe import Recipe, parse_recipe

from ..samples import phantom_pairs

pytestmark = pytest.mark.slow

TINY = {
    "name": "tiny",
    "data": {"crop": 32, "batch": 2, "val_share": 0, "same_slide": [["*0000*", "*0001*"]]},
    "generator": {"width": 8, "depth": 2, "white": "measured", "label_feature": False, "attention": {"kind": "none"}},
    "losses": {"gan": 0, "level_generator": 0},
    "train": {"steps": 2, "validate_every": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_pairs(tmp_path_factory, pairs=3, test_share=0.34)


@pytest.fixture(scope="module")
def recipe(data: Path) -> Recipe:
    first = [pair.name for pair in open_pairs(data, val_share=0).pairs][:2]
    values = TINY | {"data": TINY["data"] | {"same_slide": [first]}}  # type: ignore[operator]
    return parse_recipe(values, "test")


def test_every_pair_is_left_out_once_with_its_slide(data: Path, recipe: Recipe) -> None:
    found = folds(open_pairs(data, val_share=0, same_slide=recipe.data.same_slide).pairs)
    assert sorted(len(fold.names) for fold in found) == [1, 2]
    for fold in found:
        split = open_pairs(
            data, val_share=0, holdout=fold.recipe(recipe).data.holdout, same_slide=recipe.data.same_slide
        )
        assert {pair.name for pair in split.split("test")} == set(fold.names)


def test_one_slide_cannot_be_left_out(data: Path) -> None:
    with pytest.raises(RestainError, match="at least 2 slides"):
        folds(open_pairs(data, val_share=0, same_slide=[["*"]]).pairs)


def test_the_job_pools_all_pairs_and_resumes_without_training_again(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    page = crossval(recipe, [data], tmp_path / "out", accelerator="cpu")
    results = json.loads((tmp_path / "out" / "crossval.json").read_text())
    names = {pair.name for pair in open_pairs(data, val_share=0).pairs}
    assert {row["name"] for row in results["rows"] if row["method"] == "model"} == names
    assert results["overall"]["model"]["background_de"]["n"] == 3
    assert {"oracle_white", "oracle_background", "real_shifted"} <= set(results["overall"])
    text = page.read_text()
    assert "research use only" in text
    for name in names:
        assert (tmp_path / "out" / "pictures" / f"{name}.virtual.jpg").is_file()
    cards = sorted((tmp_path / "out").glob("slides/*/run/bundle/card.json"))
    assert len(cards) == 2
    for card in cards:
        held = json.loads(card.read_text())["recipe"]["data"]["holdout"]
        assert len(held) in (1, 2)
    stamps = [card.stat().st_mtime_ns for card in cards]
    # As after a kill between a training and its evaluation.
    (cards[0].parents[2] / "evaluation" / "metrics.json").unlink()
    crossval(recipe, [data], tmp_path / "out", accelerator="cpu")
    again = json.loads((tmp_path / "out" / "crossval.json").read_text())
    assert [card.stat().st_mtime_ns for card in cards] == stamps
    assert again["rows"] == results["rows"]


def test_a_folder_of_another_recipe_is_refused(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    crossval(recipe, [data], tmp_path / "out", accelerator="cpu")
    other = recipe.model_copy(update={"seed": 7})
    with pytest.raises(RestainError, match="another recipe"):
        crossval(other, [data], tmp_path / "out", accelerator="cpu")


def test_limits_know_the_right_answers() -> None:
    rng = np.random.default_rng(0)
    density = np.zeros((128, 128, 2), np.float32)
    density[20:60, 20:60, 1] = 0.6
    density[..., 0] = 0.05 + 0.01 * rng.random((128, 128))
    real = np.round(transmit(mix(density, (HEMATOXYLIN, DAB)), 230)).astype(np.uint8)

    found = limits(real, real, 0.46)
    assert found["oracle_white"] == {"background_de": 0.0, "background_db": 0.0}
    assert 0 < found["oracle_background"]["background_de"] < 1
    assert found["real_shifted"]["dab_r16"] > 0.9

    assert "oracle_white" not in limits(real, None, 0.46)
