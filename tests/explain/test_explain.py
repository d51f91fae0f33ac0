"""Both reports from files to a page, with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restain import NOTICE, RestainError
from restain.bundle import save_bundle
from restain.cli import app
from restain.explain.attention import attention_of_point, overall_attention
from restain.explain.check import check_phantom, true_classes, tumour_cells, tumour_cells_at
from restain.explain.classes import CLASSES, class_shares, find_classes
from restain.explain.image import explain_image
from restain.geometry import Point
from restain.her2 import Her2Level
from restain.images.nuclei import CellKind
from restain.models.generator import Generator
from restain.phantom import Tissue, make_pair, write_phantom
from restain.phantom.architecture import STROMA
from restain.phantom.pair import grow_pair_tissue
from restain.recipe import AttentionRecipe

from ..samples import small_recipe

MPP = 0.9
"""Coarse, so that little images hold cells enough."""


def make_bundle(folder: Path, mpp: float = MPP, **generator: object) -> Path:
    torch.manual_seed(0)
    recipe = small_recipe(mpp=mpp, **generator)
    network = Generator(recipe.generator, recipe.expression)
    if recipe.generator.output == "stain":
        with torch.no_grad():
            network.head.densities.bias.fill_(1.0)
    save_bundle(folder, network, recipe, step=1, data="made up", figures={})
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(root, pairs=4, size=64, mpp=MPP, test_share=0.5, seed=1, levels=[Her2Level.ONE, Her2Level.THREE])
    return root


@pytest.fixture(scope="module")
def he(phantom: Path) -> Path:
    return phantom / "HE" / "test" / "00001_test_3+.png"


def read_page(out: Path) -> str:
    page = (out / "explain.html").read_text(encoding="utf-8")
    assert NOTICE in page
    assert "<script" not in page
    assert "http" not in page
    for part in page.split('src="')[1:]:
        source = part.split('"')[0].replace("%2B", "+")
        assert (out / source).is_file(), source
    return page


@pytest.mark.slow
def test_an_image_is_explained(bundle: Path, he: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    points = [Point(30, 25), Point(5, 63)]
    found = explain_image(
        he, tmp_path, model=bundle, points=points, level=Her2Level.TWO, progress=lambda *at: steps.append(at)
    )
    page = read_page(tmp_path)
    assert found.path == tmp_path / "explain.html"
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    result = json.loads((tmp_path / "explain.json").read_text())
    assert result["level"]["explained"] == "2+"
    assert sum(result["level"]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert [p["point_px"] for p in result["points"]] == [[30, 25], [5, 63]]
    assert result["points"][0]["dab_od"] > 0.05
    assert [a["stride"] for a in result["points"][0]["attention"]] == [2, 1]
    for part in result["level"]["maps"] + result["points"][0]["maps"]:
        assert sum(c["area"] for c in part["classes"]) == pytest.approx(1)
    gradients = result["points"][0]["maps"][0]
    assert gradients["method"] == "integrated_gradients"
    assert np.isfinite(gradients["completeness"])
    assert "not truth" in page
    with Image.open(tmp_path / result["points"][0]["virtual"]) as picture:
        assert picture.info["notice"] == NOTICE


def test_without_a_point_the_most_stained_place_is_taken_and_a_window_is_reported(
    bundle: Path, he: Path, tmp_path: Path
) -> None:
    found = explain_image(he, tmp_path, model=bundle, window=48)
    assert "No point was given" in read_page(tmp_path)
    assert any("only windows of it were explained" in s for s in found.sentences)


def test_a_model_without_classifier_attention_or_stain_output(he: Path, tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "bundle", attention=AttentionRecipe(kind="none"), label_feature=False, output="rgb")
    with pytest.raises(RestainError, match="no label feature"):
        explain_image(he, tmp_path / "out", model=plain, level=Her2Level.ONE)
    found = explain_image(he, tmp_path / "out", model=plain, points=[Point(30, 30)], window=48)
    assert "no level is explained" in found.sentences[0]
    assert "The model has no attention" in read_page(tmp_path / "out")


def test_points_are_in_the_sources_pixels(bundle: Path, he: Path, tmp_path: Path) -> None:
    fine = tmp_path / "fine.png"
    Image.open(he).resize((128, 128)).save(fine)
    explain_image(fine, tmp_path / "out", model=bundle, points=[Point(100, 50)], mpp=0.45, window=48)
    assert json.loads((tmp_path / "out" / "explain.json").read_text())["points"][0]["point_px"] == [50, 25]
    with pytest.raises(RestainError, match="128,100 lies outside the image, which is 128x128 px"):
        explain_image(fine, tmp_path / "out", model=bundle, points=[Point(128, 100)])


def test_an_image_of_a_few_pixels_is_refused(bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    with pytest.raises(RestainError, match="40x20 px"):
        explain_image(tmp_path / "a.png", tmp_path / "out", model=bundle)


@pytest.mark.slow
def test_the_check_measures_every_map_and_repeats_itself(bundle: Path, phantom: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    found = check_phantom(phantom, tmp_path, model=bundle, progress=lambda *at: steps.append(at))
    page = read_page(tmp_path)
    assert steps == sorted(steps)
    assert steps[-1] == (200, 200)
    result = json.loads((tmp_path / "explain.json").read_text())
    assert set(result["targets"]["level"]["figures"]) == {"integrated_gradients", "occlusion", "random", "edge"}
    assert {"attention", "nearness"} < set(result["targets"]["dab"]["figures"])
    for target in result["targets"].values():
        for measures in target["figures"].values():
            assert measures["inside"]["n"] == 2
            assert 0 <= measures["inside"]["low"] <= measures["inside"]["high"] <= 1
        areas = [row["area"]["mean"] for row in target["classes"]["rows"].values()]
        assert sum(areas) == pytest.approx(1)
        assert target["classes"]["rows"]["tumour cells"]["true DAB"]["mean"] > 0.5
    # An untrained model knows no cause: with two images nothing may be called informative on it.
    assert any("uninformative" in s for s in found.sentences)
    assert "uninformative" in page
    for row in result["rows"]:
        curves = row["measures"]["random"]
        assert curves["gap"] == pytest.approx(curves["insertion"] - curves["deletion"])
    check_phantom(phantom, tmp_path / "again", model=bundle, images=1)
    again = json.loads((tmp_path / "again" / "explain.json").read_text())["rows"]
    assert again == [row for row in result["rows"] if row["name"] == again[0]["name"]]


def test_what_cannot_be_checked_is_refused(bundle: Path, phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="Unknown split"):
        check_phantom(phantom, tmp_path, model=bundle, split="fish")
    other = make_bundle(tmp_path / "other", mpp=1.2)
    with pytest.raises(RestainError, match=r"write a phantom with --mpp 1\.2"):
        check_phantom(phantom, tmp_path / "out", model=other)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give either an image"),
        (["a.png", "--data", "b"], "Give either an image"),
        (["a.png", "--point", "3;4"], "not a point"),
        (["--data", "b", "--point", "3,4"], "need an image"),
        (["a.png"], "does not exist"),
    ],
)
def test_commands_that_cannot_be_meant(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=words):
        app(["explain", *arguments, "-o", str(tmp_path / "out")], standalone_mode=False)


def test_attention_sums_to_one_also_where_the_image_was_padded(bundle: Path) -> None:
    from restain.bundle import load_bundle

    he = np.random.default_rng(0).integers(0, 255, (64, 50, 3), dtype=np.uint8)
    maps = attention_of_point(load_bundle(bundle).generator, he, Point(49, 63))
    for found in maps:
        np.testing.assert_allclose(found.heads.sum(axis=(1, 2)), 1, rtol=1e-4)
        figures = found.figures(Point(49, 63), 0.46)
        assert 1 <= figures.spread <= figures.tokens * 1.0001
    assert overall_attention(maps, (64, 50)).shape == (64, 50)


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return grow_pair_tissue(1, 2, Her2Level.TWO, size=256)[0]


def test_classes_of_grown_tissue(tissue: Tissue) -> None:
    classes = true_classes(tissue)
    for kind, name in ((CellKind.TUMOUR, "tumour cells"), (CellKind.FIBROBLAST, "fibroblasts")):
        mine = np.isin(tissue.nucleus, np.flatnonzero(tissue.cells.kind == kind) + 1)
        assert mine.any()
        assert (classes[mine] == CLASSES.index(name)).mean() > 0.95
    assert ((classes == 0) == tumour_cells(tissue)).all()
    shares = class_shares(tumour_cells(tissue).astype(float), classes)
    assert shares[0].area == pytest.approx((classes == 0).mean())
    assert shares[0].share == pytest.approx(1)
    assert shares[0].against is None


def test_the_cause_of_a_spot_is_the_cell_that_it_lies_in(tissue: Tissue) -> None:
    cell = tissue.cells.tumour
    spot = np.zeros(tissue.compartment.shape, bool)
    spot[int(cell.y[0]), int(cell.x[0])] = True
    assert len(np.unique(tissue.territory[tumour_cells_at(tissue, spot)])) == 1
    assert not tumour_cells_at(tissue, tissue.compartment == STROMA).any()


def test_classes_found_agree_with_truth_on_a_phantom(tissue: Tissue) -> None:
    truth = true_classes(tissue) == 0
    found = find_classes(make_pair(1, 2, Her2Level.TWO, size=256).he, 0.46) == 0
    assert (found & truth).sum() / (found | truth).sum() > 0.5
