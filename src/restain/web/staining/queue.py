"""The queue: runs one job at a time, each in a worker process."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from restain.bundle import Card
from restain.errors import RestainError
from restain.files import lock, make_folder, write_json
from restain.stain.figures import SlideFigures
from restain.stain.pipeline import PREPARED, STAINED
from restain.stain.sources import slide_name
from restain.web.errors import RequestError
from restain.web.library import Library
from restain.web.staining.jobs import Job, Jobs, State
from restain.web.staining.partial_result import PartialResult

SPEC = "job.json"
"""In the folder of a job: the input of the worker."""
POLL_S = 0.5
"""Between two checks whether a job was cancelled."""
IDLE_S = 2.0
INSTANT_S = 0.5
_RESULTS = {
    "slide": ".ome.tiff",
    "dab": ".dab.ome.tiff",
    "report": ".stain.json",
    "tissue": ".tissue.geojson",
    "ood": ".ood.geojson",
}


@dataclass
class RunningJob:
    """What the server knows of its running job besides the database."""

    job: str
    done: int = 0
    total: int = 1000
    warnings: list[str] = field(default_factory=list)
    marks: list[tuple[float, int]] = field(default_factory=list)

    def step(self, done: int, total: int) -> None:
        """Save the progress. Glass and tiles of an earlier run are instant and do not count for the rate."""
        self.done, self.total = done, total
        if PREPARED <= done <= STAINED and (not self.marks or self.marks[-1][1] != done):
            now = time.monotonic()
            if self.marks and now - self.marks[0][0] < INSTANT_S:
                self.marks.clear()
            self.marks.append((now, done))

    @property
    def seconds_left(self) -> int | None:
        """Estimate of the remaining time; None while too little is known."""
        if len(self.marks) < 2:
            return None
        (start, first), (now, last) = self.marks[0], self.marks[-1]
        return round((now - start) / (last - first) * (self.total - last))


class Queue:
    """Runs the jobs of a state folder. If several servers share the folder, one runs jobs and the others only show them.

    Args:
        jobs: the table of jobs.
        folder: for results, with a folder per job.
        library: holds sources and results.
        models: bundles by the beginning of their hash.
    """

    def __init__(self, jobs: Jobs, folder: Path, library: Library, models: dict[str, tuple[Path, Card]]) -> None:
        self.jobs, self.folder, self.library, self.models = jobs, folder, library, models
        self.running: RunningJob | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._partial: dict[str, PartialResult] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="staining", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the worker; the next server resumes its job."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        """Tell the queue that a job was added or cancelled."""
        self._wake.set()

    def running_job(self, job: Job) -> RunningJob | None:
        """What is known of ``job`` if it runs here."""
        running = self.running
        return running if running is not None and running.job == job.id else None

    def rate(self, model: str) -> float | None:
        """Seconds per megapixel of the last finished job of a model; None before the first."""
        for job in self.jobs.all():
            if job.state is State.DONE and job.options["model"] == model and "report" in (files := self.results(job)):
                with suppress(RestainError):
                    report = SlideFigures.read(files["report"])
                    if report.megapixels > 0:
                        return report.seconds.all / report.megapixels
        return None

    def folder_of(self, job: Job) -> Path:
        return self.folder / job.id

    def results(self, job: Job) -> dict[str, Path]:
        """The files of a finished job: ``slide``, ``report``, and perhaps ``dab``, ``tissue``, ``ood``."""
        name, folder = slide_name(Path(job.name)), self.folder_of(job)
        found = {what: folder / f"{name}{end}" for what, end in _RESULTS.items()}
        return {what: path for what, path in found.items() if path.is_file()}

    def partial_result(self, job: Job) -> PartialResult:
        """The finished tiles of a job."""
        with self._lock:
            if job.id not in self._partial:
                while len(self._partial) >= 4:
                    del self._partial[next(iter(self._partial))]
                self._partial[job.id] = PartialResult(self.folder_of(job) / f"{slide_name(Path(job.name))}.rgb.part")
            return self._partial[job.id]

    def remove(self, job: Job) -> None:
        """Delete a job that is over, with its files. Raises RequestError 409 if it is active."""
        self.jobs.remove(job.id)
        # The worker of a job that was just cancelled can still write for a moment.
        while self.running_job(job) is not None:
            self.wake()
            time.sleep(0.02)
        with self._lock:
            self._partial.pop(job.id, None)
        shutil.rmtree(self.folder_of(job), ignore_errors=True)
        self.library.refresh()

    def without_folders(self, job: Job, sentence: str) -> str:
        """A sentence of the worker without the folders of this machine."""
        with suppress(RequestError):
            sentence = sentence.replace(f"{self.library.get(job.source).path.parent}{os.sep}", "")
        return sentence.replace(f"{self.folder_of(job)}{os.sep}", "")

    def _run(self) -> None:
        while not self._stop.is_set():
            with _exclusive(self.folder / ".queue.lock") as exclusive:
                while exclusive and not self._stop.is_set():
                    self._wake.clear()
                    try:
                        job = self.jobs.take()
                        if job is not None:
                            self._run_job(job)
                            continue
                    # The queue survives a database that is away and a full disk.
                    except Exception as error:
                        print(f"staining: {error}", file=sys.stderr)
                    self._wake.wait(IDLE_S)
            self._stop.wait(IDLE_S)

    def _run_job(self, job: Job) -> None:
        self.running = running = RunningJob(job.id, done=job.done)
        try:
            self.jobs.progress(job.id, job.done, 1000)
            state, message = self._run_worker(job, running)
        except RequestError as error:
            state, message = State.FAILED, error.key
        finally:
            self.running = None
        if state is State.DONE:
            self.jobs.progress(job.id, 1000, 1000)
            self.library.refresh()
        if state is not None:
            self.jobs.end(job.id, state, message)

    def _write_spec(self, job: Job, threads: int) -> Path:
        """Write the input of the worker. Raises RequestError if the image or the model is gone."""
        image = self.library.get(job.source)
        if (model := self.models.get(job.options["model"])) is None:
            raise RequestError(422, "error.job_model")
        folder = make_folder(self.folder_of(job))
        # Unfinished files of killed workers.
        for unfinished in folder.glob(".*.part"):
            unfinished.unlink(missing_ok=True)
        options = {key: job.options[key] for key in ("mpp", "dab", "everywhere")}
        # ``image`` is for the provenance of the result in the library.
        files = {"image": job.name, "source": str(image.path), "model": str(model[0])}
        write_json(folder / SPEC, {**files, "region": job.region, **options, "threads": threads})
        return folder / SPEC

    def _run_worker(self, job: Job, running: RunningJob) -> tuple[State | None, str]:
        """Run the worker to its end. The state is None if the job was cancelled or the server stops."""
        threads = max(1, (os.cpu_count() or 2) - 1)
        spec = self._write_spec(job, threads)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with open(spec.with_name("worker.log"), "wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "restain.web.staining.worker", str(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        assert worker.stdin is not None
        assert worker.stdout is not None
        reports: queue.Queue[dict[str, Any] | None] = queue.Queue()
        listener = threading.Thread(target=_listen, args=(worker.stdout, reports), daemon=True)
        listener.start()
        last, saved = None, 0.0
        try:
            while True:
                with suppress(queue.Empty):
                    if (report := reports.get(timeout=POLL_S)) is None:
                        break
                    if "progress" in report:
                        running.step(report["progress"], report["of"])
                    elif "warning" in report:
                        running.warnings.append(self.without_folders(job, report["warning"]))
                    else:
                        last = report
                if self._stop.is_set():
                    return None, ""
                if self._wake.is_set() or time.monotonic() - saved > POLL_S:
                    self._wake.clear()
                    saved = time.monotonic()
                    if not self.jobs.progress(job.id, running.done, running.total):
                        return None, ""
        finally:
            _kill(worker)
            listener.join()
            worker.stdin.close()
            worker.stdout.close()
        if last is None:
            return State.FAILED, "error.job_died"
        if "failed" in last:
            return State.FAILED, self.without_folders(job, str(last["failed"]))
        return State.DONE, ""


def _listen(out: IO[bytes], reports: queue.Queue[dict[str, Any] | None]) -> None:
    for line in out:
        with suppress(ValueError):
            report = json.loads(line)
            if isinstance(report, dict):
                reports.put(report)
    reports.put(None)


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """Kill the worker's process group; its finished tiles are on disk."""
    if sys.platform == "win32":
        worker.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


@contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    """Whether this process got the lock at ``path``; it holds the lock while the block runs."""
    with open(path, "a") as file:
        yield lock(file)
