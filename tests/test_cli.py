"""The commands as a user types them, on real files."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from restain import cli

WRONG = {
    "accounts add": ["ABSENT", "anna", "--role", "reader", "--password-stdin"],
    "accounts list": ["ABSENT"],
    "accounts password": ["ABSENT", "anna", "--password-stdin"],
    "accounts remove": ["ABSENT", "anna"],
    "benchmark": ["bench", "--data", "ABSENT", "--budget", "5steps", "-o", "OUT"],
    "build": ["--csv", "ABSENT", "-o", "OUT"],
    "check": ["ABSENT"],
    "cohort": ["ABSENT", "-o", "OUT"],
    "compare": ["ABSENT", "TEXT", "-o", "OUT"],
    "compare-slides": ["TEXT", "TEXT", "-o", "OUT"],
    "crossval": ["few-shot", "--data", "ABSENT", "-o", "OUT"],
    "demo": ["-o", "TEXT/out"],
    "evaluate": ["--data", "ABSENT", "-o", "OUT"],
    "evaluate-spots": ["--spots", "TEXT", "ABSENT", "-o", "OUT"],
    "explain": ["TEXT", "-o", "OUT"],
    "info": ["TEXT"],
    "map": ["--transform", "ABSENT", "TEXT", "-o", "OUT"],
    "models get": ["TEXT", "--sha256", "0" * 64],
    "phantom": ["TEXT/out", "--pairs", "1", "--size", "128"],
    "phantom-slide": ["TEXT/out", "--size", "600x500", "--mpp", "1"],
    "plan": ["phantom-small", "--data", "ABSENT", "-o", "OUT"],
    "register": ["TEXT", "TEXT", "-o", "OUT"],
    "render-pairs": ["ABSENT", "-o", "OUT"],
    "review create": ["ABSENT", "-o", "OUT"],
    "review export": ["ABSENT", "-o", "OUT"],
    "review results": ["ABSENT", "-o", "OUT"],
    "serve": ["ABSENT"],
    "stain": ["TEXT", "-o", "OUT"],
    "tissue": ["TEXT", "-o", "OUT"],
    "train": ["phantom-small", "--data", "ABSENT", "-o", "OUT"],
    "train-her2-classifier": ["--data", "ABSENT", "-o", "OUT"],
}
"""One wrong input for every command: something that is not there, or a text file where an image or a folder should be."""


def examples(app: typer.Typer, prefix: str = "") -> dict[str, str]:
    """Each command as a user types it, those of groups too, with the text at the end of its help."""
    found: dict[str, str] = {}
    for one in app.registered_commands:
        name = one.name or one.callback.__name__.replace("_", "-")
        found[prefix + name] = one.epilog or ""
    for group in app.registered_groups:
        found |= examples(group.typer_instance, f"{prefix}{group.typer_instance.info.name} ")
    return found


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which takes seconds where networks are loaded."""
    return subprocess.run(
        [sys.executable, "-m", "restain", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )


def restain(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process; an exception that a user would see as a traceback fails the test."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["restain", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(sys.argv, end.value.code, out.getvalue(), err.getvalue())  # type: ignore[arg-type]


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
    result = process("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("restain ")


def test_every_command_has_a_wrong_input_here_and_an_example_in_its_help() -> None:
    known = examples(cli.app)
    assert sorted(WRONG) == sorted(known)
    for command, text in known.items():
        assert text.startswith(f"Example: restain {command} "), command
    shown = process("accounts", "add", "--help")
    assert shown.returncode == 0
    assert "Example: restain accounts add" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_input_is_one_sentence_that_names_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.tif").write_text("not an image")
    given = WRONG[command]
    places = {"TEXT": f"{tmp_path}/notes.tif", "ABSENT": f"{tmp_path}/absent", "OUT": f"{tmp_path}/out"}
    arguments = [re.sub("TEXT|ABSENT|OUT", lambda found: places[found[0]], one) for one in given]
    monkeypatch.setattr(sys, "stdin", io.StringIO("a long password\n"))
    result = restain(*command.split(), *arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("error: ") == 1, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: "), result.stderr
    named = next(found[0] for one in given if (found := re.search("TEXT|ABSENT", one)))
    assert Path(places[named]).name in last


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
    fails(restain("train", "no-such", *run), "no-such", "bci")
    assert not (tmp_path / "run").exists()


def test_unwritable_output(pairs: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    source = picture(tmp_path / "a.png")
    fails(restain("stain", source, "-o", blocker / "out"), "file")
    fails(restain("phantom", blocker / "out", "--pairs", 1, "--size", 128), "file")
    fails(restain("evaluate", "--data", pairs, "-o", blocker / "out"), "file")
    crops = ("--set", "data.crop=64", "--set", "expression.crop=64")
    fails(restain("train", "phantom-small", "--data", pairs, "-o", blocker / "run", *crops), "file")
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


@pytest.mark.slow
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
