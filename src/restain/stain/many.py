"""Many sources, one after the other; a failure does not stop the others."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from restain.errors import RestainError
from restain.files import make_folder, write_csv
from restain.progress import Progress, Warn, item
from restain.stain.model import Model
from restain.stain.options import StainOptions
from restain.stain.slide import stain_slide
from restain.stain.sources import Source

SUMMARY = "summary.csv"


@dataclass(frozen=True)
class Outcome:
    """A line of the summary. Figures that a picture or a failed slide lacks are None."""

    source: Path
    outcome: Literal["stained", "kept", "failed", "waiting"]
    result: Path | None = None
    seconds: float | None = None
    tissue_mm2: float | None = None
    megapixels_per_second: float | None = None
    seam_ratio: float | None = None
    holes: int | None = None
    ood: bool | None = None
    """Whether the source is out of distribution; None if the bundle has no OOD detector."""
    fault: str = ""


def stain_one(
    source: Source,
    out: Path,
    model: Model,
    options: StainOptions,
    *,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> Outcome:
    """Stain a picture or a slide; a :class:`~restain.errors.RestainError` becomes the outcome's ``fault``."""
    began = time.perf_counter()
    options = replace(options, mpp=source.mpp or options.mpp)
    try:
        made = stain_slide(source.path, out, model, options, progress=progress, warn=warn)
    except RestainError as fault:
        return Outcome(source.path, "failed", seconds=time.perf_counter() - began, fault=str(fault))
    figures, ood = made.figures, made.provenance.ood
    found = Outcome(
        source.path,
        "kept" if made.kept else "stained",
        made.path,
        time.perf_counter() - began,
        ood=None if ood is None else ood.is_ood,
    )
    if figures is None:
        return found
    return replace(
        found,
        tissue_mm2=figures.tissue_mm2,
        megapixels_per_second=figures.megapixels_per_second,
        seam_ratio=None if figures.seams is None else figures.seams.ratio,
        holes=len(figures.holes),
    )


def stain_many(
    sources: Sequence[Source],
    out: Path,
    model: Model,
    options: StainOptions | None = None,
    *,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> list[Outcome]:
    """Stain sources into ``out``, with a summary in ``out/summary.csv`` that is updated after each source.

    Raises RestainError for options that the model cannot serve, or if the summary cannot be written. Other faults are
    outcomes.
    """
    options = options or model.options
    model.check(options)
    make_folder(out)
    outcomes = [Outcome(source.path, "waiting") for source in sources]
    for number, source in enumerate(sources):
        report = item(progress, number, len(sources))
        outcomes[number] = stain_one(source, out, model, options, progress=report, warn=warn)
        write_summary(out / SUMMARY, outcomes)
        report(1, 1)
    return outcomes


def write_summary(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Outcomes as CSV, floats with four significant digits. Lines of an earlier table stay; those of the same sources are replaced."""
    names = [field.name for field in fields(Outcome)]
    rows: dict[Path, list[str]] = {}
    with suppress(OSError, ValueError, csv.Error), open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("source"):
                rows[Path(row["source"]).resolve()] = [row.get(name) or "" for name in names]
    for outcome in outcomes:
        values = ["" if value is None else value for value in asdict(outcome).values()]
        rows[outcome.source.resolve()] = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]
    write_csv(path, names, rows.values())
