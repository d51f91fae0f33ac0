from pathlib import Path

import pytest

from restain import RestainError
from restain.recipe import Recipe, find_recipe, load_recipe, parse_recipe, shipped_recipes


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_recipe_loads() -> None:
    shipped = shipped_recipes()
    assert {"bci", "phantom-small", "few-shot"} <= set(shipped)
    for name, path in shipped.items():
        assert load_recipe(path).name == name


def test_a_recipe_survives_the_way_through_json(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "seed: 3\nlosses: {l1: 7}\n"))
    assert recipe.seed == 3
    assert recipe.losses.l1 == 7
    assert parse_recipe(recipe.model_dump(mode="json"), "card") == recipe


def test_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {steps: 10}\n")
    recipe = load_recipe(path, ["train.steps=20", "data.holdout=[a*, b*]", "generator_optimiser.lr=1e-3"])
    assert recipe.train.steps == 20
    assert recipe.data.holdout == ("a*", "b*")
    assert recipe.generator_optimiser.lr == 0.001


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("colour: red", "'colour' is not a key"),
        ("losses: {l2: 1}", "'losses.l2' is not a key"),
        ("losses: {l1: -1}", "losses.l1 = -1"),
        ("losses: {l1: .nan}", "losses.l1"),
        ("generator_optimiser: {betas: [0.5, 1.5]}", "betas"),
        ("train: {steps: many}", "train.steps = 'many'"),
        ("- a\n- b", "mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_faults_name_file_and_key(tmp_path: Path, text: str, fault: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RestainError) as error:
        load_recipe(path)
    assert str(path) in str(error.value)
    assert fault in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["train.steps", "=3", "seed.deep=1", "train.steps=[", "nonsense=1"])
def test_bad_overrides_are_told(tmp_path: Path, override: str) -> None:
    with pytest.raises(RestainError):
        load_recipe(write(tmp_path, "seed: 1"), [override])


def test_unknown_recipe_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="bci"):
        find_recipe("no-such-recipe")
    with pytest.raises(RestainError, match="cannot be read"):
        load_recipe(tmp_path / "absent.yaml")
    assert isinstance(load_recipe(find_recipe("bci")), Recipe)


def test_a_recipe_takes_over_what_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("seed: 7\nlosses: {l1: 3, gan: 2}\ndata: {crop: 64}\n")
    child = tmp_path / "deep" / "child.yaml"
    child.parent.mkdir()
    child.write_text("extends: ../base.yaml\nlosses: {l1: 5}\n")
    recipe = load_recipe(child, ["data.batch=2"])
    assert (recipe.seed, recipe.losses.l1, recipe.losses.gan) == (7, 5, 2)
    assert (recipe.data.crop, recipe.data.batch) == (64, 2)


def test_a_recipe_that_extends_itself_or_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(RestainError, match="extends itself"):
        load_recipe(tmp_path / "a.yaml")
    with pytest.raises(RestainError, match=r"missing\.yaml: the recipe cannot be read"):
        load_recipe(write(tmp_path, "extends: missing.yaml\n"))


def test_peers_keys_are_checked_like_all_others(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "peer: {kind: asp, width: 8}\n")).peer.nce == 10
    for text in ("peer: {kind: magic}", "peer: {kind: asp, cycle: 3}", "peer: {width: 8}"):
        with pytest.raises(RestainError, match="peer"):
            load_recipe(write(tmp_path, text))
