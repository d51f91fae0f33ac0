"""What a virtual image says of its origin: source, model, options, date, and whether the source is like the training images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain import NOTICE, __version__
from restain.bundle import Bundle
from restain.data.normalization import HENormalization
from restain.errors import RestainError
from restain.geometry import Region
from restain.slides.find import split_number

OWN_WHITE = "the model's own"
LOSSLESS = "lossless"
NONE = "none"

_CHUNK = 1 << 22
_FOUND_OUT = ("created", "ood", "ood_score", "ood_reason", "normalization")
"""Keys that do not decide what a result looks like."""


@dataclass(frozen=True)
class Ood:
    """Whether an H&E image is out of the distribution of the model's training images.

    Example:
        >>> Ood(score=1.7, reason="its sharpness is below theirs.").is_ood
        True
    """

    score: float
    """How unlike them it is; not negative."""
    reason: str
    """One sentence that says what is strange, or that nothing is."""
    limit: float = 1.0
    """The score above which the image is out of distribution."""

    @property
    def is_ood(self) -> bool:
        return self.score > self.limit

    def metadata(self) -> dict[str, str]:
        return {"ood": "yes" if self.is_ood else "no", "ood_score": repr(self.score), "ood_reason": self.reason}

    @staticmethod
    def from_metadata(text: Mapping[str, str]) -> Ood | None:
        """What :meth:`metadata` wrote; None where a result says that it is unknown, or nothing.

        Raises:
            ValueError: if the score is no number.
        """
        if "ood_score" not in text:
            return None
        return Ood(float(text["ood_score"]), text.get("ood_reason", ""))


@dataclass(frozen=True)
class Provenance:
    """Where a virtual image comes from, and all that decides what it looks like.

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
    """Whether no tissue was looked for."""
    quality: int | None
    """Of JPEG; None for lossless pixels."""
    dab: bool
    """Whether the DAB density was asked for."""
    normalization: HENormalization | None = None
    """How, as estimated from the whole image; None for not, and while not looked at."""
    ood: Ood | None = None
    """None while not looked at, or where the model does not know its training images."""
    created: str = ""
    """UTC, ISO 8601."""
    software: str = f"restain {__version__}"
    notice: str = NOTICE

    def metadata(self) -> dict[str, str]:
        """As text for a file's metadata."""
        return {
            "notice": self.notice,
            "software": self.software,
            "source": self.source,
            "source_sha256": self.source_sha256,
            "source_mpp": repr(self.source_mpp),
            "mpp_assumed": str(self.mpp_assumed),
            "bundle": self.bundle,
            "bundle_hash": self.bundle_hash,
            "mpp": repr(self.mpp),
            "engine": self.engine,
            "context_px": str(self.context_px),
            "white": OWN_WHITE if self.white is None else " ".join(f"{v:g}" for v in self.white),
            "glass_noise": str(self.glass_noise),
            "normalized": str(self.normalized),
            "normalization": NONE if self.normalization is None else self.normalization.text(),
            "region": self.region,
            "tissue": "everywhere" if self.everywhere else "found",
            "quality": LOSSLESS if self.quality is None else str(self.quality),
            "dab": str(self.dab),
            "created": self.created,
            **({"ood": "unknown"} if self.ood is None else self.ood.metadata()),
        }

    @staticmethod
    def from_metadata(text: Mapping[str, str]) -> Provenance:
        """What :meth:`metadata` wrote.

        Raises:
            KeyError: if something is missing, as in files of other programs.
            ValueError: if a number is none.
        """
        white = None
        if text["white"] != OWN_WHITE:
            red, green, blue = map(float, text["white"].split())
            white = (red, green, blue)
        return Provenance(
            source=text["source"],
            source_sha256=text["source_sha256"],
            source_mpp=float(text["source_mpp"]),
            mpp_assumed=text["mpp_assumed"] == "True",
            bundle=text["bundle"],
            bundle_hash=text["bundle_hash"],
            mpp=float(text["mpp"]),
            engine=text["engine"],
            context_px=int(text["context_px"]),
            white=white,
            glass_noise=text["glass_noise"] == "True",
            normalized=text["normalized"] == "True",
            normalization=None if text["normalization"] == NONE else HENormalization.from_text(text["normalization"]),
            region=text["region"],
            everywhere=text["tissue"] == "everywhere",
            quality=None if text["quality"] == LOSSLESS else int(text["quality"]),
            dab=text["dab"] == "True",
            ood=Ood.from_metadata(text),
            created=text.get("created", ""),
            software=text["software"],
            notice=text["notice"],
        )

    @property
    def identity(self) -> dict[str, str]:
        """What decides the result, as text: two results of one identity have the same pixels."""
        return {key: value for key, value in self.metadata().items() if key not in _FOUND_OUT}

    def made(self, before: Mapping[str, str]) -> bool:
        """Whether a result that says ``before`` of itself is of this identity."""
        return self.identity.items() <= before.items()


def now() -> str:
    """The moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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


def origin(source: Path, made_by: Mapping[str, str]) -> dict[str, str]:
    """What a picture of an evaluation says of its origin, as metadata text; ``made_by`` names what made it from ``source``.

    Raises:
        RestainError: if the source cannot be read.
    """
    return {
        "notice": NOTICE,
        "software": f"restain {__version__}",
        "source": source.name,
        "source_sha256": digest(source),
        **made_by,
        "created": now(),
    }


JUDGED = 12
"""Windows of an image at most that are compared with the training images."""


def judge(bundle: Bundle, read: Callable[[Region], NDArray[np.uint8]], windows: Sequence[Region]) -> Ood | None:
    """Whether a source is like the model's training images; None where the bundle does not know them.

    Evenly spread ``windows`` are compared; the one in the middle of their scores speaks for all. A window that cannot be read
    is left out.

    Args:
        bundle: the model.
        read: ``(h, w, 3)`` uint8 RGB of a window.
        windows: those with tissue, in px at the model's mpp.
    """
    verdicts = []
    if bundle.ood is not None:
        for number in sorted(set(np.linspace(0, len(windows) - 1, min(JUDGED, len(windows))).round().astype(int))):
            with suppress(RestainError):
                verdicts.append(bundle.ood.judge(read(windows[number])))
    if not verdicts:
        return None
    verdict = sorted(verdicts, key=lambda verdict: verdict.score)[(len(verdicts) - 1) // 2]
    return Ood(verdict.score, verdict.reason)
