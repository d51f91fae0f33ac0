"""Training as a user meets it: processes that are killed, interrupted and run again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.numpy
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from restain import RestainError
from restain.bundle import load_bundle
from restain.phantom import write_phantom
from restain.recipe import Recipe, parse_recipe
from restain.training import train
from restain.training.checkpoint import load_checkpoint
from restain.training.run import READ_EVERY

from ..samples import phantom_pairs, training_recipe


def recipe(**train_changes: object) -> Recipe:
    base = {
        "data": {"cache_mib": 0},
        "expression": {"steps": 3},
        "generator": {"attention": {"head_dim": 8, "features": 8, "redraw_every": 2}},
        "train": {"steps": 6},
    }
    return training_recipe(base, {"train": train_changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_pairs(tmp_path_factory, pairs=8, test_share=0.25)


def command(folder: Path, data: Path, out: Path, chosen: Recipe, *more: str) -> list[str]:
    path = folder / f"{chosen.name}.yaml"
    path.write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    return [sys.executable, "-m", "restain", "train", str(path), "--data", str(data), "-o", str(out), *more]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def weights(bundle: Path) -> dict[str, object]:
    return {k: v.tolist() for k, v in safetensors.numpy.load_file(bundle / "weights.safetensors").items()}


@pytest.mark.slow
def test_a_run_leaves_bundle_checkpoints_logs_and_pictures(data: Path, tmp_path: Path) -> None:
    bundle = train(recipe(), [data], tmp_path / "run", accelerator="cpu")
    loaded = load_bundle(bundle)
    assert loaded.card.step == 6
    assert loaded.recipe == recipe()
    assert loaded.card.figures["val_psnr"] is not None
    assert "BCI layout" in loaded.card.data
    events = EventAccumulator(str(tmp_path / "run" / "logs"), size_guidance={"images": 0}).Reload()
    assert {"expression/level", "adversarial/D.gan", "adversarial/G.level", "adversarial/G.dab"} <= set(
        events.Tags()["scalars"]
    )
    assert any("research use only" in tag for tag in events.Tags()["images"])
    stamp = (bundle / "card.json").stat().st_mtime_ns
    train(recipe(), [data], tmp_path / "run", accelerator="cpu")
    assert (bundle / "card.json").stat().st_mtime_ns == stamp


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["expression", "adversarial"])
def test_killed_and_resumed_is_the_same_as_never_killed(data: Path, tmp_path: Path, stage: str) -> None:
    chosen = recipe(steps=40 if stage == "adversarial" else 6, validate_every=10)
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"workers": 2})})
    if stage == "expression":
        chosen = chosen.model_copy(update={"expression": chosen.expression.model_copy(update={"steps": 100})})
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(tmp_path, data, out, chosen), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: (out / f"{stage}.ckpt").is_file(), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = load_checkpoint(out / f"{stage}.ckpt")
    assert saved is not None
    assert saved["step"] < (40 if stage == "adversarial" else 100), "killed too late to be a test"
    for folder in (out, tmp_path / "straight"):
        train(chosen, [data], folder, accelerator="cpu")
    assert weights(out / "bundle") == weights(tmp_path / "straight" / "bundle")


@pytest.mark.slow
def test_ctrl_c_stops_between_steps_with_one_sentence_and_resumes(data: Path, tmp_path: Path) -> None:
    chosen = recipe(steps=100_000, validate_every=100_000)
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(tmp_path, data, out, chosen),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: (out / "expression.ckpt").is_file(), process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "same command" in said
    checkpoint = (out / "adversarial.ckpt", out / "expression.ckpt")
    assert any(path.is_file() for path in checkpoint)


@pytest.mark.slow
def test_two_processes_train_together(data: Path, tmp_path: Path) -> None:
    finished = subprocess.run(
        command(tmp_path, data, tmp_path / "run", recipe(), "--accelerator", "cpu", "--devices", "2"),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    assert load_bundle(tmp_path / "run" / "bundle").card.step == 6
    alone = train(recipe(), [data], tmp_path / "alone", accelerator="cpu")
    assert weights(alone) != weights(tmp_path / "run" / "bundle")


def test_losses_that_are_read_seldom_are_those_of_every_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = []
    for every in (1, 4):
        monkeypatch.setitem(READ_EVERY, "cpu", every)
        train(recipe(validate_every=6), [data], tmp_path / str(every), accelerator="cpu", fit_ood=False)
        events = EventAccumulator(str(tmp_path / str(every) / "logs")).Reload()
        logged.append({tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in ("adversarial/G.l1",)})
    assert logged[0] == logged[1]
    assert [step for step, _ in logged[0]["adversarial/G.l1"]] == [1, 2, 3, 4, 5, 6]


def test_decoded_pairs_lie_in_the_run_until_it_ends_or_where_they_are_told_to(data: Path, tmp_path: Path) -> None:
    train(recipe(steps=2), [data], tmp_path / "run", accelerator="cpu", fit_ood=False)
    assert not (tmp_path / "run" / "store").exists()
    bundle = train(
        recipe(steps=2), [data], tmp_path / "other", accelerator="cpu", fit_ood=False, store=tmp_path / "kept"
    )
    assert len(list((tmp_path / "kept").iterdir())) == 4
    in_memory = recipe(steps=2).model_dump(mode="json")
    in_memory["data"]["cache_mib"] = 100
    plain = train(parse_recipe(in_memory, "x"), [data], tmp_path / "plain", accelerator="cpu", fit_ood=False)
    assert weights(bundle) == weights(plain)


def test_a_diverging_run_stops_with_step_and_loss(data: Path, tmp_path: Path) -> None:
    wild = recipe().model_dump(mode="json")
    wild["generator_optimiser"]["lr"] = 1e30
    with pytest.raises(RestainError, match=r"step \d+: the loss '[GD]\.\w+' is"):
        train(parse_recipe(wild, "wild"), [data], tmp_path / "run", accelerator="cpu")


def test_a_folder_keeps_to_its_recipe_and_data(data: Path, tmp_path: Path) -> None:
    train(recipe(steps=2), [data], tmp_path / "run", accelerator="cpu")
    with pytest.raises(RestainError, match="another recipe"):
        train(recipe(steps=4), [data], tmp_path / "run", accelerator="cpu")
    other = tmp_path / "other"
    write_phantom(other, pairs=12, size=128, seed=6)
    with pytest.raises(RestainError, match="other data"):
        train(recipe(steps=2), [other], tmp_path / "run", accelerator="cpu")


def test_training_can_start_from_a_bundle_of_the_same_shape(data: Path, tmp_path: Path) -> None:
    first = train(recipe(steps=2), [data], tmp_path / "first", accelerator="cpu")
    values = recipe(steps=2).model_dump(mode="json") | {"start_from": str(first)}
    values["generator_optimiser"]["lr"] = 1e-12
    values["expression"]["steps"] = 0
    values["generator"]["attention"]["redraw_every"] = 0
    second = train(parse_recipe(values, "second"), [data], tmp_path / "second", accelerator="cpu")
    before, after = load_bundle(first).generator, load_bundle(second).generator
    for (name, a), b in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        assert (a - b).abs().max() < 1e-4, name
    values["generator"]["width"] = 16
    with pytest.raises(RestainError, match="another shape"):
        train(parse_recipe(values, "third"), [data], tmp_path / "third", accelerator="cpu")


def test_without_levels_the_classifier_cannot_be_trained(tmp_path: Path) -> None:
    for name in ("trainA", "trainB"):
        (tmp_path / "mist" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (64, 64), (200, 150, 30 * i)).save(tmp_path / "mist" / name / f"S{i}_1.png")
    with pytest.raises(RestainError, match="no pair has a HER2 level"):
        train(recipe(), [tmp_path / "mist"], tmp_path / "run", accelerator="cpu")
    values = recipe(steps=2).model_dump(mode="json")
    values["generator"]["label_feature"] = False
    train(parse_recipe(values, "test"), [tmp_path / "mist"], tmp_path / "run2", accelerator="cpu")


def test_one_pair_only_is_told(tmp_path: Path) -> None:
    write_phantom(tmp_path / "one", pairs=1, size=128, seed=1, test_share=0)
    with pytest.raises(RestainError, match="one"):
        train(recipe(), [tmp_path / "one"], tmp_path / "run", accelerator="cpu")


def until(condition: object, process: subprocess.Popen, seconds: float = 90) -> None:  # type: ignore[type-arg]
    """Wait for what a process is to do; fail when it ends or takes too long."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)
