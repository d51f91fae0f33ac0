"""QuPath, Grand Challenge, containers, conda-forge and the project's own files: what other programs read is right."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import Image

import restain
from restain.phantom import write_phantom
from restain.slides import open_slide, read_metadata

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MPP, SIDE = 0.25, 384

CONDA_NAMES = {"matplotlib": "matplotlib-base", "torch": "pytorch", "openslide-bin": "openslide"}


def script(path: str) -> Any:
    """A script of ``integrations`` as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "integrations" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def he(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF of 3+ phantom tissue at 0.25 µm per px, as a platform stores it."""
    folder = tmp_path_factory.mktemp("he")
    level = (restain.Her2Level.THREE,)
    write_phantom(folder / "phantom", pairs=1, size=SIDE, levels=level, seed=9301, mpp=MPP, test_share=1)
    rgb = np.asarray(Image.open(next((folder / "phantom/HE/test").glob("*.png"))).convert("RGB"))
    resolution = (1e4 / MPP, 1e4 / MPP)
    path = folder / "he.tif"
    tifffile.imwrite(path, rgb, photometric="rgb", tile=(256, 256), resolution=resolution, resolutionunit="CENTIMETER")
    return path


@pytest.mark.slow
def test_qupath_gets_a_virtual_slide_and_detections_inside_the_region(he: Path, tmp_path: Path) -> None:
    region = shapely.box(32, 32, 352, 352)
    annotation = {
        "type": "Feature",
        "id": "d3a1e3f0-0000-4000-8000-000000000001",
        "geometry": {"type": "Polygon", "coordinates": [[list(point) for point in region.exterior.coords]]},
        "properties": {"objectType": "annotation", "name": "tumour", "isLocked": False},
    }
    roi = tmp_path / "region.geojson"
    roi.write_text(json.dumps({"type": "FeatureCollection", "features": [annotation]}))
    command = [sys.executable, ROOT / "integrations/qupath/stain_region.py", he, "--roi", roi, "-o", tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["notice"] == restain.NOTICE
    with open_slide(result["virtual"]) as virtual:
        extent = np.array([virtual.size.width, virtual.size.height]) * virtual.mpp
        np.testing.assert_allclose(extent, SIDE * MPP, atol=virtual.mpp)
        assert read_metadata(Path(result["virtual"]))
    # How the page on napari reads the pyramid.
    zarr = pytest.importorskip("zarr")
    level = zarr.open(tifffile.imread(result["virtual"], aszarr=True, level=0), mode="r")
    assert level.shape == (virtual.size.height, virtual.size.width, 3)

    features = json.loads(Path(result["detections"]).read_text())["features"]
    assert features, "3+ tissue has DAB"
    for feature in features:
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shape.is_valid
        assert region.buffer(2 * 0.46 / MPP).contains(shape)
        assert feature["properties"]["objectType"] == "detection"
        measured = feature["properties"]["measurements"]
        assert measured["Area µm^2"] == pytest.approx(shape.area * MPP**2, rel=0.02)
        assert measured["Virtual DAB mean OD"] >= 0.2


def test_the_qupath_script_names_options_and_results_that_exist() -> None:
    groovy = (ROOT / "integrations/qupath/stain_region.groovy").read_text(encoding="utf-8")
    source = (ROOT / "integrations/qupath/stain_region.py").read_text(encoding="utf-8")
    options = set(re.findall(r'"(-{1,2}[a-z]+)"', groovy))
    assert options >= {"--roi", "--model", "-o"}
    assert options <= set(re.findall(r'"(-{1,2}[a-z]+)"', source))
    assert set(re.findall(r"result\.(\w+)", groovy)) - {"json"} <= {"virtual", "detections", "ood", "notice"}


@pytest.mark.slow
def test_grand_challenge_finds_its_outputs(he: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inference = script("grand-challenge/inference.py")
    source, target = tmp_path / "input", tmp_path / "output"
    arguments = ["--input", str(source), "--output", str(target), "--model", str(tmp_path / "none")]
    assert inference.main(arguments) == 2
    assert "expected one slide" in capsys.readouterr().err
    folder = source / "images/breast-he"
    folder.mkdir(parents=True)
    (folder / "a1b2.tif").write_bytes(he.read_bytes())
    (source / "inputs.json").write_text(
        json.dumps([{"socket": {"slug": "breast-he", "relative_path": "images/breast-he"}}])
    )
    assert inference.main(arguments) == 0
    written = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert written == [
        "images/her2-dab-density/a1b2.tif",
        "images/virtual-her2-ihc/a1b2.tif",
        "virtual-stain-report.json",
    ]
    assert tifffile.imread(target / written[0]).dtype == np.uint16
    with open_slide(target / written[1]) as virtual:
        assert virtual.mpp == pytest.approx(0.46, abs=1e-3)
    report = json.loads((target / written[2]).read_text())
    assert report["notice"] == restain.NOTICE
    assert report["provenance"]["source"] == "a1b2.tif"


@pytest.mark.parametrize("path", ["docker/Dockerfile", "integrations/grand-challenge/Dockerfile"])
def test_containers_copy_what_exists_and_install_extras_that_exist(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for name in [word for word in line.split() if not word.startswith("--")][:-1]
    ]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(name == one or name.startswith(f"{one}/") for one in kept), f"{name} is in .dockerignore"
    for extras in re.findall(r'^ARG EXTRAS="(.*)"$', text, re.MULTILINE):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_conda_recipe_has_the_packages_requirements() -> None:
    recipe = yaml.safe_load((ROOT / "integrations/conda-forge/recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == restain.__version__
    stated = dict(line.partition(" ")[::2] for line in recipe["requirements"]["run"])
    assert SpecifierSet(stated.pop("python")) == SpecifierSet(PROJECT["requires-python"])
    wanted = {CONDA_NAMES.get(one.name, one.name): one.specifier for one in map(Requirement, PROJECT["dependencies"])}
    assert set(stated) == set(wanted)
    # OpenSlide's own version is not that of its package for PyPI.
    assert {name: SpecifierSet(text) for name, text in stated.items() if name != "openslide"} == {
        name: specifier for name, specifier in wanted.items() if name != "openslide"
    }


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == restain.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]


def test_workflows_cover_the_versions_that_the_package_states() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["quick"]["strategy"]["matrix"]
    stated = [name.rsplit(" ", 1)[1] for name in PROJECT["classifiers"] if name.startswith("Programming Language ::")]
    assert matrix["python"] == [version for version in stated if "." in version]
    assert len(matrix["os"]) == 3
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8")):
            assert re.search(r"@[0-9a-f]{40}$", used), f"{path.name}: {used} is not pinned"
