"""A benchmark as a user meets it: two recipes, one budget, one table, and a second call that changes nothing."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from urllib.parse import unquote

import pytest

from restain import NOTICE, RestainError
from restain.benchmark import Budget, benchmark
from restain.recipe import Recipe

from ..samples import phantom_pairs, training_recipe

pytestmark = pytest.mark.slow


def own(**changes: object) -> Recipe:
    base = {"name": "own", "data": {"crop": 64}, "train": {"validate_every": 100, "validate_pairs": 1}}
    return training_recipe(base, changes)


def peer(**changes: object) -> Recipe:
    network = {"kind": "pix2pix", "network": "resnet9", "width": 4, "discriminator_width": 4}
    return own(**({"name": "peers/resnet", "peer": network} | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_pairs(tmp_path_factory, pairs=8, test_share=0.4)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("benchmark") / "out"
    recipes = [own(), own(name="no-level-head", losses={"level_discriminator": 0.0}), peer()]
    benchmark(recipes, [data], Budget(steps=3), out, command="restain benchmark ...")
    return out


def test_one_table_holds_recipes_trivial_rows_and_costs(finished: Path) -> None:
    result = json.loads((finished / "benchmark.json").read_text())
    lines = {line["name"]: line for line in result["lines"]}
    assert {"own", "no-level-head", "peers/resnet", "baseline_mean", "baseline_hematoxylin"} <= lines.keys()
    for name in ("own", "no-level-head", "peers/resnet"):
        assert lines[name]["steps"] == 3
        cost = lines[name]["cost"]
        assert all(cost[key] > 0 for key in ("parameters", "train_seconds", "stain_seconds_per_megapixel"))
        assert cost["peak_memory_mib"] > 50
        psnr = lines[name]["cells"]["psnr"]
        assert psnr["low"] <= psnr["mean"] <= psnr["high"]
    with (finished / "benchmark.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert float(rows["own"]["psnr"]) == pytest.approx(lines["own"]["cells"]["psnr"]["mean"])
    assert "| peers/resnet |" in (finished / "benchmark.md").read_text()


def test_the_page_marks_virtual_images_and_its_links_exist(finished: Path) -> None:
    page = (finished / "benchmark.html").read_text()
    assert NOTICE in page
    links = {part.split('"')[0] for part in page.split('src="')[1:]} | {
        part.split('"')[0] for part in page.split('href="')[1:]
    }
    assert len([link for link in links if link.endswith(".jpg")]) >= 5
    for link in links:
        assert (finished / unquote(link)).is_file(), link


def test_equal_first_stages_are_trained_once_and_charged_to_each(finished: Path) -> None:
    one, two = (finished / name / "run" / "expression.ckpt" for name in ("own", "no-level-head"))
    assert one.read_bytes() == two.read_bytes()
    assert not (finished / "peers-resnet" / "run" / "expression.ckpt").exists()


def test_a_second_call_trains_and_scores_nothing_again(finished: Path, data: Path) -> None:
    kept = [p for p in finished.rglob("*") if p.name in ("weights.safetensors", "metrics.json", "cost.json")]
    before = {path: os.stat(path).st_mtime_ns for path in kept}
    recipes = [own(), own(name="no-level-head", losses={"level_discriminator": 0.0}), peer()]
    benchmark(recipes, [data], Budget(steps=3), finished)
    assert before == {path: os.stat(path).st_mtime_ns for path in kept}


def test_another_budget_or_recipe_in_the_same_folder_is_refused(finished: Path, data: Path) -> None:
    with pytest.raises(RestainError, match="another recipe of this name or another budget"):
        benchmark([own()], [data], Budget(steps=4), finished)
    with pytest.raises(RestainError, match="another recipe of this name or another budget"):
        benchmark([own(losses={"l1": 1.0})], [data], Budget(steps=3), finished)


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"seed": 4}, "seed is not that of own"),
        ({"data": {"crop": 32}}, r"data\.crop is 32, in own 64"),
        ({"name": "own"}, "names must differ"),
    ],
)
def test_recipes_must_share_data_and_seed(other: dict[str, object], fault: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=fault):
        benchmark([own(), peer(**other)], [data], Budget(steps=3), tmp_path)


def test_budgets_are_read_and_faults_told() -> None:
    assert Budget.parse("500steps") == Budget(steps=500)
    assert Budget.parse(" 2.5 min") == Budget(minutes=2.5)
    for text in ("", "10", "0min", "-3steps", "2.5steps", "1.2.3min", "ten min"):
        with pytest.raises(RestainError, match="expected a number of steps or minutes"):
            Budget.parse(text)
