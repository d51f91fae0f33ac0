"""Many sources, one after the other or on a cluster: one that fails does not stop the others."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from restain.errors import RestainError
from restain.files import make_folder, whole_file
from restain.images import read_text
from restain.stain.image import stain_image
from restain.stain.provenance import FAMILIAR
from restain.stain.restainer import Restainer
from restain.stain.slide import SlideOptions, stain_slide
from restain.stain.sources import Source, is_slide

SUMMARY = "summary.csv"


@dataclass(frozen=True)
class Outcome:
    """What happened to one source: a line of the summary. Figures that a picture or a failed slide lacks are None."""

    source: Path
    outcome: Literal["stained", "kept", "failed", "waiting"]
    result: Path | None = None
    seconds: float | None = None
    tissue_mm2: float | None = None
    megapixels_per_second: float | None = None
    seam_ratio: float | None = None
    holes: int | None = None
    familiar: str = ""
    fault: str = ""


def stain_one(
    source: Source,
    out: Path,
    restainer: Restainer,
    options: SlideOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Outcome:
    """Stain a picture or a slide; a :class:`~restain.errors.RestainError` becomes the outcome's ``fault``."""
    began = time.perf_counter()
    options = replace(options, mpp=source.mpp or options.mpp)
    try:
        if not is_slide(source.path):
            for set_, option in ((options.roi, "--region and --roi"), (options.format != "ome-tiff", "--format dicom")):
                if set_:
                    raise RestainError(f"{source.path} is a picture, not a slide: {option} cannot be had for it.")
            path = stain_image(
                source.path, out, restainer, mpp=options.mpp, dab=options.dab, progress=progress, warn=warn
            )
            return Outcome(
                source.path,
                "stained",
                path,
                time.perf_counter() - began,
                familiar=read_text(path).get(FAMILIAR, ""),
            )
        slide = stain_slide(source.path, out, restainer, options, progress=progress, warn=warn)
    except RestainError as fault:
        return Outcome(source.path, "failed", seconds=time.perf_counter() - began, fault=str(fault))
    return Outcome(
        source.path,
        "kept" if slide.kept else "stained",
        slide.path,
        time.perf_counter() - began,
        slide.figures["tissue_mm2"],
        slide.figures["megapixels_per_second"],
        slide.figures["seams"]["ratio"] if slide.figures["seams"] else None,
        len(slide.figures["holes"]),
        slide.figures["provenance"][FAMILIAR],
    )


def stain_many(
    sources: Sequence[Source],
    out: Path,
    restainer: Restainer,
    options: SlideOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Stain sources into ``out`` and say in ``out/summary.csv`` what happened to each.

    The table is written anew after each source, so that it is true at any moment; those to come are ``waiting`` in it.

    Args:
        sources: see :func:`restain.stain.sources.find_sources`, whose results have names of their own.
        out: made where needed.
        restainer: the model.
        options: of slides; ``mpp`` and ``dab`` also of pictures.
        progress: called with what is done, in thousandths of a source, and what is to do.
        warn: see :func:`restain.stain.stain_slide`.

    Raises:
        RestainError: if the folder or the table cannot be written. Other faults are outcomes.
    """
    options = options or SlideOptions()
    make_folder(out)
    outcomes = [Outcome(source.path, "waiting") for source in sources]
    for number, source in enumerate(sources):

        def report(done: int, total: int, before: int = number) -> None:
            if progress is not None:
                progress(1000 * before + 1000 * done // max(total, 1), 1000 * len(sources))

        outcomes[number] = stain_one(source, out, restainer, options, progress=report, warn=warn)
        write_summary(out / SUMMARY, outcomes)
        report(1, 1)
    return outcomes


def write_summary(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Outcomes as CSV, one line each; floats with four digits that count, what is missing empty.

    Lines of an earlier table stay where they are, those of the same sources (wherever the paths start from) are replaced.
    """
    names = [field.name for field in fields(Outcome)]
    rows: dict[Path, list[str]] = {}
    with suppress(OSError, ValueError, csv.Error), open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("source"):
                rows[Path(row["source"]).resolve()] = [row.get(name) or "" for name in names]
    for outcome in outcomes:
        values = ["" if value is None else value for value in asdict(outcome).values()]
        rows[outcome.source.resolve()] = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(names)
        table.writerows(rows.values())
