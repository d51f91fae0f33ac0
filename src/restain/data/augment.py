"""Paired augmentation: one geometry for both images, stain jitter for the H&E only.

Geometry is cropping, mirroring and rotation. Stain jitter varies the strength and hue of each stain and the white point, as
laboratories and scanners do. It works in optical density, as in Tellez et al., "Whole-slide mitosis detection in H&E breast
histology using PHH3 as a reference to train distilled stain-invariant convolutional networks", *IEEE Trans Med Imaging*
37:2126, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from restain.errors import RestainError
from restain.images import Rgb
from restain.optics import EOSIN, EPS, HEMATOXYLIN, unit
from restain.recipe import AugmentRecipe

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Geometry:
    """One random crop, mirroring and rotation, for every image of a pair.

    The window of ``crop`` px has its centre at ``(x, y)`` in pixel-centre coordinates and is interpolated if ``degrees``, its
    counter-clockwise rotation, is not 0. It is then rotated by ``quarters`` times 90° counter-clockwise and, with ``mirror``,
    flipped left to right.
    """

    crop: int
    x: float
    y: float
    degrees: float = 0.0
    quarters: int = 0
    mirror: bool = False

    def apply(self, image: Array) -> Array:
        """``(H, W)`` or ``(H, W, C)`` of any type to ``(crop, crop)`` or ``(crop, crop, C)``.

        Interpolation is bilinear for ``uint8`` and floats, nearest for other types (labels, masks), and reflects at borders.
        """
        window = self._rotated(image) if self.degrees else self._cut(image)
        window = np.rot90(window, self.quarters)
        return np.ascontiguousarray(window[:, ::-1] if self.mirror else window)

    def _cut(self, image: Array) -> Array:
        half = (self.crop - 1) / 2
        left, top = round(self.x - half), round(self.y - half)
        return image[top : top + self.crop, left : left + self.crop]

    def _rotated(self, image: Array) -> Array:
        angle, half = np.deg2rad(self.degrees), (self.crop - 1) / 2
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        offset = np.array([self.y, self.x]) - matrix @ np.array([half, half])
        order = 1 if image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating) else 0
        planes = image[..., None] if image.ndim == 2 else image
        rotated = np.empty((self.crop, self.crop, planes.shape[2]), image.dtype)
        for channel in range(planes.shape[2]):
            rotated[..., channel] = ndimage.affine_transform(
                planes[..., channel], matrix, offset, (self.crop, self.crop), order=order, mode="reflect"
            )
        return rotated[..., 0] if image.ndim == 2 else rotated


def draw_geometry(shape: Sequence[int], crop: int, recipe: AugmentRecipe, rng: np.random.Generator) -> Geometry:
    """Draw a geometry for images of ``shape`` ``(H, W, ...)``; a rotated window stays inside the image if it fits.

    Raises:
        RestainError: if the image is smaller than ``crop``.
    """
    height, width = shape[0], shape[1]
    if min(height, width) < crop:
        raise RestainError(
            f"an image of {width}x{height} px is smaller than the training crop of {crop} px (data.crop)."
        )
    degrees = float(rng.uniform(0.0, 360.0)) if recipe.rotate == "any" else 0.0
    quarters = int(rng.integers(4)) if recipe.rotate == "quarter" else 0
    mirror = bool(recipe.flip and rng.random() < 0.5)
    # A mirrored half turn is a vertical flip, so two random bits give all flips without rotation.
    quarters += 2 if recipe.flip and rng.random() < 0.5 else 0
    if not degrees:
        left, top = int(rng.integers(width - crop + 1)), int(rng.integers(height - crop + 1))
        half = (crop - 1) / 2
        return Geometry(crop, left + half, top + half, 0.0, quarters % 4, mirror)
    angle = np.deg2rad(degrees)
    reach = (crop - 1) / 2 * (abs(np.cos(angle)) + abs(np.sin(angle)))
    x, y = (_centre(length, float(reach), rng) for length in (width, height))
    return Geometry(crop, x, y, degrees, quarters % 4, mirror)


def _centre(length: int, reach: float, rng: np.random.Generator) -> float:
    slack = max(0.0, (length - 1) / 2 - reach)
    return (length - 1) / 2 + slack * float(rng.uniform(-1.0, 1.0))


def augment_pair(
    he: Rgb,
    ihc: Rgb,
    crop: int,
    recipe: AugmentRecipe,
    rng: np.random.Generator,
    extra: Sequence[Array] = (),
) -> tuple[Array, ...]:
    """Cut one training crop of ``crop`` px from a pair, ``(H, W, 3)`` ``uint8`` RGB each, and augment it.

    ``extra`` are further ``(H, W)`` or ``(H, W, C)`` arrays (truth maps, masks). All have the same geometry; stain jitter
    changes the H&E only. ``rng`` is the only source of randomness.

    Returns:
        ``(he, ihc, *extra)``, each ``crop`` px square.

    Raises:
        RestainError: if the images are smaller than ``crop`` or their sizes differ.
    """
    for other in (ihc, *extra):
        if other.shape[:2] != he.shape[:2]:
            raise RestainError(
                f"the images of a pair differ in size: {he.shape[:2]} and {other.shape[:2]} (rows, columns)."
            )
    geometry = draw_geometry(he.shape, crop, recipe, rng)
    return (
        jitter_he(geometry.apply(he), recipe, rng),
        geometry.apply(ihc),
        *(geometry.apply(array) for array in extra),
    )


def jitter_he(he: Rgb, recipe: AugmentRecipe, rng: np.random.Generator, white: float = 255.0) -> Rgb:
    """Vary an H&E image's stains at random by :func:`vary_he`.

    Each stain's density is scaled by ``1 ± he_stain``, each component of each stain vector moved by up to ``he_hue``, and the
    white point darkened by up to ``he_white`` per channel. ``rng`` always draws 11 numbers.
    """
    strength = 1.0 + recipe.he_stain * rng.uniform(-1.0, 1.0, 2)
    shift = recipe.he_hue * rng.uniform(-1.0, 1.0, (2, 3))
    dimmed = 1.0 - recipe.he_white * rng.random(3)
    return vary_he(he, strength, shift, dimmed, white)


def vary_he(
    he: Rgb,
    strength: ArrayLike = (1.0, 1.0),
    shift: ArrayLike = 0.0,
    dimmed: ArrayLike = 1.0,
    white: float = 255.0,
) -> Rgb:
    """Change an H&E image's stains in optical density.

    With ``M`` the rows hematoxylin, eosin and their normal (the residual), a pixel's densities are ``OD · M⁻¹``. Each stain's
    density is scaled and its vector moved, and the residual stays, all by one 3x3 map of OD. The white point is then scaled.

    Args:
        he: ``(H, W, 3)`` ``uint8`` RGB.
        strength: factors of the hematoxylin and the eosin density.
        shift: added to the unit absorption vectors of hematoxylin and eosin, ``(2, 3)`` by broadcasting.
        dimmed: factor of the white point, one number or one per channel.
        white: intensity of unstained glass ``I0``; pixels of this value change with ``dimmed`` only.

    Returns:
        ``uint8`` of the same shape.
    """
    factors, shift = np.asarray(strength, dtype=np.float64), np.asarray(shift, dtype=np.float64)
    new_white = white * np.asarray(dimmed, dtype=np.float64)
    stains = unit([HEMATOXYLIN, EOSIN]).astype(np.float64)
    normal = unit(np.cross(stains[0], stains[1]))
    # A stain that amplifies light does not exist, and an all-zero vector has no direction.
    moved = unit(np.maximum(stains + shift, 1e-3)) if shift.any() else stains
    before = np.vstack([stains, normal])
    after = np.vstack([moved * factors[:, None], normal])
    change = (np.linalg.inv(before) @ after).astype(np.float32)

    grey_log = np.log((np.arange(256, dtype=np.float32) + EPS) / (white + EPS)).astype(np.float32)
    log_light = np.take(grey_log, he.reshape(-1, 3)) @ change
    light = np.exp(log_light, out=log_light)
    light *= (new_white + EPS).astype(np.float32)
    light += 0.5 - EPS
    return np.clip(light, 0.0, 255.0, out=light).astype(np.uint8).reshape(he.shape)
