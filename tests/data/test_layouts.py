from __future__ import annotations

from pathlib import Path

import pytest

from restain.data.layouts import Layout, image_files, recognise
from restain.errors import RestainError
from restain.her2 import Her2Level


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["HE/test/1_test_0.png", "IHC/test/1_test_0.png"], Layout.BCI),
        (["HE/train/1_train_0.png"], Layout.BCI),
        (["train/HE/1_train_0.png", "train/IHC/1_train_0.png"], Layout.CHALLENGE),
        (["val/IHC/1_val_0.png", "val/stray.png"], Layout.CHALLENGE),
        (["trainA/s_1.jpg", "trainB/s_1.jpg"], Layout.MIST),
        (["valB/s_1.jpg"], Layout.MIST),
        (["train/1.png", "test/2.jpg"], Layout.AB),
        (["he/Test/1_test_0.png", "Ihc/test/1_test_0.png"], Layout.BCI),
        (["TRAIN/He/1_train_0.png", "TRAIN/ihc/1_train_0.png"], Layout.CHALLENGE),
        (["traina/s_1.jpg", "TRAINB/s_1.jpg"], Layout.MIST),
        (["Train/1.png"], Layout.AB),
    ],
)
def test_the_folders_tell_the_layout(tmp_path: Path, names: list[str], layout: Layout) -> None:
    assert recognise(touch(tmp_path, *names, "README.md", ".DS_Store")) is layout


def test_no_folder_a_file_and_an_empty_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="none: there is no such data folder"):
        recognise(tmp_path / "none")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(RestainError, match=r"file\.txt is a file"):
        recognise(tmp_path / "file.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RestainError, match=r"empty is empty"):
        recognise(tmp_path / "empty")


def test_an_unknown_folder_is_answered_with_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.png")
    with pytest.raises(RestainError) as fault:
        recognise(tmp_path)
    for layout in Layout:
        assert layout.title in str(fault.value)
        assert layout.pattern in str(fault.value)


def test_the_folder_below_is_pointed_at(tmp_path: Path) -> None:
    touch(tmp_path, "BCI_dataset/HE/train/1_train_0.png")
    with pytest.raises(RestainError, match=r"did you mean .*BCI_dataset\?"):
        recognise(tmp_path)


def test_folders_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "HE/train/1_train_0.png", "he/train/1_train_0.png", "IHC/train/1_train_0.png")
    with pytest.raises(RestainError, match=r"HE and he beside it differ in case only"):
        recognise(tmp_path)


def test_sides_of_other_names_are_not_taken_for_side_by_side_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "hande/train/1_train_0.png", "her2/train/1_train_0.png")
    with pytest.raises(RestainError, match="holds the folders hande and her2; name the folder of the H&E images HE"):
        recognise(tmp_path)


def test_mixed_layouts_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "HE/train/1_train_0.png", "trainA/s_1.jpg")
    with pytest.raises(RestainError, match="mixes layouts"):
        recognise(tmp_path)


def test_mist_val_is_the_test_part_unless_there_is_a_test_part(tmp_path: Path) -> None:
    touch(tmp_path, "trainA/s_1.jpg", "valA/t_1.jpg")
    assert [(p.split, p.he.name) for p in Layout.MIST.places(tmp_path)] == [
        ("train", "trainA"),
        ("test", "valA"),
    ]
    touch(tmp_path, "testA/u_1.jpg")
    assert [(p.split, p.he.name) for p in Layout.MIST.places(tmp_path)] == [
        ("train", "trainA"),
        ("val", "valA"),
        ("test", "testA"),
    ]


def test_levels_in_names() -> None:
    assert Layout.BCI.level("00012_train_2+") is Her2Level.TWO
    assert Layout.CHALLENGE.level("00012_train_0") is Her2Level.ZERO
    assert Layout.MIST.level("100M_3_0") is None
    assert Layout.AB.level("00012_train_3+") is Her2Level.THREE
    assert Layout.AB.level("anything_0") is None
    for layout, name in ((Layout.BCI, "1_train_5+"), (Layout.BCI, "1_train"), (Layout.AB, "1_test_4+")):
        with pytest.raises(RestainError, match="is not a HER2 level"):
            layout.level(name)
    with pytest.raises(RestainError, match="'plain' does not end in a HER2 level"):
        Layout.BCI.level("plain")


def test_slides_in_names() -> None:
    assert Layout.MIST.slide("15M2102762_15_26") == "15M2102762"
    assert Layout.BCI.slide("00012_train_2+") is None


def test_junk_is_not_a_picture(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.JPG", "Thumbs.db", ".DS_Store", "._a.png", "notes.txt", "d.png/inner")
    assert [p.name for p in image_files(tmp_path)] == ["a.JPG", "b.png"]
    assert image_files(tmp_path / "none") == []
