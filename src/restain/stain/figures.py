"""What was measured while a slide was stained, as ``NAME.stain.json`` holds it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from restain.errors import RestainError
from restain.files import write_json
from restain.geometry import Size
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
class OodTiles:
    """``judged`` tiles of tissue, those ``above`` the limit of the training images, ``median`` score (None without any)."""

    judged: int
    above: int
    median: float | None


@dataclass(frozen=True)
class SlideFigures:
    """Times and megapixels are of the last run, if a job was killed and went on."""

    provenance: Provenance
    size: Size
    """Of the result in px."""
    tissue_mm2: float
    glass: tuple[float, float, float]
    """RGB in [0, 255] of the H&E slide's glass."""
    glass_noise: dict[str, object] | None
    """What was measured of the noise of the H&E's glass (:meth:`restain.stain.glass.Glass.figures`); None without any."""
    megapixels: float
    """That went through the network."""
    megapixels_per_second: float | None
    seams: Seams | None
    """None without borders in tissue."""
    ood_tiles: OodTiles | None
    """None where the model does not know its training images."""
    holes: tuple[Hole, ...]
    slide_faults: tuple[str, ...]
    """Sentences on the source."""
    seconds: Seconds

    def write(self, path: Path) -> None:
        """Write as JSON.

        Raises:
            RestainError: if the file cannot be written.
        """
        content: dict[str, Any] = {
            "provenance": self.provenance.metadata(),
            "size_px": [self.size.width, self.size.height],
            "tissue_mm2": self.tissue_mm2,
            "glass": self.glass,
            "glass_noise": self.glass_noise,
            "megapixels": self.megapixels,
            "megapixels_per_second": self.megapixels_per_second,
            "seams": None if self.seams is None else asdict(self.seams) | {"ratio": self.seams.ratio},
            "ood_tiles": None if self.ood_tiles is None else asdict(self.ood_tiles),
            "holes": [list(asdict(hole).values()) for hole in self.holes],
            "slide_faults": self.slide_faults,
            "seconds": asdict(self.seconds),
        }
        write_json(path, content)

    @staticmethod
    def read(path: Path) -> SlideFigures:
        """Read what :meth:`write` wrote.

        Raises:
            RestainError: if the file cannot be read or is none of this restain's.
        """
        try:
            content = json.loads(path.read_bytes())
            seams = content["seams"]
            if seams is not None:
                seams = Seams(**{key: value for key, value in seams.items() if key != "ratio"})
            red, green, blue = map(float, content["glass"])
            return SlideFigures(
                provenance=Provenance.from_metadata(content["provenance"]),
                size=Size(*content["size_px"]),
                tissue_mm2=float(content["tissue_mm2"]),
                glass=(red, green, blue),
                glass_noise=content["glass_noise"],
                megapixels=float(content["megapixels"]),
                megapixels_per_second=content["megapixels_per_second"],
                seams=seams,
                ood_tiles=None if content["ood_tiles"] is None else OodTiles(**content["ood_tiles"]),
                holes=tuple(Hole(*hole) for hole in content["holes"]),
                slide_faults=tuple(content["slide_faults"]),
                seconds=Seconds(**content["seconds"]),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise RestainError(f"{path} cannot be read or holds no figures of a stained slide.") from None
