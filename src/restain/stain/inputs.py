"""Inputs of staining: a file, an array, a Pillow image or an open slide, all as a slide."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import same_mpp
from restain.images import Rgb
from restain.images.scale import COARSEST_MPP
from restain.progress import Progress
from restain.slides import Slide, open_slide
from restain.slides.source_picture import ArraySource
from restain.stain.options import StainOptions
from restain.stain.provenance import digest

Image = str | Path | Slide | NDArray[Any] | PIL.Image.Image
"""What can be stained. A path may end in ``#N``, the number of one of several images in a file."""


@dataclass(frozen=True)
class InputImage:
    """An open image: ``source`` names it in messages and results; ``mpp_assumed`` if nothing stated its mpp."""

    slide: Slide
    source: Path
    mpp_assumed: bool
    rgb: Rgb | None = None

    def digest(self, progress: Progress | None = None) -> str:
        """SHA-256 of the file, or of shape and pixels of an array. Raises RestainError if the file cannot be read."""
        if self.rgb is None:
            return digest(self.slide.path, progress)
        return hashlib.sha256(str(self.rgb.shape).encode() + self.rgb.tobytes()).hexdigest()


@contextmanager
def open_input(image: Image, mpp: float, options: StainOptions) -> Iterator[InputImage]:
    """Open an image; an open slide stays open.

    A picture or array without an mpp, of its own or in the options, is taken as being at ``mpp``, the model's. Raises
    RestainError if it cannot be read, is no 8-bit RGB image and cannot be made one exactly, states another mpp than the
    options, or is a slide without an mpp.
    """
    if isinstance(image, str | Path):
        path = Path(image)
        with open_slide(path, options.mpp, override_mpp=options.override_mpp) as slide:
            yield _input(slide, path, mpp)
    elif isinstance(image, Slide):
        yield _input(_at(image, options), image.path, mpp)
    else:
        own = None
        if isinstance(image, PIL.Image.Image):
            own, image = _mpp_of(image), _oriented(image)
        rgb = as_rgb(image)
        yield _input(_at(Slide(ArraySource(rgb, own)), options), Path("array"), mpp, rgb)


def _input(slide: Slide, source: Path, mpp: float, rgb: Rgb | None = None) -> InputImage:
    assumed = not slide.has_mpp and (slide.is_picture or rgb is not None)
    return InputImage(slide.taken_at(mpp) if assumed else slide, source, assumed, rgb)


def _at(slide: Slide, options: StainOptions) -> Slide:
    if options.mpp is None:
        return slide
    if slide.has_mpp and not options.override_mpp and not same_mpp(slide.mpp, options.mpp):
        raise RestainError(
            f"{slide.path} states {slide.mpp:g} µm per px, and {options.mpp:g} were given; override_mpp takes those given."
        )
    return slide.taken_at(options.mpp)


def as_rgb(image: Any) -> Rgb:
    """An array, or a picture of Pillow, as ``(H, W, 3)`` ``uint8`` RGB, where that is exact.

    Grey gets three equal channels, an alpha channel that is opaque everywhere is dropped, and floats in [0, 1] are scaled
    to 255 and rounded.

    Raises RestainError if the image is something else: 16 bit, floats outside [0, 1], transparent, channels first.

    Example:
        >>> as_rgb(np.full((1, 1), 0.2)).tolist()
        [[[51, 51, 51]]]
    """
    if isinstance(image, PIL.Image.Image):
        if image.mode not in ("RGB", "RGBA", "L", "LA"):
            raise RestainError(f"The picture has mode {image.mode}; convert it to RGB of 8 bit.")
        image = np.asarray(image)
    if not isinstance(image, np.ndarray):
        raise RestainError(
            f"{type(image).__name__} is no image: give a path, an array, a picture of Pillow or a slide."
        )
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        hint = "; its channels come first, and must be last" if image.ndim == 3 and image.shape[0] in (1, 3, 4) else ""
        raise RestainError(f"An array of shape {image.shape} is no image of shape (H, W, 3){hint}.")
    if image.dtype.kind == "f":
        # NaN is not within the limits either.
        if not (image.min() >= 0 and image.max() <= 1):
            raise RestainError("A float image has values within [0, 1] alone; this one has others.")
        image = np.rint(image.astype(np.float64) * 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise RestainError(f"An array of {image.dtype} is no 8-bit image; give uint8, or floats within [0, 1].")
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.shape[2] in (2, 4):
        if (pixels[..., -1] != 255).any():
            raise RestainError("The image has transparent pixels; lay it on a background first.")
        pixels = pixels[..., :-1]
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _mpp_of(picture: PIL.Image.Image) -> float | None:
    dpi = picture.info.get("dpi")
    if not isinstance(dpi, tuple) or len(dpi) != 2 or min(dpi) <= 0:
        return None
    across, down = (25400 / float(value) for value in dpi)
    if min(across, down) >= COARSEST_MPP:
        return None
    if not same_mpp(across, down):
        raise RestainError(f"The picture's pixels are not square ({across:g} by {down:g} µm).")
    return across


def _oriented(picture: PIL.Image.Image) -> PIL.Image.Image:
    return PIL.ImageOps.exif_transpose(picture) or picture
