"""Provenance of a virtual image: source, model, options, date, and whether the source is in distribution."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from restain import NOTICE, __version__
from restain.data.normalization import HENormalization
from restain.errors import RestainError
from restain.ood.detector import Ood
from restain.progress import Progress
from restain.slides.find import split_number

OWN_WHITE = "the model's own"
LOSSLESS = "lossless"
NONE = "none"

_CHUNK = 1 << 22
_NOT_IDENTITY = ("created", "ood", "ood_score", "ood_reason", "normalization")
"""Keys that do not decide the pixels."""


@dataclass(frozen=True)
class Provenance:
    """The source of a virtual image and all that decides its pixels.

    Example:
        >>> import numpy as np
        >>> from restain.stain import load
        >>> made = load().stain(np.full((64, 64, 3), 240, np.uint8), mpp=0.46).provenance
        >>> Provenance.from_metadata(made.metadata()) == made
        True
    """

    source: str
    """Name of the H&E file; ``array`` for pixels that came without one."""
    source_sha256: str
    source_mpp: float
    """Micrometres per pixel of the source."""
    mpp_assumed: bool
    """Whether nothing stated the source's mpp, so that it was taken as being at the model's."""
    bundle: str
    bundle_hash: str
    mpp: float
    """Micrometres per pixel of the result, the model's."""
    engine: str
    context_px: int
    """Side in px of the windows that went through the network."""
    white: tuple[float, float, float] | None
    """RGB in [0, 255] of unstained glass; None for the model's own."""
    glass_noise: bool
    """Whether glass was given the noise of the H&E's glass."""
    normalized: bool
    """Whether the H&E was normalised before the network."""
    region: str
    everywhere: bool
    """Whether the whole image was stained, not only tissue."""
    quality: int | None
    """Quality of JPEG tiles; None for lossless pixels."""
    dab: bool
    """Whether the DAB density was written."""
    normalization: HENormalization | None = None
    """As estimated from the whole image; None before it is estimated, and without."""
    ood: Ood | None = None
    """None before it is measured, or if the bundle has no OOD detector."""
    created: str = ""
    """UTC, ISO 8601."""
    software: str = f"restain {__version__}"
    notice: str = NOTICE

    def metadata(self) -> dict[str, str]:
        """As text for a file's metadata."""
        text = {
            field.name: repr(value) if isinstance(value := getattr(self, field.name), float) else str(value)
            for field in fields(self)
            if field.name not in ("everywhere", "ood", "normalization")
        }
        return text | {
            "white": OWN_WHITE if self.white is None else " ".join(f"{v:g}" for v in self.white),
            "tissue": "everywhere" if self.everywhere else "found",
            "quality": LOSSLESS if self.quality is None else str(self.quality),
            "normalization": NONE if self.normalization is None else self.normalization.text(),
            **({"ood": "unknown"} if self.ood is None else self.ood.metadata()),
        }

    @staticmethod
    def from_metadata(text: Mapping[str, str]) -> Provenance:
        """What :meth:`metadata` wrote.

        Raises KeyError if something is missing, as in files of other programs; ValueError if a number is none.
        """
        white = None
        if text["white"] != OWN_WHITE:
            red, green, blue = map(float, text["white"].split())
            white = (red, green, blue)
        values: dict[str, Any] = {
            "white": white,
            "everywhere": text["tissue"] == "everywhere",
            "quality": None if text["quality"] == LOSSLESS else int(text["quality"]),
            "normalization": None
            if text["normalization"] == NONE
            else HENormalization.from_text(text["normalization"]),
            "ood": Ood.from_metadata(text),
        }
        read: dict[str, Callable[[str], Any]] = {"str": str, "float": float, "int": int, "bool": "True".__eq__}
        for field in fields(Provenance):
            if field.name not in values:
                values[field.name] = read[str(field.type)](text[field.name])
        return Provenance(**values)

    @property
    def identity(self) -> dict[str, str]:
        """What decides the result, as text: two results of one identity have the same pixels."""
        return {key: value for key, value in self.metadata().items() if key not in _NOT_IDENTITY}

    def made(self, before: Mapping[str, str]) -> bool:
        """Whether a result that says ``before`` of itself is of this identity."""
        return self.identity.items() <= before.items()


def now() -> str:
    """The moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def digest(source: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file in hexadecimal, or of the names and contents of all files in a folder (a DICOM series, an
    OME-Zarr).

    Raises RestainError if something cannot be read.
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


def image_metadata(source: Path, made_by: Mapping[str, str]) -> dict[str, str]:
    """Provenance of an evaluation's image as metadata; ``made_by`` names what made it from ``source``.

    Raises RestainError if the source cannot be read.
    """
    return {
        "notice": NOTICE,
        "software": f"restain {__version__}",
        "source": source.name,
        "source_sha256": digest(source),
        **made_by,
        "created": now(),
    }
