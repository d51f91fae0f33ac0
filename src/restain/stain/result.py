"""Results of staining: pixels in memory, or the files of a slide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from restain.files import make_folder
from restain.images import Rgb, write_density, write_rgb
from restain.ood.detector import Ood
from restain.progress import part
from restain.slides.store import Kind
from restain.stain.figures import SlideFigures
from restain.stain.pipeline import PREPARED, STAINED
from restain.stain.plan import StainJob, StainPlan
from restain.stain.provenance import Provenance
from restain.stain.tiles import TILE, MemoryTiles
from restain.stain.windows import WindowStainer


@dataclass(frozen=True)
class StainResult:
    """A virtual IHC image in memory.

    Example:
        >>> import numpy as np
        >>> from restain.stain import load
        >>> result = load().stain(np.full((64, 64, 3), 240, np.uint8), mpp=0.46)
        >>> result.rgb.shape, result.dab.shape, result.mpp
        ((64, 64, 3), (64, 64), 0.46)
    """

    rgb: Rgb
    """``(H, W, 3)`` ``uint8`` RGB at ``mpp``."""
    dab: NDArray[np.float32] | None
    """``(H, W)`` DAB density in OD units, not negative; None for a model without a stain head."""
    ood: Ood | None
    """Whether the source is in distribution; None if the bundle has no OOD detector."""
    mpp: float
    """Micrometres per pixel, the model's."""
    provenance: Provenance

    def save(self, path: str | Path) -> None:
        """Write the image with its provenance, as PNG, TIFF or JPEG by the suffix. The DAB density is not written.

        Raises RestainError if the suffix is another one or the file cannot be written.
        """
        path = Path(path)
        make_folder(path.parent)
        write_rgb(path, self.rgb, self.provenance.metadata(), mpp=self.mpp)

    def save_dab(self, path: str | Path) -> None:
        """Write the DAB density as ``uint16`` TIFF, 1e-4 OD per count.

        Raises RestainError if the file cannot be written; ValueError if there is none.
        """
        if self.dab is None:
            raise ValueError("the model has no stain output, so there is no DAB density")
        path = Path(path)
        make_folder(path.parent)
        write_density(path, self.dab)


@dataclass(frozen=True)
class StainedSlide:
    """The files of a result; ``kept`` where they were there already.

    For pictures that become PNG files, ``tissue``, ``ood``, ``report`` and ``figures`` are None.
    """

    source: Path
    path: Path
    dab: Path | None
    provenance: Provenance
    kept: bool
    tissue: Path | None = None
    """Outlines of the tissue."""
    ood: Path | None = None
    """Outlines of tiles that are out of distribution; None if the bundle has no OOD detector."""
    report: Path | None = None
    """The figures as JSON."""
    figures: SlideFigures | None = None


def stain_in_memory(job: StainJob, made: Provenance | None = None) -> StainResult:
    """Stain an image in memory, with the DAB density if the model has one.

    Raises RestainError as :meth:`restain.stain.plan.StainJob.plan`, or at a place that cannot be read.
    """
    job.warn_of_faults()
    made = made or job.provenance(None)
    plan = job.plan(0, PREPARED)
    made = job.planned(made, plan)
    rgb, dab = pixels_of(job, plan)
    job.warn_of(made)
    return StainResult(rgb, dab, made.ood, job.model.mpp, made)


def pixels_of(job: StainJob, plan: StainPlan) -> tuple[Rgb, NDArray[np.float32] | None]:
    """The pixels of :func:`stain_in_memory`."""
    kinds: tuple[Kind, ...] = ("rgb", "dab") if job.model.has_dab else ("rgb",)
    stores = [MemoryTiles(plan.size, TILE, kind) for kind in kinds]
    WindowStainer(job, plan, job.glass(plan.tissue, None), stores).run(part(job.progress, PREPARED, STAINED))
    dab = stores[1].pixels if job.model.has_dab else None
    return cast(Rgb, stores[0].pixels), cast("NDArray[np.float32] | None", dab)
