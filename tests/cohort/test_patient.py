from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.cohort.field import FieldReading
from restain.cohort.patient import PatientReading, SlideReading, area_shares, decisive_fields, pooled
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level, Her2Zero, level_of_counts

BOX = Region(Point(0, 0), Size(1, 1))
cells = st.tuples(*[st.integers(0, 30)] * 4)


def field(column: int, counts, mm2: float = 1.0) -> FieldReading:
    areas = [0.0] * 4
    areas[level_of_counts(counts)] = mm2
    return FieldReading(0, column, BOX, tuple(areas), tuple(counts), 0.0, 0.0)


def slide(name: str, *counts, block: str = "A", mm2: float = 1.0) -> SlideReading:
    return SlideReading(name, "P", block, tuple(field(n, one, mm2) for n, one in enumerate(counts)))


def test_the_patient_is_read_from_all_cells_together():
    patient = PatientReading("P", (slide("a", (900, 0, 0, 0)), slide("b", (0, 0, 0, 99))))
    # 99 of 999 cells are no more than 10 %, though one of two fields is 3+.
    assert patient.level == Her2Level.ZERO
    assert [share.mean for share in patient.shares.levels.values()] == [0.5, 0, 0, 0.5]
    assert patient.slides[1].level == patient.highest == Her2Level.THREE


def test_heterogeneity_takes_slides_of_a_block_together():
    zero, three = (100, 0, 0, 0), (0, 0, 0, 100)
    same = PatientReading("P", (slide("a", zero), slide("b", three)))
    apart = PatientReading("P", (slide("a", zero), slide("b", three, block="B")))
    assert (same.heterogeneity.within, same.heterogeneity.between) == (pytest.approx(1.5), 0)
    assert (apart.heterogeneity.within, apart.heterogeneity.between) == (0, pytest.approx(1.5))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.tuples(cells, st.floats(0.1, 1)), max_size=4), min_size=1, max_size=4))
def test_shares_add_up_to_one(slides):
    made = [
        SlideReading(str(n), "P", str(n % 2), tuple(field(k, one, mm2) for k, (one, mm2) in enumerate(fields)))
        for n, fields in enumerate(slides)
    ]
    patient = PatientReading("P", tuple(made))
    assert sum(share.mean for share in patient.shares.levels.values()) == pytest.approx(
        1 if any(map(len, slides)) else 0
    )
    turned = PatientReading("P", tuple(reversed(made)))
    for level, share in patient.shares.levels.items():
        assert turned.shares.levels[level].mean == pytest.approx(share.mean)
    assert turned.cells == patient.cells
    assert turned.heterogeneity.total == pytest.approx(patient.heterogeneity.total, abs=1e-12)


def test_the_field_that_decides_is_named():
    found = decisive_fields([slide("a", (90, 0, 0, 0), (60, 0, 0, 40)), slide("b", (100, 0, 0, 0))])
    assert found is not None
    (where, which), *more = found.fields
    assert (where.slide, which.column, more, found.level) == ("a", 1, [], Her2Level.ZERO)


def test_one_level_throughout_can_not_be_changed_by_leaving_fields_out():
    assert decisive_fields([slide("a", (0, 0, 0, 9), (0, 0, 0, 7))]) is None
    assert decisive_fields([slide("a", (0, 0, 0, 9))]) is None
    assert decisive_fields([]) is None


@settings(max_examples=150, deadline=None)
@given(st.lists(cells, min_size=1, max_size=6))
def test_no_smaller_set_of_fields_would_do(counts):
    slides = [slide("a", *counts[:3]), slide("b", *counts[3:])]
    level = level_of_counts(pooled(reading for one in slides for reading in one.fields))
    sizes = [
        size
        for size in range(1, len(counts))
        for gone in combinations(range(len(counts)), size)
        if sum(map(sum, left := [one for n, one in enumerate(counts) if n not in gone]))
        and level_of_counts([sum(column) for column in zip(*left, strict=True)]) != level
    ]
    # Fields without cells change nothing, so the fewest hold none.
    found = decisive_fields(slides)
    assert (len(found.fields) if found else None) == (min(sizes) if sizes else None)
    if found:
        assert found.level != level
        turned = decisive_fields(slides[::-1])
        assert [(s.slide, f.column) for s, f in turned.fields] == [(s.slide, f.column) for s, f in found.fields]


def placed(row: int, column: int, level: int, null: float = 0.0) -> FieldReading:
    areas = [0.0] * 4
    areas[level] = 1.0
    return FieldReading(row, column, BOX, tuple(areas), (1, 0, 0, 0), 0.0, 0.0, null_mm2=null)


def test_intervals_of_shares_take_neighbouring_fields_together():
    mixed = [("a", placed(row, column, 3 * ((row + column) % 2))) for row in range(8) for column in range(8)]
    halves = [("a", placed(row, column, 3 * (column >= 4))) for row in range(8) for column in range(8)]
    even, apart = (area_shares(fields).levels[Her2Level.THREE] for fields in (mixed, halves))
    assert (even.mean, even.low, even.high, even.n) == (0.5, 0.5, 0.5, 64)  # every block of 2 x 2 is half 3+
    assert apart.low < 0.3 < apart.mean == 0.5 < 0.7 < apart.high
    # One block tells nothing of others; blocks of two slides are two.
    assert np.isnan(area_shares(mixed[:2]).levels[Her2Level.THREE].low)
    assert np.isfinite(area_shares([mixed[0], ("b", placed(0, 0, 3))]).levels[Her2Level.THREE].low)


def test_the_share_of_level_zero_is_null_or_ultralow():
    shares = area_shares([("a", placed(0, 0, 0, 0.25)), ("a", placed(0, 2, 0, 1.0)), ("a", placed(0, 4, 1))])
    assert shares.zero[Her2Zero.NULL].mean == pytest.approx(1.25 / 3)
    assert shares.zero[Her2Zero.ULTRALOW].mean == pytest.approx(0.75 / 3)
    assert sum(one.mean for one in shares.zero.values()) == pytest.approx(shares.levels[Her2Level.ZERO].mean)
