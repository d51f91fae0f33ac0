from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restain.errors import RestainError
from restain.files import whole_file
from restain.geometry import Size
from restain.images import read_text, write_png, write_rgb
from restain.slides import open_slide, read_image


def picture(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_size(path: Path) -> Size:
    with open_slide(path, header_only=True) as slide:
        return slide.size


def encoded(rgb: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format=form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_forms_read_to_the_same_pixels(tmp_path: Path, form: str, options: dict[str, object]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), form, **options))
    assert np.array_equal(read_image(path), picture())
    assert image_size(path) == Size(56, 40)


def test_a_jpeg_under_a_png_name_reads(tmp_path: Path) -> None:
    data = encoded(picture(), "JPEG", quality=95, subsampling=0)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert np.array_equal(read_image(path), np.array(Image.open(io.BytesIO(data))))
    assert image_size(path) == Size(56, 40)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (16, 16), "compression": "adobe_deflate"},
        {"bigtiff": True, "byteorder": ">"},
        {"compression": "lzw", "predictor": True},
    ],
)
def test_tiff_forms_read_to_the_same_pixels(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "a.jpg"
    tifffile.imwrite(path, picture(), photometric="rgb", **options)
    assert np.array_equal(read_image(path), picture())
    assert image_size(path) == Size(56, 40)


def test_tiff_with_separate_planes_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    planes = np.moveaxis(picture(), -1, 0)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(path), picture())
    assert image_size(path) == Size(56, 40)


def test_jpeg_strips_in_ycbcr_are_read_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    flat = np.full((64, 64, 3), (200, 60, 120), np.uint8)
    Image.fromarray(flat).convert("YCbCr").save(path, compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.YCBCR
    assert np.abs(read_image(path).astype(int) - flat).max() <= 3


def test_an_image_of_any_size_reads_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for form, suffix in (("PNG", "png"), ("JPEG", "jpg")):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(encoded(picture(), form))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(path).shape == (40, 56, 3)
            assert image_size(path) == Size(56, 40)
    assert Image.MAX_IMAGE_PIXELS == 100


GREY = picture()[..., 0]
RGBA = np.dstack([picture(), np.full((40, 56), 255, np.uint8)])
DEEP = picture().astype(np.uint16) * 257


def write_16_bit_rgb_png(path: Path) -> None:
    import imagecodecs

    path.write_bytes(imagecodecs.png_encode(DEEP))


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("grey.png", lambda p: p.write_bytes(encoded(GREY, "PNG")), "a grey-scale image"),
        ("grey.jpg", lambda p: p.write_bytes(encoded(GREY, "JPEG")), "a grey-scale image"),
        ("rgba.png", lambda p: p.write_bytes(encoded(RGBA, "PNG")), "an RGBA image"),
        ("rgba.webp", lambda p: Image.fromarray(RGBA // 2 + 9).save(p, lossless=True), "an RGBA image"),
        ("deep.png", lambda p: p.write_bytes(encoded(DEEP[..., 0], "PNG")), "a 16-bit grey-scale image"),
        ("deep_rgb.png", write_16_bit_rgb_png, "a 16-bit RGB image"),
        ("palette.png", lambda p: Image.fromarray(picture()).quantize(8).save(p), "a palette image"),
        ("cmyk.jpg", lambda p: Image.fromarray(picture()).convert("CMYK").save(p), "a CMYK image"),
        ("bits.png", lambda p: Image.fromarray(GREY > 99).save(p), "a grey-scale image"),
        ("grey.tif", lambda p: tifffile.imwrite(p, GREY), "a grey-scale image"),
        ("deep.tif", lambda p: tifffile.imwrite(p, DEEP, photometric="rgb"), "a 16-bit RGB image"),
        ("deep_grey.tif", lambda p: tifffile.imwrite(p, DEEP[..., 0]), "a 16-bit grey-scale image"),
        (
            "rgba.tif",
            lambda p: tifffile.imwrite(p, RGBA, photometric="rgb", extrasamples=["unassalpha"]),
            "an RGBA image",
        ),
        (
            "float.tif",
            lambda p: tifffile.imwrite(p, picture().astype(np.float32), photometric="rgb"),
            "a 32-bit RGB image",
        ),
    ],
)
def test_other_kinds_of_image_are_named_and_refused(tmp_path: Path, name: str, write, words: str) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(RestainError) as fault:
        read_image(path)
    assert str(fault.value).startswith(f"{path} is {words}")
    assert str(fault.value).endswith("; restain reads 8-bit RGB.")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "PROGRESSIVE"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path: Path, form: str, keep: float) -> None:
    progressive = form == "PROGRESSIVE"
    data = encoded(picture(), "JPEG" if progressive else form, progressive=progressive)
    path = tmp_path / "a.png"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(RestainError) as fault:
        read_image(path)
    assert str(fault.value).startswith(f"{path} is truncated")
    assert str(fault.value).count(".") - str(path).count(".") == 1


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path: Path) -> None:
    data = bytearray(encoded(picture(), "PNG"))
    data[len(data) // 2] ^= 4
    path = tmp_path / "a.png"
    path.write_bytes(bytes(data))
    with pytest.raises(RestainError, match=r"a\.png is damaged"):
        read_image(path)


FORMS = {
    "PNG": encoded(picture(), "PNG"),
    "JPEG": encoded(picture(), "JPEG"),
    "WEBP": encoded(picture(), "WEBP"),
    "TIFF": encoded(picture(), "TIFF", compression="tiff_lzw"),
    "TIFF with JPEG": encoded(picture(), "TIFF", compression="jpeg"),
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "a.png"


@given(
    form=st.sampled_from(sorted(FORMS)),
    keep=st.floats(0.01, 1.0),
    changes=st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 255)), max_size=6),
)
@settings(deadline=None, max_examples=200)
def test_a_damaged_file_gives_an_image_or_one_sentence(
    scratch: Path, form: str, keep: float, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(FORMS[form])
    for place, value in changes:
        # Headers lie at either end, so the ends are hit more often.
        data[int(place**3 * (len(data) - 1))] = value
    scratch.write_bytes(bytes(data[: int(len(data) * keep)]))
    told, rgb = "", None
    try:
        rgb = read_image(scratch)
    except RestainError as fault:
        told = str(fault)
    if rgb is None:
        assert told.startswith(str(scratch))
        assert "\n" not in told
    else:
        assert rgb.dtype == np.uint8
        assert rgb.ndim == 3
        assert rgb.shape[2] == 3
        assert rgb.size


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"not a picture\n" * 9, "holds no image that restain reads")]
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(RestainError, match=words):
            read(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=r"no\.png does not exist"):
        read_image(tmp_path / "no.png")
    with pytest.raises(RestainError, match="is an empty folder"):
        read_image(tmp_path)


def test_png_carries_its_text_and_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, picture(), {"Software": "restain", "Source": "Schnitt Ä µ"}, mpp=0.46)
    assert np.array_equal(read_image(path), picture())
    with Image.open(path) as back:
        assert back.text == {"Software": "restain", "Source": "Schnitt Ä µ"}
        assert 25400 / back.info["dpi"][0] == pytest.approx(0.46, rel=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_tiff_carries_its_text_and_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    write_rgb(path, picture(), {"Source": "µ"}, mpp=0.46)
    assert np.array_equal(read_image(path), picture())
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        assert tags["ImageDescription"].value == '{"Source": "\\u00b5"}'
        top, bottom = tags["XResolution"].value
        assert tags["ResolutionUnit"].value == 3
    assert 1e4 / (top / bottom) == pytest.approx(0.46, rel=1e-6)


def test_jpeg_is_written_near_to_the_image_with_its_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    smooth = np.tile(np.linspace(80, 200, 64).astype(np.uint8)[None, :, None], (64, 1, 3))
    write_rgb(path, smooth, {"Source": "x"})
    assert np.abs(read_image(path).astype(int) - smooth).max() <= 3
    with Image.open(path) as back:
        assert back.info["comment"] == b'{"Source": "x"}'
    write_rgb(path, smooth)
    with Image.open(path) as back:
        assert "comment" not in back.info


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, picture(seed=1))

    def interrupted() -> None:
        with whole_file(path) as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert np.array_equal(read_image(path), picture(seed=1))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=r"a\.png cannot be written \(No such file or directory\)"):
        write_png(tmp_path / "none" / "a.png", picture())
    with pytest.raises(RestainError, match=r"restain writes \.png, \.jpg and \.tif images, not '\.bmp'"):
        write_rgb(tmp_path / "a.bmp", picture())


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_jpeg_whose_end_marker_comes_too_early_is_refused(
    tmp_path: Path, progressive: bool, rest: bool, share: float
) -> None:
    data = encoded(picture(160, 200), "JPEG", quality=90, progressive=progressive)
    at = int(len(data) * share)
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:at] + b"\xff\xd9" + (data[at:] if rest else b""))
    for read in (read_image, open_slide):
        with pytest.raises(RestainError, match=r"a\.jpg is truncated"):
            read(path)


def test_a_jpeg_that_ends_in_grey_is_read(tmp_path: Path) -> None:
    grey = picture(160, 200)
    grey[100:] = 128
    (tmp_path / "a.jpg").write_bytes(encoded(grey, "JPEG", quality=95, subsampling=0))
    assert (read_image(tmp_path / "a.jpg")[-8:] == 128).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_above_the_limit_of_pillow_is_opened_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / f"a.{suffix}"
    write_rgb(path, picture(), {"Source": "a"}, mpp=0.46)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_text(path)
        with open_slide(path) as slide:
            assert slide.size == Size(56, 40)


def test_the_scale_of_pictures_is_read_in_both_directions(tmp_path: Path) -> None:
    png, jpeg, exif_only = tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "b.webp"
    Image.fromarray(picture()).save(png, dpi=(25400 / 0.46, 25400 / 0.46))
    data = bytearray(encoded(picture(), "JPEG"))
    # JFIF: unit 2 (per cm), densities of 0.5 µm.
    data[13:18] = b"\x02" + (20000).to_bytes(2, "big") * 2
    jpeg.write_bytes(bytes(data))
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 1e4 / 0.25, 1e4 / 0.25, 3
    Image.fromarray(picture()).save(exif_only, exif=exif)
    for path, mpp in ((png, 0.46), (jpeg, 0.5), (exif_only, 0.25)):
        with open_slide(path) as slide:
            assert slide.mpp == pytest.approx(mpp, rel=1e-3)
    Image.fromarray(picture()).save(png, dpi=(25400 / 0.46, 25400 / 0.92))
    data[13:18] = b"\x02" + (20000).to_bytes(2, "big") + (10000).to_bytes(2, "big")
    jpeg.write_bytes(bytes(data))
    for path in (png, jpeg):
        with pytest.raises(RestainError, match="not square"):
            open_slide(path)


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(seed=n)) for n in (1, 2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(RestainError, match="animation of 2 frames"):
        open_slide(tmp_path / "a.png")
