"""The page of a cohort: a table of patients; for every slide its pictures and the maps of its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

import restain
from restain.cohort.field import FIELD_UM, LEAST_TISSUE, SQUARE_UM, FieldReading
from restain.cohort.patient import PatientReading, SlideReading, decisive_fields
from restain.her2 import Her2Level, Her2Zero
from restain.report import colour_scale, css_gradient, render_page
from restain.report.pictures import DAB_TOP
from restain.report.slide_map import Square, slide_map
from restain.statistics import Interval

PICTURES = (("he", "H&E"), ("virtual", "virtual HER2 IHC"), ("dab", "DAB density"))
"""Keys of :attr:`SlideReading.links` that are pictures, and their captions."""

_DAB_INDEX = (12, 90, 160, 235)
"""Index of each level's colour in the scale of DAB density."""


def cohort_page(
    patients: Sequence[PatientReading],
    *,
    title: str = "HER2 by field, slide and patient",
    facts: Mapping[str, str] | None = None,
    failed: Sequence[tuple[str, str]] = (),
    side_um: float = FIELD_UM,
) -> str:
    """The HTML of a cohort; ``failed`` has name and error sentence of each missing slide, ``facts`` the provenance."""
    uneven = max(patients, key=lambda patient: patient.heterogeneity.total, default=None)
    lead = [f"{len(patients)} patient{'' if len(patients) == 1 else 's'}, all scored on a {restain.NOTICE}."]
    if uneven is not None and uneven.heterogeneity.total > 0:
        lead.append(
            f"Most heterogeneous: patient {uneven.patient}, {uneven.heterogeneity.total:.2f} of 1.5 levels, "
            f"{uneven.heterogeneity.between:.2f} of them between blocks."
        )
    return render_page(
        "cohort.html.j2",
        "restain.cohort",
        title=title,
        lead=lead,
        failed=list(failed),
        patients=[_patient(patient) for patient in patients],
        levels=[level.text for level in Her2Level],
        pictures=PICTURES,
        legend={
            "dab": (css_gradient("dab"), f"{DAB_TOP:g}"),
            "error": css_gradient("difference"),
            "levels": [(level.text, level_colour(level)) for level in Her2Level],
        },
        side=f"{side_um:g}",
        square=f"{SQUARE_UM:g}",
        least=f"{LEAST_TISSUE:.0%}",
        facts=facts or {},
    )


def level_colour(level: Her2Level) -> str:
    """The CSS colour of a level on maps: the darker the higher."""
    return _css(colour_scale("dab")[_DAB_INDEX[level]])


def field_map(slide: SlideReading, label: str, paint: Callable[[FieldReading], tuple[str, str]]) -> Markup:
    """The fields of a slide as inline SVG, over its H&E if that is linked; ``paint`` gives their colour and text."""
    if slide.size is None:
        return Markup("")
    squares = []
    for reading in slide.fields:
        colour, word = paint(reading)
        squares.append(Square(reading.region, colour, describe(reading), word, _ink(colour), _is_dashed(reading)))
    return slide_map(slide.size, squares, label, slide.links.get("he", ""), opacity=0.35, frame=1 / 200)


def describe(reading: FieldReading) -> str:
    """A field in one line."""
    words = (
        f"row {reading.row + 1}, column {reading.column + 1}: {reading.level_text}; {sum(reading.cells)} cells on "
        f"{reading.tissue_mm2:.2f} mm² of tissue; DAB {reading.mean_od:.2f} OD, on {reading.stained_share:.0%} of it; "
        f"sampling error {reading.sampling_error:.0%}"
    )
    return "; ".join([words, *reading.reasons])


def _decisive(patient: PatientReading) -> str:
    found = decisive_fields(patient.slides)
    if found is None:
        return "No removal of fields changes the level."
    slide, reading = found.fields[0]
    place = f"row {reading.row + 1}, column {reading.column + 1} of {slide.slide} (block {slide.block})"
    if len(found.fields) == 1:
        return f"One field decides: without {place} ({reading.level.text}), the level would be {found.level.text}."
    return (
        f"No single field decides: {len(found.fields)} of {len(patient.readings())} fields would have to be removed for "
        f"{found.level.text}, first {place} ({reading.level.text})."
    )


def _is_dashed(reading: FieldReading) -> bool:
    return reading.in_distribution is False or (reading.classifier is not None and reading.classifier != reading.level)


def _interval(share: Interval) -> str:
    return "" if np.isnan(share.low) else f"{100 * share.low:.0f}–{100 * share.high:.0f}"


def _patient(patient: PatientReading) -> dict[str, Any]:
    parts, shares = patient.heterogeneity, patient.shares
    return {
        "name": patient.patient,
        "level": patient.level_text,
        "highest": patient.highest.text,
        "error": f"{patient.sampling_error:.0%}",
        "blocks": ", ".join(patient.blocks),
        "tissue": f"{patient.tissue_mm2:.1f}",
        "shares": [(f"{share.mean:.0%}", _interval(share)) for share in shares.levels.values()],
        "zero": [(f"{shares.zero[kind].mean:.0%}", _interval(shares.zero[kind])) for kind in Her2Zero],
        "total": f"{parts.total:.2f}",
        "within": f"{parts.within:.2f}",
        "between": f"{parts.between:.2f}",
        "decisive": _decisive(patient),
        "slides": [_slide(slide) for slide in patient.slides],
    }


def _slide(slide: SlideReading) -> dict[str, Any]:
    def error(reading: FieldReading) -> tuple[str, str]:
        index = min(255, round(reading.sampling_error / 0.5 * 255))
        return _css(colour_scale("difference")[index]), f"{reading.sampling_error:.0%}"

    maps = [
        (field_map(slide, "level of each field", lambda one: (level_colour(one.level), one.level.text)), "level"),
        (field_map(slide, "sampling error of each field", error), "sampling error"),
    ]
    return {
        "name": slide.slide,
        "block": slide.block,
        "level": slide.level_text,
        "tissue": f"{slide.tissue_mm2:.1f}",
        "fields": len(slide.fields),
        "left_out": f"{slide.left_out_mm2:.2f}" if slide.left_out_mm2 >= 0.005 else "",
        "uncertain": sum(bool(one.reasons) for one in slide.fields),
        "links": slide.links,
        "notes": slide.notes,
        "maps": [(drawn, title) for drawn, title in maps if drawn],
    }


def _css(rgb: Sequence[int]) -> str:
    red, green, blue = (int(value) for value in rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _ink(colour: str) -> str:
    return "#111" if sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) > 330 else "#fff"
