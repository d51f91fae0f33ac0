"""The tissue behind a written pair, grown again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from restain import RestainError
from restain.images.nuclei import CellKind
from restain.phantom import regrow, write_phantom

NAMES = ("00000_train_0", "00001_train_1+", "00000_test_0")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(root, pairs=3, size=128, test_share=0.34, seed=3)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_the_same_cells_grow(phantom: Path, name: str) -> None:
    with open(phantom / "truth" / "cells.csv", newline="") as file:
        listed = [row for row in csv.DictReader(file) if row["name"] == name]
    tissue = regrow(phantom, name)
    assert tissue.compartment.shape == (128, 128)
    for number, row in enumerate(listed):
        assert tissue.cells.x[number] == pytest.approx(float(row["x_px"]), abs=0.01)
        assert CellKind(int(tissue.cells.kind[number])).name.lower() == row["cell_class"]


def test_dark_nuclei_lie_where_the_tissue_says(phantom: Path) -> None:
    from restain.slides import read_image

    he = read_image(phantom / "HE" / "train" / "00001_train_1+.png").astype(float).mean(axis=-1)
    nuclei = regrow(phantom, "00001_train_1+").nucleus > 0
    assert he[nuclei].mean() < he[~nuclei].mean() - 30


def test_what_cannot_be_grown_again_is_refused(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=r"no phantom\.json"):
        regrow(tmp_path, NAMES[0])
    with pytest.raises(RestainError, match="not the name of a pair"):
        regrow(phantom, "fish")
    with pytest.raises(RestainError, match="does not exist"):
        regrow(phantom, "00009_test_0")


@pytest.mark.parametrize(
    ("key", "value", "words"), [("seed", 4, "lists other cells"), ("from_he", [{"name": "a.png"}], "real H&E images")]
)
def test_another_seed_or_real_pictures_are_noticed(
    phantom: Path, tmp_path: Path, key: str, value: object, words: str
) -> None:
    description = json.loads((phantom / "phantom.json").read_text())
    description["parameters"][key] = value
    (tmp_path / "phantom.json").write_text(json.dumps(description))
    (tmp_path / "truth").symlink_to(phantom / "truth")
    with pytest.raises(RestainError, match=words):
        regrow(tmp_path, NAMES[0])


def test_regrowing_is_repeatable(phantom: Path) -> None:
    first, second = (regrow(phantom, NAMES[0]) for _ in range(2))
    np.testing.assert_array_equal(first.territory, second.territory)
