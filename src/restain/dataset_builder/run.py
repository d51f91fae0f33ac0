"""``restain build``: registered slides in, a data set of checked pairs out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import restain
from restain.data.layouts import Split
from restain.dataset_builder.cut import Patch, check_is_ours, cut_pair, paths_of, remove_stale
from restain.dataset_builder.manifest import check_parquet, pair_weight, write_csv, write_parquet
from restain.dataset_builder.rules import (
    BALANCE,
    DEFAULTS,
    RULES,
    STAINED_SHARE,
    UNREADABLE,
    Member,
    Thresholds,
    first_reason,
    unbalanced,
    with_sharpness,
)
from restain.dataset_builder.split import PARTS, split_patients
from restain.dataset_builder.survey import Grid, Survey, survey_pair
from restain.dataset_builder.table import SlidePair, check_pairs
from restain.errors import RestainError
from restain.files import locked_folder, make_folder, write_json
from restain.stain import slide_name

Progress = Callable[[int, int], None]

REASONS = (*(rule.name for rule in RULES), *BALANCE, UNREADABLE)
_PLACE = ("level", "patient", "block", "he", "ihc", "x", "y", "mpp", "size", "transform")
_FIGURES = (
    *("correction", "moved_um", "match", "matched", "error_um", "information", "tissue", "shared", "pen", "fold"),
    *("focus_he", "focus_ihc", "sharpness", "positive"),
)
MANIFEST_COLUMNS = ("name", "split", *_PLACE, *_FIGURES, "weight")
REJECTED_COLUMNS = ("reason", "split", *_PLACE, *_FIGURES)
SUMMARY_COLUMNS = (
    *("he", "ihc", "patient", "block", "level", "split", "outcome", "agreement", "windows", "glass", *REASONS, "kept"),
    *("seconds", "fault"),
)


@dataclass(frozen=True)
class Settings:
    """What decides a data set beside its slides.

    ``thresholds`` are those of :mod:`restain.dataset_builder.rules`; shares and ``seed`` see :func:`restain.dataset_builder.split.split_patients`.
    """

    grid: Grid = field(default_factory=Grid)
    thresholds: Thresholds = field(default_factory=lambda: dict(DEFAULTS))
    test_share: float = 0.2
    val_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of one slide pair: its windows, how many were glass, how many each rule took out, how many are pairs."""

    pair: SlidePair
    split: Split
    outcome: Literal["built", "failed"]
    seconds: float
    agreement: float | None = None
    windows: int = 0
    glass: int = 0
    removed: Mapping[str, int] = field(default_factory=dict)
    kept: int = 0
    fault: str = ""

    def row(self) -> dict[str, Any]:
        """As a line of ``summary.csv``."""
        pair = self.pair
        return {
            **{"he": str(pair.he), "ihc": str(pair.ihc), "patient": pair.patient, "block": pair.block},
            **{"level": pair.level.text, "split": self.split, "outcome": self.outcome, "agreement": self.agreement},
            **{"windows": self.windows, "glass": self.glass, **{name: self.removed.get(name, 0) for name in REASONS}},
            **{"kept": self.kept, "seconds": round(self.seconds, 1), "fault": self.fault},
        }


@dataclass(frozen=True)
class Built:
    """The result: its folder, what became of each slide pair and of each window with tissue, and the contact sheet."""

    out: Path
    outcomes: tuple[Outcome, ...]
    patches: tuple[Patch, ...]
    page: Path

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The slide pairs that gave nothing."""
        return tuple(one for one in self.outcomes if one.outcome == "failed")


def build_dataset(
    pairs: Sequence[SlidePair],
    out: Path,
    settings: Settings | None = None,
    *,
    dry_run: bool = False,
    parquet: bool = False,
    command: str = "",
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Built:
    """Cut a BCI-layout data set from slide pairs into ``out``.

    ``{HE,IHC}/{train,val,test}/NUMBER_SPLIT_LEVEL.png`` are the pairs; ``manifest.csv`` has a line for each, ``rejected.csv`` one for
    each window with tissue that is none, with the first rule against it; ``summary.csv`` a line per slide pair; ``build.json`` the
    settings; ``contact-sheet.html`` shows some of both. ``registration/`` and ``measured/`` hold what was found of each slide pair
    (:func:`restain.dataset_builder.survey.survey_pair`). Killed and called again the work goes on, and ends with the same files; with other
    thresholds, only what these newly ask for is measured. One slide pair is open at a time, and of it one patch in memory.

    Args:
        pairs: see :func:`restain.dataset_builder.table.read_table`.
        out: the data set, made where needed; pictures in it that are not of an earlier build are an error.
        settings: the defaults where not given.
        dry_run: register and measure, write tables and contact sheet, but no pairs and no manifest.
        parquet: write ``manifest.parquet`` as well.
        command: the command line, for the contact sheet.
        progress: called with what is done and what is to do, in thousandths of a slide pair.
        warn: called with sentences on the split and on slide pairs that fail.

    Returns:
        What was built. A slide pair that cannot be read, does not match or leaves no patch is ``failed`` and stops no other.

    Raises:
        RestainError: if the settings or the pairs as a set are at fault, another process builds into ``out``, or a file of the
            data set cannot be written.
    """
    settings = settings or Settings()
    settings.grid.check()
    if faults := check_pairs(list(pairs)):
        raise RestainError(f"The slide pairs are at fault: {'; '.join(faults)}.")
    if not pairs:
        raise RestainError("No slide pairs were given.")
    if parquet:
        check_parquet()
    splits = split_patients(pairs, settings.test_share, settings.val_share, settings.seed)
    for sentence in split_notes(splits, settings):
        warn(sentence)
    make_folder(out)
    with locked_folder(out, ".restain-build.lock"):
        check_is_ours(out)
        job = _Job(pairs, [splits[pair.person] for pair in pairs], settings, out, progress, warn)
        surveys = job.survey()
        patches = job.judge(surveys)
        if not dry_run:
            job.cut(surveys, patches)
        return job.report(surveys, patches, dry_run=dry_run, parquet=parquet, command=command)


def names_of(pairs: Sequence[SlidePair]) -> list[str]:
    """A name for each pair's files: the H&E slide's, and where several share it, with the number of the pair."""
    names = [slide_name(pair.he) for pair in pairs]
    uses = Counter(name.lower() for name in names)
    return [name if uses[name.lower()] == 1 else f"{name}-{number}" for number, name in enumerate(names, 1)]


def split_notes(splits: Mapping[str, Split], settings: Settings) -> list[str]:
    """Parts that were asked for and that too few patients leave empty, a sentence each."""
    shares = {"test": settings.test_share, "val": settings.val_share}
    empty = [part for part in PARTS[1:] if shares[part] > 0 and part not in splits.values()]
    patients = "one patient" if len(splits) == 1 else f"{len(splits)} patients"
    return [
        f"There is no {part} part: {patients} cannot be divided further, and patches of one are never parted."
        for part in empty
    ]


@dataclass
class _Job:
    pairs: Sequence[SlidePair]
    splits: Sequence[Split]
    settings: Settings
    out: Path
    progress: Progress | None
    warn: Callable[[str], None]
    seconds: list[float] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)

    def tell(self, number: int, start: int, end: int) -> Progress:
        """Progress of a part of one pair's work, in thousandths of the pair."""

        def report(done: int, total: int) -> None:
            if self.progress is not None:
                at = start + (end - start) * done // max(total, 1)
                self.progress(1000 * number + at, 2000 * len(self.pairs))

        return report

    def survey(self) -> list[Survey | None]:
        found: list[Survey | None] = []
        for number, (pair, name) in enumerate(zip(self.pairs, names_of(self.pairs), strict=True)):
            began = time.perf_counter()
            try:
                tell = self.tell(number, 0, 1000)
                found.append(
                    survey_pair(pair, name, self.out, self.settings.grid, self.settings.thresholds, progress=tell)
                )
            except RestainError as fault:
                found.append(None)
                self.fail(number, str(fault))
            self.seconds.append(time.perf_counter() - began)
        return found

    def fail(self, number: int, fault: str) -> None:
        self.faults[number] = fault
        self.warn(fault)

    def judge(self, surveys: Sequence[Survey | None]) -> list[Patch]:
        """Every candidate with its reason, those that stay with their names."""
        thresholds = self.settings.thresholds
        patches = [
            Patch(number, one, self.splits[number], first_reason(one, thresholds))
            for number, survey in enumerate(surveys)
            if survey is not None
            for one in with_sharpness(survey.candidates)
        ]
        training = [i for i, one in enumerate(patches) if one.reason is None and one.split == "train"]
        members = [
            Member(one.slide, self.pairs[one.slide].level, one.candidate.positive > STAINED_SHARE)
            for one in (patches[i] for i in training)
        ]
        for at, reason in unbalanced(members, thresholds, self.settings.seed).items():
            patches[training[at]] = replace(patches[training[at]], reason=reason)
        numbers: Counter[Split] = Counter()
        for i, one in enumerate(patches):
            if one.reason is None:
                name = f"{numbers[one.split]:05d}_{one.split}_{self.pairs[one.slide].level.text}"
                patches[i] = replace(one, name=name)
                numbers[one.split] += 1
        return patches

    def cut(self, surveys: Sequence[Survey | None], patches: Sequence[Patch]) -> None:
        for number, survey in enumerate(surveys):
            began = time.perf_counter()
            mine = [one for one in patches if one.slide == number and one.reason is None]
            if survey is not None:
                cut_pair(survey, mine, self.out, self.settings.grid, self.tell(len(self.pairs) + number, 0, 1000))
            self.tell(len(self.pairs) + number, 0, 1000)(1, 1)
            self.seconds[number] += time.perf_counter() - began
        kept = (path for one in patches if one.reason is None for path in paths_of(self.out, one))
        remove_stale(self.out, kept)

    def report(
        self, surveys: Sequence[Survey | None], patches: Sequence[Patch], *, dry_run: bool, parquet: bool, command: str
    ) -> Built:
        from restain.dataset_builder.sheet import write_sheet

        outcomes = [self.outcome(number, survey, patches) for number, survey in enumerate(surveys)]
        rows = [self.row(one, surveys) for one in patches]
        kept = [row for row in rows if row["reason"] is None]
        if not dry_run:
            write_csv(self.out / "manifest.csv", kept, MANIFEST_COLUMNS)
            if parquet:
                write_parquet(self.out / "manifest.parquet", kept, MANIFEST_COLUMNS)
            write_json(self.out / "build.json", self.facts(command))
        write_csv(self.out / "rejected.csv", [row for row in rows if row["reason"]], REJECTED_COLUMNS)
        write_csv(self.out / "summary.csv", [one.row() for one in outcomes], SUMMARY_COLUMNS)
        page = write_sheet(self.out, surveys, patches, outcomes, self.settings, dry_run=dry_run, command=command)
        return Built(self.out, tuple(outcomes), tuple(patches), page)

    def outcome(self, number: int, survey: Survey | None, patches: Sequence[Patch]) -> Outcome:
        pair, split, seconds = self.pairs[number], self.splits[number], self.seconds[number]
        if survey is None:
            return Outcome(pair, split, "failed", seconds, fault=self.faults[number])
        reasons = Counter(one.reason for one in patches if one.slide == number)
        kept = reasons.pop(None, 0)
        if not kept:
            most = ", ".join(f"{name} {count}" for name, count in reasons.most_common(3)) or "all is glass"
            self.fail(number, f"{pair.he} and {pair.ihc} leave no pair: {survey.windows} windows, taken out by {most}.")
        removed = {name: count for name, count in reasons.items() if name is not None}
        return Outcome(
            pair,
            split,
            "built" if kept else "failed",
            seconds,
            survey.agreement,
            survey.windows,
            survey.windows - len(survey.candidates),
            removed,
            kept,
            self.faults.get(number, ""),
        )

    def row(self, patch: Patch, surveys: Sequence[Survey | None]) -> dict[str, Any]:
        """All that the tables say of a patch; the place is in px of the H&E slide's level 0."""
        survey, pair, grid = surveys[patch.slide], self.pairs[patch.slide], self.settings.grid
        assert survey is not None
        assert survey.transform.fixed_mpp is not None
        one, scale = patch.candidate, grid.mpp / survey.transform.fixed_mpp
        figures = {} if one.figures is None else asdict(one.figures)
        return {
            **{"name": patch.name, "split": patch.split, "reason": patch.reason, "level": pair.level.text},
            **{"patient": pair.patient, "block": pair.block, "he": pair.he.name, "ihc": pair.ihc.name},
            **{"x": round(one.region.origin.x * scale), "y": round(one.region.origin.y * scale)},
            **{"mpp": grid.mpp, "size": grid.size, "transform": f"registration/{survey.name}"},
            **figures,
            **asdict(one.shares),
            **{"sharpness": one.sharpness, "weight": pair_weight(figures.get("error_um", float("nan")))},
        }

    def facts(self, command: str) -> dict[str, Any]:
        """The settings, for ``build.json``."""
        return {"restain": restain.__version__, "command": command, **asdict(self.settings)}
