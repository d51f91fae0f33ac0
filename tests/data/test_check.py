from __future__ import annotations

from pathlib import Path

import pytest

from restain.data import Layout, check_folder
from restain.data.layouts import image_files
from restain.errors import RestainError

from ..samples import noise_picture, write_picture

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def pair(root: Path, split: str, name: str, seed: int) -> tuple[Path, Path]:
    he, ihc = root / "HE" / split / f"{name}.png", root / "IHC" / split / f"{name}.png"
    write_picture(he, noise_picture(seed))
    write_picture(ihc, noise_picture(1000 + seed))
    return he, ihc


def test_a_sound_folder_has_counts_and_no_faults(tmp_path: Path) -> None:
    for i, level in enumerate(("0", "0", "2+")):
        pair(tmp_path, "train", f"{i}_train_{level}", i)
    pair(tmp_path, "test", "0_test_3+", 9)
    seen: list[tuple[int, int]] = []
    report = check_folder(tmp_path, lambda done, total: seen.append((done, total)))
    assert not report.faults
    assert report.layout is Layout.BCI
    assert report.counts == {"train": {"0": 2, "2+": 1}, "test": {"3+": 1}}
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert report.describe().splitlines() == [
        f"BCI layout in {tmp_path}",
        "  train: 3 pairs (0: 2, 2+: 1)",
        "  test: 1 pair (3+: 1)",
        "  no faults",
    ]


def test_every_fault_is_listed_at_once(tmp_path: Path) -> None:
    he, ihc = {}, {}
    for i, what in enumerate(
        ("sound", "no_ihc", "no_he", "size", "cut", "grey", "text", "both", "level", "twin", "suffix")
    ):
        level = "9+" if what == "level" else "1+"
        he[what], ihc[what] = pair(tmp_path, "train", f"{i:02d}_train_{level}", i)
    ihc["no_ihc"].unlink()
    he["no_he"].unlink()
    write_picture(ihc["size"], noise_picture(3, height=10))
    ihc["cut"].write_bytes(ihc["cut"].read_bytes()[:-40])
    from PIL import Image

    Image.fromarray(noise_picture(0)[..., 0]).save(he["grey"])
    ihc["text"].write_text("this is a text")
    he["both"].write_bytes(b"")
    ihc["both"].write_bytes(b"")
    twin, _ = pair(tmp_path, "test", "00_test_1+", 9)
    write_picture(he["suffix"].with_suffix(".tif"), noise_picture(10))

    report = check_folder(tmp_path)
    told = {fault.path: fault.sentence for fault in report.faults}
    expected = {
        he["no_ihc"]: "has no IHC partner",
        ihc["no_he"]: "has no H&E partner",
        he["size"]: "is 12x8 px but its partner",
        ihc["cut"]: "is truncated",
        he["grey"]: "is a grey-scale image; restain reads 8-bit RGB",
        ihc["text"]: "holds no image",
        he["both"]: "is empty",
        ihc["both"]: "is empty",
        he["level"]: "'9+' is not a HER2 level",
        he["twin"]: f"is the same image as {he['twin']}",
        he["suffix"].with_suffix(".tif"): "have the same name but for the suffix",
    }
    expected[twin] = expected.pop(he["twin"])
    # .png sorts before .tif, so the TIFF is the one too many.
    assert set(told) == set(expected)
    assert len(report.faults) == len(expected)
    for path, words in expected.items():
        assert words in told[path]
        assert str(path) in told[path]
        assert "\n" not in told[path]
    assert report.counts == {"train": {"1+": 8, "none": 1}, "test": {"1+": 1}}


def test_a_damaged_file_without_a_partner_has_both_faults(tmp_path: Path) -> None:
    _, ihc = pair(tmp_path, "train", "0_train_0", 0)
    he, _ = pair(tmp_path, "train", "1_train_0", 1)
    (tmp_path / "IHC/train/1_train_0.png").unlink()
    he.write_bytes(he.read_bytes()[:50])
    sentences = [fault.sentence for fault in check_folder(tmp_path).faults]
    assert len(sentences) == 2
    assert any("no IHC partner" in s for s in sentences)
    assert any("is truncated" in s for s in sentences)
    assert ihc.exists()


def test_a_fault_of_a_side_by_side_picture_is_told_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "train/a.png", noise_picture(0, width=13))
    write_picture(tmp_path / "train/b.png", noise_picture(1))
    (tmp_path / "train/b.png").write_bytes(b"x" * 99)
    faults = check_folder(tmp_path).faults
    assert [fault.path.name for fault in faults] == ["a.png", "b.png"]
    assert "13 px wide" in faults[0].sentence


def test_slides_on_both_sides_are_noted(tmp_path: Path) -> None:
    for folder in ("A", "B"):
        write_picture(tmp_path / f"train{folder}" / "s_1.png", noise_picture(1))
        write_picture(tmp_path / f"val{folder}" / "s_2.png", noise_picture(2))
        write_picture(tmp_path / f"val{folder}" / "t_2.png", noise_picture(3))
    report = check_folder(tmp_path)
    assert not report.faults
    assert len(report.notes) == 1
    assert report.notes[0].startswith("1 of 2 test slides also have patches for training (for example s)")


def test_an_interrupt_ends_the_check(tmp_path: Path) -> None:
    for i in range(40):
        pair(tmp_path, "train", f"{i}_train_0", i)
    calls: list[int] = []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_folder(tmp_path, stop)
    assert calls == [1]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="no such data folder"):
        check_folder(tmp_path / "none")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample images are not beside the checkout")
def test_the_real_samples_are_sound() -> None:
    for name, side in (("bci_sample", "HE/test"), ("mist_sample", "valA")):
        report = check_folder(SHARED / name)
        assert report.faults == ()
        assert sum(report.counts["test"].values()) == len(image_files(SHARED / name / side))
