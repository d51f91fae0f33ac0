from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.dataset_builder.quality import MaskShares, PatchQuality
from restain.dataset_builder.rules import (
    DEFAULTS,
    RULES,
    Candidate,
    Member,
    first_reason,
    parse_rules,
    unbalanced,
    with_sharpness,
)
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level

GOOD = PatchQuality(0.6, 1.0, 0.5, 0.3, 0.7, 0.7, 0.2, "none", 0.0, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
CANDIDATE = Candidate(Region(Point(0, 0), Size(64, 64)), MaskShares(1.0, 1.0, 0.0, 0.0), GOOD, sharpness=1.0)

FLAWS = {
    "pen": replace(CANDIDATE, shares=MaskShares(1.0, 1.0, 0.1, 0.0)),
    "tissue": replace(CANDIDATE, shares=MaskShares(0.2, 1.0, 0.0, 0.0)),
    "shared": replace(CANDIDATE, shares=MaskShares(1.0, 0.5, 0.0, 0.0)),
    "fold": replace(CANDIDATE, shares=MaskShares(1.0, 1.0, 0.0, 0.1)),
    "focus": replace(CANDIDATE, sharpness=0.3),
    "match": replace(CANDIDATE, quality=replace(GOOD, match=0.05)),
    "matched": replace(CANDIDATE, quality=replace(GOOD, matched=0.4)),
    "error": replace(CANDIDATE, quality=replace(GOOD, error_um=9.0)),
    "information": replace(CANDIDATE, quality=replace(GOOD, information=0.01)),
}


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_each_rule_takes_out_what_it_is_for_and_can_be_switched_off(rule: str) -> None:
    thresholds = parse_rules(["information=0.1"])
    assert first_reason(CANDIDATE, thresholds) is None
    assert first_reason(FLAWS[rule], thresholds) == rule
    assert first_reason(FLAWS[rule], thresholds | {rule: None}) is None


def test_what_was_not_measured_or_cannot_be_read_is_no_pair() -> None:
    assert first_reason(replace(CANDIDATE, quality=None), DEFAULTS) == "focus"
    assert first_reason(replace(CANDIDATE, quality=None), DEFAULTS, early=True) is None
    assert first_reason(replace(CANDIDATE, quality=replace(GOOD, match=math.nan)), DEFAULTS) == "match"
    assert first_reason(replace(CANDIDATE, fault="cut off"), DEFAULTS) == "unreadable"


def test_rules_are_changed_by_words() -> None:
    found = parse_rules(["focus=0.5", "fold = off"])
    assert (found["focus"], found["fold"], found["tissue"]) == (0.5, None, DEFAULTS["tissue"])
    with pytest.raises(RestainError, match="Unknown rule 'sharp'; choose from pen, tissue"):
        parse_rules(["sharp=1"])
    for word in ("focus", "focus=much", "focus=nan"):
        with pytest.raises(RestainError, match="a number or 'off'"):
            parse_rules([word])


def test_focus_is_relative_to_the_slides_own() -> None:
    blurred = replace(CANDIDATE, quality=replace(GOOD, focus_ihc=0.35))
    sharp = with_sharpness([CANDIDATE, CANDIDATE, blurred, replace(CANDIDATE, quality=None)])
    assert [round(one.sharpness, 3) for one in sharp[:3]] == [1.0, 1.0, 0.5]


MEMBERS = st.lists(
    st.builds(Member, slide=st.integers(0, 3), level=st.sampled_from(Her2Level), stained=st.booleans()), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(members=MEMBERS, levels=st.floats(1, 4), stained=st.floats(0.5, 4), seed=st.integers(0, 3))
def test_after_balance_no_level_is_too_common(members: list[Member], levels: float, stained: float, seed: int) -> None:
    thresholds = {"levels": levels, "stained": stained}
    out = unbalanced(members, thresholds, seed)
    left = [one for i, one in enumerate(members) if i not in out]
    counts = Counter(one.level for one in left)
    if counts:
        assert max(counts.values()) <= math.ceil(levels * min(counts.values()))
        assert set(counts) == {one.level for one in members}
    for level in list(Her2Level)[1:]:
        with_dab = sum(one.level == level and one.stained for one in members)
        plain = sum(one.level == level and not one.stained for one in left)
        assert plain <= math.ceil(stained * with_dab) or not with_dab
    assert out == unbalanced(members, thresholds, seed)
    assert not unbalanced(members, {"levels": None, "stained": None}, seed)


def test_a_large_slide_gives_way_before_a_small_one() -> None:
    members = (
        [Member(0, Her2Level.TWO, True)] * 20
        + [Member(1, Her2Level.TWO, True)] * 4
        + [Member(2, Her2Level.ZERO, False)] * 4
    )
    out = unbalanced(members, {"levels": 2.0}, seed=0)
    assert Counter(members[i].slide for i in out) == {0: 16}
