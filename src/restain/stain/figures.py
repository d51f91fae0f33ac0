"""Figures of a stained slide, as in ``NAME.stain.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from restain.errors import RestainError
from restain.files import write_json
from restain.geometry import Size
from restain.ood.tiles import OodTiles
from restain.stain.pipeline import Seconds
from restain.stain.provenance import Provenance
from restain.stain.seams import Seams


@dataclass(frozen=True)
class Hole:
    """A tile that could not be made: where, in px of the result, and why."""

    x: int
    y: int
    width: int
    height: int
    reason: str


@dataclass(frozen=True)
class SlideFigures:
    """Figures of a stained slide; times and megapixels of a resumed job are those of its last run."""

    provenance: Provenance
    size: Size
    """Size of the result in px."""
    tissue_mm2: float
    glass: tuple[float, float, float]
    """RGB in [0, 255] of the H&E slide's glass."""
    glass_noise: dict[str, object] | None
    """See :meth:`restain.stain.glass.Glass.figures`; None without noise."""
    megapixels: float
    """That went through the network."""
    megapixels_per_second: float | None
    seams: Seams | None
    """None without borders in tissue."""
    ood_tiles: OodTiles | None
    """None if the bundle has no OOD detector."""
    holes: tuple[Hole, ...]
    slide_faults: tuple[str, ...]
    """Sentences on the source."""
    seconds: Seconds

    def write(self, path: Path) -> None:
        """Write as JSON; RestainError if the file cannot be written."""
        seams = None if self.seams is None else asdict(self.seams) | {"ratio": self.seams.ratio}
        write_json(path, asdict(self) | {"provenance": self.provenance.metadata(), "seams": seams})

    @staticmethod
    def read(path: Path) -> SlideFigures:
        """Read what :meth:`write` wrote. Raises RestainError if the file cannot be read or holds other figures."""
        try:
            content = json.loads(path.read_bytes())
            content["provenance"] = Provenance.from_metadata(content["provenance"])
            return TypeAdapter(SlideFigures).validate_python(content)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise RestainError(f"{path} cannot be read or holds no figures of a stained slide.") from None
