"""The metrics of one answer for one pair, and the reference that answers are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.data import Pair
from restain.errors import RestainError
from restain.evaluation import stain
from restain.evaluation.align import align, apply_alignment
from restain.evaluation.background import real_background, whiteness
from restain.evaluation.image import SSIM_WINDOW, gradient_energy, mean_absolute_error, ms_ssim, psnr, ratio, ssim
from restain.evaluation.membrane import find_nuclei, ihc_hematoxylin, membranes_at
from restain.evaluation.metrics import ACROSS, POOLED, POOLED_WIDE
from restain.evaluation.stain import Moments
from restain.optics import dab_density, glass_white
from restain.phantom import read_truth
from restain.prediction import Prediction

Rgb = NDArray[np.uint8]
Perceptual = Callable[[Rgb, Rgb], float]
"""A perceptual distance of two ``(H, W, 3)`` 8-bit images."""


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


class Scorer:
    """Scores answers for one pair; what it takes of the real image is measured once.

    Args:
        reference: what the answers are compared with.
        mpp: micrometres per pixel.
        perceptual: LPIPS or the like; None leaves it out.
        quick: leave out membranes, MS-SSIM and sharpness.
    """

    def __init__(
        self, reference: Reference, mpp: float, perceptual: Perceptual | None = None, *, quick: bool = False
    ) -> None:
        self.reference = reference
        self.mpp = mpp
        self.perceptual = perceptual
        self._background = real_background(reference.real, reference.background)
        self._smooth = stain.smoothed(reference.dab)
        self.quick = quick
        self._nuclei = None if quick else find_nuclei(reference.hematoxylin, mpp)
        self._sharpness = 0.0 if quick else gradient_energy(reference.real)
        self._real = {
            "dab_mean_real": stain.dab_mean(reference.dab),
            "dab_sum_real": stain.dab_sum(reference.dab, mpp),
            "dab_area_real": stain.positive_area(self._smooth),
            "completeness_real": self._completeness(reference.dab),
            "background_spread": self._background.spread,
            "background_noise": self._background.noise,
        }

    def __call__(
        self, answer: Prediction, *, aligned: bool = False, map_only: bool = False
    ) -> tuple[dict[str, float], dict[str, Moments]]:
        """Metrics of one answer by the keys of ``METRICS``, and its sums over cells by those of ``SPLIT_METRICS``.

        Args:
            answer: ``(H, W, 3)`` RGB and, where it has one, a DAB map.
            aligned: measure the answer after alignment too.
            map_only: leave out what needs a picture; the answer is its DAB map alone.
        """
        real = self.reference.real
        whole = with_dab(answer, self.reference)
        assert whole.dab is not None
        moments = {
            POOLED.key: stain.cell_moments(whole.dab, self.reference.dab, self.mpp),
            POOLED_WIDE.key: stain.cell_moments(whole.dab, self.reference.dab, self.mpp, stain.WIDE_CELL_UM),
        }
        values = self._real | {
            "dab_r16": stain.pearson(moments[POOLED.key]),
            "dab_r64": stain.pearson(moments[POOLED_WIDE.key]),
            **self._amounts(whole.dab),
        }
        means = values["dab_mean_virtual"], values["dab_mean_real"]
        moments[ACROSS.key] = stain.moments_of(np.array(means[:1]), np.array(means[1:]))
        if map_only:
            return values, moments
        white = whiteness(whole.rgb, self._background)
        values |= {
            "background_de": white.de,
            "background_db": white.db,
            "background_de_smooth": white.de_smooth,
            "background_de_relative": white.de_relative,
            "glass_db": white.glass_db,
            "psnr": psnr(whole.rgb, real),
            "ssim": ssim(whole.rgb, real),
            "mae": mean_absolute_error(whole.rgb, real),
        }
        if not self.quick:
            values["ms_ssim"] = ms_ssim(whole.rgb, real)
            values["sharpness"] = ratio(gradient_energy(whole.rgb), self._sharpness)
        if self.perceptual is not None:
            values["lpips"] = self.perceptual(whole.rgb, real)
        if aligned:
            values |= self._aligned(whole, values)
        return values, moments

    def _amounts(self, dab: NDArray[np.float32]) -> dict[str, float]:
        smooth = stain.smoothed(dab)
        mean, area, completeness = stain.dab_mean(dab), stain.positive_area(smooth), self._completeness(dab)
        return {
            "weak_area_ratio": stain.weak_area_ratio(smooth, self._smooth),
            "dab_mean_virtual": mean,
            "dab_mean_error": abs(mean - self._real["dab_mean_real"]),
            "dab_sum_virtual": stain.dab_sum(dab, self.mpp),
            "dab_area_virtual": area,
            "dab_area_error": abs(area - self._real["dab_area_real"]),
            "completeness_virtual": completeness,
            "completeness_error": abs(completeness - self._real["completeness_real"]),
        }

    def _completeness(self, dab: NDArray[np.float32]) -> float:
        """Mean membrane completeness at the real image's nuclei, the same cells for every answer; NaN without."""
        if self._nuclei is None:
            return float("nan")
        found = membranes_at(dab, self._nuclei, self.mpp).completeness
        return float(found.mean(dtype=np.float64)) if len(found) else float("nan")

    def _aligned(self, answer: Prediction, raw: dict[str, float]) -> dict[str, float]:
        found = align(answer.rgb, self.reference.real, self.mpp)
        if found.field is None:
            return {f"{key}_aligned": raw[key] for key in ("psnr", "ssim", "dab_r16")} | {"moved_um": 0.0}
        moved = apply_alignment(found, answer)
        assert moved.dab is not None
        return {
            "psnr_aligned": psnr(moved.rgb, self.reference.real),
            "ssim_aligned": ssim(moved.rgb, self.reference.real),
            "dab_r16_aligned": stain.dab_r16(moved.dab, self.reference.dab, self.mpp),
            "moved_um": found.moved_um,
        }
