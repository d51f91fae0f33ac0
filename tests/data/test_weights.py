"""Weights of pairs, from the table beside them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain import RestainError
from restain.data import open_pairs, pair_weights

NAMES = ("00000_train_0", "00001_train_1+", "00002_train_3+")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder(tmp_path / "set")


def folder(root: Path) -> Path:
    for stain in ("HE", "IHC"):
        (root / stain / "train").mkdir(parents=True)
        for name in NAMES:
            Image.new("RGB", (8, 8)).save(root / stain / "train" / f"{name}.png")
    return root


def weights(*roots: Path) -> list[float]:
    pairs = open_pairs(roots, val_share=0)
    return pair_weights(pairs.roots, pairs.pairs).tolist()


def test_weights_go_with_names_whatever_the_order_and_have_mean_one(root: Path) -> None:
    (root / "manifest.csv").write_text(
        "slide,name,weight\n" + "".join(f"a,{n}.png,{w}\n" for n, w in zip(NAMES[::-1], (6, 2, 4), strict=True))
    )
    np.testing.assert_allclose(weights(root), [1.0, 0.5, 1.5])
    (root / "weights.csv").write_text("name,weight\n" + "".join(f"{n},1\n" for n in NAMES))
    assert weights(root) == [1, 1, 1], "weights.csv comes first"


def test_joined_folders_each_have_their_table(root: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "other")
    (root / "weights.csv").write_text("name,weight\n" + "".join(f"{n},1\n" for n in NAMES))
    with pytest.raises(RestainError, match=r"other: data\.weighted needs weights\.csv or manifest\.csv"):
        weights(root, other)
    (other / "weights.csv").write_text("name,weight\n" + "".join(f"{n},3\n" for n in NAMES))
    assert sorted(weights(root, other)) == [0.5] * 3 + [1.5] * 3


def test_pictures_may_be_links_into_another_folder(root: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for stain in ("HE", "IHC"):
        (linked / stain / "train").mkdir(parents=True)
        for name in NAMES[:2]:
            (linked / stain / "train" / f"{name}.png").symlink_to(root / stain / "train" / f"{name}.png")
    (linked / "weights.csv").write_text(
        "name;weight\n" + "".join(f"{n};{w}\n" for n, w in zip(NAMES, (1, 3), strict=False))
    )
    assert weights(linked) == [0.5, 1.5]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("file,weight\n", "must name the columns name, weight; name missing"),
        ("name,weight\n00000_train_0,1\n", r"no weight of the pair 00001_train_1\+\.png"),
        ("name,weight\n00000_train_0,good\n", "line 2: the weight 'good' is not a number of 0 or more"),
        ("name,weight\n00000_train_0\n", "line 2: the weight ''"),
        ("name,weight\n00000_train_0,-1\n", "line 2: the weight '-1'"),
        ("name,weight\n00000_train_0,inf\n", "the weight 'inf'"),
        ("name,weight\n00000_train_0,1\n00000_train_0.png,2\n", "line 3: '00000_train_0.png' has a weight already"),
        ("name,weight\n" + "".join(f"{n},0\n" for n in NAMES), "the weights of all training pairs are 0"),
        ("name,weight\n\xff", "UTF-8"),
    ],
)
def test_a_wrong_table_is_told_by_file_and_fault(root: Path, text: str, fault: str) -> None:
    (root / "weights.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(RestainError, match=fault) as caught:
        weights(root)
    if "all training" not in fault:
        assert str(root / "weights.csv") in str(caught.value)
