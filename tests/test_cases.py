"""The inputs of ``../shared/cases``, each with the command that met it and its right answer; skipped where the folder is absent."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from restain import cli
from restain.slides import open_slide

MAKE = Path(__file__).resolve().parents[2] / "shared/cases/make.py"

pytestmark = [pytest.mark.skipif(not MAKE.is_file(), reason="shared/cases is not at hand")]

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, MAKE, out], check=True, capture_output=True)
    return out


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command in this process: its exit status, and all that it printed as one line."""
    monkeypatch.setenv("COLUMNS", "1000")

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["restain", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), " ".join((printed.out + printed.err).split())

    return call


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagej.tif", "one-level.ome.tif"])
def test_info_and_stain_use_the_stated_scale(cases: Path, run: Run, tmp_path: Path, name: str) -> None:
    assert "mpp 0.23 µm per px" in run("info", cases / "scale" / name)[1]
    assert run("stain", cases / "scale" / name, "-o", tmp_path)[0] == 0
    (stained,) = tmp_path.glob("*.png")
    with open_slide(stained) as slide:
        assert slide.mpp == pytest.approx(0.46)
        assert (slide.size.width, slide.size.height) == (512, 512)


@pytest.mark.parametrize("command", ["stain", "tissue", "explain"])
def test_mpp_does_not_override_a_stated_scale(cases: Path, run: Run, tmp_path: Path, command: str) -> None:
    status, text = run(command, cases / "scale/says-023.tif", "--mpp", 0.5, "-o", tmp_path / "out")
    assert status == 2
    assert "0.23" in text
    assert "0.5" in text
    assert "--override-mpp" in text
    assert {path.name for path in (tmp_path / "out").glob("*")} <= {"summary.csv"}


@pytest.mark.parametrize("command", ["stain", "tissue", "explain"])
@pytest.mark.parametrize("name", ["not-square.tif", "not-square.ome.tif"])
def test_pixels_that_are_not_square_are_refused(cases: Path, run: Run, tmp_path: Path, command: str, name: str) -> None:
    status, text = run(command, cases / "scale" / name, "-o", tmp_path / "out")
    assert status == 2
    assert "not square" in text


@pytest.mark.slow
def test_the_scan_is_the_slide_where_the_macro_comes_first(cases: Path, run: Run, tmp_path: Path) -> None:
    path = cases / "several/macro-first.ome.tiff"
    listed = run("info", path)[1]
    assert "size 1024 x 1024 px" in listed
    assert "macro 700 x 300 px (associated)" in listed
    assert run("stain", path, "-o", tmp_path)[0] == 0
    (stained,) = tmp_path.glob("*.ome.tif*")
    with open_slide(stained) as slide:
        assert (slide.size.width, slide.size.height) == (1024, 1024)


@pytest.mark.slow
def test_one_of_several_images_is_chosen_by_its_number(cases: Path, run: Run, tmp_path: Path) -> None:
    path = cases / "several/three-fields.tif"
    assert "image #2" in run("info", path)[1]
    for command in ("stain", "tissue", "explain"):
        status, text = run(command, path, "-o", tmp_path / "none")
        assert status == 2
        assert "holds 3 images of slide size" in text
        assert "three-fields.tif#0" in text
    assert run("stain", f"{path}#1", "-o", tmp_path / "one")[0] == 0
    (stained,) = (tmp_path / "one").glob("*.png")
    with open_slide(stained) as slide:
        assert (slide.size.width, slide.size.height) == (512, 1024)


def test_a_label_is_no_pyramid_level(cases: Path, run: Run) -> None:
    listed = run("info", cases / "several/label-as-level.tif")[1]
    assert "level 1 512 x 512 px" in listed
    assert "level 2" not in listed
    assert "253 x 253 px (associated)" in listed


@pytest.mark.slow
def test_a_photograph_is_stained_upright(cases: Path, run: Run, tmp_path: Path) -> None:
    assert run("stain", cases / "turned/photo.jpg", "--mpp", 0.46, "-o", tmp_path)[0] == 0
    (stained,) = tmp_path.glob("*.png")
    with open_slide(stained) as slide:
        assert (slide.size.width, slide.size.height) == (1024, 768)


@pytest.mark.parametrize(
    ("folder", "fault"),
    [
        ("data_sets/normal", ""),
        ("data_sets/lower-case", ""),
        ("turned/turned-pairs", ""),
        ("data_sets/swapped", "the H&E side looks more like DAB than the IHC side"),
        ("data_sets/ab-reversed", "the H&E side looks more like DAB than the IHC side"),
        ("data_sets/same", "are the same picture"),
    ],
)
def test_check_finds_what_is_wrong_with_a_data_set(cases: Path, run: Run, folder: str, fault: str) -> None:
    status, text = run("check", cases / folder)
    if fault:
        assert status != 0
        assert fault in text
    else:
        assert status == 0
        assert "no faults" in text


def test_swapped_sides_are_read_in_order_on_request(cases: Path, run: Run) -> None:
    assert run("check", cases / "data_sets/swapped", "--swap")[0] == 0


def test_the_only_image_of_a_zarr_collection_is_opened(cases: Path, run: Run, tmp_path: Path) -> None:
    path = cases / "zarr_collection/bioformats2raw.zarr"
    assert "size 1024 x 1024 px mpp 0.46" in run("info", path)[1]
    assert run("tissue", path, "-o", tmp_path / "out")[0] == 0
