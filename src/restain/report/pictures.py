"""Pictures of reports: small JPEGs, fixed colour scales, and the notice burnt into virtual stains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.color import lab2rgb

import restain
from restain.files import whole_file

LARGEST_SIDE = 512
"""Pictures are reduced to this many px on their longer side; the full image is in ``images/``."""

LARGE_SIDE = 1024
"""The same of pictures that a page shows large."""

SMALLEST_SIDE = 256
"""Smaller pictures are enlarged by whole factors, so that the strip's words stay readable."""

DIFFERENCE_TOP = 100.0
"""Grey levels at the bright end of the difference map, the same in every report."""

DAB_TOP = 1.0
"""OD at the dark end of the DAB maps, the same in every report."""

# CIELAB anchors at equal steps of lightness, so that equal differences of value look equally large.
_SCALES = {
    "difference": ((3, 3, -8), (26, 34, -34), (49, 54, 0), (72, 28, 52), (95, -6, 42)),
    "dab": ((97, 0, 2), (75, 14, 34), (53, 28, 42), (31, 26, 28), (9, 10, 8)),
}


@cache
def colour_scale(name: str) -> NDArray[np.uint8]:
    """A colour scale of 256 steps whose lightness is linear in the value: ``(256, 3)`` RGB.

    Kovesi, arXiv:1509.03700, 2015, says why. ``difference`` runs from black to pale yellow, ``dab`` from
    white to dark brown.
    """
    anchors = np.asarray(_SCALES[name], dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    lab = np.column_stack([np.interp(at, np.arange(len(anchors)), anchors[:, i]) for i in range(3)])
    return np.rint(lab2rgb(lab) * 255).astype(np.uint8)


def colour_map(values: NDArray[np.floating], name: str, top: float) -> NDArray[np.uint8]:
    """Show ``(H, W)`` values in [0, ``top``] on a colour scale; values beyond take the end's colour."""
    index = np.clip(np.rint(np.asarray(values) / top * 255), 0, 255).astype(np.uint8)
    return colour_scale(name)[index]


def css_gradient(name: str) -> str:
    """A colour scale as a CSS gradient, for its legend."""
    stops = ", ".join("#{:02x}{:02x}{:02x}".format(*colour_scale(name)[i]) for i in range(0, 256, 15))
    return f"linear-gradient(to right, {stops})"


def _fit(rgb: NDArray[np.uint8], side: int) -> Image.Image:
    picture = Image.fromarray(rgb)
    longest = max(picture.size)
    if longest > side:
        picture.thumbnail((side, side), Image.Resampling.BOX)
    elif longest < SMALLEST_SIDE:
        factor = -(-SMALLEST_SIDE // longest)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return picture


def burn_notice(picture: Image.Image) -> Image.Image:
    """A copy of ``picture`` with a dark strip along its bottom that says it is a virtual stain."""
    marked = picture.convert("RGB")
    size = max(9.0, marked.width * 0.037)
    while True:
        font = ImageFont.load_default(size)
        left, top, right, bottom = font.getbbox(restain.NOTICE)
        if right - left <= marked.width - 8 or size <= 6:
            break
        size -= 1
    height = round(bottom - top) + 8
    draw = ImageDraw.Draw(marked)
    draw.rectangle((0, marked.height - height, marked.width, marked.height), fill=(20, 20, 20))
    draw.text((4 - left, marked.height - height + 4 - top), restain.NOTICE, font=font, fill=(255, 255, 255))
    return marked


def save_picture(path: Path, rgb: NDArray[np.uint8], *, virtual: bool, side: int = LARGEST_SIDE) -> None:
    """Write ``(H, W, 3)`` RGB as a JPEG of at most ``side`` px on its longer side, marked where it is virtual.

    Raises RestainError if the file cannot be written.
    """
    picture = burn_notice(_fit(rgb, side)) if virtual else _fit(rgb, side)
    with whole_file(path) as partial:
        picture.save(partial, format="JPEG", quality=90, comment=restain.NOTICE if virtual else "")


def save_pictures(
    folder: Path, name: str, pictures: Mapping[str, NDArray[np.uint8]], virtual: Collection[str] = ("virtual",)
) -> None:
    """Write ``NAME.KEY.jpg`` for each picture; the keys in ``virtual`` are marked (:func:`save_picture`)."""
    for key, rgb in pictures.items():
        save_picture(folder / f"{name}.{key}.jpg", rgb, virtual=key in virtual)
