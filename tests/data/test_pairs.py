from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.data import Layout, Pair, PairSet, open_pairs
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images import write_rgb

from ..samples import noise_picture, write_picture

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def bci(root: Path, train: int = 0, test: int = 0, val: int = 0) -> Path:
    levels = ("0", "1+", "2+", "3+")
    for split, count in (("train", train), ("test", test), ("val", val)):
        for i in range(count):
            name = f"{i:05d}_{split}_{levels[i % 4]}.png"
            write_picture(root / "HE" / split / name, noise_picture(i))
            write_picture(root / "IHC" / split / name, noise_picture(1000 + i))
    return root


def mist(root: Path, split: str, *names: str) -> Path:
    for i, name in enumerate(names):
        write_picture(root / f"{split}A" / f"{name}.png", noise_picture(i))
        write_picture(root / f"{split}B" / f"{name}.png", noise_picture(1000 + i))
    return root


def test_bci_pairs_carry_name_split_level_and_both_images(tmp_path: Path) -> None:
    found = open_pairs(bci(tmp_path, train=2, test=1), val_share=0)
    assert found.layout is Layout.BCI
    assert [(p.name, p.split, p.level) for p in found.pairs] == [
        ("00000_test_0", "test", Her2Level.ZERO),
        ("00000_train_0", "train", Her2Level.ZERO),
        ("00001_train_1+", "train", Her2Level.ONE),
    ]
    he, ihc = found.pairs[2].load()
    assert np.array_equal(he, noise_picture(1))
    assert np.array_equal(ihc, noise_picture(1001))


def test_challenge_partners_may_differ_in_suffix(tmp_path: Path) -> None:
    write_picture(tmp_path / "train/HE/00000_train_1+.png", noise_picture(0))
    write_picture(tmp_path / "train/IHC/00000_train_1+.tif", noise_picture(1))
    (pair,) = open_pairs(tmp_path, val_share=0).pairs
    assert (pair.split, pair.level) == ("train", Her2Level.ONE)
    assert np.array_equal(pair.load()[1], noise_picture(1))


def test_ab_pictures_are_cut_into_halves(tmp_path: Path) -> None:
    write_picture(tmp_path / "test/00000_test_3+.png", np.hstack([noise_picture(0), noise_picture(1)]))
    write_picture(tmp_path / "train/b.png", noise_picture(2))
    held, plain = open_pairs(tmp_path, val_share=0).pairs
    assert held.side_by_side
    assert (held.level, plain.level) == (Her2Level.THREE, None)
    assert np.array_equal(held.load()[0], noise_picture(0))
    assert np.array_equal(held.load()[1], noise_picture(1))


def test_an_ab_picture_of_odd_width_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "train/b.png", noise_picture(2, width=13))
    (pair,) = open_pairs(tmp_path, val_share=0).pairs
    with pytest.raises(RestainError, match=r"b\.png is 13 px wide"):
        pair.load()


def test_mist_pairs_know_their_slide_and_no_level(tmp_path: Path) -> None:
    (pair,) = open_pairs(mist(tmp_path, "val", "15M_1_2")).pairs
    assert (pair.split, pair.level, pair.slide) == ("test", None, "15M")


def test_partners_of_different_size_are_both_named(tmp_path: Path) -> None:
    bci(tmp_path, train=1)
    write_picture(tmp_path / "IHC/train/00000_train_0.png", noise_picture(0, height=9))
    (pair,) = open_pairs(tmp_path, val_share=0).pairs
    with pytest.raises(RestainError, match=r"HE.*is 12x8 px but its partner .*IHC.* is 12x9 px"):
        pair.load()


def test_the_first_fault_is_told_and_the_others_counted(tmp_path: Path) -> None:
    bci(tmp_path, train=4)
    (tmp_path / "IHC/train/00001_train_1+.png").unlink()
    with pytest.raises(RestainError, match=r"00001_train_1\+\.png has no IHC partner") as fault:
        open_pairs(tmp_path)
    assert "more" not in str(fault.value)
    (tmp_path / "HE/train/00003_train_3+.png").unlink()
    write_picture(tmp_path / "HE/train/00009_train_7.png", noise_picture(0))
    write_picture(tmp_path / "IHC/train/00009_train_7.png", noise_picture(0))
    with pytest.raises(RestainError, match=r"\(and 2 more; 'restain check .*' lists them\)"):
        open_pairs(tmp_path)


def test_an_unknown_level_is_a_fault_that_names_the_file(tmp_path: Path) -> None:
    for stain in ("HE", "IHC"):
        write_picture(tmp_path / stain / "train/00009_train_7.png", noise_picture(0))
    with pytest.raises(RestainError, match=r"00009_train_7\.png: '7' is not a HER2 level"):
        open_pairs(tmp_path)


def test_a_name_on_two_sides_of_the_split_is_a_fault(tmp_path: Path) -> None:
    mist(tmp_path, "train", "a_1")
    mist(tmp_path, "val", "a_1")
    with pytest.raises(RestainError, match=r"has the same name as a test pair"):
        open_pairs(tmp_path, val_share=0)


def test_a_layout_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "HE/train").mkdir(parents=True)
    with pytest.raises(RestainError, match="no pictures in them"):
        open_pairs(tmp_path)


def test_validation_is_cut_from_train_only_and_the_same_way_each_time(tmp_path: Path) -> None:
    bci(tmp_path, train=20, test=5)
    first, again, other = (open_pairs(tmp_path, val_share=0.2, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.split("val") != other.split("val")
    assert [len(first.split(s)) for s in ("train", "val", "test")] == [16, 4, 5]
    assert all("_train_" in pair.name for pair in first.split("val"))


def test_an_own_validation_part_is_kept(tmp_path: Path) -> None:
    found = open_pairs(bci(tmp_path, train=5, val=2), val_share=0.5)
    assert [p.name for p in found.split("val")] == ["00000_val_0", "00001_val_1+"]


def test_a_test_only_folder_and_one_pair_open(tmp_path: Path) -> None:
    assert len(open_pairs(bci(tmp_path / "a", test=1)).split("test")) == 1
    lone = bci(tmp_path / "b", train=1)
    assert len(open_pairs(lone, val_share=0)) == 1
    with pytest.raises(RestainError, match=r"only one training pair.*set data\.val_share to 0"):
        open_pairs(lone)


def test_pairs_of_one_slide_give_no_validation_part(tmp_path: Path) -> None:
    mist(tmp_path, "train", "a_1", "a_2")
    with pytest.raises(RestainError, match=r"training pairs of one slide \(a\)"):
        open_pairs(tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    patches=st.lists(st.integers(1, 30), min_size=2, max_size=12),
    known=st.booleans(),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**31),
)
def test_a_slide_is_never_on_both_sides(patches: list[int], known: bool, share: float, seed: int) -> None:
    pairs = tuple(
        Pair(f"s{s:02d}_{i:02d}", "train", None, Path("a"), Path("b"), slide=f"s{s}" if known else None)
        for s, count in enumerate(patches)
        for i in range(count)
    )
    cut = PairSet((Path("r"),), (Layout.MIST,), pairs).with_validation(share, seed)
    val, train = cut.split("val"), cut.split("train")
    assert val
    assert train
    assert [p.name for p in cut.pairs] == [p.name for p in pairs]
    if known:
        assert not {p.slide for p in val} & {p.slide for p in train}
    else:
        assert len(val) == min(max(1, round(share * len(pairs))), len(pairs) - 1)


def test_the_validation_part_is_as_near_to_its_share_as_whole_slides_allow() -> None:
    pairs = tuple(
        Pair(f"{slide}_{i}", "train", None, Path("a"), Path("b"), slide=slide)
        for slide, count in (("big", 100), ("small", 3))
        for i in range(count)
    )
    for seed in range(8):
        cut = PairSet((Path("r"),), (Layout.MIST,), pairs).with_validation(0.1, seed)
        assert {p.slide for p in cut.split("val")} == {"small"}


def test_holdout_makes_the_test_part_whatever_the_folders_say(tmp_path: Path) -> None:
    bci(tmp_path, train=6, test=2)
    found = open_pairs(tmp_path, holdout=("0000[12]_train*",), val_share=0.2)
    assert [p.name for p in found.split("test")] == ["00001_train_1+", "00002_train_2+"]
    assert len(found.split("train")) + len(found.split("val")) == 6
    with pytest.raises(RestainError, match=r"holdout patterns \(nothing\*\) match no pair"):
        open_pairs(tmp_path, holdout=("nothing*",))


def test_holdout_must_not_part_a_slide(tmp_path: Path) -> None:
    mist(tmp_path, "train", "a_1", "a_2", "b_1")
    with pytest.raises(RestainError, match="part slide a: a_2"):
        open_pairs(tmp_path, holdout=("a_1",), val_share=0)
    assert len(open_pairs(tmp_path, holdout=("a_*",), val_share=0).split("test")) == 2


def test_several_folders_are_joined_under_unique_names(tmp_path: Path) -> None:
    one, two = bci(tmp_path / "one", train=2), bci(tmp_path / "two", train=3)
    found = open_pairs([one, two], val_share=0)
    assert [p.name for p in found.pairs] == [
        "00002_train_2+",
        "one_00000_train_0",
        "one_00001_train_1+",
        "two_00000_train_0",
        "two_00001_train_1+",
    ]
    held = open_pairs([one, two], holdout=("00000*",), val_share=0).split("test")
    assert [p.name for p in held] == ["one_00000_train_0", "two_00000_train_0"]
    same = open_pairs([one, bci(tmp_path / "x" / "one", train=1)], val_share=0)
    assert len({p.name for p in same.pairs}) == 3


def test_a_folder_given_twice_or_not_at_all_is_refused(tmp_path: Path) -> None:
    root = bci(tmp_path, train=2)
    with pytest.raises(RestainError, match="given twice"):
        open_pairs([root, root / "HE" / ".."])
    with pytest.raises(RestainError, match="No data folder"):
        open_pairs([])


def test_what_was_recognised_is_told_in_one_line(tmp_path: Path) -> None:
    told = open_pairs(bci(tmp_path / "d", train=4, test=2), val_share=0.25).describe()
    assert told == (f"BCI layout in {tmp_path / 'd'}: 3 train, 1 val, 2 test pairs; levels 0: 2, 1+: 2, 2+: 1, 3+: 1.")
    assert open_pairs(mist(tmp_path / "m", "val", "a_1")).describe().endswith(": 1 test pair; no HER2 levels given.")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample images are not beside the checkout")
def test_the_real_samples_read() -> None:
    found = open_pairs([SHARED / "bci_sample", SHARED / "mist_sample"])
    assert found.layouts == (Layout.BCI, Layout.MIST)
    files = [*(SHARED / "bci_sample/HE/test").iterdir(), *(SHARED / "mist_sample/valA").iterdir()]
    assert len(found.split("test")) == len(found) == len(files)
    assert {p.slide for p in found.pairs} == {None, "100M2004069", "15M2102762", "31M2101871"}
    assert {p.level for p in found.pairs} == {None, *Her2Level}
    for pair in found.pairs[:2]:
        he, ihc = pair.load()
        assert he.shape == ihc.shape == (1024, 1024, 3)


def test_patterns_make_pairs_one_slide_that_no_holdout_may_part(tmp_path: Path) -> None:
    for stain in ("HE", "IHC"):
        (tmp_path / stain / "train").mkdir(parents=True)
        for number in range(3):
            write_rgb(tmp_path / stain / "train" / f"0000{number}_train_0.png", np.zeros((8, 8, 3), np.uint8), {})
    groups = [["00000*", "00002*"]]
    slides = [pair.slide for pair in open_pairs(tmp_path, val_share=0, same_slide=groups).pairs]
    assert slides == ["00000_train_0", None, "00000_train_0"]
    with pytest.raises(RestainError, match="part slide"):
        open_pairs(tmp_path, val_share=0, holdout=["00000*"], same_slide=groups)
    with pytest.raises(RestainError, match="match no pair"):
        open_pairs(tmp_path, val_share=0, same_slide=[["x*"]])
