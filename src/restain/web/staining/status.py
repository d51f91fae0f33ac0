"""Status of jobs for the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from shapely import box

from restain.errors import RestainError
from restain.slides import read_geojson
from restain.stain.figures import SlideFigures
from restain.stain.pipeline import PREPARED, STAINED
from restain.web.errors import RequestError
from restain.web.library import Library
from restain.web.links import title_of
from restain.web.pages import image_layer
from restain.web.staining.jobs import Job, State
from restain.web.staining.queue import Queue
from restain.web.texts import catalogue, text
from restain.web.tiles import Tiles

FILES = {"slide": "image/tiff", "dab": "image/tiff", "report": "application/json"}
"""Files of a result that can be downloaded, and their media types."""


_WARNINGS = (
    (r"unlike those the model was trained on \((?P<times>[\d.]+) times", "stain.warn_ood"),
    (r"(?P<count>\d+) tiles could not be read", "stain.warn_holes"),
)


def stained_mm2(job: Job, report: SlideFigures, tissue: Path | None) -> float:
    """Area in mm² that a job stained: tissue inside its region, or all of the region without tissue detection.

    Raises:
        RestainError: if the outline of the tissue cannot be read.
    """
    mpp, made = report.provenance.source_mpp, report.provenance
    if job.region is None:
        whole = report.size.width * report.size.height * made.mpp**2 / 1e6
        return whole if made.everywhere else report.tissue_mm2
    x, y, width, height = job.region
    region = box(x, y, x + width, y + height)
    if made.everywhere or tissue is None:
        return float(region.area) * mpp**2 / 1e6
    return float(sum(one.intersection(region).area for one in read_geojson(tissue))) * mpp**2 / 1e6


class JobStatus:
    """Describes jobs in one language."""

    def __init__(self, queue: Queue, library: Library, tiles: Tiles, language: str) -> None:
        self._queue, self._library, self._tiles, self._language = queue, library, tiles, language

    def row(self, job: Job) -> dict[str, Any]:
        """A job in the list of jobs."""
        running, message = self._queue.running_job(job), job.message
        if job.state is State.WAITING:
            before = self._queue.jobs.before(job)
            message = self._text("stain.before" if before else "stain.next", count=before)
        _, card = self._queue.models.get(job.options["model"], (None, None))
        try:
            source = self._library.get(job.source)
            thumbnail = f"api/images/{source.id}/thumbnail.jpg?v={source.stamp}"
        except RequestError:
            thumbnail = ""
        about = [job.options["model"] if card is None else card.name]
        if job.region is not None:
            about.append(self._text("made.region", **dict(zip(("x", "y", "width", "height"), job.region, strict=True))))
        return {
            "id": job.id,
            "name": title_of(job.name),
            "thumbnail": thumbnail,
            "about": " · ".join(about),
            "region": job.region,
            "owner": job.owner,
            "created": job.created,
            "state": job.state.value,
            "stateText": self._text(f"stain.state.{job.state.value}"),
            "done": job.done if running is None else running.done,
            "total": job.total or 1000,
            "message": self._text(message) if message in catalogue() else message,
        }

    def full(self, job: Job) -> dict[str, Any]:
        """Everything that the page of a job shows."""
        status, running = self.row(job), self._queue.running_job(job)
        status |= {"partial": None, "result": None, "files": [], "figures": [], "warnings": [], "secondsLeft": None}
        status["phase"] = self._phase(status["done"]) if job.state is State.RUNNING else ""
        if running is not None:
            status |= {
                "warnings": [self._warning(one) for one in running.warnings],
                "secondsLeft": running.seconds_left,
            }
        if job.state is not State.DONE:
            return status | {"partial": self._queue.partial_result(job).status(self._part(job))}
        files = self._queue.results(job)
        result = self._library.named(f"stained/{job.id}/{files['slide'].name}") if "slide" in files else None
        if result is None:
            return status | {"message": self._text("stain.gone")}
        figures, warnings = self._report(job, files)
        return status | {
            "result": image_layer(result, self._tiles.facts(result)),
            "files": [what for what in FILES if what in files],
            "view": f"view/{job.source}?beside={result.id}",
            "figures": figures,
            "warnings": warnings,
        }

    def _phase(self, done: int) -> str:
        phase = "prepare" if done < PREPARED else "stain" if done < STAINED else "write"
        return self._text(f"stain.phase.{phase}")

    def _part(self, job: Job) -> tuple[float, float, float, float]:
        """The job's region as shares of the image."""
        try:
            size = self._tiles.facts(self._library.get(job.source)).size
        except RequestError:
            return 0.0, 0.0, 1.0, 1.0
        x, y, width, height = job.region or (0, 0, size.width, size.height)
        return x / size.width, y / size.height, (x + width) / size.width, (y + height) / size.height

    def _report(self, job: Job, files: dict[str, Path]) -> tuple[list[list[str]], list[str]]:
        """Figures with their titles, and warnings, from the report of a result."""
        try:
            report = SlideFigures.read(files["report"])
            rows = {"stained": f"{stained_mm2(job, report, files.get('tissue')):.3g} mm²"}
        except (RestainError, KeyError):
            return [], []
        rows |= {"computed": f"{report.megapixels:.3g} Mpx"}
        if report.seams is not None:
            rows["seams"] = f"{report.seams.ratio:.3f}"
        if (tiles := report.ood_tiles) is not None and tiles.judged:
            rows["ood"] = f"{tiles.above} / {tiles.judged}"
        rows |= {"holes": str(len(report.holes)), "seconds": f"{report.seconds.all:.0f} s"}
        ood = report.provenance.ood
        warnings = [self._warning(ood.reason)] if ood is not None and ood.is_ood else []
        if report.holes:
            warnings.append(self._text("stain.warn_holes", count=len(report.holes)))
        for fault in report.slide_faults:
            file, _, reason = fault.partition(": ")
            warnings.append(f"{Path(file).name}: {reason}")
        if ood is None:
            warnings.append(self._text("stain.unknown"))
        return [[self._text(f"stain.figure.{key}"), value] for key, value in rows.items()], warnings

    def _warning(self, sentence: str) -> str:
        """A warning of restain in the language of the page, if the catalogue has it."""
        for pattern, key in _WARNINGS:
            if found := re.search(pattern, sentence):
                return self._text(key, **found.groupdict())
        return sentence

    def _text(self, key: str, **values: object) -> str:
        return text(self._language, key, **values)
