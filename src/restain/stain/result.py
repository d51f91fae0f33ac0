"""Results of staining: pixels in memory, or the files of a slide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from restain.files import make_folder
from restain.images import Rgb, write_density, write_rgb
from restain.ood.detector import Ood
from restain.progress import Progress, Warn, part
from restain.stain.figures import SlideFigures
from restain.stain.inputs import InputImage
from restain.stain.options import StainOptions
from restain.stain.pipeline import PREPARED, STAINED
from restain.stain.plan import StainPlan, glass_of, plan_staining, provenance_of, warn_of
from restain.stain.provenance import Provenance
from restain.stain.tiles import TILE, MemoryTiles
from restain.stain.windows import WindowStainer

if TYPE_CHECKING:
    from restain.stain.model import Model


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

    Of pictures that become PNG files, ``tissue``, ``ood``, ``report`` and ``figures`` are None.
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


def stain_in_memory(
    image: InputImage,
    model: Model,
    options: StainOptions,
    made: Provenance | None = None,
    *,
    progress: Progress | None = None,
    warn: Warn,
) -> StainResult:
    """Stain an image in memory, with the DAB density if the model has one.

    Raises RestainError as :func:`restain.stain.plan.plan_staining`, or at a place that cannot be read.
    """
    for fault in image.slide.faults:
        warn(f"{image.source}: {fault}")
    made = made or provenance_of(image, model, options, None)
    plan = plan_staining(image, model, options, warn, part(progress, 0, PREPARED))
    made = replace(
        made, normalization=plan.normalization, ood=model.ood_of(image.slide, plan.windows, plan.normalization)
    )
    rgb, dab = pixels_of(image, model, options, plan, part(progress, PREPARED, STAINED))
    warn_of(image, made, warn)
    return StainResult(rgb, dab, made.ood, model.mpp, made)


def pixels_of(
    image: InputImage, model: Model, options: StainOptions, plan: StainPlan, progress: Progress | None = None
) -> tuple[Rgb, NDArray[np.float32] | None]:
    """The pixels of :func:`stain_in_memory`."""
    stores = [MemoryTiles(plan.size, TILE, kind) for kind in (("rgb", "dab") if model.has_dab else ("rgb",))]
    glass = glass_of(image.slide, model, options, plan.tissue, None)
    WindowStainer(image.slide, model, options, plan.area, glass, stores, None, plan.normalization).run(progress)
    dab = stores[1].pixels if model.has_dab else None
    return cast(Rgb, stores[0].pixels), cast("NDArray[np.float32] | None", dab)
