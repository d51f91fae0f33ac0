"""What staining gives: pixels in memory, or the files of a slide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from restain.data.normalization import HENormalization
from restain.files import make_folder
from restain.images import Rgb, write_density, write_rgb
from restain.stain.figures import SlideFigures
from restain.stain.given import Given
from restain.stain.look import glass_of, look, provenance_of, tell
from restain.stain.memory import MemoryTiles
from restain.stain.normalization import normalized_reader
from restain.stain.options import StainOptions
from restain.stain.provenance import Ood, Provenance, judge
from restain.stain.steps import PREPARED, STAINED, Steps
from restain.stain.windows import TILE, WindowStainer

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
    """Whether the source is unlike the training images; None where the model does not know those."""
    mpp: float
    """Micrometres per pixel, the model's."""
    provenance: Provenance

    def save(self, path: str | Path) -> None:
        """Write the image with its provenance, as PNG, TIFF or JPEG by the suffix. The DAB density is not written.

        Raises:
            RestainError: if the suffix is another one or the file cannot be written.
        """
        path = Path(path)
        make_folder(path.parent)
        write_rgb(path, self.rgb, self.provenance.metadata(), mpp=self.mpp)

    def save_dab(self, path: str | Path) -> None:
        """Write the DAB density as ``uint16`` TIFF, 1e-4 OD per count.

        Raises:
            RestainError: if the file cannot be written.
            ValueError: if there is none.
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
    """Outlines of what was taken for tissue."""
    ood: Path | None = None
    """Outlines of tiles unlike the training images; None where the model does not know those."""
    report: Path | None = None
    """The figures as JSON."""
    figures: SlideFigures | None = None


def stain_in_memory(
    given: Given,
    model: Model,
    options: StainOptions,
    made: Provenance | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None],
) -> StainResult:
    """Stain an image in memory; the DAB density is there whether the options want a file of it or not.

    Raises:
        RestainError: as :func:`restain.stain.look.look`, or at a place that cannot be read.
    """
    steps = Steps(progress)
    for fault in given.slide.faults:
        warn(f"{given.source}: {fault}")
    made = made or provenance_of(given, model, options, None)
    rgb, dab, normalization, ood = pixels_of(given, model, options, steps, warn)
    made = replace(made, normalization=normalization, ood=ood)
    tell(given, made, warn)
    return StainResult(rgb, dab, ood, model.mpp, made)


def pixels_of(
    given: Given, model: Model, options: StainOptions, steps: Steps, warn: Callable[[str], None], *, judged: bool = True
) -> tuple[Rgb, NDArray[np.float32] | None, HENormalization | None, Ood | None]:
    """The pixels of :func:`stain_in_memory`, how the H&E was normalised, and whether it is like the training images.

    Not ``judged``: it is not held against them.
    """
    slide = given.slide
    looked = look(given, model, options, warn, steps.part(PREPARED))
    ood = (
        judge(model.bundle, normalized_reader(slide, model.mpp, looked.normalization), looked.windows)
        if judged
        else None
    )
    stores = [MemoryTiles(looked.size, TILE, kind) for kind in (("rgb", "dab") if model.has_dab else ("rgb",))]
    glass = glass_of(slide, model, options, looked.tissue, None)
    WindowStainer(slide, model, options, looked.area, glass, stores, None, looked.normalization).run(
        steps.part(STAINED - PREPARED)
    )
    rgb, dab = stores[0].pixels, stores[1].pixels if model.has_dab else None
    return cast(Rgb, rgb), cast("NDArray[np.float32] | None", dab), looked.normalization, ood
