"""Pictures of maps over the H&E, and results as ``explain.html`` and ``explain.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from restain import NOTICE, __version__, report
from restain.bundle import Bundle
from restain.explain.targets import DISC_UM
from restain.files import write_json
from restain.geometry import Point
from restain.images import write_png
from restain.statistics import json_ready

COLOURS = {"for": (200, 55, 0), "against": (20, 75, 190), "attention": (130, 0, 130)}
"""Colours of evidence for and against, which red-green blindness does not confuse, and of attention."""
SIDE = 384
"""Least side of a picture in px; smaller windows are enlarged by whole factors."""
_FULL = 0.9
"""Opacity of the colour where a map is at its top."""

TITLES = {
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
    "attention": "attention (mean over levels and heads)",
    "random": "random map",
    "edge": "edge map",
    "nearness": "nearness to the place",
}
"""Names of the maps on the page."""
BASELINES = {"glass": "the H&E's glass colour", "blur": "the H&E, blurred by 5 µm"}


@dataclass(frozen=True)
class ExplainReport:
    """The written page, and its results as sentences."""

    path: Path
    sentences: tuple[str, ...]


def write_report(
    out: Path,
    template: str,
    result: Any,
    bundle: Bundle,
    baseline: str,
    command: str,
    facts: dict[str, str],
    **view: Any,
) -> Path:
    """Write the dataclass ``result`` as ``out/explain.json`` and by a template as ``out/explain.html``.

    Raises RestainError if a file cannot be written.
    """
    model, data = f"{bundle.card.name} ({bundle.card.hash[:12]})", bundle.card.data
    source = {"model": model, "trained_on": data, "baseline": baseline, "command": command}
    write_json(out / "explain.json", {"notice": NOTICE, "restain": __version__, **source, **json_ready(result)})
    facts = {"model": model, "trained on": data, "baseline": BASELINES[baseline], **facts, "command": command}
    colours = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in COLOURS.items()}
    page, package = out / "explain.html", "restain.explain"
    return report.write_page(page, template, package, facts=facts, r=result, titles=TITLES, colours=colours, **view)


def top_of(values: NDArray[np.floating]) -> float:
    """The magnitude at which a heat map has its full colour: the 99.5th percentile."""
    return float(np.percentile(np.abs(values), 99.5)) or 1.0


def overlay(he: NDArray[np.uint8], values: NDArray[np.floating], *, attention: bool = False) -> NDArray[np.uint8]:
    """A map ``(H, W)`` in ``COLOURS`` over the H&E ``(H, W, 3)`` in pale grey."""
    grey = 110 + 0.55 * he.astype(np.float32).mean(axis=-1, keepdims=True)
    alpha = _FULL * np.clip(np.abs(values) / top_of(values), 0, 1)[..., None] ** 0.7
    above, below = (np.asarray(COLOURS[key], np.float32) for key in ("attention" if attention else "for", "against"))
    colour = np.where(np.asarray(values)[..., None] >= 0, above, below)
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


def side_by_side(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures of one height in a row, 6 px of white between."""
    padded = [np.pad(one, ((0, 0), (0, 6), (0, 0)), constant_values=255) for one in pictures]
    return np.concatenate(padded, axis=1)[:, :-6]


def save(folder: Path, name: str, rgb: NDArray[np.uint8]) -> str:
    """Write ``NAME.png`` with the notice in its metadata, and return its file name.

    Raises RestainError if the file cannot be written.
    """
    write_png(folder / f"{name}.png", rgb, {"notice": NOTICE})
    return f"{name}.png"
