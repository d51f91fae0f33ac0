"""Pictures of an explanation: heat maps over the H&E, the place marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from restain import NOTICE
from restain.explain.targets import DISC_UM
from restain.geometry import Point
from restain.images import write_png

FOR = (200, 55, 0)
AGAINST = (20, 75, 190)
"""Colours of evidence for and against: told apart also with red-green blindness."""

ATTENDED = (130, 0, 130)

SIDE = 384
"""Least side of a picture in px; smaller windows are enlarged by whole factors."""

_FULL = 0.9
"""How much of the colour covers the H&E where a map is at its top."""


def top_of(values: NDArray[np.floating]) -> float:
    """The magnitude at which a heat map is at its full colour: the 99.5th percentile of the map's own."""
    return float(np.percentile(np.abs(values), 99.5)) or 1.0


def overlay(he: NDArray[np.uint8], values: NDArray[np.floating], *, attention: bool = False) -> NDArray[np.uint8]:
    """A map ``(H, W)`` over the H&E ``(H, W, 3)`` in pale grey: orange for, blue against, or purple for attention."""
    grey = 110 + 0.55 * he.astype(np.float32).mean(axis=-1, keepdims=True)
    alpha = _FULL * np.clip(np.abs(values) / top_of(values), 0, 1)[..., None] ** 0.7
    above = np.asarray(ATTENDED if attention else FOR, np.float32)
    colour = np.where(np.asarray(values)[..., None] >= 0, above, np.asarray(AGAINST, np.float32))
    return np.rint((1 - alpha) * np.minimum(grey, 250) + alpha * colour).astype(np.uint8)


def picture(rgb: NDArray[np.uint8], point: Point | None = None, mpp: float = 1.0) -> NDArray[np.uint8]:
    """``rgb`` enlarged by a whole factor to at least ``SIDE`` px, with a ring on the disc around ``point``."""
    factor = max(1, -(-SIDE // max(rgb.shape[:2])))
    image = Image.fromarray(rgb).resize((rgb.shape[1] * factor, rgb.shape[0] * factor), Image.Resampling.NEAREST)
    if point is not None:
        draw = ImageDraw.Draw(image)
        x, y, r = (point.x + 0.5) * factor, (point.y + 0.5) * factor, DISC_UM / 2 / mpp * factor
        draw.ellipse((x - r - 1, y - r - 1, x + r + 1, y + r + 1), outline=(255, 255, 255), width=4)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(0, 0, 0), width=2)
    return np.asarray(image)


def side_by_side(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures of one height in a row, 6 px of white between."""
    gap = np.full((tiles[0].shape[0], 6, 3), 255, np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)]
    return np.concatenate(parts[:-1], axis=1)


def save_picture(folder: Path, name: str, rgb: NDArray[np.uint8]) -> str:
    """Write a PNG with the notice in its metadata; gives its name for the page.

    Raises:
        RestainError: if the file cannot be written.
    """
    file = f"{name}.png"
    write_png(folder / file, rgb, {"notice": NOTICE})
    return file
