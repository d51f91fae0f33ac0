"""Picture files in and out: 8-bit RGB, recognised by content, written whole or not at all."""

from __future__ import annotations

import io
import json
import logging
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.WebPImagePlugin import WebPImageFile

from restain.errors import RestainError
from restain.files import read_bytes, whole_file
from restain.geometry import Size
from restain.images.scale import Scale, picture_scale

Rgb = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})
"""Suffixes of pictures in a data folder. The format is detected from the content."""

JPEG_QUALITY = 95

# Without a handler Python prints tifffile's log records about odd tags to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# The plug-ins are opened directly: Image.open refuses or warns above a pixel count that regions of slides do
# reach, and that limit is global to the process.
_PILLOW_FORMS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WebP": WebPImageFile,
}
_PILLOW_MODES = {
    "1": "a black-and-white image",
    "L": "a grey-scale image",
    "LA": "a grey-scale image with transparency",
    "P": "a palette image",
    "PA": "a palette image with transparency",
    "RGBA": "an RGBA image (RGB with transparency)",
    "CMYK": "a CMYK image",
    "YCbCr": "a YCbCr image",
}
_PNG_COLOURS = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What the header of a PNG, JPEG or WebP says: size as stored, pixels' sides in µm, EXIF orientation (1 to 8), ICC."""

    size: Size
    scale: Scale | None
    orientation: int
    icc: bytes | None


def picture_facts(path: Path) -> PictureFacts:
    """The facts of a PNG, JPEG or WebP file, without decoding its pixels.

    Raises RestainError if the file cannot be read, is none of these formats, or is not one 8-bit RGB image (grey-scale,
    palette, CMYK, 16-bit, with transparency, or animated).
    """
    with picture_header(path) as picture:
        check_mode(path, _pillow_form(path, picture))
        if (frames := getattr(picture, "n_frames", 1)) > 1:
            raise RestainError(f"{path} is an animation of {frames} frames; restain reads still pictures.")
        if "exif" not in picture.info and picture.format == "PNG" and (late := _late_exif(path)):
            picture.info["exif"] = late
        # A PNG's own method decodes all pixels to find EXIF data behind them.
        exif = Image.Image.getexif(picture)
        turned = exif.get(ExifTags.Base.Orientation, 1)
        return PictureFacts(
            Size(*picture.size),
            picture_scale(picture, exif),
            turned if turned in range(1, 9) else 1,
            picture.info.get("icc_profile"),
        )


def decode_picture(path: Path) -> Rgb:
    """The pixels of a PNG, JPEG or WebP file of 8-bit RGB as they are stored, ``(H, W, 3)`` ``uint8``.

    Raises RestainError as :func:`picture_facts`; if the file is truncated or damaged.
    """
    kind, data = _known(path), read_bytes(path)
    _check_whole(path, kind, data)
    with _decoding(path):
        picture = _PILLOW_FORMS[kind](io.BytesIO(data))
        check_mode(path, _pillow_form(path, picture))
        rgb = np.array(picture)
    # Missing data at the end of a JPEG are decoded as this grey, or as less detail in a progressive one.
    if kind == "JPEG" and ("progressive" in picture.info or (rgb[-1, -1] == 128).all()):
        _check_scans(path, data)
    return rgb


@contextmanager
def picture_header(path: Path) -> Iterator[ImageFile.ImageFile]:
    """A PNG, JPEG or WebP file of any size, opened by Pillow without decoding its pixels.

    Raises RestainError if the file cannot be read or is none of these formats.
    """
    kind = _known(path)
    with _decoding(path), open(path, "rb") as file:
        yield _PILLOW_FORMS[kind](file)


def write_png(path: Path, rgb: Rgb, text: Mapping[str, str] | None = None, mpp: float | None = None) -> None:
    """Write ``(H, W, 3)`` ``uint8`` RGB as PNG, with ``text`` as its tEXt (or, beyond Latin-1, iTXt) chunks.

    The folder must exist; an old file stays until the new one is whole. ``mpp`` is kept as the picture's resolution.
    Raises RestainError if the file cannot be written.
    """
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    resolution: dict[str, Any] = {} if mpp is None else {"dpi": (25400 / mpp, 25400 / mpp)}
    with whole_file(path) as partial:
        Image.fromarray(_rgb(rgb)).save(partial, format="PNG", pnginfo=info, **resolution)


def write_rgb(path: Path, rgb: Rgb, text: Mapping[str, str] | None = None, mpp: float | None = None) -> None:
    """Write ``(H, W, 3)`` ``uint8`` RGB as the name's suffix says: .png, .jpg, .jpeg, .tif or .tiff.

    PNG carries ``text`` as chunks, JPEG (quality 95, no chroma subsampling) as a JSON comment, TIFF (tiled, deflate) as
    a JSON image description. ``mpp`` (micrometres per pixel) becomes the resolution of a PNG or TIFF; JPEG's header
    cannot hold a microscope's resolution. Raises RestainError if the suffix is another one or the file cannot be
    written.
    """
    suffix = path.suffix.lower()
    comment = {"comment": json.dumps(dict(text))} if text else {}
    if suffix == ".png":
        write_png(path, rgb, text, mpp)
    elif suffix in {".jpg", ".jpeg"}:
        with whole_file(path) as partial:
            Image.fromarray(_rgb(rgb)).save(partial, format="JPEG", quality=JPEG_QUALITY, subsampling=0, **comment)
    elif suffix in {".tif", ".tiff"}:
        per_cm = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
        with whole_file(path) as partial:
            tifffile.imwrite(
                partial,
                _rgb(rgb),
                photometric="rgb",
                tile=(256, 256),
                compression="adobe_deflate",
                predictor=True,
                description=comment.get("comment"),
                metadata=None,
                resolution=per_cm,
                resolutionunit="CENTIMETER" if per_cm else None,
            )
    else:
        raise RestainError(f"{path}: restain writes .png, .jpg and .tif images, not '{path.suffix}'.")


def read_text(path: Path) -> dict[str, str]:
    """The text that restain wrote into a PNG or TIFF; empty if there is none."""
    try:
        if file_head(path).startswith(TIFF_MAGIC):
            with tifffile.TiffFile(path) as tiff:
                values = json.loads(tiff.pages.first.description)
        else:
            with picture_header(path) as picture:
                values = picture.info
    except (OSError, ValueError, RestainError, tifffile.TiffFileError):
        return {}
    return {k: v for k, v in values.items() if isinstance(v, str)} if isinstance(values, dict) else {}


def _rgb(image: Rgb) -> Rgb:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 (H, W, 3), not {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


def file_head(path: Path) -> bytes:
    """The first 132 bytes of a file, by which its kind is known.

    Raises RestainError if the file does not exist, is empty or cannot be read.
    """
    head = read_bytes(path, 132)
    if not head:
        raise RestainError(f"{path} is empty (0 bytes).")
    return head


def picture_kind(head: bytes) -> str | None:
    """PNG, JPEG or WebP, as the first bytes of a file say; None for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return None


def no_image(path: Path) -> RestainError:
    """The error for a file of an unsupported format."""
    return RestainError(f"{path} holds no image that restain reads (slide, TIFF, PNG, JPEG or WebP).")


def _known(path: Path) -> str:
    kind = picture_kind(file_head(path))
    if kind is None:
        raise no_image(path)
    return kind


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn any exception of a decoder into one sentence."""
    try:
        yield
    except (RestainError, MemoryError):
        raise
    except Exception:
        raise RestainError(f"{path} is truncated or damaged: its pixels cannot be decoded.") from None


def _check_whole(path: Path, kind: str, data: bytes) -> None:
    """Detect truncated or altered files that Pillow decodes without an error."""
    truncated = RestainError(f"{path} is truncated: the {kind} data ends before the image does.")
    if kind == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise truncated
    if kind == "WebP" and len(data) < 8 + struct.unpack_from("<I", data.ljust(8, b"\0"), 4)[0]:
        raise truncated
    at, tag = 8, b""
    while kind == "PNG" and tag != b"IEND":
        if len(data) < at + 12:
            raise truncated
        length, tag = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if len(data) < end + 4:
            raise truncated
        if zlib.crc32(memoryview(data)[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise RestainError(f"{path} is damaged: a checksum of the PNG data is wrong.")
        at = end + 4


def _check_scans(path: Path, data: bytes) -> None:
    """Detect a JPEG that ends before its last pixels, which libjpeg fills silently.

    The transcoder to JPEG XL counts every coefficient, which is too slow for every file.
    """
    try:
        imagecodecs.jpegxl_encode_jpeg(data)
    except ImportError:
        return
    except Exception:
        raise RestainError(f"{path} is truncated: its JPEG data end before the image does.") from None


def _late_exif(path: Path) -> bytes | None:
    """The EXIF data that follow the pixels of a PNG."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, tag = struct.unpack(">I4s", head)
            if tag == b"eXIf":
                return file.read(length)
            file.seek(length + 4, 1)
    return None


def _pillow_form(path: Path, picture: ImageFile.ImageFile) -> str:
    """What the file holds, in words; empty for 8-bit RGB."""
    mode, depth = picture.mode, 8
    if picture.format == "PNG":
        # Pillow reads 16-bit RGB as 8-bit without saying so.
        depth, colour = read_bytes(path, 26)[24:]
        mode = _PNG_COLOURS[colour]
    return _form(_PILLOW_MODES.get(mode, f"an image of mode {mode}") if mode != "RGB" else "", depth)


def _form(words: str, depth: int) -> str:
    if depth <= 8:
        return words
    return f"a {depth}-bit {words.split(' ', 1)[1]}" if words else f"a {depth}-bit RGB image"


def check_mode(path: Path, form: str) -> None:
    if form:
        raise RestainError(f"{path} is {form}; restain reads 8-bit RGB.")


def tiff_form(page: Any) -> str:
    """What a TIFF page holds, in words; empty for 8-bit RGB, also where a compression keeps it as YCbCr."""
    photometric = tifffile.PHOTOMETRIC
    plain = page.compression in (1, 5, 8, 32773, 32946)
    samples, depth = page.samplesperpixel, page.bitspersample
    if page.photometric in (photometric.MINISBLACK, photometric.MINISWHITE):
        words = "a grey-scale image" if samples == 1 else f"an image of {samples} grey-scale channels"
    elif page.photometric == photometric.PALETTE:
        words = "a palette image"
    elif page.photometric == photometric.SEPARATED:
        words = "a CMYK image"
    elif samples == 4:
        words = "an RGBA image (RGB with transparency)"
    elif page.photometric == photometric.RGB or (page.photometric == photometric.YCBCR and not plain):
        words = "" if samples == 3 and page.axes in ("YXS", "SYX") else f"an image of {samples} channels"
    else:
        words = f"a {getattr(page.photometric, 'name', page.photometric)} image"
    if not words and page.dtype != np.uint8 and depth <= 8:
        return f"an image of {depth}-bit {page.dtype} samples"
    return _form(words, depth)
