"""The scale of a picture or TIFF page: the width and height of a pixel in µm, from whatever states it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, ImageFile

Scale = tuple[float, float]

COARSEST_MPP = 20.0
"""A resolution coarser than this (finer than 1,270 dpi is needed to pass) is a screen's or printer's, not a microscope's."""

_UM_PER_INCH, _UM_PER_CM = 25400.0, 10000.0
_UM_PER_TIFF_UNIT = {2: _UM_PER_INCH, 3: _UM_PER_CM}
_MICROMETRES = {
    "pm": 1e-6,
    "picometer": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": _UM_PER_CM,
    "centimeter": _UM_PER_CM,
    "m": 1e6,
    "meter": 1e6,
    "in": _UM_PER_INCH,
    "inch": _UM_PER_INCH,
    "inches": _UM_PER_INCH,
}
# Units in which programs state the resolution of screens and printers too.
_PRINTED = (_UM_PER_INCH, _UM_PER_CM)


def micrometres(unit: str) -> float | None:
    """How many µm a unit of length is; None where it is none, for example ``pixel``."""
    # ImageJ writes the sign as an escape, "\\u00B5m".
    name = re.sub(r"\\u00b5|[µμ]", "u", unit.strip().lower()).replace("metre", "meter")
    return _MICROMETRES.get(name, _MICROMETRES.get(name.removesuffix("s")))


def tiff_scale(page: Any) -> Scale | None:
    """The scale of a tifffile page: an Aperio ``MPP``, ImageJ's unit, or the resolution tags; None where none states one."""
    description = page.description
    if description.startswith("Aperio") or "|" in description:
        found = re.search(r"(?:^|\|)\s*MPP\s*=\s*([0-9.eE+-]+)", description)
        if found and (value := positive_number(found[1])):
            return _microscope((value, value))
    x, y = _tag(page, "XResolution"), _tag(page, "YResolution")
    if x is None:
        return None
    per_unit = x, y or x
    if description.startswith("ImageJ="):
        unit_line = re.search(r"^unit=(.*)$", description, re.MULTILINE)
        factor = micrometres(unit_line[1]) if unit_line else None
        if factor is not None:
            scale = factor / per_unit[0], factor / per_unit[1]
            return _microscope(scale) if factor in _PRINTED else scale
    # Without the tag the unit is an inch (TIFF 6.0).
    unit = page.tags.get("ResolutionUnit")
    length = _UM_PER_TIFF_UNIT.get(2 if unit is None else int(unit.value))
    return None if length is None else _microscope((length / per_unit[0], length / per_unit[1]))


def ome_scale(pixels: Mapping[str, str]) -> Scale | None:
    """The scale that the attributes of an OME-XML ``Pixels`` element state; None where they state none in a unit of length."""
    sides = []
    for axis in ("X", "Y"):
        value = positive_number(pixels.get(f"PhysicalSize{axis}", ""))
        unit = micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sides.append(value * unit if value and unit else None)
    x, y = sides
    if x is None and y is None:
        return None
    return x or y or 0.0, y or x or 0.0


def picture_scale(picture: ImageFile.ImageFile, exif: Mapping[int, Any]) -> Scale | None:
    """The scale of a PNG, JPEG or WebP: its pHYs chunk or JFIF density, else the resolution in its EXIF data."""
    dpi: Any = None
    if picture.format == "PNG" or picture.info.get("jfif_unit") in (1, 2):
        dpi = picture.info.get("dpi")
    if dpi is None:
        unit = _UM_PER_TIFF_UNIT.get(exif.get(ExifTags.Base.ResolutionUnit, 2), 0.0)
        x, y = exif.get(ExifTags.Base.XResolution), exif.get(ExifTags.Base.YResolution)
        dpi = (_ratio(x) * _UM_PER_INCH / unit, _ratio(y or x) * _UM_PER_INCH / unit) if x and unit else (0.0, 0.0)
    x, y = (float(value) for value in dpi)
    if not (x > 0 and y > 0):
        return None
    return _microscope((_UM_PER_INCH / x, _UM_PER_INCH / y))


def _microscope(scale: Scale) -> Scale | None:
    return scale if 0 < min(scale) < COARSEST_MPP else None


def positive_number(text: str) -> float | None:
    """The number that a text states; None if it is none, not finite, or not above 0."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None


def _ratio(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _tag(page: Any, name: str) -> float | None:
    tag = page.tags.get(name)
    if tag is None:
        return None
    count, base = tag.value
    return count / base if count and base else None
