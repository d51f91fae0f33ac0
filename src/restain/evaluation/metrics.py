"""The metric registry: key in files, title, unit, digits, and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Group = Literal["where", "amount", "white", "picture", "aligned"]
Better = Literal["higher", "lower", "zero", "one"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of an image or a split; :class:`restain.evaluation.scoring.Scorer` computes those of images."""

    key: str
    title: str
    unit: str
    digits: int
    group: Group
    better: Better | None

    def text(self, value: float | None) -> str:
        """A value as text, with its sign where 0 is best; a dash where it is undefined."""
        if value is None:
            return "–"
        text = f"{value:+.{self.digits}f}" if self.better == "zero" else f"{value:.{self.digits}f}"
        return text.replace("-", "−")

    def size(self, value: float | None) -> str:
        """A value as it is compared: without its sign where 0 is best."""
        return self.text(value).lstrip("+−") if self.better == "zero" else self.text(value)


METRICS = (
    Metric("dab_r16", "DAB r, 16 µm cells", "", 3, "where", "higher"),
    Metric("dab_r64", "DAB r, 64 µm cells", "", 3, "where", "higher"),
    Metric("weak_area_ratio", "weak staining kept", "", 3, "where", "higher"),
    Metric("dab_mean_virtual", "mean DAB, virtual", "OD", 4, "amount", None),
    Metric("dab_mean_real", "mean DAB, reference", "OD", 4, "amount", None),
    Metric("dab_mean_error", "error of mean DAB", "OD", 4, "amount", "lower"),
    Metric("dab_sum_virtual", "integrated DAB, virtual", "OD·µm²", 0, "amount", None),
    Metric("dab_sum_real", "integrated DAB, reference", "OD·µm²", 0, "amount", None),
    Metric("dab_area_virtual", "positive area, virtual", "", 3, "amount", None),
    Metric("dab_area_real", "positive area, reference", "", 3, "amount", None),
    Metric("dab_area_error", "error of positive area", "", 3, "amount", "lower"),
    Metric("completeness_virtual", "membrane completeness, virtual", "", 3, "amount", None),
    Metric("completeness_real", "membrane completeness, reference", "", 3, "amount", None),
    Metric("completeness_error", "error of completeness", "", 3, "amount", "lower"),
    Metric("background_de", "background ΔE₀₀", "", 2, "white", "lower"),
    Metric("background_db", "background Δb*", "", 2, "white", "zero"),
    Metric("background_de_smooth", "background ΔE₀₀, both smoothed", "", 2, "white", "lower"),
    Metric("background_de_relative", "background ΔE₀₀, relative to white", "", 2, "white", "lower"),
    Metric("glass_db", "glass Δb*", "", 2, "white", "zero"),
    Metric("background_spread", "real background's own spread, ΔE₀₀", "", 2, "white", None),
    Metric("background_noise", "real background's noise, ΔE₀₀", "", 2, "white", None),
    Metric("psnr", "PSNR", "dB", 2, "picture", "higher"),
    Metric("ssim", "SSIM", "", 4, "picture", "higher"),
    Metric("ms_ssim", "MS-SSIM", "", 4, "picture", "higher"),
    Metric("mae", "mean abs. error", "grey levels", 2, "picture", "lower"),
    Metric("sharpness", "sharpness ratio", "", 3, "picture", "one"),
    Metric("lpips", "LPIPS", "", 4, "picture", "lower"),
    Metric("psnr_aligned", "PSNR, aligned", "dB", 2, "aligned", "higher"),
    Metric("ssim_aligned", "SSIM, aligned", "", 4, "aligned", "higher"),
    Metric("dab_r16_aligned", "DAB r, 16 µm cells, aligned", "", 3, "aligned", "higher"),
    Metric("moved_um", "moved by", "µm", 2, "aligned", None),
)
"""Metrics of an image, in the order of the tables."""

POOLED = Metric("dab_r16_pooled", "DAB r, pooled", "", 3, "where", "higher")
"""Pearson's r over all 16 µm cells of all images together."""

POOLED_WIDE = Metric("dab_r64_pooled", "DAB r, 64 µm, pooled", "", 3, "where", "higher")
"""Pearson's r over all 64 µm cells of all images together."""

ACROSS = Metric("dab_r_image", "DAB r, image means", "", 3, "where", "higher")
"""Pearson's r between the mean DAB densities of the images: is the stronger image the stronger one."""

SPLIT_METRICS = (POOLED, POOLED_WIDE, ACROSS)
"""Correlations of a whole split, which follow from the sums over the cells of its images."""

COLUMNS = (METRICS[0], POOLED, METRICS[1], POOLED_WIDE, ACROSS, *METRICS[2:])
"""All metrics in the order of the tables."""

BY_KEY = {metric.key: metric for metric in COLUMNS}


def group(*names: Group) -> list[Metric]:
    """The metrics of some groups, in the order of the tables."""
    return [metric for metric in COLUMNS if metric.group in names]


def score(values: NDArray[np.float64] | Sequence[float], better: Better) -> NDArray[np.float64]:
    """Values turned so that more is better; a ratio is judged by its logarithm, a shift by its size."""
    given = np.asarray(values, dtype=np.float64)
    match better:
        case "higher":
            return given
        case "lower":
            return -given
        case "zero":
            return -np.abs(given)
        case "one":
            return -np.abs(np.log(np.maximum(given, 1e-6)))
