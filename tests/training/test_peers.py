"""Every peer trains on real files through the same door as the method, and learns what it is taught."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.numpy
import torch
from lightning.fabric import Fabric

from restain.bundle import load_bundle
from restain.models.build import build_generator
from restain.recipe import Recipe
from restain.training import train
from restain.training.batches import Batch
from restain.training.checkpoint import load_checkpoint
from restain.training.pace import steps_within
from restain.training.peers import second_stage

from ..samples import phantom_pairs, training_recipe

PEERS = {
    "pix2pix": {"kind": "pix2pix", "network": "unet256", "width": 4, "discriminator_width": 4},
    "pyramid": {"kind": "pix2pix", "network": "resnet9", "width": 4, "discriminator_width": 4, "pyramid": 10.0},
    "cyclegan": {"kind": "cyclegan", "width": 4, "discriminator_width": 4},
    "asp": {"kind": "asp", "width": 4, "discriminator_width": 4, "patches": 16},
    "bridge": {"kind": "bridge", "width": 8, "sample_steps": 2},
}


def recipe(**changes: object) -> Recipe:
    base = {"data": {"crop": 64}, "train": {"validate_pairs": 1, "ema": 0.5}}
    return training_recipe(base, changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_pairs(tmp_path_factory, pairs=6, test_share=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
def test_a_peers_run_ends_in_a_bundle_that_loads_and_resumes_exactly(peer: str, data: Path, tmp_path: Path) -> None:
    whole = train(recipe(peer=PEERS[peer]), [data], tmp_path / "whole")
    bundle = load_bundle(whole)
    assert bundle.card.architecture == f"peer method: {PEERS[peer]['kind']}"
    assert not (tmp_path / "whole" / "expression.ckpt").exists()

    import restain.training.run as job

    class KilledError(Exception):
        pass

    real = job.save_checkpoint

    def save_and_die(path: Path, state: dict[str, object]) -> None:
        real(path, state)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "save_checkpoint", save_and_die)
        with pytest.raises(KilledError):
            train(recipe(peer=PEERS[peer]), [data], tmp_path / "killed")
    again = train(recipe(peer=PEERS[peer]), [data], tmp_path / "killed")
    one, two = (safetensors.numpy.load_file(path / "weights.safetensors") for path in (whole, again))
    assert one.keys() == two.keys()
    assert all((one[key] == two[key]).all() for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["least-squares", "wasserstein"])
def test_the_methods_own_networks_train_with_other_games(objective: str, data: Path, tmp_path: Path) -> None:
    changes = {"losses": {"objective": objective}, "discriminator": {"width": 4, "layers": 2, "spectral_norm": False}}
    run = tmp_path / "run"
    train(recipe(**changes), [data], run)
    assert load_bundle(run / "bundle").recipe.losses.objective == objective
    seconds = load_checkpoint(run / "adversarial.ckpt")["seconds"]
    assert seconds["busy"] > 0
    assert seconds["wall"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["pix2pix", "pyramid", "bridge"])
def test_a_supervised_peer_learns_one_pair_by_heart(peer: str) -> None:
    torch.manual_seed(0)
    chosen = recipe(
        peer=PEERS[peer], generator_optimiser={"lr": 3e-3, "betas": [0.5, 0.99]}, train={"steps": 1000, "ema": 0.0}
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    stage = second_stage(fabric, chosen, build_generator(chosen))
    he = torch.rand(2, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    ihc = 1 - 0.5 * he
    batch = Batch(he, ihc, torch.tensor([0, 1]), torch.ones(2, 3))

    def error() -> float:
        network = stage.averaged_generator.eval()
        with torch.no_grad():
            return float((network(he).rgb - ihc).abs().mean())

    before = error()
    for number in range(30):
        stage.step(number, batch)
    assert error() < 0.6 * before


def test_steps_within_a_time_grow_with_it_and_stage_one_counts(data: Path) -> None:
    short = steps_within(recipe(), [data], 3.0)
    assert steps_within(recipe(), [data], 12.0) > short
    with pytest.raises(Exception, match="too small"):
        steps_within(recipe(expression={"width": 4, "steps": 10**6, "crop": 32, "batch": 2}), [data], 3.0)
