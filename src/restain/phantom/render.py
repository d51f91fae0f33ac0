"""Rendering of both sections: stain densities by what each stain binds to, and Beer–Lambert light.

Densities come first (:func:`he_densities`, :func:`counterstain`, :func:`tissue_dab`). The optics blur them, and
:func:`expose` turns them into intensities, both by an :class:`Appearance`. Everything before ``expose`` is truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from restain import optics
from restain.images.nuclei import CellKind
from restain.phantom.architecture import DUCT, FAT, GLASS, LUMEN, STROMA, TUMOUR, VESSEL, borders
from restain.phantom.cells import CLUMPING, CYTOPLASM_SHARE, NUCLEOLI, Cells, Floats, Ints
from restain.phantom.noise import smooth_noise
from restain.phantom.tissue import Tissue

RED_CELL = (0.14, 0.74, 0.66)
"""Absorption of erythrocytes in H&E, an orange red."""
_HE_HEMATOXYLIN = ((0.650, 0.704, 0.286), (0.563, 0.720, 0.406))
_HE_EOSIN = ((0.072, 0.990, 0.105), (0.216, 0.801, 0.558))
"""Ruifrok & Johnston 2001, Macenko et al. 2009 (doi:10.1109/ISBI.2009.5193250): a pair's vectors lie between."""
_IHC_HEMATOXYLIN = (0.660, 0.668, 0.345)
_IHC_DAB = (0.255, 0.560, 0.788)
"""Ruifrok & Johnston's H-DAB with a greyer counterstain and more golden DAB, as in BCI and MIST."""
LUMINAL_OD = 0.07
"""DAB density of the luminal edge of normal ducts."""
MEMBRANE_UM = np.array([0.42, 0.42, 0.46, 0.62], dtype=np.float32)
"""Standard deviation of a stained membrane's profile by HER2 score, in µm."""


@dataclass(frozen=True)
class Appearance:
    """How one section was stained and photographed.

    ``vectors`` are unit absorption vectors, ``strength`` the factor on each stain's density, ``white`` the white point
    (of 255), ``shading`` the relative fall of the illumination over the image. ``blur_um`` and ``noise`` are standard
    deviations, of the optics in µm and of the sensor in grey levels.
    """

    vectors: tuple[tuple[float, float, float], ...]
    strength: tuple[float, ...]
    white: tuple[float, float, float]
    shading: float
    shading_angle: float
    blur_um: float
    noise: float

    def white_field(self, shape: tuple[int, int]) -> Floats:
        """Intensity of glass at each pixel: ``(H, W, 3)``."""
        y, x = np.mgrid[-0.5 : 0.5 : shape[0] * 1j, -0.5 : 0.5 : shape[1] * 1j]
        slope = x * np.cos(self.shading_angle) + y * np.sin(self.shading_angle)
        light = 1 - self.shading * (0.5 + slope / np.sqrt(2))
        return (light[..., None] * np.asarray(self.white)).astype(np.float32)


def _vector(rng: np.random.Generator, base: ArrayLike, spread: float) -> tuple[float, float, float]:
    r, g, b = optics.unit(np.maximum(np.asarray(base) + rng.normal(0, spread, 3), 0.01)).tolist()
    return r, g, b


def _white(rng: np.random.Generator, low: float, tint: float) -> tuple[float, float, float]:
    r, g, b = (255 * np.clip(rng.uniform(low, 0.995) + rng.uniform(-tint, tint, 3), low, 1.0)).tolist()
    return r, g, b


def _camera(
    rng: np.random.Generator, shading: float, blur_um: tuple[float, float], noise: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Shading, its angle, blur and noise, drawn from their ranges."""
    return rng.uniform(0, shading), rng.uniform(0, 2 * np.pi), rng.uniform(*blur_um), rng.uniform(*noise)


def he_appearance(rng: np.random.Generator) -> Appearance:
    """Draw an H&E section's appearance: wide, since laboratories differ."""
    towards = rng.uniform((0.2, 0.5), (0.9, 1.05))
    hema = (1 - towards[0]) * np.array(_HE_HEMATOXYLIN[0]) + towards[0] * np.array(_HE_HEMATOXYLIN[1])
    eosin = (1 - towards[1]) * np.array(_HE_EOSIN[0]) + towards[1] * np.array(_HE_EOSIN[1])
    strong = rng.uniform(0.8, 1.2, 2)
    vectors = (_vector(rng, hema, 0.015), _vector(rng, eosin, 0.02), RED_CELL)
    strength = (float(strong[0]), float(strong[1]), 1.0)
    return Appearance(vectors, strength, _white(rng, 0.90, 0.012), *_camera(rng, 0.04, (0.22, 0.42), (1.0, 2.2)))


def ihc_appearance(rng: np.random.Generator) -> Appearance:
    """Draw an IHC section's appearance: narrow, since H&E cannot tell it. Stains are hematoxylin and DAB."""
    vectors = (_vector(rng, _IHC_HEMATOXYLIN, 0.012), _vector(rng, _IHC_DAB, 0.012))
    strength = (rng.uniform(0.8, 1.2), rng.uniform(0.9, 1.1))
    return Appearance(vectors, strength, _white(rng, 0.935, 0.008), *_camera(rng, 0.015, (0.18, 0.30), (1.2, 1.8)))


def expose(densities: Floats, appearance: Appearance, *, rng: np.random.Generator | None) -> NDArray[np.uint8]:
    """Photograph a section: densities ``(H, W, S)`` of :func:`as_seen` to RGB ``(H, W, 3)``; without ``rng``, no noise."""
    white = appearance.white_field((densities.shape[0], densities.shape[1]))
    light = optics.transmit(optics.mix(densities, appearance.vectors), white)
    if rng is not None:
        light = light + appearance.noise * rng.standard_normal(light.shape, dtype=np.float32)
    return optics.round_to_uint8(light)


def as_seen(densities: Floats, appearance: Appearance, mpp: float) -> Floats:
    """Scale densities ``(H, W, S)`` by the stains' strengths and blur them by the optics."""
    sigma = appearance.blur_um / mpp
    scaled = densities * np.asarray(appearance.strength, dtype=np.float32)
    return np.stack([ndimage.gaussian_filter(c, sigma) for c in np.moveaxis(scaled, -1, 0)], axis=-1)


def he_densities(tissue: Tissue, rng: np.random.Generator) -> Floats:
    """Hematoxylin, eosin and erythrocyte density of the H&E section: ``(H, W, 3)`` in OD units."""
    where, cells, mpp = tissue.compartment, tissue.cells, tissue.mpp
    grain, patch, mottle = (smooth_noise(rng, where.shape, um / mpp) for um in (0.5, 3.0, 30.0))
    tissue_here = np.isin(where, (STROMA, TUMOUR, DUCT, VESSEL)).astype(np.float32)

    # Indexed by compartment: glass, stroma, tumour, duct, lumen, fat, vessel.
    hema = np.array([0, 0.05, 0.165, 0.17, 0, 0, 0.08], dtype=np.float32)[where]
    eosin = np.array([0, 0.29, 0.20, 0.23, 0, 0, 0.38], dtype=np.float32)[where]

    stroma = (where == STROMA) | (where == VESSEL)
    bundle = np.clip(1 + 0.24 * tissue.fibre + 0.09 * grain + 0.12 * mottle, 0.15, 2.2)
    eosin *= np.where(stroma, bundle * (1 - 0.94 * tissue.slit), 1 + 0.14 * patch + 0.12 * grain)
    hema *= np.where(stroma, (1 + 0.3 * patch) * (1 - 0.94 * tissue.slit), 1 + 0.16 * patch + 0.16 * grain)
    if len(cells):
        owner = np.maximum(tissue.territory - 1, 0)
        epithelial = tissue.territory > 0
        own = rng.normal(1.0, 0.10, len(cells)).astype(np.float32)[owner]
        # Higher scores have more, and more eosinophilic, cytoplasm; it clears around the nucleus.
        tone = np.array([0.85, 1.0, 1.12, 1.25], dtype=np.float32)[cells.score][owner]
        eosin = np.where(epithelial, eosin * own * tone, eosin)
        vacuole = np.clip(patch + 0.4 * grain - 1.3, 0, 1) * 0.7
        hema = np.where(epithelial, hema * own * (1 - vacuole), hema)
        eosin = np.where(epithelial, eosin * (1 - vacuole), eosin)
        edge = ndimage.gaussian_filter(borders(tissue.territory).astype(np.float32), 0.35 / mpp)
        eosin += np.where(epithelial, 0.13 * edge, 0)
        hema += np.where(epithelial, 0.03 * edge, 0)

        nucleus, eosin_left = _chromatin(tissue, rng, grain)
        cover = tissue.cover
        hema = hema * (1 - cover) + nucleus * cover
        eosin = eosin * (1 - cover) + eosin_left * cover

    red = tissue.red_cells * 0.62
    secretion = (where == LUMEN) * np.clip(mottle - 0.6, 0, 1) * 0.10
    fat_rim = (where == FAT) * 0.004
    thickness = 1 + 0.07 * mottle
    densities = np.stack(
        [hema * tissue_here * thickness, eosin * tissue_here * thickness + secretion + fat_rim, red], axis=-1
    )
    densities[where == GLASS] = 0
    return densities.astype(np.float32)


def _chromatin(tissue: Tissue, rng: np.random.Generator, grain: Floats) -> tuple[Floats, Floats]:
    """Hematoxylin and eosin density inside nuclei: darker rim, clumps, nucleoli."""
    cells, mpp = tissue.cells, tissue.mpp
    count = len(cells)
    index = np.maximum(tissue.nucleus - 1, 0)
    kind, score = cells.kind, cells.score
    body = np.array([0.82, 0.82, 0.92, 1.12], dtype=np.float32)[kind]
    tumour = kind == CellKind.TUMOUR
    body = np.where(tumour, np.array([0.92, 0.86, 0.76, 0.68], dtype=np.float32)[score], body)
    body = body * rng.normal(1.0, 0.15, count).clip(0.65, 1.45)
    clump = np.where(tumour, CLUMPING[score], 0.12)
    rim = np.where(tumour, np.array([0.10, 0.18, 0.30, 0.42])[score], 0.15)
    coarse = smooth_noise(rng, index.shape, 0.75 / mpp)
    radius = np.clip(tissue.radius, 0, 1.2)
    texture = 1 + clump[index] * (0.8 * coarse + 0.45 * grain) + rim[index] * (radius**3 - 0.4)

    y, x = np.mgrid[0 : index.shape[0], 0 : index.shape[1]].astype(np.float32)
    nucleoli = np.zeros(index.shape, dtype=np.float32)
    for nth in range(2):
        present = tumour & (rng.random(count) < np.clip(NUCLEOLI[score] - nth, 0, 1))
        away, angle = rng.uniform(0.05, 0.5, count), rng.uniform(0, 2 * np.pi, count)
        reach = away * cells.diameter_um / 2 / mpp
        cy, cx = cells.y + reach * np.sin(angle), cells.x + reach * np.cos(angle)
        size = np.array([0.5, 0.55, 0.75, 1.0])[score] / mpp
        blob = np.exp(-0.5 * ((x - cx[index]) ** 2 + (y - cy[index]) ** 2) / size[index] ** 2)
        nucleoli = np.maximum(nucleoli, blob * present[index])
    hema = np.maximum(body[index] * np.clip(texture, 0.3, 1.9), 0) + 0.35 * nucleoli
    return hema.astype(np.float32), (0.10 + 0.35 * nucleoli).astype(np.float32)


def counterstain(tissue: Tissue, rng: np.random.Generator) -> Floats:
    """Hematoxylin density of the IHC section, ``(H, W)`` in OD units: pale nuclei, nearly white stroma."""
    where, cells = tissue.compartment, tissue.cells
    grain = smooth_noise(rng, where.shape, 0.6 / tissue.mpp)
    base = np.array([0, 0.030, 0.050, 0.055, 0, 0, 0.035], dtype=np.float32)[where]
    stroma = (where == STROMA) | (where == VESSEL)
    base *= np.where(stroma, np.clip(1 + 0.28 * tissue.fibre, 0.2, 2) * (1 - 0.9 * tissue.slit), 1 + 0.1 * grain)
    base += 0.07 * tissue.red_cells
    if not len(cells):
        return base
    body = np.array([0.30, 0.31, 0.33, 0.42], dtype=np.float32)[cells.kind]
    body = np.where(cells.kind == CellKind.TUMOUR, np.array([0.33, 0.31, 0.28, 0.26])[cells.score], body)
    nucleus = body[np.maximum(tissue.nucleus - 1, 0)] * (1 + 0.14 * grain + 0.15 * (np.clip(tissue.radius, 0, 1) - 0.6))
    return (base * (1 - tissue.cover) + nucleus * tissue.cover).astype(np.float32)


def membrane_dab(territory: Ints, cells: Cells, cover: Floats, mpp: float, rng: np.random.Generator) -> Floats:
    """DAB density of membranes and cytoplasm, ``(H, W)`` in OD units.

    The pixels of a territory that touch another one are its cell's perimeter. The ``completeness`` share of it that lies
    nearest to the nucleus is stained with ``dab_od``. Scores 2 and 3 have DAB in the cytoplasm as well. ``territory`` and
    ``cover`` are as in :class:`restain.phantom.tissue.Tissue`.
    """
    shape = territory.shape
    dab = np.zeros(shape, dtype=np.float32)
    rows, cols = np.nonzero(borders(territory) & (territory > 0))
    if not len(rows):
        return dab
    owner = territory[rows, cols] - 1
    away = np.hypot(rows - cells.y[owner], cols - cells.x[owner])
    order = np.lexsort((away, owner))
    ranked = owner[order]
    first = np.searchsorted(ranked, ranked, side="left")
    length = np.searchsorted(ranked, ranked, side="right") - first
    share = (np.arange(len(ranked)) - first + 0.5) / length
    stained = order[share < cells.completeness[ranked]]
    grain = 1 + 0.12 * smooth_noise(rng, shape, 0.7 / mpp) + 0.10 * smooth_noise(rng, shape, 2.5 / mpp)
    grain = np.clip(grain, 0.5, 1.5)
    if len(stained):
        bare = np.ones(shape, dtype=bool)
        bare[rows[stained], cols[stained]] = False
        gap, nearest = ndimage.distance_transform_edt(bare, return_indices=True)
        source = territory[nearest[0], nearest[1]] - 1
        width = MEMBRANE_UM[cells.score[source]] / mpp
        dab = (cells.dab_od[source] * np.exp(-0.5 * (gap / width) ** 2)).astype(np.float32)
    owner_map = np.maximum(territory - 1, 0)
    cytoplasm = (CYTOPLASM_SHARE[cells.score] * cells.dab_od)[owner_map] * (territory > 0) * (1 - 0.75 * cover)
    return (np.maximum(dab, cytoplasm) * grain).astype(np.float32)


def tissue_dab(tissue: Tissue, rng: np.random.Generator) -> Floats:
    """DAB density of the IHC section, ``(H, W)`` in OD units: membranes, and the luminal edge of normal ducts."""
    membranes = membrane_dab(tissue.territory, tissue.cells, tissue.cover, tissue.mpp, rng)
    duct = tissue.compartment == DUCT
    if not duct.any():
        return membranes
    gap = ndimage.distance_transform_edt(tissue.compartment != LUMEN) * tissue.mpp
    return np.maximum(membranes, (LUMINAL_OD * np.exp(-0.5 * (gap / 0.9) ** 2) * duct).astype(np.float32))
