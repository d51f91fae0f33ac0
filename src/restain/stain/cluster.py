"""Many slides on a Ray cluster, one slide per worker (extra ``ray``).

The store of unfinished tiles is locked, so two workers never write one slide. When a worker dies, another resumes its slide.
All machines must see output, slides and bundle under the same paths, on a file system with locks.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from restain.bundle import Bundle, load_bundle
from restain.errors import RestainError, needs
from restain.files import make_folder
from restain.model_store import DEFAULT
from restain.progress import Progress, Warn
from restain.stain.many import SUMMARY, Outcome, stain_one, write_summary
from restain.stain.model import Model
from restain.stain.options import StainOptions
from restain.stain.sources import Source

RETRIES = 5
"""Retries of a slide whose worker died."""


@dataclass(frozen=True)
class Cluster:
    """Where and with how much: ``address`` of the head (``host:port``, ``auto``), ``cpus`` and ``gpus`` per slide."""

    address: str
    cpus: float = 2
    gpus: float = 0


@dataclass(frozen=True)
class BundleReference:
    """The bundle that a worker loads; ``path`` None for the shipped one."""

    path: Path | None
    hash: str


@lru_cache(maxsize=1)
def _load(reference: BundleReference) -> Model:
    bundle = load_bundle(reference.path)
    if bundle.card.hash != reference.hash:
        raise RestainError(f"{bundle.path}: the worker found another bundle than the one of this job.")
    return Model(bundle)


def _stain(source: Source, out: Path, reference: BundleReference, options: StainOptions) -> tuple[Outcome, list[str]]:
    warnings: list[str] = []
    try:
        model = _load(reference)
    except RestainError as fault:
        return Outcome(source.path, "failed", fault=str(fault)), warnings
    return stain_one(source, out, model, options, warn=warnings.append), warnings


def stain_on_cluster(
    sources: Sequence[Source],
    out: Path,
    bundle: Bundle,
    options: StainOptions | None = None,
    *,
    cluster: Cluster,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> list[Outcome]:
    """:func:`restain.stain.stain_many` on a Ray cluster; all machines share ``out``, and every worker loads the bundle.

    Raises RestainError if Ray is not installed, no cluster answers, or the folder cannot be written. Other faults are
    outcomes.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needs("ray", "--ray"):
        import ray
    make_folder(out)
    out = out.resolve()
    reference = BundleReference(None if bundle.path == DEFAULT else bundle.path.resolve(), bundle.card.hash)
    started_here = not ray.is_initialized()
    if started_here:
        try:
            _check_listening(cluster.address)
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as fault:
            raise RestainError(f"{cluster.address}: no Ray cluster answers there ({_first_line(fault)}).") from None
    try:
        job = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=RETRIES)(_stain)
        outcomes = [Outcome(source.path, "waiting") for source in sources]
        running: dict[Any, int] = {
            job.remote(Source(source.path.resolve(), source.mpp), out, reference, options or StainOptions()): number
            for number, source in enumerate(sources)
        }
        while running:
            (done, *_), _ = ray.wait(list(running))
            number = running.pop(done)
            try:
                outcomes[number], warnings = ray.get(done)
            except ray.exceptions.RayError as fault:
                outcomes[number] = Outcome(
                    sources[number].path,
                    "failed",
                    fault=f"{sources[number].path}: its worker was lost {RETRIES + 1} times ({_first_line(fault)}).",
                )
            else:
                for sentence in warnings:
                    (warn or str)(sentence)
            write_summary(out / SUMMARY, outcomes)
            if progress is not None:
                progress(len(sources) - len(running), len(sources))
        return outcomes
    finally:
        if started_here:
            ray.shutdown()


def _check_listening(address: str) -> None:
    """Raise OSError at once if nobody listens at ``host:port``; Ray would wait for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
