"""The glass of a virtual slide: one white with the noise of the H&E's glass.

The noise is measured in small windows of the H&E's glass: its covariance between colours at every frequency, from which
one texture is made that repeats without a seam. The noise of a pixel depends on its place alone, so tiles fit together, and
tiles of glass repeat and are encoded once. No pixel of the H&E is copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.optics import optical_density, round_to_uint8
from restain.slides import Slide, TissueMask, glass_windows
from restain.slides.mask import GREEN

Floats = NDArray[np.float32]

PERIOD = 1024
"""px after which the noise repeats: two tiles, about the field of a 40x objective."""
WINDOW = 32
"""Side in px of the windows in which the noise is measured; slower changes are illumination."""
PLACES = 64
"""Places of the H&E that are measured, of 3 x 3 windows each."""
AWAY_UM = 64.0
"""Least distance of places from tissue, where there is glass at that distance."""
LEAST_WINDOWS = 8
"""Fewest windows of glass, not of one exact colour, that give a measurement."""
LEAST_NOISY = 0.1
"""Least share of such windows; below it the glass has no noise."""
LIKE = (0.3, 0.7)
"""Quantiles of the standard deviation between which windows are used; dust and faded tissue lie above."""
MOST_GAIN = 4.0
"""Largest gain of the noise against the loss by JPEG."""

SMOOTH_UM = 1.0
"""Standard deviation of the Gaussian over the H&E's density before a pixel is classified as glass."""
BARE_OD = (0.02, 0.06)
"""Smoothed density of the H&E in green up to which a pixel is glass, and from which it is not."""
FAINT = (0.09, 0.24)
"""Share of light absorbed by the virtual stain up to which it is dropped where the H&E is glass, and from which it is kept.
Between these the noise fades out."""


EVERYTHING = slice(None), slice(None)


@dataclass(frozen=True)
class Noise:
    """Noise of a slide's glass: ``std`` per channel in grey levels, ``correlation`` of horizontal and vertical neighbours in
    green, ``windows`` measured, and ``kernel`` ``(3, 3, 32, 32)``, which makes it from white noise of three channels.
    """

    std: tuple[float, float, float]
    correlation: float
    windows: int
    kernel: Floats

    def texture(self, side: int, seed: int = 0) -> Floats:
        """``(side, side, 3)`` in grey levels, of mean 0: repeats in both directions without a seam."""
        white = fft.rfft2(np.random.default_rng(seed).standard_normal((3, side, side), np.float32))
        made = np.empty((side, side, 3), np.float32)
        for channel in range(3):
            total = sum(fft.rfft2(self.kernel[channel, j], (side, side)) * white[j] for j in range(3))
            plane = fft.irfft2(total, (side, side))
            made[..., channel] = plane - plane.mean()
        return made


def measure_noise(slide: Slide, tissue: TissueMask, mpp: float) -> Noise | None:
    """The noise of an H&E slide's glass at ``mpp``; None where it has none, or too little glass is seen to tell."""
    every = 0
    noisy: list[Floats] = []
    for region in _places(slide, tissue, mpp):
        try:
            he = slide.read(region, mpp)
        except RestainError:
            continue  # A damaged place becomes a hole of the result; others tell the noise.
        windows = glass_windows(he, tissue.glass, WINDOW)
        every += len(windows)
        noisy += [window.astype(np.float32) for window in windows if np.ptp(window, axis=(0, 1)).any()]
    if len(noisy) < max(LEAST_WINDOWS, LEAST_NOISY * every):
        return None
    spread = np.array([window.std(axis=(0, 1)).mean() for window in noisy])
    low, high = np.quantile(spread, LIKE)
    return _noise_of(np.stack([w for w, s in zip(noisy, spread, strict=True) if low <= s <= high]))


def _places(slide: Slide, tissue: TissueMask, mpp: float) -> list[Region]:
    """Squares of 3 x 3 windows, drawn over the glass, away from tissue where there is enough of it."""
    size, side = slide.size_at(mpp), 3 * WINDOW
    away = np.full(tissue.mask.shape, np.inf)
    if tissue.mask.any():
        away = ndimage.distance_transform_edt(~tissue.mask) * tissue.mpp
    if tissue.ink is not None:
        away[tissue.ink] = 0
    for least in (AWAY_UM, tissue.mpp, 0.0):
        rows, columns = np.nonzero(away >= least)
        if len(rows) >= PLACES:
            break
    chosen = np.random.default_rng(0).permutation(len(rows))[:PLACES]
    regions = []
    for row, column in zip(rows[chosen], columns[chosen], strict=True):
        corner = (np.array([column, row]) + 0.5) * tissue.mpp / mpp - side / 2
        x, y = (int(v) for v in np.clip(corner, 0, np.maximum([size.width - side, size.height - side], 0)))
        regions.append(Region(Point(x, y), Size(min(side, size.width - x), min(side, size.height - y))))
    return regions


def _noise_of(windows: Floats) -> Noise:
    """From ``(N, 32, 32, 3)`` of glass."""
    rest = windows - windows.mean(axis=(1, 2), keepdims=True)
    variance = (rest**2).mean(axis=(0, 1, 2))
    green = rest[..., 1]
    beside = ((green[:, 1:] * green[:, :-1]).mean() + (green[..., 1:] * green[..., :-1]).mean()) / 2
    # Faded towards the window's border, where a spectrum would otherwise see a step.
    taper = np.hanning(WINDOW + 2)[1:-1]
    fade = (taper[:, None] * taper)[..., None]
    waves = fft.fft2(rest * fade, axes=(1, 2))
    power = np.einsum("nyxi,nyxj->yxij", waves, waves.conj()).real / (len(windows) * (fade**2).sum())
    power[0, 0] = 0  # The mean was taken out; what the fading put back is no noise.
    values, vectors = np.linalg.eigh(power)
    root = np.einsum("yxik,yxk,yxjk->ijyx", vectors, np.sqrt(values.clip(min=0)), vectors)
    # Shifted, so that the kernel is in one piece when it is set into a larger plane.
    kernel = fft.fftshift(fft.ifft2(root).real, axes=(2, 3))
    # Taking one frequency out and fading change the sum over frequencies a little.
    kernel *= np.sqrt(variance / (kernel**2).sum(axis=(1, 2, 3)).clip(min=1e-12))[:, None, None, None]
    red, green_std, blue = (float(v) for v in np.sqrt(variance))
    correlation = float(beside / max(variance[1], 1e-12))
    return Noise((red, green_std, blue), correlation, len(windows), np.asarray(kernel, np.float32))


class Glass:
    """What a virtual slide shows where there is no stain.

    Args:
        white: ``(3,)`` RGB in [0, 255], on which the virtual stain is rendered.
        he_glass: ``(3,)`` RGB of the H&E's glass.
        mpp: of the virtual slide.
        noise: of the H&E's glass at ``mpp``; None for one exact colour.
        quality: of the JPEG that the slide is kept in, 1 to 100, whose loss of noise is made up for; None for none.
    """

    def __init__(
        self, white: Floats, he_glass: Floats, mpp: float, noise: Noise | None = None, quality: int | None = None
    ) -> None:
        self.white, self.noise = np.asarray(white, np.float32), noise
        self.he_glass = np.asarray(he_glass, np.float32)
        # A table of all intensities, since a logarithm of every pixel takes longer than all else here.
        self._density = optical_density(np.arange(256), he_glass[GREEN])
        self._sigma = SMOOTH_UM / mpp
        self.reach = math.ceil(4 * self._sigma)
        """px of the H&E beyond a pixel that decide whether the pixel is glass."""
        self.gain = 1.0
        self._noise: Floats | None = None
        if noise is not None:
            self._noise = noise.texture(PERIOD)
            if quality is not None:
                self.gain = _gain(self._noise[:512, :512], self.white, quality)
                self._noise *= np.float32(self.gain)

    @property
    def pattern(self) -> Rgb | None:
        """``(PERIOD, PERIOD, 3)``: what a slide of glass alone repeats from its corner on; None for one exact colour."""
        if self._noise is None:
            return None
        return round_to_uint8(self.white + self._noise)

    def add_noise(self, rgb: Floats, region: Region) -> Floats:
        """The noise of the place added where there is hardly any stain: ``(h, w, 3)`` in [0, 255], the same back."""
        if self._noise is None:
            return rgb
        rows = np.arange(region.origin.y, region.bottom) % PERIOD
        columns = np.arange(region.origin.x, region.right) % PERIOD
        noise = self._noise.take(rows, axis=0).take(columns, axis=1)
        return rgb + noise * (1 - self._stained(rgb))[..., None]

    def shown(self, he: Rgb, rgb: Floats, part: tuple[slice, slice] = EVERYTHING) -> Floats:
        """How much of the virtual image shows, ``(h, w)`` in [0, 1]: 0 where both it and the H&E are glass.

        ``rgb`` ``(h, w, 3)`` in [0, 255] lies at ``part`` of ``he`` ``(H, W, 3)``, best with :attr:`reach` px around.
        """
        density = np.abs(ndimage.gaussian_filter(self._density[he[..., GREEN]], self._sigma))
        return np.maximum(_rise(density[part], *BARE_OD), self._stained(rgb))

    def _stained(self, rgb: Floats) -> Floats:
        taken = np.abs(rgb * (1 / self.white) - 1)
        return _rise(np.maximum(np.maximum(taken[..., 0], taken[..., 1]), taken[..., 2]), *FAINT)

    def figures(self) -> dict[str, object] | None:
        """What was measured of the noise, for a report; None for glass without noise."""
        if self.noise is None:
            return None
        return {
            "std": [round(v, 3) for v in self.noise.std],
            "correlation": round(self.noise.correlation, 3),
            "windows": self.noise.windows,
            "gain": round(self.gain, 3),
        }


def _rise(values: Floats, low: float, high: float) -> Floats:
    """0 up to ``low``, 1 from ``high`` on, smooth between."""
    part = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def _gain(noise: Floats, white: Floats, quality: int) -> float:
    """By what the noise has to be raised so that its luminance keeps its standard deviation through JPEG."""
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    wanted = float((noise @ luma).std())
    low, high = 1.0, MOST_GAIN
    for _ in range(7):
        gain = (low + high) / 2
        rgb = round_to_uint8(white + gain * noise)
        kept = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(rgb, level=quality, subsampling="444"))
        low, high = (low, gain) if float((kept @ luma).std()) > wanted else (gain, high)
    return (low + high) / 2
