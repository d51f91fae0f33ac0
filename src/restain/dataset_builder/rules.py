"""Which patches become pairs: rules with a threshold each, any of which can be changed or switched off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from restain.dataset_builder.measure import Figures, Shares
from restain.errors import RestainError
from restain.geometry import Region
from restain.her2 import Her2Level


@dataclass(frozen=True, slots=True)
class Candidate:
    """A window of a slide pair: where it lies (px of the H&E at the set's mpp), and what was measured of it.

    ``figures`` is None where the overviews already told that it cannot become a pair, or where its pixels cannot be decoded, which
    ``fault`` then says. ``sharpness`` is the focus of its less
    sharp side as a share of that slide's median.
    """

    region: Region
    shares: Shares
    figures: Figures | None = None
    fault: str = ""
    sharpness: float = math.nan

    @property
    def positive(self) -> float:
        """The share of the patch that DAB stains, 0 where it was not measured."""
        return 0.0 if self.figures is None else self.figures.positive


@dataclass(frozen=True)
class Rule:
    """``name`` is what the command line calls it; patches whose ``value`` is below (``least``) or above the threshold are out."""

    name: str
    words: str
    least: bool
    threshold: float | None
    value: Callable[[Shares, Figures, float], float]
    early: bool = False
    """Decided by the overviews alone, before anything is measured."""

    def removes(self, candidate: Candidate, threshold: float) -> bool:
        """Whether the rule takes a candidate out; what could not be measured is out."""
        if candidate.figures is None and not self.early:
            return True
        figures = candidate.figures or _NOTHING
        value = self.value(candidate.shares, figures, candidate.sharpness)
        return not (value >= threshold if self.least else value <= threshold)


_NOTHING = Figures(*(math.nan,) * 7, "none", math.nan, ())

RULES = (
    Rule("pen", "pen marks, share of the patch at most", False, 0.01, lambda s, f, r: s.pen, True),
    Rule("tissue", "tissue on the H&E, share of the patch at least", True, 0.5, lambda s, f, r: s.tissue, True),
    Rule(
        "shared", "tissue on both slides, share of that on either at least", True, 0.85, lambda s, f, r: s.shared, True
    ),
    Rule("fold", "folds, share of the patch at most", False, 0.01, lambda s, f, r: s.fold, True),
    Rule("focus", "focus of the less sharp side, share of its slide's median at least", True, 0.6, lambda s, f, r: r),
    Rule("match", "mean local correlation at least", True, 0.2, lambda s, f, r: f.match),
    Rule("matched", "share of blocks that match at least", True, 0.75, lambda s, f, r: f.matched),
    Rule(
        "error",
        "estimated misplacement in µm, 90th percentile over blocks, at most",
        False,
        5.0,
        lambda s, f, r: f.error_um,
    ),
    Rule(
        "information",
        "normalised mutual information of hematoxylin at least",
        True,
        None,
        lambda s, f, r: f.information,
    ),
)
"""In the order in which they are asked; the first that takes a patch out is its reason."""

LEVELS, STAINED = "levels", "stained"
BALANCE = {
    LEVELS: ("patches of a level in the training part, times those of its rarest level at most", 4.0),
    STAINED: ("patches without DAB of a level above 0 in the training part, times those with it at most", 3.0),
}
"""What is asked of all kept patches together."""
UNREADABLE = "unreadable"
"""The reason of patches whose pixels cannot be decoded: no rule, so it has no threshold."""
STAINED_SHARE = 0.01
"""A patch is stained where DAB covers more of it."""

Thresholds = Mapping[str, float | None]
DEFAULTS: dict[str, float | None] = {rule.name: rule.threshold for rule in RULES} | {
    name: default for name, (_, default) in BALANCE.items()
}


def parse_rules(words: Sequence[str]) -> dict[str, float | None]:
    """The defaults, changed as ``words`` say: ``NAME=VALUE``, or ``NAME=off``.

    Raises:
        RestainError: if a rule is unknown or a value is no number.
    """
    found = dict(DEFAULTS)
    for word in words:
        name, _, value = (part.strip() for part in word.partition("="))
        if name not in found:
            raise RestainError(f"There is no rule '{name}'; the rules are {', '.join(found)}.")
        try:
            number = None if value == "off" else float(value)
        except ValueError:
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise RestainError(f"The rule {name} takes a number or 'off', not '{value}'.")
        found[name] = number
    return found


def first_reason(candidate: Candidate, thresholds: Thresholds, *, early: bool = False) -> str | None:
    """The name of the first rule that takes a candidate out, None where it stays; ``early`` asks the overviews' rules only."""
    if candidate.fault:
        return UNREADABLE
    for rule in RULES:
        threshold = thresholds.get(rule.name)
        if threshold is not None and (rule.early or not early) and rule.removes(candidate, threshold):
            return rule.name
    return None


def with_sharpness(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates of one slide pair with their focus relative to the medians over the pair's measured ones."""
    measured = [one.figures for one in candidates if one.figures is not None]
    if not measured:
        return list(candidates)
    he, ihc = (
        max(float(np.median(values)), 1e-6)
        for values in zip(*((f.focus_he, f.focus_ihc) for f in measured), strict=True)
    )
    return [
        one if (f := one.figures) is None else replace(one, sharpness=min(f.focus_he / he, f.focus_ihc / ihc))
        for one in candidates
    ]


@dataclass(frozen=True, slots=True)
class Member:
    """What balance needs to know of a kept patch of the training part."""

    slide: int
    level: Her2Level
    stained: bool


def unbalanced(members: Sequence[Member], thresholds: Thresholds, seed: int) -> dict[int, str]:
    """Which of ``members`` are too many, by their index, and the rule that says so.

    Patches without stain go first, so that the levels are balanced in what is left. Who stays is drawn by ``seed``, from every slide
    in turn, so that a large slide gives way before a small one.
    """
    out: dict[int, str] = {}
    order = _by_turns(members, seed)
    if (ratio := thresholds.get(STAINED)) is not None:
        for level in list(Her2Level)[1:]:
            plain = [i for i in order if members[i].level == level and not members[i].stained]
            stained = sum(one.level == level and one.stained for one in members)
            # Where nothing is stained at all there is nothing to balance with.
            if stained:
                out |= dict.fromkeys(plain[math.ceil(ratio * stained) :], STAINED)
    if (ratio := thresholds.get(LEVELS)) is not None:
        groups = [[i for i in order if members[i].level == level and i not in out] for level in Her2Level]
        fewest = min((len(group) for group in groups if group), default=0)
        for group in groups:
            out |= dict.fromkeys(group[math.ceil(ratio * fewest) :], LEVELS)
    return out


def _by_turns(members: Sequence[Member], seed: int) -> list[int]:
    drawn = np.random.default_rng([seed, len(members)]).permutation(len(members))
    turn: dict[int, int] = {}
    place: dict[int, int] = {}
    for index in drawn:
        slide = members[index].slide
        place[int(index)] = turn[slide] = turn.get(slide, -1) + 1
    return sorted(place, key=lambda index: place[index])
