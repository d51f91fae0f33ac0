from __future__ import annotations

import re

from restain import NOTICE
from restain.cohort.field import FieldReading
from restain.cohort.page import cohort_page
from restain.cohort.patient import PatientReading, SlideReading
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level


def reading(column: int, cells, **more) -> FieldReading:
    areas = [0.0, 0.0, 0.0, 0.0]
    areas[Her2Level.THREE if cells[3] else Her2Level.ZERO] = 1.0
    return FieldReading(
        0, column, Region(Point(2000 * column, 0), Size(2000, 2000)), tuple(areas), cells, 0.3, 0.2, **more
    )


def slide(name: str, *readings: FieldReading, **more) -> SlideReading:
    return SlideReading(name, "P <1>", "A&B", readings, size=Size(4000, 2000), **more)


def test_the_page_says_what_was_read_and_that_the_stain_is_virtual():
    even = (900, 0, 0, 0)
    first = slide(
        "a.svs", reading(0, even), reading(1, (0, 0, 0, 900), in_distribution=False), links={"he": "pictures/a%20b.jpg"}
    )
    second = slide("b.svs", reading(0, even), left_out_mm2=0.25, notes=("2 tiles are holes.",))
    page = cohort_page(
        [PatientReading("P <1>", (first, second))], facts={"Model": "m"}, failed=[("c.svs", "c.svs is cut.")]
    )
    assert page.count(NOTICE) >= 8
    assert "P &lt;1&gt;" in page
    assert "<1>" not in page
    for words in (
        "33%",  # a third of the area is 3+
        "One field decides: without row 1, column 2 of a.svs (block A&amp;B) (3+), the level would be 0.",
        "the H&amp;E is unlike the training images",
        "0.25 mm² left out",
        "2 tiles are holes.",
        "c.svs is cut.",
        'href="pictures/a%20b.jpg"',
    ):
        assert words in page
    # Two maps of each slide, a field for each reading; the strange one is dashed on both.
    assert [len(re.findall("<title>row", svg)) for svg in re.findall("<svg.*?</svg>", page, re.S)] == [2, 2, 1, 1]
    assert page.count("stroke-dasharray") == 2


def test_a_cohort_without_fields_is_a_page_too():
    page = cohort_page([PatientReading("P", (SlideReading("a.svs", "P", "A", (), size=Size(10, 10)),))])
    assert "No removal of fields changes the level" in page
