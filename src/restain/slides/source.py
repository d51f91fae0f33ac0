"""What every kind of slide file offers to :class:`restain.slides.Slide`: pixels of a level, and its facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Region, Size
from restain.images import Rgb


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid: its size in px and by how much it is smaller than level 0 (1 for level 0)."""

    size: Size
    downsample: float


@dataclass
class Source(ABC):
    """One open file: facts as fields, pixels by :meth:`read`. Subclasses read one kind of file each."""

    path: Path
    format: str
    levels: tuple[Level, ...]
    vendor: str | None = None
    mpp: float | None = None
    objective: float | None = None
    icc: bytes | None = None
    associated: dict[str, Size] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @abstractmethod
    def read(self, level: int, region: Region) -> Rgb:
        """Pixels ``(h, w, 3)`` ``uint8`` of a region that lies inside ``level``; the same for any enclosing region.

        Raises:
            RestainError: if the pixels cannot be decoded.
        """

    def close(self) -> None:  # noqa: B027 a picture in memory has nothing to give back
        """Give the file back."""


def levels_of(sizes: list[Size]) -> tuple[Level, ...]:
    """Levels from their sizes, finest first.

    Writers round the sizes of levels up or down, so a ratio that a whole number explains is that number: else a
    position at the far side of a slide would be off by up to ``downsample`` pixels.
    """
    full = sizes[0]
    levels = []
    for size in sizes:
        ratio = (full.width / size.width + full.height / size.height) / 2
        whole = max(1, round(ratio))
        explained = all(abs(of / whole - got) < 1 for of, got in ((full.width, size.width), (full.height, size.height)))
        levels.append(Level(size, float(whole) if explained else ratio))
    return tuple(levels)


def damaged(path: Path, what: str) -> RestainError:
    """The sentence of a slide whose data cannot be read."""
    return RestainError(f"{path} is truncated or damaged: {what}.")


def paste(out: NDArray[Any], region: Region, piece: NDArray[Any], x: int, y: int) -> None:
    """Put into ``out``, the pixels of ``region``, what lies in it of a ``piece`` whose first pixel is at ``x``, ``y``."""
    height, width = piece.shape[:2]
    top, left = max(y, region.origin.y), max(x, region.origin.x)
    bottom, right = min(y + height, region.bottom), min(x + width, region.right)
    rows, columns = (
        slice(top - region.origin.y, bottom - region.origin.y),
        slice(left - region.origin.x, right - region.origin.x),
    )
    out[rows, columns] = piece[top - y : bottom - y, left - x : right - x]
