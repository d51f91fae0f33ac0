"""The page of a comparison of two slides: pooled figures, heat maps over the slide, all figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from restain.evaluation.catalogue import BY_KEY
from restain.geometry import Size
from restain.report import colour_scale, css_gradient
from restain.report import write_page as write_report_page
from restain.report.slide_map import Square, slide_map

if TYPE_CHECKING:
    from restain.evaluation.slide_pair import Field

DAB_TOP = 0.3
"""OD at the dark end of the maps of mean DAB: a mean over a whole field is far below a membrane's density."""
ERROR_TOP = 0.15
"""OD at the bright end of the map of errors."""

MAPS = (
    ("dab_mean_virtual", "dab", DAB_TOP, "virtual"),
    ("dab_mean_real", "dab", DAB_TOP, "real"),
    ("dab_mean_error", "difference", ERROR_TOP, "virtual"),
    ("dab_r16", "agreement", 1.0, "virtual"),
)
"""The heat maps: figure, colour scale, value at its end, picture beneath."""


def write_page(path: Path, result: Mapping[str, Any], fields: Sequence[Field], pictures: Mapping[str, Path]) -> Path:
    """Write the page of :func:`restain.evaluation.slide_pair.compare_slides`; raises RestainError if it cannot."""
    maps = [
        {
            "title": BY_KEY[key].title,
            "unit": BY_KEY[key].unit,
            "picture": heat_map(fields, key, scale, top, result["size_px"], f"pictures/{pictures[beneath].name}"),
            "gradient": _gradient(scale),
            "top": f"{top:g}",
        }
        for key, scale, top, beneath in MAPS
    ]
    rows = [
        {"title": BY_KEY[key].title, "unit": BY_KEY[key].unit, "value": _number(value, BY_KEY[key].digits)}
        for key, value in result["means"].items()
    ]
    facts = {
        "Virtual slide": f"{result['virtual']}, DAB by {result['virtual_dab']}",
        "Real slide": result["real"],
        "Registration": result["registration"],
        "Fields": f"{result['fields']} of {result['side_um']:g} µm, {result['area_mm2']:.1f} mm²",
        "Command": result["command"] or "from Python",
    }
    return write_report_page(
        path,
        "slide_pair.html.j2",
        "restain.evaluation",
        title=f"{result['virtual']} against {result['real']}",
        result=result,
        pooled={key: _pooled(value) for key, value in result["pooled"].items()},
        maps=maps,
        rows=rows,
        facts=facts.items(),
    )


def heat_map(fields: Sequence[Field], key: str, scale: str, top: float, size: Sequence[int], picture: str) -> Markup:
    """A slide of ``size`` px with a square per field; fields without the figure are a grey frame only."""
    metric, squares = BY_KEY[key], []
    for field in fields:
        value, at = field.values[key], field.region.origin
        colour = "#{:02x}{:02x}{:02x}".format(*_colour(value, scale, top)) if math.isfinite(value) else "none"
        text = f"{metric.title}: {_number(value, metric.digits)} {metric.unit}; x {at.x}, y {at.y} px"
        squares.append(Square(field.region, colour, text))
    return slide_map(Size(*size), squares, metric.title, picture)


def _colour(value: float, scale: str, top: float) -> np.ndarray:
    name = "difference" if scale == "agreement" else scale
    return colour_scale(name)[int(np.clip(round(value / top * 255), 0, 255))]


def _gradient(scale: str) -> str:
    return css_gradient("difference" if scale == "agreement" else scale)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _pooled(found: Mapping[str, float] | None) -> str | None:
    if found is None:
        return None
    return f"{_number(found['value'], 2)} [{_number(found['low'], 2)}, {_number(found['high'], 2)}]"
