"""The process of one job: ``python -m restain.web.staining.worker JOB.json``.

It reports in lines of JSON on standard output. It ends when its standard input closes, which happens when the server dies;
the next server resumes from the finished tiles.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from restain.errors import RestainError
from restain.files import lock

NICE = 10
"""Priority below that of the viewer."""


def main(job: Path) -> None:
    """Stain as the file ``job`` says. The last line is ``{"done": true}`` or ``{"failed": sentence or key}``."""
    out = sys.stdout
    # Output of libraries must not mix with the reports.
    sys.stdout = sys.stderr
    threading.Thread(target=_end_with_server, daemon=True).start()
    # The worker of a server that just died can live for a moment more.
    file = open(job.with_name(".worker.lock"), "a")  # noqa: SIM115  (held to the end)
    lock(file, wait=True)
    if sys.platform != "win32":
        os.nice(NICE)

    def report(**what: object) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    try:
        stain(json.loads(job.read_bytes()), job.parent, report)
        report(done=True)
    except RestainError as error:
        from restain.stain.plan import NoTissueError

        # The sentence of NoTissueError names options of the command line.
        report(failed="error.job_tissue" if isinstance(error, NoTissueError) else str(error))
    except MemoryError:
        report(failed="error.job_memory")


def stain(job: dict[str, Any], out: Path, report: Callable[..., None]) -> None:
    """Stain the source of ``job`` (see :class:`restain.web.staining.queue.Queue`) into the folder ``out``."""
    import torch

    from restain.stain import StainOptions, load, stain_slide
    from restain.stain.model import region_outline

    torch.set_num_threads(job["threads"])
    region = job["region"]
    options = StainOptions(
        mpp=job["mpp"],
        dab=job["dab"],
        roi=None if region is None else (region_outline(region),),
        everywhere=job["everywhere"],
        # The viewer shows pyramids, and tiles as they are finished.
        format="ome-tiff",
    )
    stain_slide(
        Path(job["source"]),
        out,
        load(Path(job["model"])),
        options,
        progress=lambda done, total: report(progress=done, of=total),
        warn=lambda sentence: report(warning=sentence),
    )


def _end_with_server() -> None:
    # Unbuffered: a lock on a buffer would block the end of the interpreter.
    while os.read(0, 4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
