"""What a study shows: its readings as figures, each with its interval, or a word on why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from restain.review import mrmc
from restain.review.definition import CHOICES, Kind, Modality, StudyDefinition
from restain.review.mrmc import MISSING, Ints
from restain.review.study import Reading
from restain.statistics import Interval, wilson_interval

LEAST_CASES = 10
LEAST_READERS = 2
LEAST_READERS_DIFFERENCE = 3
"""Below these no figure is given: two readers leave one degree of freedom, whose interval holds any difference."""

MODALITIES = (Modality.CHEMICAL, Modality.VIRTUAL)
_BOOTSTRAP = "pigeonhole bootstrap over readers and cases"
_ROCKETTE = "Obuchowski and Rockette with the degrees of freedom of Hillis"


@dataclass(frozen=True)
class Figure:
    """One figure. ``mean`` with the ends of its 95 % interval, all ``None`` where ``few`` says why; ``n`` counts what is behind it."""

    key: str
    title: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Pairs of levels, or answers."""
    readers: int
    cases: int
    method: str
    few: str = ""
    p: float | None = None
    """Of a test against guessing, where there is one."""


@dataclass(frozen=True)
class Verdict:
    """Whether the virtual stain is non-inferior: ``None`` where there is too little to say."""

    non_inferior: bool | None
    margin: float
    words: str


@dataclass(frozen=True)
class Measured:
    """``readers``: a row per reader, ready for JSON; ``reference``: what the agreement of the difference is with, in words."""

    figures: list[Figure]
    verdict: Verdict
    reference: str
    readers: list[dict[str, Any]]

    def figure(self, key: str) -> Figure:
        return next(one for one in self.figures if one.key == key)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def measure(study: StudyDefinition, readings: Sequence[Reading]) -> Measured:
    """All figures of a study from what was read so far. Only complete readings count; repeats only within readers.

    Args:
        study: its levels are the truth where it has any; ``margin`` and ``seed`` are used.
        readings: see :meth:`restain.review.Study.readings`.
    """
    done = [one for one in readings if one.complete]
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = [
        {"reader": name, "read": sum(r.reader == name for r in done)} for name in study.readers
    ]
    verdict = Verdict(
        None, study.margin, "The study does not ask for the HER2 level, so there is no agreement to compare."
    )
    reference = ""
    if (name := study.named(Kind.ORIGIN)) is not None:
        figures += _origin(study, _values(study, done, name, Kind.ORIGIN), rows)
    if (name := study.named(Kind.HER2)) is not None:
        found, verdict, reference = _levels(study, _values(study, done, name, Kind.HER2), rows)
        figures += found
    if (name := study.named(Kind.QUALITY)) is not None:
        figures += _quality(study, _values(study, done, name, Kind.QUALITY))
    return Measured(figures, verdict, reference, rows)


def _values(study: StudyDefinition, readings: Sequence[Reading], name: str, kind: Kind) -> Ints:
    """Answers as indices of their choices: ``(R, C, 2, 2)`` by reader, case, modality and first or second showing."""
    readers = {reader: number for number, reader in enumerate(study.readers)}
    cases = {case: number for number, case in enumerate(study.cases)}
    values = np.full((len(readers), len(cases), 2, 2), MISSING, np.int64)
    for one in readings:
        place = readers[one.reader], cases[one.case], MODALITIES.index(one.modality), int(one.repeat)
        values[place] = CHOICES[kind].index(one.answers[name])
    return values


def _origin(study: StudyDefinition, values: Ints, rows: list[dict[str, Any]]) -> list[Figure]:
    said = values[..., 0]
    right = np.where(said == MISSING, np.nan, said == np.arange(2))
    for row, own in zip(rows, right, strict=True):
        row["origin"] = wilson_interval(int(np.nansum(own)), int(np.isfinite(own).sum())).plain()
    readers, cases, _ = _extent(np.any(said != MISSING, axis=2))
    few = _few(readers, cases, LEAST_READERS)
    found = Interval(math.nan) if few else mrmc.mean_interval(right, study.seed)
    p = None if few else mrmc.guessing(said, study.seed)
    title = "telling virtual from chemical: balanced accuracy"
    return [_figure("origin", title, found, int(np.isfinite(right).sum()), readers, cases, _BOOTSTRAP, few, p)]


def _levels(study: StudyDefinition, values: Ints, rows: list[dict[str, Any]]) -> tuple[list[Figure], Verdict, str]:
    first = values[..., 0]
    count = len(study.readers)
    each = np.arange(count)[:, None]
    pairs = np.array(list(combinations(range(count), 2)), dtype=np.int64).reshape(-1, 2)
    truth = np.array([study.levels.get(case, MISSING) for case in study.cases], dtype=np.int64)
    known = np.broadcast_to(truth, (count, len(truth)))
    agreed = consensus_of_others(first[:, :, 0])
    figures = []

    def kappa(key: str, title: str, one: Ints, other: Ints, units: Ints, least: int = LEAST_READERS) -> None:
        both = (one != MISSING) & (other != MISSING)
        _, cases, n = _extent(both)
        readers = len(np.unique(units[both.any(axis=1)]))
        few = _few(readers, cases, least)
        found = (
            Interval(math.nan) if few else mrmc.kappa_interval(mrmc.level_tables(one, other), units, count, study.seed)
        )
        figures.append(_figure(key, title, found, n, readers, cases, _BOOTSTRAP, few))

    for number, modality in enumerate(MODALITIES):
        own = first[:, :, number]
        title = f"between readers, {modality.value}"
        kappa(f"between_{modality.value}", title, own[pairs[:, 0]], own[pairs[:, 1]], pairs)
    kappa("own_chemical", "virtual with the same reader's chemical", first[:, :, 1], first[:, :, 0], each)
    kappa("others_chemical", "virtual with the other readers' chemical", first[:, :, 1], agreed, each)
    again = values.reshape(count, -1, 2)
    kappa("within", "within readers, repeats (cases: images shown twice)", again[..., 0], again[..., 1], each)
    if study.levels:
        for number, modality in enumerate(MODALITIES):
            kappa(f"truth_{modality.value}", f"{modality.value} with the true level", first[:, :, number], known, each)

    against, words = (
        (known, "the true level") if study.levels else (agreed, "the other readers' median chemical reading")
    )
    # Only what a reader read in both modalities, so that the difference is that of the stains, not that of the cases.
    both = (first != MISSING).all(axis=2) & (against != MISSING)
    chemical, virtual = (
        mrmc.level_tables(np.where(both, first[:, :, number], MISSING), against) for number in range(2)
    )
    readers, cases, n = _extent(both)
    few = _few(readers, cases, LEAST_READERS_DIFFERENCE)
    found = Interval(math.nan) if few else mrmc.kappa_difference(virtual, chemical)
    difference = _figure(
        "difference", f"agreement with {words}: virtual less chemical", found, n, readers, cases, _ROCKETTE, few
    )
    figures.append(difference)
    columns = (
        ("kappa_chemical", mrmc.kappas(chemical), both),
        ("kappa_virtual", mrmc.kappas(virtual), both),
        ("kappa_within", mrmc.kappas(mrmc.level_tables(again[..., 0], again[..., 1])), (again != MISSING).all(axis=2)),
    )
    for key, kappas, there in columns:
        for row, value, own in zip(rows, kappas, there, strict=True):
            row[key] = _number(value) if own.sum() >= LEAST_CASES else None
    return figures, _verdict(difference, study.margin), words


def consensus_of_others(levels: Ints) -> Ints:
    """For each reader the median level that the others gave each case ``(R, C)``; of two middle ones' mean the next higher."""
    found = np.full(levels.shape, MISSING, np.int64)
    for reader in range(len(levels)):
        others = np.delete(levels, reader, axis=0)
        for case in np.flatnonzero((others != MISSING).any(axis=0)):
            own = others[:, case]
            found[reader, case] = math.ceil(np.median(own[own != MISSING]))
    return found


def _quality(study: StudyDefinition, values: Ints) -> list[Figure]:
    marks = np.where(values[..., 0] == MISSING, np.nan, values[..., 0] + 1.0)
    figures = []
    for number, modality in enumerate(MODALITIES):
        own = marks[:, :, number]
        readers, cases, n = _extent(np.isfinite(own))
        few = _few(readers, cases, LEAST_READERS)
        found = Interval(math.nan) if few else mrmc.mean_interval(own[:, :, None], study.seed)
        title = f"quality of the {modality.value} stain, 1 to 5"
        figures.append(_figure(f"quality_{modality.value}", title, found, n, readers, cases, _BOOTSTRAP, few))
    difference = marks[:, :, 1] - marks[:, :, 0]
    readers, cases, n = _extent(np.isfinite(difference))
    few = _few(readers, cases, LEAST_READERS_DIFFERENCE)
    found = Interval(math.nan) if few else mrmc.mean_difference(difference)
    title = "quality: virtual less chemical"
    return [*figures, _figure("quality_difference", title, found, n, readers, cases, _ROCKETTE, few)]


def _verdict(difference: Figure, margin: float) -> Verdict:
    if difference.low is None or difference.mean is None or difference.high is None:
        return Verdict(
            None, margin, f"Nothing can be said of non-inferiority: {difference.few or 'the figure is undefined'}."
        )
    shown = difference.low > -margin
    ends = f"{difference.mean:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"
    what = "non-inferior" if shown else "not shown to be non-inferior"
    return Verdict(
        shown,
        margin,
        f"The virtual stain is {what} at the margin of {margin:g} that the study states: kappa differs by {ends}.",
    )


def _extent(there: np.ndarray) -> tuple[int, int, int]:
    """Readers, cases and all of ``(R, C)`` that are true."""
    return int(there.any(axis=1).sum()), int(there.any(axis=0).sum()), int(there.sum())


def _few(readers: int, cases: int, least: int) -> str:
    if readers < least:
        return f"too few readers: {readers}, {least} are needed"
    return f"too few cases: {cases}, {LEAST_CASES} are needed" if cases < LEAST_CASES else ""


def _figure(
    key: str,
    title: str,
    found: Interval,
    n: int,
    readers: int,
    cases: int,
    method: str,
    few: str,
    p: float | None = None,
) -> Figure:
    value, low, high = (_number(one) for one in (found.mean, found.low, found.high))
    if value is None and not few:
        few = "undefined: all answers are the same"
    p = None if p is None or not math.isfinite(p) else p
    return Figure(key, title, value, low, high, n, readers, cases, method, few, p)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
