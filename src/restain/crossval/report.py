"""The page of a leave-one-slide-out: pooled figures, figures per pair, pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, select_autoescape

from restain.evaluation.baselines import DESCRIPTIONS
from restain.files import write_text

COLUMNS = {
    "dab_r16": ("DAB r, 16 µm cells", 2),
    "background_de": ("background ΔE₀₀", 1),
    "background_db": ("background Δb*", 1),
    "psnr": ("PSNR, dB", 2),
    "ssim": ("SSIM", 3),
}
"""Heading and digits of each figure, by its key."""


def write_page(out: Path, results: Mapping[str, Any]) -> Path:
    """Write ``out/crossval.html`` from what ``crossval.json`` holds."""
    environment = Environment(loader=PackageLoader("restain.crossval", "."), autoescape=select_autoescape(default=True))
    environment.filters |= {"number": _number, "interval": _interval, "quoted": quote}
    page = environment.get_template("page.html.j2").render(
        results=results,
        columns=COLUMNS,
        words={"model": "what is evaluated"} | DESCRIPTIONS | results["limits"],
        names=list(dict.fromkeys(row["name"] for row in results["rows"])),
        by_pair={(row["name"], row["method"]): row for row in results["rows"]},
    )
    write_text(out / "crossval.html", page)
    return out / "crossval.html"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _interval(value: Mapping[str, Any], digits: int) -> str:
    mean = _number(value["mean"], digits)
    if mean == "–" or value["n"] < 2:
        return mean
    return f"{mean} [{_number(value['low'], digits)}, {_number(value['high'], digits)}]"
