"""Many slides on a Ray cluster: the same job for one slide, on whichever worker is free (extra ``ray``).

A slide's results have one name wherever they are made, and the store of its unfinished tiles is locked by who makes it:
two workers can never both write it. When a worker dies, Ray gives its slide to another one, which goes on from the
tiles that are there. The output folder, the slides and the bundle must be seen under the same paths by all machines,
and the file system must hold locks (local disks, NFS with locking, Lustre, GPFS do).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from restain.bundle import DEFAULT, Bundle, load_bundle
from restain.errors import RestainError, needs
from restain.files import make_folder
from restain.stain.many import SUMMARY, Outcome, stain_one, write_summary
from restain.stain.model import Model
from restain.stain.options import StainOptions
from restain.stain.sources import Source

RETRIES = 5
"""Times that a slide is begun again after its worker died."""


@dataclass(frozen=True)
class Cluster:
    """Where and with how much: ``address`` of the head (``host:port``, ``auto``), ``cpus`` and ``gpus`` per slide."""

    address: str
    cpus: float = 2
    gpus: float = 0


@dataclass(frozen=True)
class _Bundle:
    """What a worker needs to load the model; ``path`` None for the bundle that ships with restain."""

    path: Path | None
    hash: str


@lru_cache(maxsize=1)
def _load(given: _Bundle) -> Model:
    bundle = load_bundle(given.path)
    if bundle.card.hash != given.hash:
        raise RestainError(f"{bundle.path}: the bundle on the worker is another one than where the job was given.")
    return Model(bundle)


def _stain(source: Source, out: Path, given: _Bundle, options: StainOptions) -> tuple[Outcome, list[str]]:
    said: list[str] = []
    try:
        model = _load(given)
    except RestainError as fault:
        return Outcome(source.path, "failed", fault=str(fault)), said
    return stain_one(source, out, model, options, warn=said.append), said


def stain_on_cluster(
    sources: Sequence[Source],
    out: Path,
    bundle: Bundle,
    options: StainOptions | None = None,
    *,
    cluster: Cluster,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """:func:`restain.stain.stain_many` on a Ray cluster.

    Args:
        sources: see :func:`restain.stain.find_sources`.
        out: on storage that all machines share; made where needed.
        bundle: the model; loaded again on every worker.
        options: how.
        cluster: where.
        progress: called with sources done and in all.
        warn: called with what workers warned of.

    Raises:
        RestainError: if Ray is not installed, no cluster answers, or the folder cannot be written. Other faults, a
            worker that died too often among them, are outcomes.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needs("ray", "--ray"):
        import ray
    make_folder(out)
    out = out.resolve()
    given = _Bundle(None if bundle.path == DEFAULT else bundle.path.resolve(), bundle.card.hash)
    began_here = not ray.is_initialized()
    if began_here:
        try:
            _knock(cluster.address)
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as fault:
            raise RestainError(f"{cluster.address}: no Ray cluster answers there ({_first_line(fault)}).") from None
    try:
        job = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=RETRIES)(_stain)
        outcomes = [Outcome(source.path, "waiting") for source in sources]
        running: dict[Any, int] = {
            job.remote(Source(source.path.resolve(), source.mpp), out, given, options or StainOptions()): number
            for number, source in enumerate(sources)
        }
        while running:
            (done, *_), _ = ray.wait(list(running))
            number = running.pop(done)
            try:
                outcomes[number], said = ray.get(done)
            except ray.exceptions.RayError as fault:
                outcomes[number] = Outcome(
                    sources[number].path,
                    "failed",
                    fault=f"{sources[number].path}: its worker was lost {RETRIES + 1} times ({_first_line(fault)}).",
                )
            else:
                for sentence in said if warn is not None else ():
                    warn(sentence)  # type: ignore[misc]
            write_summary(out / SUMMARY, outcomes)
            if progress is not None:
                progress(len(sources) - len(running), len(sources))
        return outcomes
    finally:
        if began_here:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError if nobody listens at ``host:port``, which Ray would find out after minutes only."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
