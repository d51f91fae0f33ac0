"""The text that picture files carry beside their pixels."""

from __future__ import annotations

import json
from pathlib import Path

import tifffile

from restain.errors import RestainError
from restain.images.pictures import TIFF_MAGIC, file_head, picture_header


def read_text(path: Path) -> dict[str, str]:
    """The text that restain wrote into a PNG or TIFF beside the pixels; empty where there is none or no such file."""
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
