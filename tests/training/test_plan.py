"""What a plan says before a training, and what it warns of."""

import re
import shutil
from pathlib import Path

import pytest

from restain.data import open_pairs
from restain.training import plan as module
from restain.training.plan import leaks, plan

from ..samples import phantom_pairs, training_recipe

RECIPE = training_recipe(
    {"data": {"cache_mib": 0}, "expression": {"steps": 30}, "train": {"steps": 3600, "validate_every": 100}}
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_pairs(tmp_path_factory, pairs=6, test_share=0.34)


def test_a_plan_tells_speed_shares_memory_disk_and_the_end_and_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEPS", 2)
    found = plan(RECIPE, [data], tmp_path / "runs" / "new", accelerator="cpu")
    assert [stage.name for stage in found.stages] == ["expression", "adversarial"]
    second = found.stages[1]
    assert second.hours == pytest.approx(second.seconds_per_step)
    assert set(second.shares) == {"loader", "generator", "discriminator", "optimiser"}
    assert sum(second.shares.values()) == pytest.approx(1, abs=0.05)
    assert found.disk_gb > 3 * 2 * 128 * 128 * 3 / 1e9
    assert re.search(r"done: 20\d\d-\d\d-\d\d \d\d:\d\d if started now", found.describe())
    assert list(tmp_path.iterdir()) == []


def test_a_small_disk_and_a_slow_loader_are_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 1)
    monkeypatch.setattr(module, "STARVING", -1.0)
    found = plan(RECIPE, [data], tmp_path, accelerator="cpu")
    monkeypatch.undo()
    assert any("data.workers (now 0)" in warning for warning in found.warnings)
    small = module._with_warnings(
        module.replace(found, free_gb=0.0), open_pairs(data, val_share=0), RECIPE.data.workers
    )
    assert any("the disk is too small" in warning for warning in small.warnings)


def test_a_picture_in_two_splits_is_a_leak(data: Path, tmp_path: Path) -> None:
    assert leaks(open_pairs(data, val_share=0)) == []
    leaking = Path(shutil.copytree(data, tmp_path / "leaking"))
    for stain in ("HE", "IHC"):
        (first,) = sorted((leaking / stain / "train").iterdir())[:1]
        shutil.copy(first, leaking / stain / "test" / "00099_test_0.png")
    (sentence,) = leaks(open_pairs(leaking, val_share=0))
    assert "1 H&E images of 'test' are in 'train' too" in sentence
    assert "00099_test_0.png" in sentence
