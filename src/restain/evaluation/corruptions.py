"""Inputs that must be flagged, made from good H&E images: the faults that a laboratory meets, with known answer.

Every function is deterministic in its arguments; sizes are in micrometres, so that a fault means the same at every mpp.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.transform import resize

from restain.optics import optical_density, round_to_uint8, transmit

Rgb = NDArray[np.uint8]
Rng = np.random.Generator

BLUR_UM = 1.5
"""Standard deviation of the defocus blur, in micrometres: about the width of a cell membrane."""

RUINED_QUALITY = 5
"""JPEG quality of the ruined copy, on libjpeg's scale of 1 to 100."""

PENS = {"blue": (1.4, 1.0, 0.25), "green": (1.2, 0.45, 0.9), "black": (1.5, 1.5, 1.5), "red": (0.15, 1.2, 1.0)}
"""Optical density (R, G, B) of marker inks on glass; restain's own choice."""


def blurred(he: Rgb, mpp: float) -> Rgb:
    """Out of focus everywhere: a Gaussian of ``BLUR_UM`` over the light, ``(H, W, 3)`` to the same."""
    sigma = BLUR_UM / mpp
    return round_to_uint8(ndimage.gaussian_filter(he.astype(np.float32), (sigma, sigma, 0)))


def half_blurred(he: Rgb, mpp: float, rng: Rng) -> Rgb:
    """Out of focus on one of the four sides of the middle, as where a section lies in folds."""
    height, width = he.shape[:2]
    side = int(rng.integers(4))
    along = np.linspace(-1, 1, height)[:, None] if side < 2 else np.linspace(-1, 1, width)[None, :]
    share = np.clip((along if side % 2 else -along) * 8 + 0.5, 0, 1)[..., None]
    return round_to_uint8(share * blurred(he, mpp) + (1 - share) * he)


def pen_marked(he: Rgb, rng: Rng) -> Rgb:
    """A stroke of a marker from one side to the other, a sixth to a third of the picture wide, in one of four inks."""
    height, width = he.shape[:2]
    ink = np.asarray(list(PENS.values())[int(rng.integers(len(PENS)))])
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle, offset, bend = rng.uniform(0, np.pi), rng.uniform(-0.35, 0.35), rng.uniform(-0.3, 0.3)
    across = x * np.cos(angle) + y * np.sin(angle) - offset
    along = y * np.cos(angle) - x * np.sin(angle)
    distance = np.abs(across + bend * along**2)
    half = rng.uniform(1 / 6, 1 / 3)
    cover = np.clip((half - distance) / 0.02, 0, 1)
    streaks = 1 + 0.1 * np.sin(across * 90) * np.cos(along * 3)
    return round_to_uint8(transmit(optical_density(he) + (cover * streaks)[..., None] * ink))


def glass_only(he: Rgb, rng: Rng) -> Rgb:
    """The slide beside the tissue: unevenly lit glass with read-out noise and dust, of the same size."""
    height, width = he.shape[:2]
    white = rng.uniform(235, 248) + rng.uniform(-4, 4, 3)
    slope = np.linspace(-1, 1, width)[None, :] * rng.uniform(-4, 4) + np.linspace(-1, 1, height)[:, None]
    light = white + slope[..., None] + rng.normal(0, 1.0, he.shape)
    dust = ndimage.gaussian_filter((rng.random((height, width)) > 0.9999).astype(np.float64), 2.0)
    return round_to_uint8(light * (1 - np.clip(dust * 10, 0, 0.5))[..., None])


def jpeg(rgb: Rgb, quality: int) -> Rgb:
    """The image after a JPEG of this quality (1 to 100) with 4:2:0 chroma, libjpeg's tables."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality, subsampling=2)
    return np.array(Image.open(buffer).convert("RGB"))


def magnified(he: Rgb) -> Rgb:
    """Twice the magnification that was said: the middle quarter, enlarged to the picture's size."""
    height, width = he.shape[:2]
    middle = he[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return round_to_uint8(resize(middle, (height, width), order=3, preserve_range=True, mode="reflect"))


def reduced(he: Rgb) -> Rgb:
    """Half the magnification that was said: halved, and mirrored at the right and bottom to the picture's size."""
    height, width = he.shape[:2]
    small = round_to_uint8(
        resize(he, (-(-height // 2), -(-width // 2)), order=1, anti_aliasing=True, preserve_range=True)
    )
    return np.pad(small, ((0, height - small.shape[0]), (0, width - small.shape[1]), (0, 0)), mode="symmetric")


def scrambled(he: Rgb, rng: Rng) -> Rgb:
    """No tissue, in the colours of this one: the image's spectrum with random phases, in optical density.

    Mean, contrast and the correlations between channels, pixels and colours stay (Galerne, Gousseau & Morel, "Random
    phase textures: theory and synthesis", *IEEE Trans Image Process* 20:257, 2011); what is lost is every shape.
    """
    od = optical_density(he).astype(np.float64)
    noise = np.angle(np.fft.fft2(rng.normal(size=od.shape[:2])))
    spectrum = np.fft.fft2(od, axes=(0, 1)) * np.exp(1j * noise)[..., None]
    spectrum[0, 0] = od.sum(axis=(0, 1))
    return round_to_uint8(transmit(np.fft.ifft2(spectrum, axes=(0, 1)).real))


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind of input that must be flagged."""

    key: str
    title: str
    make: Callable[[Rgb, Rgb, float, Rng], Rgb]
    """From the H&E, its IHC, the mpp and a source of randomness."""
    keeps_place: bool = False
    """Whether every pixel still shows the same tissue, so that the real IHC image says what the answer should be."""


CORRUPTIONS = (
    Corruption("blurred", "out of focus", lambda he, _, mpp, __: blurred(he, mpp), keeps_place=True),
    Corruption(
        "half_blurred", "half of it out of focus", lambda he, _, mpp, rng: half_blurred(he, mpp, rng), keeps_place=True
    ),
    Corruption("pen", "pen mark", lambda he, _, __, rng: pen_marked(he, rng), keeps_place=True),
    Corruption("ihc", "IHC instead of H&E", lambda _, ihc, __, ___: ihc, keeps_place=True),
    Corruption("glass", "glass only", lambda he, _, __, rng: glass_only(he, rng)),
    Corruption(
        "jpeg", f"JPEG of quality {RUINED_QUALITY}", lambda he, _, __, ___: jpeg(he, RUINED_QUALITY), keeps_place=True
    ),
    Corruption("magnified", "magnification twice what was said", lambda he, _, __, ___: magnified(he)),
    Corruption("reduced", "magnification half of what was said", lambda he, _, __, ___: reduced(he)),
    Corruption("scrambled", "no tissue, in H&E's colours", lambda he, _, __, rng: scrambled(he, rng)),
)
"""In the order of the tables. Real pictures of other tissue are given by the caller."""
