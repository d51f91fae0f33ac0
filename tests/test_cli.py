"""The commands as a user types them: a real process, real files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COMMANDS = [
    *("check", "phantom", "train", "train-reader", "benchmark", "crossval", "cohort"),
    *("evaluate", "compare", "explain", "stain", "demo"),
]


def restain(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "restain", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )


def fails(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One clear sentence, exit code 2, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error:"), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantom"
    result = restain("phantom", root, "--pairs", 4, "--size", 128, "--test-share", 0.5, "--seed", 1)
    assert result.returncode == 0, result.stderr
    return root


def picture(path: Path, mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 4), dtype=np.uint8)
    if mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(path)
    elif mode == "L":
        Image.fromarray(pixels[..., 0]).save(path)
    else:
        Image.fromarray(pixels[..., : len(mode)], mode).save(path)
    return path


def test_version_and_module_entry() -> None:
    result = restain("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("restain ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    result = restain(command, "--help")
    assert result.returncode == 0
    assert f"Example: restain {command}" in " ".join(result.stdout.split())


def test_all_commands_are_covered_here() -> None:
    listed = restain("--help").stdout
    assert all(command in listed for command in COMMANDS)


def test_networks_are_not_loaded_for_help() -> None:
    code = "import sys, restain, restain.cli; print([m for m in ('torch','numpy','lightning','skimage') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_check_counts_and_finds_faults(pairs: Path, tmp_path: Path) -> None:
    good = restain("check", pairs)
    assert good.returncode == 0, good.stderr
    assert "BCI" in good.stdout
    (tmp_path / "HE" / "train").mkdir(parents=True)
    (tmp_path / "IHC" / "train").mkdir(parents=True)
    picture(tmp_path / "HE" / "train" / "00000_train_1+.png")
    (tmp_path / "IHC" / "train" / "00000_train_1+.png").write_text("not an image")
    picture(tmp_path / "HE" / "train" / "00001_train_5+.png")
    bad = restain("check", tmp_path)
    assert bad.returncode == 2
    assert bad.stderr.count("fault:") >= 2
    assert "Traceback" not in bad.stderr


def test_no_data_and_empty_data(tmp_path: Path) -> None:
    for command in (
        ["check"],
        ["train", "phantom-small", "-o", tmp_path / "run", "--data"],
        ["evaluate", "-o", tmp_path / "e", "--data"],
    ):
        fails(restain(*command, tmp_path / "absent"), "absent")
    (tmp_path / "empty").mkdir()
    fails(restain("check", tmp_path / "empty"), "empty")


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_images_of_another_kind_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    source = picture(tmp_path / "odd.png", mode)
    fails(restain("stain", source, "-o", tmp_path / "out"), "odd.png", "RGB")


def test_a_text_file_named_png(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("hello")
    fails(restain("stain", tmp_path / "notes.png", "-o", tmp_path / "out"), "notes.png")


def test_the_shipped_model_stains_and_says_what_it_knows(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    result = restain("stain", source, "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "a.png").is_file()
    assert "research use only" in result.stdout
    assert "phantom" in result.stdout


def test_bad_recipes(pairs: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    run = ["--data", pairs, "-o", tmp_path / "run"]
    recipe.write_text("losses: {l1: -2}")
    fails(restain("train", recipe, *run), "r.yaml", "losses.l1", "-2")
    recipe.write_text("speed: fast")
    fails(restain("train", recipe, *run), "r.yaml", "speed")
    fails(restain("train", "no-such", *run), "no-such", "seed")
    assert not (tmp_path / "run").exists()


def test_unwritable_output(pairs: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    source = picture(tmp_path / "a.png")
    fails(restain("stain", source, "-o", blocker / "out"), "file")
    fails(restain("phantom", blocker / "out", "--pairs", 1, "--size", 128), "file")
    fails(restain("evaluate", "--data", pairs, "-o", blocker / "out"), "file")
    fails(restain("train", "phantom-small", "--data", pairs, "-o", blocker / "run"), "file")
    assert blocker.read_text() == "in the way"


def test_a_broken_bundle(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "card.json").write_text(json.dumps({"format": 99, "restain_version": "7.0"}))
    source = picture(tmp_path / "a.png")
    fails(restain("stain", source, "-o", tmp_path / "o", "--model", tmp_path / "b"), "7.0", "upgrade")
    fails(restain("stain", source, "-o", tmp_path / "o", "--model", tmp_path / "c"), "not a model bundle")


def test_typing_errors_are_told_without_a_traceback() -> None:
    for arguments in (["stain"], ["nonsense"], ["phantom", "x", "--pairs", "many"]):
        result = restain(*arguments)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert result.stderr.startswith("error:")


def test_devices_that_are_not_there_are_one_sentence(pairs: Path, tmp_path: Path) -> None:
    train = ("train", "phantom-small", "--data", pairs, "-o", tmp_path / "run")
    fails(restain(*train, "--devices", "abc"), "--devices abc: give a number of devices")
    fails(restain("crossval", *train[1:], "--accelerator", "gpu"), "--accelerator gpu: there is none of this name")
    assert not (tmp_path / "run").exists()


def test_evaluate_writes_report_and_both_sources_exclude_one_another(pairs: Path, tmp_path: Path) -> None:
    result = restain("evaluate", "--data", pairs, "--split", "test", "-o", tmp_path / "e")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["overall"]["model"]["psnr"]["n"] == 2
    assert (tmp_path / "e" / "report.html").is_file()
    again = restain("evaluate", "--data", pairs, "--images", tmp_path / "e" / "images", "-o", tmp_path / "f")
    assert again.returncode == 0, again.stderr
    theirs = json.loads((tmp_path / "f" / "metrics.json").read_text())
    assert theirs["overall"]["model"]["psnr"]["mean"] == pytest.approx(metrics["overall"]["model"]["psnr"]["mean"])
    fails(
        restain("evaluate", "--data", pairs, "--images", tmp_path, "--model", tmp_path, "-o", tmp_path / "g"), "exclude"
    )
    fails(restain("evaluate", "--data", pairs, "--split", "nonsense", "-o", tmp_path / "g"), "nonsense")
