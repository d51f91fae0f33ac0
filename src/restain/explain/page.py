"""From results to ``explain.html`` and ``explain.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from restain import NOTICE, __version__
from restain.explain.figures import AGAINST, ATTENDED, FOR
from restain.files import write_text

TITLES = {
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
    "attention": "attention (mean over levels and heads)",
    "random": "random map",
    "edge": "edge map",
    "nearness": "nearness to the place",
}
"""What maps are called in words."""

LIMITS = (
    "A map shows what moves this model's number, not what is true of the tissue, and not what a pathologist looks at.",
    "Attribution compares the image with a baseline that no slide looks like; with another baseline the map differs.",
    "Attention weights say which tokens are mixed in at a level. A heavily attended place need not change the result.",
    "The figures hold for this window. What lies outside it was not seen.",
)


def write_page(out: Path, template: str, values: Mapping[str, Any]) -> Path:
    """Render one of this room's templates as ``out/explain.html``.

    Raises:
        RestainError: if the file cannot be written.
    """
    env = Environment(
        loader=PackageLoader("restain.explain", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    legend = {"against": _css(AGAINST), "for": _css(FOR), "attended": _css(ATTENDED)}
    text = env.get_template(template).render(
        notice=NOTICE, version=__version__, titles=TITLES, limits=LIMITS, legend=legend, **values
    )
    path = out / "explain.html"
    write_text(path, text)
    return path


def write_json(out: Path, values: Mapping[str, Any]) -> None:
    """Write ``out/explain.json``; numbers that JSON cannot hold become null.

    Raises:
        RestainError: if the file cannot be written.
    """
    text = json.dumps(_plain({"notice": NOTICE, "restain": __version__, **values}), indent=1, ensure_ascii=False)
    write_text(out / "explain.json", text + "\n")


def _css(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value
