"""``pip install restain`` alone stains, reads slides and evaluates; what an extra brings is asked for in one sentence."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def installed_with(requirements: Sequence[str]) -> set[str]:
    """Names of the distributions that pip installs for these requirements, theirs among them."""
    found: set[str] = set()
    waiting = [(Requirement(one), "") for one in requirements]
    while waiting:
        one, asked = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": asked}):
            continue
        name = canonicalize_name(one.name)
        if name == "restain":
            waiting += [(Requirement(text), "") for extra in one.extras for text in EXTRAS[extra]]
            continue
        for extra in one.extras or {""}:
            if (key := f"{name}[{extra}]") in found:
                continue
            found |= {name, key}
            try:
                needed = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            waiting += [(Requirement(text), extra) for text in needed]
    return found


def modules_without(kept: Collection[str]) -> list[str]:
    """Modules of this environment's distributions, but for those of ``kept``."""
    owners = metadata.packages_distributions()
    return [
        module
        for module, names in owners.items()
        if module != "restain" and not any(canonicalize_name(name) in kept for name in names)
    ]


RUN = """
import contextlib, io, json, sys

blocked = set(json.loads(sys.argv[1]))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from restain.cli import main

results = []
for arguments in json.loads(sys.argv[2]):
    sys.argv[1:] = arguments
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        try:
            main()
        except SystemExit as end:
            results.append([end.code, said.getvalue(), told.getvalue()])
print(json.dumps(results))
"""


def restain(blocked: Collection[str], *commands: Sequence[object]) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of commands, run one after another without some modules."""
    given = [json.dumps(sorted(blocked)), json.dumps([[str(one) for one in command] for command in commands])]
    job = subprocess.run([sys.executable, "-c", RUN, *given], capture_output=True, text=True)
    assert job.returncode == 0, job.stderr
    return [(code, out, told) for code, out, told in json.loads(job.stdout)]


def modules_of(extra: str) -> list[str]:
    """Modules of the distributions that the extra names itself."""
    own = {canonicalize_name(Requirement(one).name) for one in EXTRAS[extra]}
    everything = {canonicalize_name(name) for names in metadata.packages_distributions().values() for name in names}
    return modules_without(everything - own)


@pytest.fixture(scope="module")
def light() -> list[str]:
    """Every module that ``pip install restain`` does not bring."""
    return modules_without(installed_with(PROJECT["dependencies"]))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, light: list[str]) -> Path:
    root = tmp_path_factory.mktemp("light") / "phantom"
    command = ["phantom", root, "--pairs", 4, "--size", 128, "--test-share", 0.5, "--seed", 1]
    ((code, _, told),) = restain(light, command)
    assert code == 0, told
    return root


@pytest.mark.slow
def test_the_core_stains_reads_and_evaluates(pairs: Path, light: list[str], tmp_path: Path) -> None:
    assert {"lightning", "kornia", "tensorboard", "captum", "fastapi", "sqlalchemy", "zarr", "pytest"} <= set(light)
    he = next((pairs / "HE" / "test").iterdir())
    slide = tmp_path / "slide.tif"
    tiled = np.tile(np.asarray(Image.open(he)), (4, 4, 1))
    tifffile.imwrite(slide, tiled, tile=(256, 256), photometric="rgb", resolution=(1e4 / 0.46,) * 2, resolutionunit=3)
    done = restain(
        light,
        ["--help"],
        ["check", pairs],
        ["info", slide],
        ["tissue", slide, "-o", tmp_path / "tissue"],
        ["stain", he, slide, "-o", tmp_path / "virtual", "--dab"],
        ["evaluate", "--data", pairs, "-o", tmp_path / "report", "--no-align"],
    )
    assert [(code, told) for code, _, told in done if code] == []
    assert len(list((tmp_path / "virtual").glob("*.dab.tif"))) == 2
    assert {he.name, "slide.png"} <= {path.name for path in (tmp_path / "virtual").iterdir()}
    absent = json.loads((tmp_path / "report" / "metrics.json").read_text())["extractors"]["distribution"]["absent"]
    assert absent.endswith("pip install 'restain[backbone]'.")


@pytest.mark.slow
def test_every_command_of_an_extra_tells_which_it_is(pairs: Path, light: list[str], tmp_path: Path) -> None:
    he = next((pairs / "HE" / "test").iterdir())
    other = Path(shutil.copy(next((pairs / "IHC" / "test").iterdir()), tmp_path / "ihc.png"))
    zarr = tmp_path / "a.ome.zarr"
    zarr.mkdir()
    (zarr / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    out = ["-o", tmp_path / "out"]
    commands = {
        "train": [
            ["train", "phantom-small", "--data", pairs, *out],
            ["benchmark", "bench", "--data", pairs, "--budget", "5steps", *out],
            ["crossval", "few-shot", "--data", pairs, *out],
            ["train-her2-classifier", "--data", pairs, *out],
        ],
        "web": [
            ["serve", tmp_path],
            ["accounts", "list", tmp_path],
            ["accounts", "remove", tmp_path, "anna"],
            ["accounts", "add", tmp_path, "anna", "--role", "reader", "--password-stdin"],
            ["accounts", "password", tmp_path, "anna", "--password-stdin"],
        ],
        "review": [
            ["review", "create", tmp_path / "study.yaml", *out],
            ["review", "results", tmp_path, *out],
            ["review", "export", tmp_path, *out],
        ],
        "explain": [["explain", he, *out], ["explain", "--data", pairs, *out]],
        "parquet": [["build", he, other, "--level", "0", "--mpp-he", 0.46, "--mpp-ihc", 0.46, "--parquet", *out]],
        "ray": [["stain", he, *out, "--ray", "auto"]],
        "spots": [["evaluate-spots", he, "--spots", tmp_path / "spots.h5ad", "--mpp", 0.46, *out]],
        "zarr": [["stain", zarr, *out], ["info", zarr]],
    }
    done = restain(light, *(command for group in commands.values() for command in group))
    extras = [extra for extra, group in commands.items() for _ in group]
    for extra, (code, _, told) in zip(extras, done, strict=True):
        last = told.strip().splitlines()[-1]
        assert code == 2, told
        assert re.search(rf"^error: .* needs the package [\w-]+: pip install 'restain\[{extra}\]'\.$", last), told
        assert "Traceback" not in told
    assert set(commands) | {"all", "notebook", "backbone", "peers", "postgres", "stain-norm"} == set(EXTRAS)


@pytest.mark.slow
def test_an_extra_beside_another_is_told_too(pairs: Path, tmp_path: Path) -> None:
    crops = ["--set", "data.crop=128", "--set", "expression.crop=128"]
    commands = {
        "backbone": ["train", "bci", "--data", pairs, "-o", tmp_path / "seed", *crops],
        "peers": ["train", "peers/bridge", "--data", pairs, "-o", tmp_path / "bridge", *crops],
        "postgres": ["accounts", "list", pairs, "--database", "postgresql://u@127.0.0.1:1/d"],
    }
    blocked = [module for extra in commands for module in modules_of(extra)]
    for extra, (code, _, told) in zip(commands, restain(blocked, *commands.values()), strict=True):
        assert code == 2, told
        assert told.startswith("error: "), told
        assert told.endswith(f"pip install 'restain[{extra}]'.\n"), told
        assert len(told.splitlines()) == 1, told


def test_importing_restain_loads_nothing_heavy() -> None:
    code = "import sys, restain; print(sorted(m for m in sys.modules if '.' not in m))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"'(torch|numpy|scipy|PIL|pydantic|rich|typer|lightning|skimage)'", names)
