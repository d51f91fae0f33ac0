"""All options of staining with their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from restain.engines import AUTO, NAMES
from restain.errors import RestainError
from restain.slides import Polygon

Format = Literal["auto", "png", "ome-tiff", "dicom"]
FORMATS: tuple[Format, ...] = ("auto", "png", "ome-tiff", "dicom")


@dataclass(frozen=True)
class StainOptions:
    """How images are stained, beside the model.

    Raises ``RestainError`` for a value out of range.

    Example:
        >>> StainOptions(dab=True).quality
        90
    """

    mpp: float | None = None
    """Micrometres per pixel of images that do not state it."""
    override_mpp: bool = False
    """Whether ``mpp`` holds also where the file states another."""
    dab: bool = False
    """Whether the DAB density is written too."""
    roi: tuple[Polygon, ...] | None = None
    """Outlines in level-0 px outside of which nothing is stained; None for the whole image."""
    everywhere: bool = False
    """Stain the whole image, not only tissue."""
    strict: bool = False
    """Whether a tile that cannot be read ends the job; else it becomes a marked hole."""
    format: Format = "auto"
    """Format of the result; ``auto`` is PNG for pictures and OME-TIFF for slides."""
    quality: int = 90
    """Quality of the JPEG tiles of slides, 1 to 100. Pictures are kept lossless, but in DICOM."""
    white: tuple[float, float, float] | None = None
    """RGB above 0 and up to 255 of the unstained glass that is rendered; None for the model's own."""
    glass_noise: bool = True
    """Whether glass gets the noise of the H&E's glass."""
    normalization: bool = True
    """Whether the H&E's white point and stain strength are normalised, for models that were trained so."""
    engine: str = AUTO
    """What runs the network (:func:`restain.engines.choose_engine`)."""

    def __post_init__(self) -> None:
        if self.mpp is not None and not (math.isfinite(self.mpp) and self.mpp > 0):
            raise RestainError(f"{self.mpp}: mpp must be a positive number of micrometres per pixel.")
        if self.white is not None and not (len(self.white) == 3 and all(0 < v <= 255 for v in self.white)):
            white = ", ".join(map(str, self.white))
            raise RestainError(f"{white}: white must be three intensities above 0 and up to 255.")
        if self.format not in FORMATS:
            raise RestainError(f"Unknown format {self.format!r}; choose from {', '.join(FORMATS)}.")
        if not 1 <= self.quality <= 100:
            raise RestainError(f"{self.quality}: the quality of JPEG must be from 1 to 100.")
        if self.engine not in NAMES:
            raise RestainError(f"Unknown engine {self.engine!r}; choose from {', '.join(NAMES)}.")
        if self.roi is not None and not self.roi:
            raise RestainError("The region of interest has no outlines.")

    def having(self, **changes: Any) -> StainOptions:
        """These options with some changed; RestainError for an unknown option or a value out of range."""
        names = {field.name for field in fields(self)}
        if unknown := sorted(set(changes) - names):
            raise RestainError(f"Unknown option {unknown[0]!r}; choose from {', '.join(sorted(names))}.")
        if changes.get("white") is not None:
            changes["white"] = tuple(float(v) for v in changes["white"])
        if changes.get("roi") is not None:
            changes["roi"] = tuple(changes["roi"])
        return replace(self, **changes)
