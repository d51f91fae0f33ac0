"""What TIFF files state and hold: scale, several images, levels, planes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from restain.cli import app
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.slides import open_slide, read_image

PER_CM = 1e4


def tissue(height: int = 256, width: int = 320, seed: int = 1) -> np.ndarray:
    """Coloured texture of two grains, with glass in the corner."""
    rng = np.random.default_rng(seed)
    out = np.full((height, width, 3), 240, np.uint8)
    inner = out[: -height // 6, width // 6 :]
    for grain in (4, 24):
        noise = rng.integers(-60, 30, (inner.shape[0] // grain + 1, inner.shape[1] // grain + 1, 3))
        big = np.kron(noise, np.ones((grain, grain, 1)))[: inner.shape[0], : inner.shape[1]]
        inner[:] = np.clip(inner.astype(float) * 0.8 + big, 0, 255)
    return out


def shrunk(rgb: np.ndarray, by: int, kernel: int = Image.Resampling.BOX) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).resize((rgb.shape[1] // by, rgb.shape[0] // by), kernel))


def per_cm(mpp: float, mpp_y: float | None = None) -> dict:
    return {"resolution": (PER_CM / mpp, PER_CM / (mpp_y or mpp)), "resolutionunit": "CENTIMETER"}


def run(*words: object) -> SimpleNamespace:
    """A command's exit code and output, as :func:`restain.cli.main` makes them of a RestainError."""
    made = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(made.exception, RestainError):
        return SimpleNamespace(exit_code=2, output=f"{made.output}{made.exception}", stdout=made.stdout)
    return SimpleNamespace(exit_code=made.exit_code, output=made.output, stdout=made.stdout)


def whole(path: Path | str) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.read(Region(Point(0, 0), slide.size), slide.mpp)


def imagej(unit: str, per_unit: float) -> dict:
    return {"imagej": True, "resolution": (per_unit, per_unit), "metadata": {"unit": unit}}


def ome(x: float, unit: str | None = None) -> dict:
    facts = {"axes": "YXS", "PhysicalSizeX": x, "PhysicalSizeY": x}
    return {"ome": True, "metadata": facts | ({"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit} if unit else {})}


STATED = {
    "ome": ome(0.23),
    "ome in nm": ome(230, "nm"),
    "ome in mm": ome(0.00023, "mm"),
    "imagej micron": imagej("micron", 1 / 0.23),
    "imagej um": imagej("um", 1 / 0.23),
    "imagej escaped µm": imagej("\\u00B5m", 1 / 0.23),
    "imagej nm": imagej("nm", 1 / 230),
    "imagej mm": imagej("mm", 1 / 0.00023),
    "imagej cm": imagej("cm", PER_CM / 0.23),
    "imagej inch": imagej("inch", 25400 / 0.23),
    "centimetres": {**per_cm(0.23), "metadata": None},
    "inches": {"resolution": (25400 / 0.23,) * 2, "resolutionunit": "INCH", "metadata": None},
    "aperio": {"description": "Aperio Image|AppMag = 40|MPP = 0.23", "metadata": None},
}


@pytest.mark.parametrize("how", STATED)
def test_one_function_knows_the_scale_in_whatever_way_it_is_stated(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue(), photometric="rgb", **STATED[how])
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.23, rel=1e-4)
    shown = run("info", path)
    assert shown.exit_code == 0
    assert "0.23 µm per px" in shown.stdout


@pytest.mark.parametrize(
    "facts",
    [
        {"resolution": (72, 72), "resolutionunit": "INCH", "metadata": None},
        {"resolution": (300, 300), "resolutionunit": "NONE", "metadata": None},
        imagej("inch", 72),
        imagej("pixel", 1),
        ome(1.0, "pixel"),
    ],
)
def test_what_a_screen_or_printer_states_is_no_scale(tmp_path: Path, facts: dict) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue(), photometric="rgb", **facts)
    with open_slide(path) as slide:
        assert not slide.has_mpp


def test_a_given_mpp_serves_silent_files_and_never_overrides_in_silence(tmp_path: Path) -> None:
    says, silent = tmp_path / "says.tif", tmp_path / "silent.tif"
    tifffile.imwrite(says, tissue(), photometric="rgb", metadata=None, **per_cm(0.23))
    tifffile.imwrite(silent, tissue(), photometric="rgb", metadata=None)
    with open_slide(silent, 0.5) as slide:
        assert slide.mpp == 0.5
        assert "given with --mpp" in slide.describe()
    with open_slide(says, 0.2315) as slide:
        assert slide.mpp == pytest.approx(0.23)
    for command in (("info", says), ("tissue", says, "-o", tmp_path / "out")):
        refused = run(*command, "--mpp", 0.5)
        assert refused.exit_code == 2
        assert all(word in refused.output for word in ("0.23", "0.5", "--override-mpp"))
        assert run(*command, "--mpp", 0.5, "--override-mpp").exit_code == 0
        assert run(*command, "--mpp", 0.2315).exit_code == 0
    with open_slide(says, 0.5, override_mpp=True) as slide:
        assert slide.mpp == 0.5
        assert "the file states 0.23" in slide.describe()
    assert run("tissue", silent, "-o", tmp_path / "out").exit_code == 2


@pytest.mark.parametrize(
    "facts",
    [
        {**per_cm(0.46, 0.92), "metadata": None},
        {"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.46, "PhysicalSizeY": 0.92}},
        {"imagej": True, "resolution": (1 / 0.46, 1 / 0.92), "metadata": {"unit": "um"}},
    ],
)
def test_pixels_that_are_not_square_are_refused(tmp_path: Path, facts: dict) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue(), photometric="rgb", **facts)
    with pytest.raises(RestainError, match=r"a\.tif states pixels that are not square, 0\.46 by 0\.92 µm"):
        open_slide(path)
    for command in (
        ("info", path),
        ("tissue", path, "-o", tmp_path / "out"),
        ("tissue", path, "--mpp", 0.46, "-o", tmp_path),
    ):
        shown = run(*command)
        assert shown.exit_code == 2
        assert "0.46 by 0.92" in shown.output
    with open_slide(path, 0.46, override_mpp=True) as slide:
        assert slide.mpp == 0.46


def test_sides_within_a_hundredth_are_square(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", tissue(), photometric="rgb", metadata=None, **per_cm(0.46, 0.463))
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.mpp == pytest.approx(0.46)


@pytest.mark.parametrize("macro_name", ["macro", "Image 1"])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_macro_in_front_is_not_the_slide(tmp_path: Path, macro_name: str, levels: int) -> None:
    path, scan = tmp_path / "a.ome.tif", tissue()
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name, rgb, mpp in ((macro_name, tissue(200, 400, 7), 16.4), ("scan", scan, 0.46)):
            facts = {"axes": "YXS", "Name": name, "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            inside = levels - 1 if name == "scan" else 0
            tiff.write(rgb, photometric="rgb", tile=(64, 64), metadata=facts, subifds=inside)
            for _ in range(inside):
                tiff.write(shrunk(rgb, 2), photometric="rgb", tile=(64, 64), subfiletype=1)
    with open_slide(path) as slide:
        assert slide.mpp == 0.46
        assert len(slide.levels) == levels
        assert slide.associated == {macro_name: Size(400, 200)}
    assert np.array_equal(read_image(path), scan)
    shown = run("info", path)
    assert shown.exit_code == 0
    assert macro_name in shown.stdout
    assert "400 x 200 px (associated)" in shown.stdout


def write_pages(path: Path, pages: list[np.ndarray], **facts) -> None:
    with tifffile.TiffWriter(path) as tiff:
        for page in pages:
            tiff.write(page, photometric="rgb", contiguous=False, metadata=None, **(facts or per_cm(0.46)))


def write_planes(path: Path, pages: list[np.ndarray], axes: str, form: str) -> None:
    facts = {"axes": axes} | ({"PhysicalSizeX": 0.46, "PhysicalSizeY": 0.46} if form == "ome" else {"unit": "um"})
    tifffile.imwrite(
        path, np.stack(pages), photometric="rgb", metadata=facts, resolution=(1 / 0.46,) * 2, **{form: True}
    )


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_pages, "page 2"),
        (lambda p, pages: write_planes(p, pages, "ZYXS", "ome"), "focal plane 2"),
        (lambda p, pages: write_planes(p, pages, "TYXS", "ome"), "time point 2"),
        (lambda p, pages: write_planes(p, pages, "ZYXS", "imagej"), "focal plane 2"),
    ],
)
def test_of_several_images_one_has_to_be_chosen(tmp_path: Path, write, name: str) -> None:
    path, pages = tmp_path / "a.tif", [tissue(seed=n) for n in (1, 2, 3)]
    write(path, pages)
    shown = run("info", path)
    assert shown.exit_code == 2
    assert sum(line.startswith("image #") for line in shown.stdout.splitlines()) == 3
    assert name in shown.stdout
    refused = run("tissue", path, "-o", tmp_path / "out")
    assert refused.exit_code == 2
    assert "3 images of slide size" in refused.output
    assert "a.tif#0" in refused.output
    for number, page in enumerate(pages):
        assert np.array_equal(read_image(f"{path}#{number}"), page)
        with open_slide(path, image=number) as slide:
            assert np.array_equal(slide.read_all(), page)
        assert np.array_equal(whole(f"{path}#{number}"), page)
    assert run("tissue", f"{path}#1", "-o", tmp_path / "out").exit_code == 0
    assert run("info", f"{path}#1").exit_code == 0
    with pytest.raises(RestainError, match="there is no image 3"):
        open_slide(f"{path}#3")


def test_a_number_sign_in_a_name_is_a_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a#1", tissue(), photometric="rgb", metadata=None)
    assert np.array_equal(read_image(tmp_path / "a#1"), tissue())
    with pytest.raises(RestainError, match="does not exist"):
        open_slide(tmp_path / "b.tif#1")


KERNELS = [Image.Resampling.BOX, Image.Resampling.LANCZOS, Image.Resampling.NEAREST, Image.Resampling.BICUBIC]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("where", ["subifds", "reduced", "flat"])
@pytest.mark.parametrize("odd", [0, 1])
def test_levels_are_found_with_any_kernel(tmp_path: Path, kernel: int, where: str, odd: int) -> None:
    path, rgb = tmp_path / "a.tif", tissue(512 + odd, 640 - odd)
    form = {"photometric": "rgb", "tile": (64, 64), "metadata": None, "compression": "jpeg"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(rgb, subifds=2 if where == "subifds" else 0, **form)
        for by in (2, 4):
            tiff.write(shrunk(rgb, by, kernel), subfiletype=0 if where == "flat" else 1, **form)
    with open_slide(path) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        assert not slide.associated


@pytest.mark.parametrize("where", ["subifds", "reduced", "flat"])
@pytest.mark.parametrize("label", ["writing", "white", "other tissue", "mirrored"])
def test_what_shows_another_picture_is_no_level(tmp_path: Path, where: str, label: str) -> None:
    path, rgb = tmp_path / "a.tif", tissue(512, 640)
    other = {
        "writing": np.full((128, 160, 3), 250, np.uint8),
        "white": np.full((128, 160, 3), 250, np.uint8),
        "other tissue": shrunk(tissue(512, 640, seed=9), 4),
        "mirrored": np.ascontiguousarray(shrunk(rgb, 4)[:, ::-1]),
    }[label]
    if label == "writing":
        other[20:60, 20:140:7] = 30
    form = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(rgb, subifds=2 if where == "subifds" else 0, **form)
        for page in (shrunk(rgb, 2), other):
            tiff.write(page, subfiletype=0 if where == "flat" else 1, **form)
    with open_slide(path) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2]
        assert list(slide.associated.values()) == [Size(160, 128)]
    assert "160 x 128 px (associated)" in run("info", path).stdout


def test_levels_of_a_large_file_are_compared_in_places(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    rgb = np.kron(tissue(256, 320), np.ones((9, 9, 1), np.uint8))
    form = {"photometric": "rgb", "tile": (256, 256), "metadata": None, "compression": "jpeg"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(rgb, **form)
        tiff.write(shrunk(rgb, 4), subfiletype=1, **form)
        tiff.write(np.ascontiguousarray(shrunk(rgb, 8)[::-1]), subfiletype=1, **form)
    with open_slide(path) as slide:
        assert [level.downsample for level in slide.levels] == [1, 4]


@pytest.mark.parametrize(
    "facts",
    [
        {"photometric": "rgb", "planarconfig": "separate"},
        {"photometric": "rgb", "planarconfig": "separate", "tile": (64, 64), "compression": "deflate"},
        {"photometric": "minisblack", "ome": True, "metadata": {"axes": "CYX"}, "tile": (64, 64)},
    ],
)
def test_colours_in_planes_of_their_own_are_read(tmp_path: Path, facts: dict) -> None:
    rgb = tissue(150, 210)
    tifffile.imwrite(tmp_path / "a.ome.tif", np.ascontiguousarray(np.moveaxis(rgb, 2, 0)), **facts)
    assert np.array_equal(read_image(tmp_path / "a.ome.tif"), rgb)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "Cy5"]}}},
            r"3 one-channel planes \(DAPI, FITC, Cy5\)",
        ),
        ({"imagej": True, "metadata": {"axes": "CYX"}}, "not said to be red, green and blue"),
        ({"metadata": None}, "3 images, none of 8-bit RGB"),
    ],
)
def test_channels_that_are_no_colours_are_told_as_what_they_are(tmp_path: Path, facts: dict, words: str) -> None:
    planes = np.ascontiguousarray(np.moveaxis(tissue(150, 210), 2, 0))
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack", **facts)
    with pytest.raises(RestainError, match=words):
        open_slide(tmp_path / "a.tif")
    assert run("info", tmp_path / "a.tif").exit_code == 2
