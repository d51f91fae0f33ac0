"""What would stop a training later is told before its first step, in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from restain import RestainError
from restain.benchmark import Budget, benchmark
from restain.crossval import crossval
from restain.evaluation import evaluate
from restain.images import write_png
from restain.recipe import Recipe
from restain.slides import read_image
from restain.training import train
from restain.training.devices import choose_devices
from restain.training.her2_classifier import train_her2_classifier

from ..samples import phantom_pairs, training_recipe


def recipe(**changes: Any) -> Recipe:
    base = {
        "expression": {"steps": 1},
        "generator": {"attention": {"kind": "none"}},
        "train": {"steps": 1, "validate_every": 1},
    }
    return training_recipe(base, changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = phantom_pairs(tmp_path_factory, pairs=8, test_share=0.25)
    return stated(root, root, 0.46)


def stated(source: Path, target: Path, mpp: float) -> Path:
    """The data once more, its files stating ``mpp``."""
    for path in [*source.glob("HE/*/*.png"), *source.glob("IHC/*/*.png")]:
        rgb = read_image(path)
        (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        write_png(target / path.relative_to(source), rgb, mpp=mpp)
    return target


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"accelerator": "gpu"}, "--accelerator gpu: there is none of this name; give cpu, cuda, mps or auto"),
        ({"accelerator": "tpu"}, "--accelerator tpu"),
        ({"devices": "abc"}, "--devices abc: give a number of devices"),
        ({"devices": "0"}, "--devices 0: give a number"),
        ({"devices": -1}, "--devices -1: give a number"),
        (
            {"accelerator": "cpu", "devices": "999"},
            r"--devices 999: this machine has \d+ cores? for the accelerator cpu",
        ),
        ({"nodes": 0}, "--nodes 0"),
        ({"nodes": 2}, "--nodes 2: start the command on every node"),
    ],
)
def test_devices_that_are_not_there_are_refused(
    data: Path, tmp_path: Path, asked: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(RestainError, match=words):
        train(recipe(), [data], tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()


def test_a_missing_gpu_is_told_and_auto_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RestainError, match="--accelerator cuda: this machine has no such device"):
        choose_devices("cuda")
    assert choose_devices("cpu", "auto").devices == 1
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("NODE_RANK", "1")
    assert choose_devices("cpu", 1, 2).nodes == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"crop": 300}}, r"128x128 px is smaller than the training crop of 300 px; give --set data\.crop=128"),
        ({"expression": {"crop": 300}}, r"crop of 300 px; give --set expression\.crop=128 or less"),
        ({"mpp": 0.3}, r"states 0\.46 µm per px, but 0\.3 was expected; .*--set mpp=0\.46"),
        ({"data": {"swap": True}}, "looks more like DAB than the IHC side .*without data.swap"),
        ({"data": {"holdout": ["*"]}}, "no training split"),
        ({"data": {"crop": 8}}, r"data\.crop = 8: the networks need crops of 32 px or more"),
        ({"expression": {"crop": 1}}, r"expression\.crop = 1: the networks need"),
        ({"discriminator": {"layers": 6}}, r"data\.crop = 32: a discriminator of 6 layers"),
        ({"losses": {"contextual": 1.0, "contextual_px": 40}}, r"losses\.contextual_px = 40"),
        ({"peer": {"kind": "bridge", "width": 12}}, r"peer\.width = 12: .* multiple of 8"),
    ],
)
def test_values_that_the_data_does_not_bear_are_refused_before_anything_is_written(
    data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    chosen = recipe(**changes)
    with pytest.raises(RestainError, match=words):
        train(chosen, [data], tmp_path / "run", accelerator="cpu")
    with pytest.raises(RestainError, match=words):
        benchmark([chosen], [data], Budget(steps=1), tmp_path / "run", accelerator="cpu")
    if "holdout" not in changes.get("data", {}):
        with pytest.raises(RestainError, match=words):
            crossval(chosen, [data], tmp_path / "run", accelerator="cpu")
    assert not (tmp_path / "run").exists()


def test_a_crop_of_a_stage_that_does_not_run_is_not_asked_for(data: Path, tmp_path: Path) -> None:
    chosen = recipe(expression={"crop": 300}, generator={"label_feature": False}, discriminator={"layers": 1})
    assert train(chosen, [data], tmp_path / "run", accelerator="cpu", fit_ood=False).is_dir()


def test_a_folder_that_cannot_be_made_is_told_first(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RestainError, match="cannot be made"):
            train(recipe(), [data], out, accelerator="cpu")
        with pytest.raises(RestainError, match="cannot be made"):
            benchmark([recipe()], [data], Budget(steps=1), out, accelerator="cpu")
        with pytest.raises(RestainError, match="cannot be made"):
            crossval(recipe(), [data], out, accelerator="cpu")
        with pytest.raises(RestainError, match="cannot be made"):
            evaluate(None, data, out=out)
    with pytest.raises(RestainError, match="is not a classifier"):
        train_her2_classifier([data], tmp_path / "file", steps=1)
    with pytest.raises(RestainError, match="cannot be made"):
        train_her2_classifier([data], tmp_path / "file" / "below", steps=1)


def test_a_benchmark_without_pairs_to_score_is_refused_first(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="no pairs in the split 'tset'"):
        benchmark([recipe()], [data], Budget(steps=1), tmp_path / "out", split="tset", accelerator="cpu")
    assert not any((tmp_path / "out").rglob("*.ckpt"))


def test_a_reader_looks_at_its_data_first(data: Path, tmp_path: Path) -> None:
    for asked, words in (
        ({"tile": 500}, "500 px; give --tile 128 or less"),
        ({"tile": 64, "mpp": 0.3}, r"states 0\.46 .*--mpp 0\.46"),
        ({"tile": 64, "swap": True}, "looks more like DAB"),
    ):
        with pytest.raises(RestainError, match=words):
            train_her2_classifier([data], tmp_path / "reader", steps=1, **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "reader").exists()


def test_an_evaluation_refuses_another_scale_and_exchanged_sides(data: Path, tmp_path: Path) -> None:
    finer = stated(data, tmp_path / "finer", 0.23)
    with pytest.raises(RestainError, match=r"states 0\.23 µm per px, but 0\.46 was expected; .*--mpp 0\.23"):
        evaluate(None, finer, out=tmp_path / "out")
    with pytest.raises(RestainError, match="looks more like DAB"):
        evaluate(None, data, out=tmp_path / "out", swap=True)
    assert not (tmp_path / "out").exists()
