"""Rules by which patches become pairs, each with a threshold that can be changed or switched off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from restain.dataset_builder.quality import MaskShares, PatchQuality
from restain.errors import RestainError
from restain.geometry import Region
from restain.her2 import Her2Level


@dataclass(frozen=True, slots=True)
class Candidate:
    """A window of a slide pair: its place (px of the H&E at the set's mpp) and its measurements.

    ``quality`` is None if an early rule rejects it, or if its pixels cannot be decoded, with the reason in ``fault``.
    ``sharpness`` is the focus of its less sharp side relative to that slide's median.
    """

    region: Region
    shares: MaskShares
    quality: PatchQuality | None = None
    fault: str = ""
    sharpness: float = math.nan


@dataclass(frozen=True)
class Rule:
    """Rejects candidates whose ``value`` is below (``least``) or above the threshold; None is off. ``title`` is for people."""

    name: str
    title: str
    least: bool
    threshold: float | None
    value: Callable[[Candidate], float]
    early: bool = False
    """Decided by the masks alone, before the patch is measured."""

    def rejects(self, candidate: Candidate, threshold: float) -> bool:
        """Whether the rule rejects a candidate; what could not be measured is rejected."""
        if candidate.quality is None and not self.early:
            return True
        value = self.value(candidate)
        return not (value >= threshold if self.least else value <= threshold)


def _quality(name: str) -> Callable[[Candidate], float]:
    return lambda candidate: float(getattr(candidate.quality, name))


def _share(name: str) -> Callable[[Candidate], float]:
    return lambda candidate: float(getattr(candidate.shares, name))


RULES = (
    Rule("pen", "pen marks, share of the patch at most", False, 0.01, _share("pen"), True),
    Rule("tissue", "tissue on the H&E, share of the patch at least", True, 0.5, _share("tissue"), True),
    Rule("shared", "tissue on both slides, share of that on either at least", True, 0.85, _share("shared"), True),
    Rule("fold", "folds, share of the patch at most", False, 0.01, _share("fold"), True),
    Rule(
        "focus", "focus of the less sharp side, share of its slide's median at least", True, 0.6, lambda c: c.sharpness
    ),
    Rule("match", "mean local correlation at least", True, 0.2, _quality("match")),
    Rule("matched", "share of blocks that match at least", True, 0.75, _quality("matched")),
    Rule("error", "estimated misplacement in µm (90th percentile of blocks) at most", False, 5.0, _quality("error_um")),
    Rule("information", "normalised mutual information of hematoxylin at least", True, None, _quality("information")),
)
"""In the order in which they are applied; the first that rejects a patch is its reason."""

LEVELS, STAINED = "levels", "stained"
BALANCE = {
    LEVELS: ("patches of a level in the training split, times those of its rarest level at most", 4.0),
    STAINED: ("patches without DAB of a level above 0 in the training split, times those with it at most", 3.0),
}
"""Rules for all kept patches together."""
UNREADABLE = "unreadable"
"""The reason of patches whose pixels cannot be decoded: no rule, so it has no threshold."""
TITLES = (
    {rule.name: rule.title for rule in RULES}
    | {name: title for name, (title, _) in BALANCE.items()}
    | {UNREADABLE: "pixels that cannot be decoded"}
)
"""All reasons, in order, with their titles."""
STAINED_SHARE = 0.01
"""Share of the patch above which DAB makes it stained."""

Thresholds = Mapping[str, float | None]
DEFAULTS: dict[str, float | None] = {rule.name: rule.threshold for rule in RULES} | {
    name: default for name, (_, default) in BALANCE.items()
}


def parse_rules(settings: Sequence[str]) -> dict[str, float | None]:
    """The default thresholds changed by ``settings``: ``NAME=VALUE``, or ``NAME=off``.

    Raises:
        RestainError: if a rule is unknown or a value is not a number.
    """
    found = dict(DEFAULTS)
    for setting in settings:
        name, _, value = (part.strip() for part in setting.partition("="))
        if name not in found:
            raise RestainError(f"Unknown rule '{name}'; choose from {', '.join(found)}.")
        try:
            number = None if value == "off" else float(value)
        except ValueError:
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise RestainError(f"The rule {name} takes a number or 'off', not '{value}'.")
        found[name] = number
    return found


def first_reason(candidate: Candidate, thresholds: Thresholds, *, early: bool = False) -> str | None:
    """The name of the first rule that rejects a candidate, or None; ``early`` applies early rules only."""
    if candidate.fault:
        return UNREADABLE
    for rule in RULES:
        threshold = thresholds.get(rule.name)
        if threshold is not None and (rule.early or not early) and rule.rejects(candidate, threshold):
            return rule.name
    return None


def with_sharpness(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates of one slide pair with their focus relative to the medians over the measured ones."""
    measured = [(one.quality.focus_he, one.quality.focus_ihc) for one in candidates if one.quality is not None]
    if not measured:
        return list(candidates)
    he, ihc = (max(float(np.median(values)), 1e-6) for values in zip(*measured, strict=True))
    return [
        one if (q := one.quality) is None else replace(one, sharpness=min(q.focus_he / he, q.focus_ihc / ihc))
        for one in candidates
    ]


@dataclass(frozen=True, slots=True)
class Member:
    """A kept patch of the training split: its slide pair's number and level, and whether DAB stains it."""

    slide: int
    level: Her2Level
    stained: bool


def unbalanced(members: Sequence[Member], thresholds: Thresholds, seed: int) -> dict[int, str]:
    """The ``members`` that are too many, by their index, and the rule that rejects them.

    Patches without stain are rejected first, and the levels balanced in the rest. ``seed`` draws who stays, from every slide
    in turn, so that a large slide loses patches before a small one.
    """
    out: dict[int, str] = {}
    order = _by_turns(members, seed)
    if (ratio := thresholds.get(STAINED)) is not None:
        for level in list(Her2Level)[1:]:
            plain = [i for i in order if members[i].level == level and not members[i].stained]
            stained = sum(one.level == level and one.stained for one in members)
            # Without any stained patch there is nothing to balance with.
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
