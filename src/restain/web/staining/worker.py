"""The process of one job: ``python -m restain.web.staining.worker JOB.json``.

It says what it does in lines of JSON on standard output, and ends when its standard input closes, which the system does
when the server dies: nobody would know of it any more, and the next server goes on with its tiles.
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
"""So much the worker gives way to the viewer."""


def main(job: Path) -> None:
    """Stain as the file ``job`` says; the last line is ``{"done": true}`` or ``{"failed": sentence or key}``."""
    out = sys.stdout
    # Whatever a library prints must not be taken for a line of ours.
    sys.stdout = sys.stderr
    threading.Thread(target=_end_with_server, daemon=True).start()
    if sys.platform != "win32":
        os.nice(NICE)

    # Another one, of a server that just died, may live for a moment more.
    file = open(job.with_name(".worker.lock"), "a")  # noqa: SIM115  (held to the end)
    lock(file, wait=True)

    def say(**what: object) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    try:
        stain(json.loads(job.read_bytes()), job.parent, say)
        say(done=True)
    except RestainError as fault:
        from restain.stain.look import NoTissue

        # The page has no options of a command line, which the sentence names.
        say(failed="fault.job_tissue" if isinstance(fault, NoTissue) else str(fault))
    except MemoryError:
        say(failed="fault.job_memory")


def stain(job: dict[str, Any], out: Path, say: Callable[..., None]) -> None:
    """Stain the source of ``job`` (see :func:`restain.web.staining.queue.written`) into the folder ``out``."""
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
        # The viewer shows pyramids, and tiles while they are made.
        format="ome-tiff",
    )
    stain_slide(
        Path(job["source"]),
        out,
        load(Path(job["model"])),
        options,
        progress=lambda done, total: say(progress=done, of=total),
        warn=lambda sentence: say(warning=sentence),
    )


def _end_with_server() -> None:
    # Unbuffered: at the end of the interpreter nobody may hold the lock of a buffer.
    while os.read(0, 4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
