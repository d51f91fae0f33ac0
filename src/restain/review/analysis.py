"""All figures of a study, each with its 95 % interval, or the reason why it has none."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from restain.review import mrmc
from restain.review.definition import CHOICES, Kind, Modality, StudyDefinition
from restain.review.mrmc import MISSING, Ints
from restain.review.study import Reading
from restain.statistics import Interval, finite_or_none, wilson_interval

LEAST_CASES = 10
LEAST_READERS = 2
LEAST_READERS_DIFFERENCE = 3
"""Two readers leave one degree of freedom, with which the interval holds any difference."""
DIFFERENCES = ("difference", "quality_difference")
"""Keys of the figures that are virtual minus chemical."""

MODALITIES = (Modality.CHEMICAL, Modality.VIRTUAL)
_BOOTSTRAP = "pigeonhole bootstrap over readers and cases"
_ROCKETTE = "Obuchowski and Rockette with the degrees of freedom of Hillis"


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; ``low`` and ``high`` (or also ``mean``) are ``None`` where ``reason`` says why."""

    key: str
    title: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Number of pairs of levels, or of answers."""
    readers: int
    cases: int
    method: str
    reason: str = ""
    p: float | None = None
    """p of the test against guessing, for the discrimination only."""

    @property
    def shortage(self) -> tuple[str, int, int] | None:
        """What is too few for an interval, ``readers`` or ``cases``, their number, and how many are needed."""
        least = LEAST_READERS_DIFFERENCE if self.key in DIFFERENCES else LEAST_READERS
        if self.readers < least:
            return "readers", self.readers, least
        return ("cases", self.cases, LEAST_CASES) if self.cases < LEAST_CASES else None


@dataclass(frozen=True)
class NonInferiority:
    """Whether the virtual stain was shown to be non-inferior; ``shown`` is ``None`` without enough data."""

    shown: bool | None
    margin: float
    sentence: str


@dataclass
class ReaderFigures:
    """Figures of one reader; ``None`` where the study has no such question, or there are fewer than ten cases."""

    reader: str
    read: int
    """Number of complete readings."""
    accuracy: Interval | None = None
    """Share of modalities that were identified correctly."""
    kappa_chemical: float | None = None
    kappa_virtual: float | None = None
    kappa_within: float | None = None


@dataclass(frozen=True)
class Confusion:
    """Numbers of readings by answer: ``counts[i][j]`` had ``labels[i]`` in the row's reading and ``labels[j]`` in the column's."""

    rows: str
    columns: str
    labels: tuple[str, ...]
    counts: list[list[int]]


@dataclass(frozen=True)
class StudyFigures:
    """``reference`` is what the agreement of the difference is measured against, in words."""

    figures: list[Figure]
    non_inferiority: NonInferiority
    reference: str
    readers: list[ReaderFigures]
    confusions: list[Confusion]

    def figure(self, key: str) -> Figure:
        return next(one for one in self.figures if one.key == key)


def analyse(study: StudyDefinition, readings: Sequence[Reading]) -> StudyFigures:
    """All figures from the complete readings so far. Repeats count for the agreement within readers only.

    Args:
        study: its levels are the truth where known; ``margin`` and ``seed`` are used.
        readings: see :meth:`restain.review.Study.readings`.
    """
    done = [one for one in readings if one.complete]
    rows = [ReaderFigures(name, sum(r.reader == name for r in done)) for name in study.readers]
    answers = {kind: _values(study, done, name, kind) for kind in Kind if (name := study.named(kind)) is not None}
    answers.pop(Kind.TEXT, None)
    figures: list[Figure] = []
    none = "The study does not ask for the HER2 level, so there is no agreement to compare."
    result, reference = NonInferiority(None, study.margin, none), ""
    if Kind.MODALITY in answers:
        figures.append(_discrimination(study, answers[Kind.MODALITY], rows))
    if Kind.HER2 in answers:
        found, result, reference = _levels(study, answers[Kind.HER2], rows)
        figures += found
    if Kind.HER2_ZERO in answers:
        title = "Null, ultralow or above: "
        figures += _agreement(study, answers[Kind.HER2_ZERO][..., 0], "zero_", title)
    if Kind.QUALITY in answers:
        figures += _quality(study, answers[Kind.QUALITY])
    confusions = [] if Kind.HER2 not in answers else _confusions(study, answers[Kind.HER2][..., 0])
    return StudyFigures(figures, result, reference, rows, confusions)


def _confusions(study: StudyDefinition, first: Ints) -> list[Confusion]:
    """Virtual against the same reader's chemical reading, and each modality against the true level."""
    truth = np.array([study.levels.get(case, MISSING) for case in study.cases], dtype=np.int64)
    known = np.broadcast_to(truth, first.shape[:2])
    chemical, virtual = first[..., 0], first[..., 1]
    sides = [("chemical", "virtual", chemical, virtual)]
    if study.levels:
        sides += [("truth", name, known, own) for name, own in (("chemical", chemical), ("virtual", virtual))]
    labels = CHOICES[Kind.HER2]
    found = []
    for rows, columns, one, other in sides:
        both = (one != MISSING) & (other != MISSING)
        counts = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(counts, (one[both], other[both]), 1)
        found.append(Confusion(rows, columns, labels, counts.tolist()))
    return found


def _values(study: StudyDefinition, readings: Sequence[Reading], name: str, kind: Kind) -> Ints:
    """Answers as indices of their choices: ``(R, C, 2, 2)`` by reader, case, modality and first or second showing."""
    readers = {reader: number for number, reader in enumerate(study.readers)}
    cases = {case: number for number, case in enumerate(study.cases)}
    values = np.full((len(readers), len(cases), 2, 2), MISSING, np.int64)
    for one in readings if CHOICES[kind] else ():
        place = readers[one.reader], cases[one.case], MODALITIES.index(one.modality), int(one.repeat)
        values[place] = CHOICES[kind].index(one.answers[name])
    return values


def _discrimination(study: StudyDefinition, values: Ints, rows: list[ReaderFigures]) -> Figure:
    answers = values[..., 0]
    there = answers != MISSING
    correct = np.where(there, answers == np.arange(2), np.nan)
    for row, own in zip(rows, correct, strict=True):
        row.accuracy = wilson_interval(int(np.nansum(own)), int(np.isfinite(own).sum()))
    return _figure(
        "discrimination",
        "Discrimination of virtual from chemical: balanced accuracy",
        there,
        lambda: mrmc.mean_interval(correct, study.seed),
        p=lambda: mrmc.guessing(answers, study.seed),
    )


def _agreement(study: StudyDefinition, first: Ints, prefix: str = "", title: str = "") -> list[Figure]:
    """Agreement between readers in each modality, and of virtual with chemical, from ``(R, C, 2)`` answers."""
    pairs = np.array(list(combinations(range(len(first)), 2)), dtype=np.int64).reshape(-1, 2)
    figures = []
    for number, modality in enumerate(MODALITIES):
        one, other = first[pairs[:, 0], :, number], first[pairs[:, 1], :, number]
        words = f"{title}Inter-reader agreement (quadratic κ), {modality.value}"
        figures.append(_kappa(study, f"{prefix}between_{modality.value}", words, one, other, pairs))
    words = f"{title}Intra-reader agreement (quadratic κ), virtual with chemical"
    return [*figures, _kappa(study, f"{prefix}own_chemical", words, first[:, :, 1], first[:, :, 0])]


def _levels(
    study: StudyDefinition, values: Ints, rows: list[ReaderFigures]
) -> tuple[list[Figure], NonInferiority, str]:
    first, repeats = values[..., 0], values.reshape(len(values), -1, 2)
    truth = np.array([study.levels.get(case, MISSING) for case in study.cases], dtype=np.int64)
    known = np.broadcast_to(truth, first.shape[:2])
    consensus = consensus_of_others(first[:, :, 0])
    figures = _agreement(study, first)
    title = "Agreement (quadratic κ) of virtual with the other readers' chemical"
    figures.append(_kappa(study, "others_chemical", title, first[:, :, 1], consensus))
    title = "Intra-reader agreement (κ), repeated images"
    figures.append(_kappa(study, "within", title, repeats[..., 0], repeats[..., 1]))
    if study.levels:
        for number, modality in enumerate(MODALITIES):
            title = f"Agreement (quadratic κ) with the true level, {modality.value}"
            figures.append(_kappa(study, f"truth_{modality.value}", title, first[:, :, number], known))

    reference, words = known, "the true level"
    if not study.levels:
        reference, words = consensus, "the other readers' median chemical reading"
    # Only cases read in both modalities, so that the difference is one of stains and not of cases.
    both = (first != MISSING).all(axis=2) & (reference != MISSING)
    chemical, virtual = (
        mrmc.level_tables(np.where(both, first[:, :, number], MISSING), reference) for number in range(2)
    )
    difference = _figure(
        "difference",
        f"Agreement with {words}: virtual minus chemical",
        both,
        lambda: mrmc.kappa_difference(virtual, chemical),
        method=_ROCKETTE,
    )
    figures.append(difference)
    within = mrmc.level_tables(repeats[..., 0], repeats[..., 1])
    columns = (
        ("kappa_chemical", chemical, both),
        ("kappa_virtual", virtual, both),
        ("kappa_within", within, (repeats != MISSING).all(axis=2)),
    )
    for key, tables, there in columns:
        for row, value, own in zip(rows, mrmc.kappas(tables), there, strict=True):
            setattr(row, key, finite_or_none(value) if own.sum() >= LEAST_CASES else None)
    return figures, _non_inferiority(difference, study.margin), words


def consensus_of_others(levels: Ints) -> Ints:
    """For each reader the median level of the others per case ``(R, C)``, rounded up."""
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
        own = marks[:, :, number : number + 1]
        title = f"Quality of the {modality.value} stain, 1 to 5"
        there = np.isfinite(own)
        figures.append(_figure(f"quality_{modality.value}", title, there, partial(mrmc.mean_interval, own, study.seed)))
    difference = marks[:, :, 1] - marks[:, :, 0]
    last = _figure(
        "quality_difference",
        "Quality: virtual minus chemical",
        np.isfinite(difference),
        lambda: mrmc.mean_difference(difference),
        method=_ROCKETTE,
    )
    return [*figures, last]


def _non_inferiority(difference: Figure, margin: float) -> NonInferiority:
    if difference.low is None or difference.mean is None or difference.high is None:
        return NonInferiority(None, margin, f"Non-inferiority was not tested: {difference.reason or 'no interval'}.")
    shown = difference.low > -margin
    sentence = (
        f"The virtual stain is {'' if shown else 'not shown to be '}non-inferior at the stated margin of {margin:g}: the difference "
        f"in kappa is {difference.mean:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})."
    )
    return NonInferiority(shown, margin, sentence)


def _kappa(study: StudyDefinition, key: str, title: str, one: Ints, other: Ints, units: Ints | None = None) -> Figure:
    """Mean quadratic kappa of ``(U, C)`` pairs; ``units`` are the readers of each row, by default its own."""
    count = len(study.readers)
    units = np.arange(count)[:, None] if units is None else units
    both = (one != MISSING) & (other != MISSING)
    return _figure(
        key,
        title,
        both,
        lambda: mrmc.kappa_interval(mrmc.level_tables(one, other), units, count, study.seed),
        readers=len(np.unique(units[both.any(axis=1)])),
    )


def _figure(
    key: str,
    title: str,
    there: NDArray[np.bool_],
    estimate: Callable[[], Interval],
    *,
    readers: int | None = None,
    method: str = _BOOTSTRAP,
    p: Callable[[], float] | None = None,
) -> Figure:
    """A figure, estimated only if enough readers and cases are ``there``: ``(R, C)`` or ``(R, C, G)``."""
    extra = tuple(range(2, there.ndim))
    readers = int(there.any(axis=(1, *extra)).sum()) if readers is None else readers
    cases = int(there.any(axis=(0, *extra)).sum())
    figure = Figure(key, title, None, None, None, int(there.sum()), readers, cases, method)
    few = figure.shortage
    reason = "" if few is None else f"no interval: too few {few[0]}: {few[1]}, {few[2]} are needed"
    if there.any():
        # A small study has a point estimate, but no interval that holds.
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            found = estimate()
        figure = replace(figure, mean=finite_or_none(found.mean))
        if few is None:
            chance = None if p is None else finite_or_none(p())
            figure = replace(figure, low=finite_or_none(found.low), high=finite_or_none(found.high), p=chance)
    if figure.mean is None and few is None:
        reason = "undefined: all answers are the same"
    return replace(figure, reason=reason)
