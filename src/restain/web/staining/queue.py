"""The queue: one job at a time, each in a process of its own, which is never run twice."""

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
from restain.files import lock, make_folder, write_json
from restain.stain.sources import slide_name
from restain.stain.steps import PREPARED, STAINED
from restain.web.faults import Fault
from restain.web.library import Library
from restain.web.staining.jobs import Job, Jobs, State
from restain.web.staining.live import LiveTiles

SPEC = "job.json"
"""In a job's folder: what the worker is told, and ``image``, the source's place in the library."""
LOOKS_S = 0.5
"""Between two looks whether a running job was cancelled."""
IDLE_S = 2.0
AT_ONCE_S = 0.5


@dataclass
class Running:
    """What the server that runs a job knows of it beside the database."""

    job: str
    begun: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 1000
    warnings: list[str] = field(default_factory=list)
    marks: list[tuple[float, int]] = field(default_factory=list)

    def step(self, done: int, total: int) -> None:
        """Note the progress. Glass and tiles that were there before come at once, and say nothing of the rate."""
        self.done, self.total = done, total
        if PREPARED <= done <= STAINED and (not self.marks or self.marks[-1][1] != done):
            now = time.monotonic()
            if self.marks and now - self.marks[0][0] < AT_ONCE_S:
                self.marks.clear()
            self.marks.append((now, done))

    @property
    def seconds_left(self) -> int | None:
        """About how long it takes still; None while too little is known."""
        if len(self.marks) < 2:
            return None
        (began, first), (now, last) = self.marks[0], self.marks[-1]
        return round((now - began) / (last - first) * (self.total - last))


class Queue:
    """Runs the jobs of a state folder. Only one server does, however many share the folder; the others only show them.

    Args:
        jobs: the table.
        folder: for the results, a folder for each job.
        library: where sources are found and results appear.
        models: bundles by the beginning of their hash.
    """

    def __init__(self, jobs: Jobs, folder: Path, library: Library, models: dict[str, tuple[Path, Card]]) -> None:
        self.jobs, self.folder, self.library, self.models = jobs, folder, library, models
        self.running: Running | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._live: dict[str, LiveTiles] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="staining", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the running job's process; the job itself goes on with the next server."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        """Something was put into the queue or taken out of it."""
        self._wake.set()

    def folder_of(self, job: Job) -> Path:
        return self.folder / job.id

    def result(self, job: Job) -> dict[str, Path]:
        """The files of a finished job by what they are: ``slide``, ``report``, and perhaps ``dab``, ``tissue``, ``ood``."""
        name, folder = slide_name(Path(job.name)), self.folder_of(job)
        ends = {
            "slide": ".ome.tiff",
            "dab": ".dab.ome.tiff",
            "report": ".stain.json",
            "tissue": ".tissue.geojson",
            "ood": ".ood.geojson",
        }
        found = {what: folder / f"{name}{end}" for what, end in ends.items()}
        return {what: path for what, path in found.items() if path.is_file()}

    def live(self, job: Job) -> LiveTiles:
        """The job's tiles as far as they are made."""
        with self._lock:
            if job.id not in self._live:
                while len(self._live) >= 4:
                    del self._live[next(iter(self._live))]
                self._live[job.id] = LiveTiles(self.folder_of(job) / f"{slide_name(Path(job.name))}.rgb.part")
            return self._live[job.id]

    def remove(self, job: Job) -> None:
        """Remove a job that is over, with its files.

        Raises:
            Fault: 409, if it is not.
        """
        self.jobs.remove(job.id)
        # Of one that was cancelled just now the process may live for a moment more, and write.
        while (running := self.running) is not None and running.job == job.id:
            self.wake()
            time.sleep(0.02)
        with self._lock:
            self._live.pop(job.id, None)
        shutil.rmtree(self.folder_of(job), ignore_errors=True)
        self.library.refresh()

    def _run(self) -> None:
        while not self._stop.is_set():
            with _alone(self.folder / ".queue.lock") as alone:
                while alone and not self._stop.is_set():
                    self._wake.clear()
                    try:
                        job = self.jobs.take()
                        if job is not None:
                            self._work(job)
                            continue
                    # The database is gone for a while, or the disk is full: the queue outlives it.
                    except Exception as fault:
                        print(f"staining: {fault}", file=sys.stderr)
                    self._wake.wait(IDLE_S)
            self._stop.wait(IDLE_S)

    def _work(self, job: Job) -> None:
        self.running = Running(job.id, done=job.done)
        try:
            self.jobs.progress(job.id, job.done, 1000)
            spec = self._spec(job)
            state, message = self._watch(job, spec)
        except Fault as fault:
            state, message = State.FAILED, fault.key
        finally:
            self.running = None
        if state is not None:
            if state is State.DONE:
                self.jobs.progress(job.id, 1000, 1000)
                self.library.refresh()
            self.jobs.end(job.id, state, message)

    def _spec(self, job: Job) -> Path:
        """Write what the worker is told, and give its place."""
        image = self.library.get(job.source)
        if (model := self.models.get(job.options["model"])) is None:
            raise Fault(422, "fault.job_model")
        folder = self.folder_of(job)
        make_folder(folder)
        # Of writers that were killed.
        for left in folder.glob(".*.part"):
            left.unlink(missing_ok=True)
        spec = {
            "image": job.name,
            "source": str(image.path),
            "model": str(model[0]),
            "region": job.region,
            "mpp": job.options["mpp"],
            "dab": job.options["dab"],
            "everywhere": job.options["everywhere"],
            "threads": max(1, (os.cpu_count() or 2) - 1),
        }
        write_json(folder / SPEC, spec)
        return folder / SPEC

    def _watch(self, job: Job, spec: Path) -> tuple[State | None, str]:
        """Run the worker to its end: how it ended, None where the job is none of ours any more."""
        threads = str(json.loads(spec.read_bytes())["threads"])
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        with open(spec.with_name("worker.log"), "wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "restain.web.staining.worker", str(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        assert worker.stdout is not None
        lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        listener = threading.Thread(target=_listen, args=(worker.stdout, lines), daemon=True)
        listener.start()
        assert self.running is not None
        last, told = None, 0.0
        try:
            while True:
                with suppress(queue.Empty):
                    if (line := lines.get(timeout=LOOKS_S)) is None:
                        break
                    if "progress" in line:
                        self.running.step(line["progress"], line["of"])
                    elif "warning" in line:
                        self.running.warnings.append(self.tidied(job, line["warning"]))
                    else:
                        last = line
                if self._stop.is_set():
                    return None, ""
                if self._wake.is_set() or time.monotonic() - told > LOOKS_S:
                    self._wake.clear()
                    told = time.monotonic()
                    if not self.jobs.progress(job.id, self.running.done, self.running.total):
                        return None, ""
        finally:
            _kill(worker)
            listener.join()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
        if last is None:
            return State.FAILED, "fault.job_died"
        if "failed" in last:
            return State.FAILED, self.tidied(job, str(last["failed"]))
        return State.DONE, ""

    def tidied(self, job: Job, sentence: str) -> str:
        """A sentence of the worker without the folders of this machine."""
        with suppress(Fault):
            sentence = sentence.replace(f"{self.library.get(job.source).path.parent}{os.sep}", "")
        return sentence.replace(f"{self.folder_of(job)}{os.sep}", "")


def _listen(out: IO[bytes], lines: queue.Queue[dict[str, Any] | None]) -> None:
    for line in out:
        with suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict):
                lines.put(said)
    lines.put(None)


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """End the worker's whole group; its tiles are on disk whenever it dies."""
    if sys.platform == "win32":
        worker.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no other process holds the lock at ``path``; held while the block runs."""
    with open(path, "a") as file:
        yield lock(file)
