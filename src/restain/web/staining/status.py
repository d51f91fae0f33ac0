"""Status of jobs for the pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from restain.errors import RestainError
from restain.stain.figures import SlideFigures
from restain.stain.pipeline import PREPARED, STAINED
from restain.web.library import Library
from restain.web.pages import image_layer
from restain.web.staining.jobs import Job, State
from restain.web.staining.queue import Queue
from restain.web.texts import catalogue, text
from restain.web.tiles import Tiles

FILES = {"slide": "image/tiff", "dab": "image/tiff", "report": "application/json"}
"""Files of a result that can be downloaded, and their media types."""


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
        return {
            "id": job.id,
            "name": job.name,
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
            status |= {"warnings": list(running.warnings), "secondsLeft": running.seconds_left}
        if job.state is not State.DONE:
            return status | {"partial": self._queue.partial_result(job).status()}
        files = self._queue.results(job)
        result = self._library.named(f"stained/{job.id}/{files['slide'].name}") if "slide" in files else None
        if result is None:
            return status | {"message": self._text("stain.gone")}
        figures, warnings = self._report(files.get("report"))
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

    def _report(self, path: Path | None) -> tuple[list[list[str]], list[str]]:
        """Figures with their titles, and warnings, from the report of a result."""
        try:
            report = None if path is None else SlideFigures.read(path)
        except RestainError:
            report = None
        if report is None:
            return [], []
        rows = {"tissue": f"{report.tissue_mm2:.3g} mm²", "computed": f"{report.megapixels:.3g} Mpx"}
        if report.seams is not None:
            rows["seams"] = f"{report.seams.ratio:.3f}"
        if (tiles := report.ood_tiles) is not None and tiles.judged:
            rows["ood"] = f"{tiles.above} / {tiles.judged}"
        rows |= {"holes": str(len(report.holes)), "seconds": f"{report.seconds.all:.0f} s"}
        ood = report.provenance.ood
        warnings = [ood.reason] if ood is not None and ood.is_ood else []
        for fault in report.slide_faults:
            file, _, reason = fault.partition(": ")
            warnings.append(f"{Path(file).name}: {reason}")
        if ood is None:
            warnings.append(self._text("stain.unknown"))
        return [[self._text(f"stain.figure.{key}"), value] for key, value in rows.items()], warnings

    def _text(self, key: str, **values: object) -> str:
        return text(self._language, key, **values)
