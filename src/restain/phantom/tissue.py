"""Synthetic breast tissue: cells, their nuclei and their territories, placed into an architecture.

Cells are jittered seeds. The territory of an epithelial cell is what lies nearest to its seed, and a nucleus is an ellipse
with an uneven rim. Tumour cells take size and crowding from the HER2 score of their focus (:mod:`restain.phantom.cells`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from restain.her2 import Her2Level
from restain.images.nuclei import CellKind
from restain.phantom.architecture import (
    DUCT,
    STROMA,
    TUMOUR,
    VESSEL,
    Architecture,
    mask_of_share,
    nearest_seed,
    scatter,
)
from restain.phantom.cells import CELL_UM, NUCLEUS_CV, NUCLEUS_UM, Bools, Cells, Floats, Ints, stain_membranes

MARGIN_UM = 14.0
"""Tissue is grown this far beyond the image, so that its edge cuts cells as in a real image."""
RISING_SHARE = 0.06
"""Greatest share of the tumour that scores one above the level: below the guideline's 10 % of cells."""


@dataclass(frozen=True)
class Tissue:
    """A piece of tissue as arrays ``(H, W)``, and its cells, also those that reach into the image from outside.

    ``territory`` is, for epithelium, one plus the index of the cell that owns the pixel (0 elsewhere); ``nucleus`` the
    same for nuclei of every cell; ``radius`` the distance from the nucleus' centre in nuclear radii; ``cover`` the
    nuclear share of a pixel, in [0, 1]. See :class:`restain.phantom.architecture.Architecture` for the others.
    """

    mpp: float
    style: str
    compartment: NDArray[np.uint8]
    territory: Ints
    nucleus: Ints
    radius: Floats
    cover: Floats
    fibre: Floats
    slit: Floats
    red_cells: Floats
    cells: Cells


def grow_tissue(rng: np.random.Generator, *, level: Her2Level, size: int = 512, mpp: float = 0.46) -> Tissue:
    """Grow ``size`` px squared of tissue, at ``mpp`` µm per px, whose tumour foci mostly score ``level``."""
    margin = round(MARGIN_UM / mpp)
    plan = Architecture(rng, size + 2 * margin, mpp)
    seeds, kind, score = _epithelium(plan, _scores(plan, level))
    loose, loose_kind = _interstitial(plan)
    place = np.concatenate([seeds, loose])
    kind = np.concatenate([kind, loose_kind])
    score = np.concatenate([score, np.zeros(len(loose), dtype=np.int32)])
    diameter = _diameters(rng, kind, score)
    completeness, dab_od = stain_membranes(rng, kind, score, diameter)
    cells = Cells(place[:, 1], place[:, 0], kind, score, diameter, completeness, dab_od)

    epithelial = np.isin(plan.compartment, (TUMOUR, DUCT))
    shift = [plan.px(0.55) * plan.noise(2.2) for _ in range(2)]
    y, x = plan.y, plan.x
    wavy = tuple(np.clip(np.rint(c + s), 0, plan.shape[0] - 1).astype(int) for c, s in zip((y, x), shift, strict=True))
    nothing = np.zeros(plan.shape, dtype=np.int32)
    owner = nearest_seed(seeds, plan.shape)[wavy] if len(seeds) else nothing
    beside = nearest_seed(loose, plan.shape) + len(seeds) if len(loose) else nothing
    nearest = np.where(epithelial, owner, beside)
    there = np.where(epithelial, len(seeds) > 0, len(loose) > 0)

    if len(cells):
        radius, cover = _nuclear_radius(plan, cells, nearest, (y + 0.6 * shift[0], x + 0.6 * shift[1]))
    else:
        radius, cover = np.full(plan.shape, 9.0, dtype=np.float32), np.zeros(plan.shape, dtype=np.float32)
    cover = cover * (there & np.isin(plan.compartment, (TUMOUR, DUCT, STROMA, VESSEL)))
    tissue = Tissue(
        mpp=mpp,
        style=plan.style.name,
        compartment=plan.compartment,
        territory=np.where(epithelial & there, owner + 1, 0).astype(np.int32),
        nucleus=np.where(cover > 0.5, nearest + 1, 0).astype(np.int32),
        radius=radius,
        cover=cover.astype(np.float32),
        fibre=plan.fibre,
        slit=plan.slit,
        red_cells=plan.red,
        cells=cells,
    )
    return _cropped(tissue, margin)


def _scores(plan: Architecture, level: Her2Level) -> Ints:
    """HER2 score of each pixel's focus, ``(H, W)``: mostly the level, some one below, few one above."""
    score = np.full(plan.shape, int(level), dtype=np.int32)
    tumour = plan.compartment == TUMOUR
    foci = plan.noise(24)
    if level > 0:
        score[mask_of_share(foci, tumour, plan.rng.uniform(0.05, 0.18))] -= 1
    if 0 < level < 3:
        score[mask_of_share(-foci, tumour, plan.rng.uniform(0.0, RISING_SHARE))] += 1
    return score


def _epithelium(plan: Architecture, score: Ints) -> tuple[Floats, Ints, Ints]:
    """Seeds of tumour and duct cells: ``(N, 2)`` rows and columns, kinds and scores."""
    tumour, duct = plan.compartment == TUMOUR, plan.compartment == DUCT
    depth = plan.depth_um(tumour)
    found = [scatter(plan.rng, duct & (plan.depth_um(duct) > 2.4), plan.px(7.6))]
    kinds, scores = [CellKind.DUCT], [0]
    for s in np.unique(score[tumour]):
        allowed = tumour & (score == s) & (depth > 0.22 * CELL_UM[s])
        lattice = scatter(plan.rng, allowed, plan.px(CELL_UM[s]))
        found.append(_filled_up(plan, lattice, allowed, 0.72 * plan.px(CELL_UM[s])))
        kinds.append(CellKind.TUMOUR)
        scores.append(int(s))
    found.append(_lone(tumour, depth, np.concatenate(found)))
    kinds.append(CellKind.TUMOUR)
    scores.append(-1)
    count = [len(f) for f in found]
    place = np.concatenate(found).astype(np.float32)
    kind, own = np.repeat(kinds, count).astype(np.int32), np.repeat(scores, count).astype(np.int32)
    row, col = place.astype(int).T
    own = np.where(own < 0, score[row, col], own).astype(np.int32)
    keep = np.ones(len(place), dtype=bool)
    if len(place):
        keep[cKDTree(place).query_pairs(plan.px(6.0), output_type="ndarray")[:, 1]] = False
    return place[keep], kind[keep], own[keep]


def _lone(tumour: Bools, depth: Floats, seeds: Floats) -> Floats:
    """One seed for each nest that got none, at its deepest pixel: no tumour is without a nucleus."""
    nest, count = ndimage.label(tumour)
    row, col = seeds.astype(int).T
    empty = np.setdiff1d(np.arange(1, count + 1), nest[row, col])
    return np.array(ndimage.maximum_position(depth, nest, empty), dtype=np.float32).reshape(-1, 2)


def _filled_up(plan: Architecture, seeds: Floats, allowed: Bools, spacing: float) -> Floats:
    """Add seeds where the lattice left holes, as it does along winding outlines."""
    for _ in range(2):
        more = scatter(plan.rng, allowed, 0.9 * spacing)
        if len(seeds) and len(more):
            more = more[cKDTree(seeds).query(more)[0] > spacing]
        if not len(more):
            break
        late = cKDTree(more).query_pairs(spacing, output_type="ndarray")[:, 1]
        seeds = np.concatenate([seeds, np.delete(more, late, axis=0)]).astype(np.float32)
    return seeds


def _interstitial(plan: Architecture) -> tuple[Floats, Ints]:
    """Seeds of lymphocytes and fibroblasts: ``(N, 2)`` rows and columns, and kinds."""
    stroma = (plan.compartment == STROMA) & (plan.slit < 0.5)
    allowed = stroma & (plan.depth_um(stroma) > 1.6)
    share = max(0.0, plan.rng.normal(plan.style.lymphocytes, 0.08))
    crowd = mask_of_share(plan.noise(26) + 0.4 * plan.noise(7), allowed, share)
    small = [
        scatter(plan.rng, crowd, plan.px(8.0), keep=0.9),
        scatter(plan.rng, allowed & ~crowd, plan.px(30), keep=0.5),
    ]
    spindle = scatter(plan.rng, allowed & ~crowd, plan.px(plan.rng.uniform(13, 19)), keep=0.75)
    place = np.concatenate([*small, spindle])
    kind = np.repeat([CellKind.LYMPHOCYTE, CellKind.FIBROBLAST], [len(place) - len(spindle), len(spindle)])
    return place.astype(np.float32), kind.astype(np.int32)


def _diameters(rng: np.random.Generator, kind: Ints, score: Ints) -> Floats:
    """Nuclear diameter of each cell in µm."""
    spread = rng.normal(0, 1, len(kind)).clip(-2.2, 2.2)
    diameter = NUCLEUS_UM[score] * (1 + spread * NUCLEUS_CV[score])
    others = ((CellKind.DUCT, 5.6, 0.3), (CellKind.LYMPHOCYTE, 5.3, 0.35), (CellKind.FIBROBLAST, 4.7, 0.6))
    for which, mean, sd in others:
        diameter = np.where(kind == which, mean + sd * spread, diameter)
    return diameter.astype(np.float32)


def _nuclear_radius(
    plan: Architecture, cells: Cells, nearest: Ints, at: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Distance of each pixel from its nearest nucleus' centre in nuclear radii, and its nuclear share."""
    rng, kind, count = plan.rng, cells.kind, len(cells)
    row, col = cells.y.astype(int), cells.x.astype(int)
    turn = rng.uniform(0, np.pi, count)
    along = plan.angle[row, col] + rng.normal(0, 0.15, count)
    turn = np.where(kind == CellKind.FIBROBLAST, along, turn)
    turn = np.where(kind == CellKind.DUCT, plan.toward_wall()[row, col], turn).astype(np.float32)
    slender = np.array([1.22, 1.5, 3.6, 1.08], dtype=np.float32)[kind] * rng.uniform(0.92, 1.2, count)
    slender = np.sqrt(np.maximum(slender, 1.0)).astype(np.float32)
    half = cells.diameter_um / 2 / plan.mpp
    dy, dx = at[0] - cells.y[nearest], at[1] - cells.x[nearest]
    cos, sin = np.cos(turn)[nearest], np.sin(turn)[nearest]
    long, short = (half * slender)[nearest], (half / slender)[nearest]
    uneven = 0.05 + 0.02 * cells.score.astype(np.float32)
    radius = np.hypot((dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short)
    radius = (radius * (1 + uneven[nearest] * plan.noise(1.9))).astype(np.float32)
    return radius, np.clip((1 - radius) * short + 0.5, 0, 1).astype(np.float32)


def _cropped(tissue: Tissue, margin: int) -> Tissue:
    """Cut the margin off, and renumber the cells whose nuclei or territories remain."""
    inner = (slice(margin, -margin),) * 2
    size = tissue.compartment.shape[0] - 2 * margin
    cells = tissue.cells
    x, y = cells.x - margin, cells.y - margin
    inside = (x >= 0) & (y >= 0) & (x < size) & (y < size)
    territory, nucleus = tissue.territory[inner], tissue.nucleus[inner]
    # Cells with their centre outside are numbered after those inside, so that their membranes are still drawn.
    order = np.concatenate([np.flatnonzero(inside), np.flatnonzero(~inside)])
    number = np.zeros(len(cells) + 1, dtype=np.int32)
    number[order + 1] = np.arange(1, len(cells) + 1)
    arrays = {k: getattr(tissue, k)[inner] for k in ("compartment", "radius", "cover", "fibre", "slit", "red_cells")}
    moved = replace(cells, x=x.astype(np.float32), y=y.astype(np.float32)).take(order)
    return replace(tissue, territory=number[territory], nucleus=number[nucleus], cells=moved, **arrays)
