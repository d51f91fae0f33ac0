"""Data sets that are wrong as a whole, in which no single file is."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.data import check_folder, open_pairs, require_scale, require_sides
from restain.data.compare import compare_sides
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images import Rgb, write_png, write_rgb
from restain.phantom import make_pair

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
Two = tuple[Rgb, Rgb]
LAYOUTS = ("bci", "challenge", "mist", "ab")


@pytest.fixture(scope="module")
def pairs() -> list[Two]:
    """A pair of each level: the IHC of level 0 has no DAB at all."""
    made = [make_pair(3, number, level, size=192) for number, level in enumerate(Her2Level)]
    return [(pair.he, pair.ihc) for pair in made]


def write(
    root: Path, pairs: Iterable[Two], layout: str = "bci", mpp: tuple[float | None, float | None] = (None, None)
) -> Path:
    for number, (he, ihc) in enumerate(pairs):
        name = f"{number}_train_2+.png"
        if layout == "ab":
            sides = {root / "train" / name: np.hstack([he, ihc])}
        else:
            folders = {
                "bci": ("HE/train", "IHC/train"),
                "challenge": ("train/HE", "train/IHC"),
                "mist": ("trainA", "trainB"),
            }
            sides = {root / folder / name: side for folder, side in zip(folders[layout], (he, ihc), strict=True)}
        for (path, side), stated in zip(sides.items(), mpp, strict=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, side, mpp=stated)
    return root


def faults(root: Path, *, swap: bool = False) -> list[str]:
    return [fault.sentence for fault in check_folder(root, swap=swap).faults]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exchanged_sides_are_one_fault_and_reading_them_so_is_none(
    tmp_path: Path, pairs: list[Two], layout: str
) -> None:
    right = write(tmp_path / "right", pairs, layout)
    swapped = write(tmp_path / "swapped", [(ihc, he) for he, ihc in pairs], layout)
    assert faults(right) == []
    [sentence] = faults(swapped)
    assert "the H&E side looks more like DAB than the IHC side (4 of 4 pairs)" in sentence
    assert "data.swap=true" in sentence
    assert faults(swapped, swap=True) == []
    assert "without data.swap" in faults(right, swap=True)[0]
    for one, other in zip(open_pairs(right).pairs, open_pairs(swapped, swap=True).pairs, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.load(), other.load(), strict=True))
    with pytest.raises(RestainError, match=r"looks more like DAB.*--swap"):
        require_sides(open_pairs(swapped).pairs)
    require_sides(open_pairs(right).pairs)


def test_one_exchanged_pair_among_right_ones_is_named(tmp_path: Path, pairs: list[Two]) -> None:
    mixed = [*pairs[:2], pairs[2][::-1], pairs[3]]
    [sentence] = faults(write(tmp_path, mixed))
    assert "2_train_2+.png" in sentence
    assert "(1 of 4 pairs)" in sentence
    assert "data.swap" not in sentence


def recompressed(rgb: Rgb) -> Rgb:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=40)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("copy", [np.copy, recompressed])
def test_partners_that_are_one_picture_are_a_fault(
    tmp_path: Path, pairs: list[Two], copy: Callable[[Rgb], Rgb], layout: str
) -> None:
    [sentence] = faults(write(tmp_path, [(he, copy(he)) for he, _ in pairs], layout))
    assert "the same picture (4 of 4 pairs)" in sentence


def test_one_file_that_is_linked_twice_is_a_fault(tmp_path: Path, pairs: list[Two]) -> None:
    write(tmp_path, pairs)
    ihc = tmp_path / "IHC/train/1_train_2+.png"
    ihc.unlink()
    ihc.symlink_to(tmp_path / "HE/train/1_train_2+.png")
    [sentence] = faults(tmp_path)
    assert "1_train_2+.png are the same picture (1 of 4 pairs)" in sentence


def test_different_pictures_of_one_stain_are_a_fault(tmp_path: Path, pairs: list[Two]) -> None:
    he = [pair[0] for pair in pairs]
    [sentence] = faults(write(tmp_path, zip(he, he[1:] + he[:1], strict=True)))
    assert "are of one stain" in sentence


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda image: np.rot90(image), "when rotated by 270°"),
        (lambda image: np.rot90(image, 2), "when rotated by 180°"),
        (lambda image: np.rot90(image, 3), "when rotated by 90°"),
        (lambda image: image[:, ::-1], "when mirrored"),
        (lambda image: image[::-1], "when mirrored and rotated by 180°"),
        (lambda image: np.swapaxes(image, 0, 1), "when mirrored and rotated by"),
    ],
)
def test_rotated_partners_are_a_fault(tmp_path: Path, pairs: list[Two], turn: Callable[[Rgb], Rgb], words: str) -> None:
    [sentence] = faults(write(tmp_path / "all", [(he, turn(ihc)) for he, ihc in pairs]))
    assert words in sentence
    assert "orientation" in sentence
    [sentence] = faults(write(tmp_path / "one", [*pairs[:3], (pairs[3][0], turn(pairs[3][1]))]))
    assert "3_train_2+.png" in sentence
    assert words in sentence


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample images are not beside the checkout")
@pytest.mark.parametrize("sample", ["bci_sample", "mist_sample"])
def test_real_pairs_are_told_from_turned_and_exchanged_ones(tmp_path: Path, sample: str) -> None:
    real = [pair.load() for pair in open_pairs(SHARED / sample).pairs]
    assert all(compare_sides(he, ihc).stains > 0.1 for he, ihc in real)  # type: ignore[union-attr]
    [turned] = faults(write(tmp_path / "turned", [(he, np.rot90(ihc)) for he, ihc in real]))
    assert "when rotated by 270°" in turned
    [swapped] = faults(write(tmp_path / "swapped", [(ihc, he) for he, ihc in real]))
    assert "looks more like DAB" in swapped


def test_halves_of_one_picture_are_no_pair(tmp_path: Path) -> None:
    wide = [make_pair(4, number, Her2Level.TWO, size=256).he for number in range(2)]
    write(tmp_path, [(he[:, :128], he[:, 128:]) for he in wide], "ab")
    [sentence] = faults(tmp_path)
    assert "the halves are one picture" in sentence
    with pytest.raises(RestainError, match="the halves are one picture"):
        require_sides(open_pairs(tmp_path).pairs)


def test_scales_that_differ_are_a_fault(tmp_path: Path, pairs: list[Two]) -> None:
    assert faults(write(tmp_path / "one", pairs, mpp=(0.46, 0.4605))) == []
    [sentence] = faults(write(tmp_path / "partners", pairs, mpp=(0.46, 0.23)))
    assert "states 0.46 µm per px but its partner" in sentence
    assert "0.23 (4 of 4 pairs)" in sentence
    within = write(tmp_path / "within", pairs, mpp=(0.46, None))
    write_rgb(within / "HE/train/2_train_2+.png", pairs[2][0], mpp=0.23)
    [sentence] = faults(within)
    assert "2_train_2+.png states 0.23" in sentence


def test_a_stated_scale_must_be_the_one_expected(tmp_path: Path, pairs: list[Two]) -> None:
    silent = open_pairs(write(tmp_path / "silent", pairs)).pairs
    require_scale(silent, 0.23, "--mpp ")
    stated = open_pairs(write(tmp_path / "stated", pairs, mpp=(None, 0.23))).pairs
    require_scale(stated, 0.2305, "--mpp ")
    with pytest.raises(RestainError, match=r"IHC.*states 0\.23 µm per px, but 0\.46 was expected.*--mpp 0\.23"):
        require_scale(stated, 0.46, "--mpp ")
