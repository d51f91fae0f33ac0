"""What the answers for one pair are compared with, measured once for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.data import Pair
from restain.errors import RestainError
from restain.evaluation import stain
from restain.evaluation.image import SSIM_WINDOW
from restain.evaluation.membrane import ihc_hematoxylin
from restain.optics import dab_density, glass_white
from restain.phantom import read_truth
from restain.prediction import Prediction

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the answers for one pair are compared with."""

    real: Rgb
    """``(H, W, 3)``, the real IHC image."""
    white: NDArray[np.float32]
    """``(3,)`` intensity of its glass."""
    dab: NDArray[np.float32]
    """``(H, W)`` DAB density in OD units: a phantom's truth, else by deconvolution of the real image."""
    hematoxylin: NDArray[np.float32]
    """``(H, W)`` hematoxylin density of the real image in OD units, by deconvolution."""
    source: str
    """``truth`` or ``deconvolution``."""
    background: NDArray[np.bool_]
    """``(H, W)``, where there is no DAB (:func:`restain.evaluation.stain.background_mask`)."""


def truth_path(pair: Pair) -> Path:
    """Where a phantom keeps a pair's DAB density: ``ROOT/truth/SPLIT/NAME.tif`` beside ``ROOT/IHC/SPLIT``."""
    folder = pair.ihc_path.parent
    return folder.parent.parent / "truth" / folder.name / f"{pair.ihc_path.stem}.tif"


def read_reference(pair: Pair, real: Rgb) -> Reference:
    """What ``pair`` is scored against; ``real`` is its IHC image, ``(H, W, 3)``.

    Raises:
        RestainError: if the image is too small for SSIM, or a truth file is unreadable or of another size.
    """
    height, width = real.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise RestainError(f"{pair.ihc_path}: {width}x{height} px is too small; SSIM's window is {SSIM_WINDOW} px.")
    white = glass_white(real)
    path = truth_path(pair)
    if path.is_file():
        dab, source = read_truth(path), "truth"
        if dab.shape != (height, width):
            raise RestainError(f"{path} is {dab.shape[1]}x{dab.shape[0]} px, its image {width}x{height}.")
        return Reference(real, white, dab, ihc_hematoxylin(real, white), source, stain.background_mask(dab))
    return deconvolved(real, white)


def deconvolved(real: Rgb, white: NDArray[np.float32]) -> Reference:
    """A real IHC image, ``(H, W, 3)`` on glass of colour ``white``, with the densities that deconvolution gives it."""
    dab = dab_density(real, white)
    return Reference(real, white, dab, ihc_hematoxylin(real, white), "deconvolution", stain.background_mask(dab))


def with_dab(answer: Prediction, reference: Reference) -> Prediction:
    """``answer`` with a DAB map: its own, else by colour deconvolution.

    The deconvolution takes the real image's white for both pictures, so that a yellow cast counts as DAB.
    """
    return answer if answer.dab is not None else Prediction(answer.rgb, dab_density(answer.rgb, reference.white))
