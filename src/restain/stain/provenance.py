"""What a virtual image says of its origin: source, model, date, and whether the source is like the training images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain import NOTICE, __version__
from restain.bundle import Bundle
from restain.errors import RestainError
from restain.slides.find import split_number

FAMILIAR = "familiar"
"""Key of the metadata that says whether the source is like the model's training images: yes, unknown, or no with why."""

_CHUNK = 1 << 22


def digest(source: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """SHA-256 of a file in hexadecimal, or of the names and contents of all files in a folder.

    Args:
        source: the file, or the folder of a DICOM series or OME-Zarr.
        progress: called with bytes read and bytes in all.

    Raises:
        RestainError: if something cannot be read.
    """
    source, _ = split_number(source)
    files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    try:
        total, done, found = sum(p.stat().st_size for p in files), 0, hashlib.sha256()
        for path in files:
            if source.is_dir():
                found.update(str(path.relative_to(source)).encode() + b"\0")
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    found.update(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
    except OSError as fault:
        raise RestainError(f"{source} cannot be read ({fault.strerror}).") from None
    return found.hexdigest()


def provenance(
    source: Path, model: Mapping[str, str], progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """What a virtual image says of its origin, as metadata text; ``model`` names what made it from ``source``."""
    return {
        "notice": NOTICE,
        "software": f"restain {__version__}",
        "source": source.name,
        "source_sha256": digest(source, progress),
        **model,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def familiar_text(bundle: Bundle, images: Sequence[NDArray[np.uint8]]) -> str:
    """``yes``, ``unknown`` (the bundle does not know its training images) or ``no: `` and a sentence.

    Args:
        bundle: the model.
        images: ``(H, W, 3)`` uint8 RGB at the model's mpp: the source, or places of it, of which the one in the middle
            of their scores speaks for all.
    """
    if bundle.familiarity is None or not images:
        return "unknown"
    verdicts = sorted((bundle.familiarity.judge(he) for he in images), key=lambda verdict: verdict.score)
    verdict = verdicts[(len(verdicts) - 1) // 2]
    return "yes" if verdict.familiar else f"no: {verdict.reason}"


def tell(source: Path, text: Mapping[str, str], warn: Callable[[str], None] | None) -> None:
    """Warn, in one sentence that names the source, where the metadata say that it is unlike the training images."""
    answer, _, reason = text.get(FAMILIAR, "").partition(": ")
    if warn is not None and answer == "no":
        warn(f"{source}: {reason}")


def same_origin(text: Mapping[str, str], before: Mapping[str, str]) -> bool:
    """Whether a result that says ``before`` of itself was made as ``text`` says; the date does not count."""
    return {k: v for k, v in text.items() if k != "created"}.items() <= before.items()
