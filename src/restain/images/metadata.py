"""What picture files say of themselves beside their pixels: physical resolution and text."""

from __future__ import annotations

import json
from pathlib import Path

import tifffile
from PIL import Image

from restain.errors import RestainError
from restain.images.pictures import TIFF_MAGIC

COARSEST_MPP = 20.0
"""A resolution coarser than this (finer than 1,270 dpi is needed to pass) is a screen's or printer's, not a microscope's."""

_UM_PER_UNIT = {2: 25400.0, 3: 10000.0}


def _microscope(mpp: float) -> float | None:
    return mpp if 0 < mpp < COARSEST_MPP else None


def image_mpp(path: Path) -> float | None:
    """Micrometres per pixel that a PNG, JPEG or TIFF file states; None where it states none that a microscope could have.

    Read from a TIFF's resolution tags (or the ``MPP`` of an Aperio description) and a PNG's or JPEG's resolution.

    Raises:
        RestainError: if the file cannot be read.
    """
    try:
        if not _is_tiff(path):
            with Image.open(path) as picture:
                dpi = float(picture.info.get("dpi", (0, 0))[0])
            return _microscope(25400 / dpi) if dpi > 0 else None
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            for part in page.description.split("|"):
                key, _, value = part.partition("=")
                if key.strip() == "MPP":
                    return _microscope(float(value))
            resolution, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
            if resolution is None or unit is None or int(unit.value) not in _UM_PER_UNIT:
                return None
            count, base = resolution.value
            return _microscope(_UM_PER_UNIT[int(unit.value)] * base / count) if count else None
    except (OSError, ValueError, tifffile.TiffFileError, Image.DecompressionBombError):
        raise RestainError(f"{path}: the image's header cannot be read.") from None


def read_text(path: Path) -> dict[str, str]:
    """The text that restain wrote into a PNG or TIFF beside the pixels; empty where there is none or no such file."""
    try:
        if _is_tiff(path):
            with tifffile.TiffFile(path) as tiff:
                values = json.loads(tiff.pages.first.description)
        else:
            with Image.open(path) as picture:
                values = picture.info
    except (OSError, ValueError, tifffile.TiffFileError, Image.DecompressionBombError):
        return {}
    return {k: v for k, v in values.items() if isinstance(v, str)} if isinstance(values, dict) else {}


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) in TIFF_MAGIC
