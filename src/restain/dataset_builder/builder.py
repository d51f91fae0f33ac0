"""``restain build``: a data set of checked pairs from H&E and IHC slides."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import restain
from restain.data.layouts import SPLITS, Split
from restain.dataset_builder.manifest import check_parquet, pair_weight, write_manifest, write_parquet
from restain.dataset_builder.patches import Patch, cut_pair, paths_of, remove_obsolete, require_own_pictures
from restain.dataset_builder.rules import (
    DEFAULTS,
    STAINED_SHARE,
    TITLES,
    Member,
    Thresholds,
    first_reason,
    unbalanced,
    with_sharpness,
)
from restain.dataset_builder.split import split_patients
from restain.dataset_builder.table import SlidePair, check_pairs
from restain.dataset_builder.windows import DoubtfulPairError, Grid, MeasuredPair, measure_pair
from restain.errors import RestainError
from restain.files import locked_folder, make_folder, write_json
from restain.progress import Progress, part
from restain.registration import Verdict
from restain.stain import slide_name

_COMMON = (
    *("split", "level", "patient", "block", "he", "ihc", "x", "y", "mpp", "size", "transform"),
    *("correction", "moved_um", "match", "matched", "error_um", "information", "tissue", "shared", "pen", "fold"),
    *("focus_he", "focus_ihc", "sharpness", "positive"),
)
MANIFEST_COLUMNS = ("name", *_COMMON, "weight")
REJECTED_COLUMNS = ("reason", *_COMMON)
SUMMARY_COLUMNS = (
    *("he", "ihc", "patient", "block", "level", "split", "outcome", "verdict", "windows", "glass", *TITLES, "kept"),
    *("seconds", "fault"),
)


@dataclass(frozen=True)
class Settings:
    """Settings of a data set: the grid of patches, thresholds of ``rules``, shares and seed of :func:`split_patients`."""

    grid: Grid = field(default_factory=Grid)
    thresholds: Thresholds = field(default_factory=lambda: dict(DEFAULTS))
    test_share: float = 0.2
    val_share: float = 0.1
    seed: int = 0
    accept: Verdict = Verdict.ACCEPTED
    """``DOUBTFUL`` uses doubtful slide pairs as well."""


@dataclass(frozen=True)
class Outcome:
    """Result of one slide pair: number of windows, on glass, rejected by each rule, and kept as pairs.

    A ``doubtful`` pair was left out because of the registration's verdict.
    """

    pair: SlidePair
    split: Split
    outcome: Literal["built", "doubtful", "failed"]
    seconds: float
    verdict: Verdict | None = None
    windows: int = 0
    glass: int = 0
    removed: Mapping[str, int] = field(default_factory=dict)
    kept: int = 0
    fault: str = ""

    def row(self) -> dict[str, Any]:
        """As a line of ``summary.csv``."""
        pair = self.pair
        return {
            **{name: getattr(self, name) for name in ("split", "outcome", "verdict", "windows", "glass", "kept")},
            **{name: str(getattr(pair, name)) for name in ("he", "ihc", "patient", "block")},
            **{name: self.removed.get(name, 0) for name in TITLES},
            **{"level": pair.level.text, "seconds": round(self.seconds, 1), "fault": self.fault},
        }


@dataclass(frozen=True)
class Built:
    """A built data set: its folder, the outcome of each slide pair and window with tissue, and the contact sheet."""

    out: Path
    outcomes: tuple[Outcome, ...]
    patches: tuple[Patch, ...]
    page: Path

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The slide pairs without any patch."""
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
    """Build a data set in BCI layout from slide pairs.

    ``{HE,IHC}/{train,val,test}/NUMBER_SPLIT_LEVEL.png`` are the pairs; ``manifest.csv`` has a line for each, ``rejected.csv`` one
    for each other window with tissue, with the rule that rejected it; ``summary.csv`` a line per slide pair; ``build.json`` the
    settings; ``contact-sheet.html`` examples. ``registration/`` and ``measured/`` hold intermediate results of each slide pair
    (:func:`restain.dataset_builder.windows.measure_pair`). A killed job resumes and ends with the same files. With other
    thresholds only what they need is measured. One slide pair is open at a time, and of it one patch in memory.

    Args:
        pairs: see :func:`restain.dataset_builder.table.read_table`.
        out: folder of the data set, made if needed; pictures in it of another origin are an error.
        settings: by default those of :class:`Settings`.
        dry_run: register and measure, write tables and contact sheet, but no pairs and no manifest.
        parquet: write ``manifest.parquet`` as well.
        command: the command line, for the contact sheet.
        progress: called with thousandths of slide pairs done and to do.
        warn: called with messages on the split and on failed slide pairs.

    Returns:
        The result. A slide pair that cannot be read, is refused or leaves no patch is ``failed`` and does not stop others.

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
    for sentence in _missing_splits(splits, settings):
        warn(sentence)
    make_folder(out)
    with locked_folder(out, ".restain-build.lock"):
        require_own_pictures(out)
        job = _Job(pairs, [splits[pair.patient_key] for pair in pairs], settings, out, progress, warn)
        job.measure()
        job.select()
        if not dry_run:
            job.cut()
            job.write_dataset(parquet, command)
        return job.report(dry_run, command)


def names_of(pairs: Sequence[SlidePair]) -> list[str]:
    """A name for each pair's files: the H&E slide's, with the number of the pair if several share it."""
    names = [slide_name(pair.he) for pair in pairs]
    uses = Counter(name.lower() for name in names)
    return [name if uses[name.lower()] == 1 else f"{name}-{number}" for number, name in enumerate(names, 1)]


def _missing_splits(splits: Mapping[str, Split], settings: Settings) -> list[str]:
    """A sentence for each wanted split that too few patients leave empty."""
    shares = {"test": settings.test_share, "val": settings.val_share}
    empty = [split for split in SPLITS[1:] if shares[split] > 0 and split not in splits.values()]
    patients = "one patient" if len(splits) == 1 else f"{len(splits)} patients"
    return [
        f"There is no {split} split: {patients} cannot be divided further, and all patches of a patient are in one split."
        for split in empty
    ]


@dataclass
class _Job:
    pairs: Sequence[SlidePair]
    splits: Sequence[Split]
    settings: Settings
    out: Path
    progress: Progress | None
    warn: Callable[[str], None]
    measured: list[MeasuredPair | None] = field(default_factory=list)
    """None for failed slide pairs."""
    patches: list[Patch] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)

    def part(self, step: int) -> Progress:
        """Progress of one of two steps per pair."""
        return part(self.progress, 1000 * step, 1000 * (step + 1), 2000 * len(self.pairs))

    def fail(self, number: int, fault: str) -> None:
        self.faults[number] = fault
        self.warn(fault)

    def measure(self) -> None:
        settings = self.settings
        for number, (pair, name) in enumerate(zip(self.pairs, names_of(self.pairs), strict=True)):
            start = time.perf_counter()
            found = None
            try:
                found = measure_pair(
                    pair, name, self.out, settings.grid, settings.thresholds, settings.accept, self.part(number)
                )
            except RestainError as fault:
                if isinstance(fault, DoubtfulPairError):
                    self.doubtful.add(number)
                self.fail(number, str(fault))
            self.measured.append(found)
            self.seconds.append(time.perf_counter() - start)

    def select(self) -> None:
        """Apply the rules to every candidate, and name those that are kept."""
        thresholds = self.settings.thresholds
        self.patches = patches = [
            Patch(number, one, self.splits[number], first_reason(one, thresholds))
            for number, found in enumerate(self.measured)
            if found is not None
            for one in with_sharpness(found.candidates)
        ]
        training = [i for i, one in enumerate(patches) if one.reason is None and one.split == "train"]
        members = []
        for one in (patches[i] for i in training):
            quality = one.candidate.quality
            stained = quality is not None and quality.positive > STAINED_SHARE
            members.append(Member(one.slide, self.pairs[one.slide].level, stained))
        for at, reason in unbalanced(members, thresholds, self.settings.seed).items():
            patches[training[at]] = replace(patches[training[at]], reason=reason)
        numbers: Counter[Split] = Counter()
        for i, one in enumerate(patches):
            if one.reason is None:
                name = f"{numbers[one.split]:05d}_{one.split}_{self.pairs[one.slide].level.text}"
                patches[i] = replace(one, name=name)
                numbers[one.split] += 1

    def cut(self) -> None:
        kept = [one for one in self.patches if one.reason is None]
        for number, found in enumerate(self.measured):
            start = time.perf_counter()
            tell = self.part(len(self.pairs) + number)
            if found is not None:
                mine = [one for one in kept if one.slide == number]
                cut_pair(found, mine, self.out, self.settings.grid, tell)
            tell(1, 1)
            self.seconds[number] += time.perf_counter() - start
        remove_obsolete(self.out, (path for one in kept for path in paths_of(self.out, one)))

    def write_dataset(self, parquet: bool, command: str) -> None:
        """Write manifest and settings."""
        rows = [self.row(one) for one in self.patches if one.reason is None]
        write_manifest(self.out / "manifest.csv", rows, MANIFEST_COLUMNS)
        if parquet:
            write_parquet(self.out / "manifest.parquet", rows, MANIFEST_COLUMNS)
        facts = {"restain": restain.__version__, "command": command, **asdict(self.settings)}
        write_json(self.out / "build.json", facts)

    def report(self, dry_run: bool, command: str) -> Built:
        """Write the tables of rejected windows and of slide pairs, and the contact sheet."""
        from restain.dataset_builder.contact_sheet import write_sheet

        outcomes = [self.outcome(number, found) for number, found in enumerate(self.measured)]
        rows = [self.row(one) for one in self.patches if one.reason is not None]
        write_manifest(self.out / "rejected.csv", rows, REJECTED_COLUMNS)
        write_manifest(self.out / "summary.csv", [one.row() for one in outcomes], SUMMARY_COLUMNS)
        built = Built(self.out, tuple(outcomes), tuple(self.patches), self.out / "contact-sheet.html")
        write_sheet(built, self.measured, self.settings, dry_run=dry_run, command=command)
        return built

    def outcome(self, number: int, found: MeasuredPair | None) -> Outcome:
        pair, split, seconds = self.pairs[number], self.splits[number], self.seconds[number]
        if found is None:
            if number in self.doubtful:
                return Outcome(pair, split, "doubtful", seconds, Verdict.DOUBTFUL, fault=self.faults[number])
            return Outcome(pair, split, "failed", seconds, fault=self.faults[number])
        reasons = Counter(one.reason or "" for one in self.patches if one.slide == number)
        kept = reasons.pop("", 0)
        if not kept:
            most = ", ".join(f"{name} {count}" for name, count in reasons.most_common(3)) or "glass"
            self.fail(number, f"{pair.he} and {pair.ihc} leave no pair: {found.windows} windows, rejected by {most}.")
        return Outcome(
            pair,
            split,
            "built" if kept else "failed",
            seconds,
            found.verdict,
            found.windows,
            found.windows - len(found.candidates),
            dict(reasons),
            kept,
            self.faults.get(number, ""),
        )

    def row(self, patch: Patch) -> dict[str, Any]:
        """A patch as a line of the tables; ``x`` and ``y`` are px of the H&E slide's level 0."""
        found, grid, one = self.measured[patch.slide], self.settings.grid, patch.candidate
        assert found is not None
        assert found.transform.fixed_mpp is not None
        pair = found.pair
        scale = grid.mpp / found.transform.fixed_mpp
        quality = {} if one.quality is None else asdict(one.quality)
        return {
            **{"name": patch.name, "split": patch.split, "reason": patch.reason, "level": pair.level.text},
            **{"patient": pair.patient, "block": pair.block, "he": pair.he.name, "ihc": pair.ihc.name},
            **{"x": round(one.region.origin.x * scale), "y": round(one.region.origin.y * scale)},
            **{"mpp": grid.mpp, "size": grid.size, "transform": f"registration/{found.name}"},
            **quality,
            **asdict(one.shares),
            **{"sharpness": one.sharpness, "weight": pair_weight(quality.get("error_um", float("nan")))},
        }
