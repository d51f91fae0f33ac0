"""The page of a cohort: a table of patients, and for every slide its pictures and the maps of its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

import restain
from restain.cohort.field import FIELD_UM, LEAST_TISSUE, SQUARE_UM, FieldReading
from restain.cohort.patient import PatientReading, SlideReading
from restain.her2 import Her2Level
from restain.report import colour_scale, css_gradient, render_page
from restain.report.pictures import DAB_TOP
from restain.report.slide_map import Square, slide_map

PICTURES = (("he", "H&E"), ("virtual", "virtual HER2 IHC"), ("dab", "DAB density"))
"""Keys of :attr:`SlideReading.links` that are pictures, and their captions."""

_AT = (12, 90, 160, 235)
"""Where on the scale of DAB the colours of the four levels lie."""


def cohort_page(
    patients: Sequence[PatientReading],
    *,
    title: str = "HER2 by field, slide and patient",
    facts: Mapping[str, str] | None = None,
    failed: Sequence[tuple[str, str]] = (),
    side_um: float = FIELD_UM,
) -> str:
    """The HTML of a cohort.

    Args:
        patients: in the order in which they are shown.
        title: of the page.
        facts: where the readings come from, by name.
        failed: name and fault, a sentence, of each slide that is missing.
        side_um: side of a field.
    """
    uneven = max(patients, key=lambda patient: patient.heterogeneity.total, default=None)
    lead = [f"{len(patients)} patient{'' if len(patients) == 1 else 's'}, all read from a {restain.NOTICE}."]
    if uneven is not None and uneven.heterogeneity.total > 0:
        lead.append(
            f"Most uneven: patient {uneven.patient}, {uneven.heterogeneity.total:.2f} of 1.5 levels, "
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
            "doubt": css_gradient("difference"),
            "levels": [(level.text, level_colour(level)) for level in Her2Level],
        },
        side=f"{side_um:g}",
        square=f"{SQUARE_UM:g}",
        least=f"{LEAST_TISSUE:.0%}",
        facts=facts or {},
    )


def level_colour(level: Her2Level) -> str:
    """The CSS colour of a level on maps: the darker the higher."""
    return _css(colour_scale("dab")[_AT[level]])


def field_map(slide: SlideReading, label: str, paint: Callable[[FieldReading], tuple[str, str]]) -> Markup:
    """The fields of a slide as inline SVG, over its H&E where that is linked.

    Args:
        slide: with its ``size``.
        label: what the map shows, for those who do not see it.
        paint: the CSS colour of a field and the word on it.
    """
    if slide.size is None:
        return Markup("")
    squares = []
    for reading in slide.fields:
        colour, word = paint(reading)
        squares.append(Square(reading.region, colour, describe(reading), word, _ink(colour), _strange(reading)))
    return slide_map(slide.size, squares, label, slide.links.get("he", ""), opacity=0.35, frame=1 / 200)


def describe(reading: FieldReading) -> str:
    """A field in one line."""
    words = (
        f"row {reading.row + 1}, column {reading.column + 1}: {reading.level.text}; {sum(reading.cells)} cells on "
        f"{reading.tissue_mm2:.2f} mm² of tissue; DAB {reading.mean_od:.2f} OD, on {reading.stained_share:.0%} of it; "
        f"doubt {reading.doubt:.0%}"
    )
    return "; ".join([words, *reading.reasons])


def change_words(patient: PatientReading) -> str:
    """What it would take to change the patient's level, in a sentence."""
    change = patient.change
    if change is None:
        return "No fields can be left out so that the level changes."
    slide, reading = change.fields[0]
    place = f"row {reading.row + 1}, column {reading.column + 1} of {slide.slide} (block {slide.block})"
    if len(change.fields) == 1:
        return f"One field decides: without {place}, which reads {reading.level.text}, the level would be {change.to.text}."
    count = sum(len(one.fields) for one in patient.slides)
    return (
        f"No single field decides: {len(change.fields)} of {count} would have to be left out for {change.to.text}, first {place}, "
        f"which reads {reading.level.text}."
    )


def _strange(reading: FieldReading) -> bool:
    return reading.in_distribution is False or (reading.classifier is not None and reading.classifier != reading.level)


def _patient(patient: PatientReading) -> dict[str, Any]:
    parts = patient.heterogeneity
    return {
        "name": patient.patient,
        "level": patient.level.text,
        "highest": patient.highest.text,
        "doubt": f"{patient.doubt:.0%}",
        "blocks": ", ".join(patient.blocks),
        "tissue": f"{patient.areas.sum():.1f}",
        "shares": [f"{share:.0%}" for share in patient.shares.values()],
        "total": f"{parts.total:.2f}",
        "within": f"{parts.within:.2f}",
        "between": f"{parts.between:.2f}",
        "change": change_words(patient),
        "slides": [_slide(slide) for slide in patient.slides],
    }


def _slide(slide: SlideReading) -> dict[str, Any]:
    def doubtful(reading: FieldReading) -> tuple[str, str]:
        index = min(255, round(reading.doubt / 0.5 * 255))
        return _css(colour_scale("difference")[index]), f"{reading.doubt:.0%}"

    maps = [
        (field_map(slide, "level of each field", lambda one: (level_colour(one.level), one.level.text)), "level"),
        (field_map(slide, "doubt of each field", doubtful), "doubt"),
    ]
    return {
        "name": slide.slide,
        "block": slide.block,
        "level": slide.level.text,
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
