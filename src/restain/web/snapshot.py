"""A picture of a view: the same region of one or two images, with a scale bar and the notice burnt in."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from PIL.PngImagePlugin import PngInfo

from restain import NOTICE
from restain.geometry import Size
from restain.images import Rgb

MAX_SIDE = 2048
"""Longest side of one pane in px."""
RED, WHITE, INK = (140, 29, 24), (255, 255, 255), (28, 30, 33)
_GAP, _TITLE_HEIGHT = 8, 30


@dataclass(frozen=True)
class Pane:
    """Pixels ``(h, w, 3)`` ``uint8``, their title, and whether they are a virtual stain."""

    rgb: Rgb
    title: str
    virtual: bool


def rotated(pane: Pane, degrees: float, size: Size) -> Pane:
    """The centre of a pane, ``size`` px, turned clockwise."""
    if not degrees:
        return pane
    turned = PIL.Image.fromarray(pane.rgb).rotate(-degrees, PIL.Image.Resampling.BICUBIC, fillcolor=WHITE)
    left, top = (turned.width - size.width) // 2, (turned.height - size.height) // 2
    return replace(pane, rgb=np.asarray(turned.crop((left, top, left + size.width, top + size.height))))


def draw_snapshot(panes: Sequence[Pane], um_per_px: float | None) -> bytes:
    """Panes of one height side by side as PNG, with a scale bar unless ``um_per_px`` is None.

    A virtual pane has the notice in its title and over its pixels.
    """
    drawn = [_draw_pane(pane, um_per_px) for pane in panes]
    width = sum(one.width for one in drawn) + _GAP * (len(drawn) - 1)
    picture = PIL.Image.new("RGB", (width, max(one.height for one in drawn)), WHITE)
    left = 0
    for one in drawn:
        picture.paste(one, (left, 0))
        left += one.width + _GAP
    metadata = PngInfo()
    if any(pane.virtual for pane in panes):
        metadata.add_text("notice", NOTICE)
    buffer = io.BytesIO()
    dpi = {} if um_per_px is None else {"dpi": (25400 / um_per_px, 25400 / um_per_px)}
    picture.save(buffer, "PNG", pnginfo=metadata, **dpi)
    return buffer.getvalue()


def burn_notice(rgb: Rgb, notice: str = NOTICE) -> Rgb:
    """The pixels with the notice repeated over them along diagonals, so that no crop removes it."""
    height, width = rgb.shape[:2]
    font = PIL.ImageFont.load_default(max(11, min(20, min(width, height) // 24)))
    length = math.ceil(font.getlength(notice))
    layer = PIL.Image.new("RGBA", (width, height), (0, 0, 0, 0))
    pen = PIL.ImageDraw.Draw(layer)
    step_x, step_y = length + 60, max(90, height // 4)
    for row, y in enumerate(range(step_y // 2, height, step_y)):
        for x in range(-(row % 2) * step_x // 2, width, step_x):
            pen.text((x, y), notice, font=font, fill=(*RED, 190), stroke_width=1, stroke_fill=(255, 255, 255, 130))
    over = PIL.Image.alpha_composite(PIL.Image.fromarray(rgb).convert("RGBA"), layer)
    return np.asarray(over.convert("RGB"))


def round_length(limit: float) -> float:
    """The longest of 1, 2, 5 times a power of ten that is not longer than ``limit``."""
    power = 10.0 ** math.floor(math.log10(limit))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= limit * (1 + 1e-9))


def _draw_pane(pane: Pane, um_per_px: float | None) -> PIL.Image.Image:
    rgb = burn_notice(pane.rgb) if pane.virtual else pane.rgb
    height, width = rgb.shape[:2]
    font = PIL.ImageFont.load_default(16)
    picture = PIL.Image.new("RGB", (width, height + _TITLE_HEIGHT), RED if pane.virtual else INK)
    picture.paste(PIL.Image.fromarray(rgb), (0, _TITLE_HEIGHT))
    pen = PIL.ImageDraw.Draw(picture)
    title = f"{NOTICE.upper()}  ·  {pane.title}" if pane.virtual else pane.title
    pen.text((10, 6), title, font=font, fill=WHITE)
    if um_per_px is not None and width >= 80:
        length = round_length(um_per_px * width / 4)
        bar = round(length / um_per_px)
        label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
        left, bottom = 14, height + _TITLE_HEIGHT - 14
        extent = max(bar, math.ceil(font.getlength(label)))
        pen.rectangle((left - 6, bottom - 30, left + extent + 6, bottom + 6), fill=WHITE)
        pen.text((left, bottom - 28), label, font=font, fill=INK)
        pen.rectangle((left, bottom - 4, left + bar, bottom), fill=INK)
    return picture
