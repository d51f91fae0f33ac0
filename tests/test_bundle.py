import json
from pathlib import Path

import pytest
import torch

from restain import NOTICE, RestainError
from restain.bundle import CARD, WEIGHTS, load_bundle, read_card, save_bundle
from restain.models.generator import Generator
from restain.recipe import ExpressionRecipe, GeneratorRecipe, Recipe

RECIPE = Recipe(name="tiny", mpp=0.5, generator=GeneratorRecipe(width=8, depth=1), expression=ExpressionRecipe(width=4))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    generator = Generator(RECIPE.generator, RECIPE.expression)
    save_bundle(tmp_path / "bundle", generator, RECIPE, step=7, data="made up", figures={"val_psnr": 20.0})
    return tmp_path / "bundle"


def test_a_bundle_gives_back_what_was_saved(bundle: Path) -> None:
    torch.manual_seed(0)
    generator = Generator(RECIPE.generator, RECIPE.expression).eval()
    loaded = load_bundle(bundle)
    assert loaded.recipe == RECIPE
    assert (loaded.card.mpp, loaded.card.step, loaded.card.figures) == (0.5, 7, {"val_psnr": 20.0})
    assert loaded.card.notice == NOTICE
    he = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded.generator(he).rgb, generator(he).rgb)
    assert {p.name for p in bundle.iterdir()} == {CARD, WEIGHTS}


def test_saving_again_replaces_it_and_leaves_nothing_beside_it(bundle: Path) -> None:
    before = read_card(bundle).hash
    save_bundle(bundle, Generator(RECIPE.generator, RECIPE.expression), RECIPE, step=8, data="x", figures={})
    assert read_card(bundle).step == 8
    assert read_card(bundle).hash != before
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_a_foreign_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose me")
    with pytest.raises(RestainError, match="not a bundle"):
        save_bundle(
            tmp_path / "mine", Generator(RECIPE.generator, RECIPE.expression), RECIPE, step=1, data="", figures={}
        )
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not lose me"


def edit(bundle: Path, **values: object) -> None:
    card = json.loads((bundle / CARD).read_text())
    (bundle / CARD).write_text(json.dumps(card | values))


@pytest.mark.parametrize("change", ["weights", "card"])
def test_any_change_breaks_the_hash(bundle: Path, change: str) -> None:
    if change == "weights":
        data = bytearray((bundle / WEIGHTS).read_bytes())
        data[-1] ^= 1
        (bundle / WEIGHTS).write_bytes(data)
    else:
        edit(bundle, mpp=0.25)
    with pytest.raises(RestainError, match="hash does not match"):
        load_bundle(bundle)


def test_a_newer_format_says_who_wrote_it(bundle: Path) -> None:
    edit(bundle, format=99, restain_version="9.9.9", something_new=1)
    with pytest.raises(RestainError, match=r"restain 9\.9\.9.*upgrade"):
        load_bundle(bundle)


def test_other_damage_is_told(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="not a model bundle"):
        load_bundle(tmp_path)
    edit(bundle, mpp="wide")
    with pytest.raises(RestainError, match="damaged at 'mpp'"):
        load_bundle(bundle)
    (bundle / CARD).write_text("{")
    with pytest.raises(RestainError, match="card is damaged"):
        load_bundle(bundle)


def test_the_shipped_bundle_is_whole_and_says_that_it_knows_only_the_phantom() -> None:
    bundle = load_bundle()
    assert "phantom only" in bundle.card.data
    assert bundle.card.mpp == 0.46
    assert bundle.card.figures["test_dab_r16"] is not None
