"""Training on rough pairs: what the options do, and that they do nothing where they are off."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import torch
from torch.nn import functional as F

from restain import RestainError, losses
from restain.models.deform import Deformer, warp
from restain.models.heads import Stained
from restain.recipe import DeformRecipe, Recipe
from restain.training import train
from restain.training.adversarial import AdversarialStage
from restain.training.batches import Batch
from restain.training.deform import deformer_terms, laid_on

from ..samples import phantom_pairs, training_recipe


def recipe(**sections: Any) -> Recipe:
    base = {
        "data": {"crop": 64, "val_share": 0},
        "expression": {"steps": 0},
        "generator": {"label_feature": False},
        "losses": {"gan": 0.1, "level_generator": 0.1},
        "train": {"precision": "fp32"},
    }
    return training_recipe(base, sections)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_pairs(tmp_path_factory, pairs=6, test_share=0, misalign_um=4.0)


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return trained(recipe(), data, tmp_path_factory.mktemp("plain"))


def trained(chosen: Recipe, data: Path, out: Path) -> dict[str, bytes]:
    bundle = train(chosen, [data], out / "run", accelerator="cpu", fit_ood=False)
    return {k: v.tobytes() for k, v in safetensors.numpy.load_file(bundle / "weights.safetensors").items()}


def write_weights(root: Path, weight: Callable[[int], object]) -> None:
    names = sorted(path.name for path in (root / "HE" / "train").iterdir())
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "weight"])
        writer.writerows([name, weight(number)] for number, name in enumerate(names))


@pytest.mark.slow
def test_options_that_are_off_change_no_bit(data: Path, tmp_path: Path, plain: dict[str, bytes]) -> None:
    write_weights(data, lambda number: number)
    off = recipe(losses={"contextual_px": 16, "contextual_reach_um": 3.0}, data={"weighted": False})
    assert trained(off, data, tmp_path / "off") == plain
    # A registration network that learns but moves nothing yet leaves the generator alone.
    assert trained(recipe(deform={"begin": 1.0}), data, tmp_path / "waiting") == plain


def test_equal_weights_change_no_bit_and_others_do(data: Path, tmp_path: Path, plain: dict[str, bytes]) -> None:
    write_weights(data, lambda number: 0.3)
    assert trained(recipe(data={"weighted": True}), data, tmp_path / "equal") == plain
    write_weights(data, lambda number: number)
    assert trained(recipe(data={"weighted": True}), data, tmp_path / "other") != plain


def test_a_weighted_run_keeps_to_its_weights(data: Path, tmp_path: Path) -> None:
    chosen = recipe(data={"weighted": True}, train={"steps": 1})
    write_weights(data, lambda number: 1 + number)
    trained(chosen, data, tmp_path)
    write_weights(data, lambda number: 2 + number)
    with pytest.raises(RestainError, match="other data"):
        trained(chosen, data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("option", [{"deform": {"reach_um": 6.0}}, {"losses": {"contextual": 1.0}}])
def test_an_option_changes_the_result_and_a_killed_run_comes_to_the_same(
    data: Path, tmp_path: Path, plain: dict[str, bytes], option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(**option)
    straight = trained(chosen, data, tmp_path / "straight")
    assert straight != plain
    assert straight.keys() == plain.keys(), "what only training needs is not in the bundle"

    def dies(self: AdversarialStage, number: int, batch: Batch) -> dict[str, torch.Tensor]:
        if number == 3:
            raise KeyboardInterrupt
        return play(self, number, batch)

    play = AdversarialStage._play
    monkeypatch.setattr(AdversarialStage, "_play", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(chosen, data, tmp_path / "killed")
    monkeypatch.setattr(AdversarialStage, "_play", play)
    assert trained(chosen, data, tmp_path / "killed") == straight


def test_a_run_that_was_begun_before_the_options_existed_goes_on(data: Path, tmp_path: Path) -> None:
    chosen = recipe(train={"steps": 1})
    trained(chosen, data, tmp_path)
    record = tmp_path / "run" / "run.json"
    before = json.loads(record.read_text())
    del before["recipe"]["deform"], before["recipe"]["losses"]["contextual"], before["recipe"]["data"]["weighted"]
    record.write_text(json.dumps(before))
    trained(chosen, data, tmp_path)
    for other in (recipe(train={"steps": 1}, deform={}), recipe(train={"steps": 1}, losses={"contextual": 1})):
        with pytest.raises(RestainError, match="another recipe"):
            trained(other, data, tmp_path)


def blots(size: int, count: int) -> torch.Tensor:
    return F.interpolate(torch.rand(count, 3, size // 8, size // 8), size=(size, size), mode="bicubic").clamp(0.05, 1)


def test_the_network_learns_to_undo_a_deformation() -> None:
    torch.manual_seed(0)
    wide = blots(128, 4)
    virtual = wide[:, :, 16:112, 16:112]
    truth = F.interpolate(6 * torch.randn(4, 2, 2, 2), size=(96, 96), mode="bilinear")
    real = warp(virtual.pow(1.3) * 0.9, truth)  # stained more strongly, and moved
    chosen = DeformRecipe(smooth=0.1)
    network = Deformer(8, 24)
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)

    def missed() -> float:
        with torch.no_grad():
            field = network(virtual, real)
        return float((field - truth)[:, :, 16:80, 16:80].norm(dim=1).mean())

    untrained = missed()
    for _ in range(20):
        adam.zero_grad()
        torch.stack(list(deformer_terms(chosen, network(virtual, real), virtual, real).values())).sum().backward()
        adam.step()
    still = float(truth[:, :, 16:80, 16:80].norm(dim=1).mean())
    assert untrained < 0.6 * still
    assert missed() < 0.7 * untrained, "learning adds to what an untrained network finds"


def test_the_generator_is_compared_where_the_field_points_and_nowhere_else() -> None:
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 32, 32, requires_grad=True)
    dab = torch.rand(1, 1, 32, 32, requires_grad=True)
    real = torch.rand(1, 3, 32, 32)
    batch = Batch(torch.rand(1, 3, 32, 32), real, torch.zeros(1, dtype=torch.long), torch.ones(1, 3))
    field = torch.zeros(1, 2, 32, 32)
    field[:, 0] = 10  # looks 10 rows below: the last 10 rows look out of the image
    near = laid_on(Stained(rgb, dab, dab), field, batch)
    assert near.dab is not None
    torch.testing.assert_close(near.rgb[:, :, :22], rgb[:, :, 10:], atol=1e-5, rtol=0)
    assert torch.equal(near.rgb[:, :, 22:], real[:, :, 22:])
    assert torch.equal(near.dab[:, :, 22:], losses.dab_density(real, batch.white)[:, :, 22:])
    (losses.l1(near.rgb, real) + near.dab.mean()).backward()
    assert rgb.grad is not None
    assert dab.grad is not None
    assert rgb.grad[:, :, 12:].abs().min() > 0
    assert rgb.grad[:, :, :8].abs().max() == 0
    assert dab.grad[:, :, :8].abs().max() == 0


def test_both_networks_learn_in_one_step(data: Path) -> None:
    from lightning.fabric import Fabric

    from restain.models.build import build_generator

    chosen = recipe(deform={"reach_um": 6.0, "begin": 0.0}, losses={"gan": 0, "level_generator": 0})
    torch.manual_seed(0)
    stage = AdversarialStage(Fabric(accelerator="cpu"), chosen, build_generator(chosen))
    before = {name: [p.clone() for p in stage.players[name].bare.parameters()] for name in ("generator", "deformer")}
    batch = Batch(
        torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), torch.zeros(2, dtype=torch.long), torch.ones(2, 3)
    )
    terms = stage.step(0, batch)
    assert {"R.dissimilarity", "R.slope", "G.l1"} <= terms.keys()
    for name, parameters in before.items():
        after = stage.players[name].bare.parameters()
        assert any(not torch.equal(a, b) for a, b in zip(parameters, after, strict=True)), name
