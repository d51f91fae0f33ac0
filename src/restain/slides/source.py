"""What every kind of slide file offers to :class:`restain.slides.Slide`: pixels of a level, and its facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import Rgb


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid: its size in px and by how much it is smaller than level 0 (1 for level 0)."""

    size: Size
    downsample: float


@dataclass(frozen=True, slots=True)
class SlideImage:
    """One image of a file or folder that holds several: what it is called there, its size in px, and its pixels' sides in µm."""

    name: str
    size: Size
    mpp: tuple[float, float] | None = None


@dataclass
class Source(ABC):
    """One open image: facts as fields, pixels by :meth:`read`. Subclasses read one kind of file each.

    ``mpp`` and ``mpp_y`` are width and height of a level-0 pixel in µm; ``mpp_y`` is None if equal or unknown.
    ``images`` lists the images of slide size if there are several. ``refusals`` are reasons why only ``restain info``
    may use it. ``orientation`` is the EXIF orientation; sources read pixels as stored. ``decoded_at_once`` is the largest
    unit of decoding in px, 0 if unknown. ``pictorial`` marks formats of plain pictures.
    """

    path: Path
    format: str
    levels: tuple[Level, ...]
    vendor: str | None = None
    mpp: float | None = None
    mpp_y: float | None = None
    objective: float | None = None
    icc: bytes | None = None
    associated: dict[str, Size] = field(default_factory=dict)
    images: tuple[SlideImage, ...] = ()
    faults: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    orientation: int = 1
    decoded_at_once: int = 0
    pictorial: bool = False

    @abstractmethod
    def read(self, level: int, region: Region) -> Rgb:
        """Pixels ``(h, w, 3)`` ``uint8`` of a region that lies inside ``level``; the same for any enclosing region.

        Raises RestainError if the pixels cannot be decoded.
        """

    def load(self) -> None:  # noqa: B027 most kinds are read piece by piece
        """Decode now what can only be decoded whole. Raises RestainError if it cannot be decoded."""

    def read_associated(self, name: str) -> Rgb:
        """Pixels ``(H, W, 3)`` ``uint8`` of an associated image.

        Raises RestainError if there is none of that name, or its pixels cannot be read.
        """
        raise RestainError(f"{self.path}: the associated image '{name}' cannot be read.")

    def close(self) -> None:  # noqa: B027 a picture in memory has nothing to give back
        """Close the file."""


LEAST_SHARE = 0.5
"""An image is of slide size if its longer side is at least this share of the longest; else it is a label, macro or thumbnail."""


def choose_image(path: Path, images: Sequence[SlideImage], number: int | None) -> tuple[int, list[str]]:
    """The index of one of several images of slide size, and a refusal if there are several and no ``number`` was chosen.

    Raises RestainError if there is no image of that number in ``path``.
    """
    if number is not None:
        if not 0 <= number < len(images):
            raise RestainError(f"{path} holds {len(images)} image(s), numbered from 0; there is no image {number}.")
        return number, []
    if len(images) == 1:
        return 0, []
    most = 6
    listed = "; ".join(
        f"{n}: {one.name}, {one.size.width} x {one.size.height} px" for n, one in enumerate(images[:most])
    )
    listed += f"; and {len(images) - most} more" * (len(images) > most)
    return 0, [
        f"{path} holds {len(images)} images of slide size ({listed}); choose one by its number, for example '{path}#0'."
    ]


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
    placed = Region(Point(x, y), Size(piece.shape[1], piece.shape[0]))
    common = placed.common(region)
    out[common.within(region)] = piece[common.within(placed)]
