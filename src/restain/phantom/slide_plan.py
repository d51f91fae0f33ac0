"""Layout of a phantom slide, drawn from a seed: islands of tissue, folds, pen marks and dust; and its truth on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter
from scipy import ndimage, signal

from restain.errors import RestainError
from restain.files import write_json
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom.deform import Deformation, Distortion, draw_deformation
from restain.slides.geojson import Polygon, Ring, rasterize, write_geojson

Outline = Annotated[
    Ring, PlainValidator(lambda points: np.array(points, float)), PlainSerializer(lambda ring: ring.tolist())
]
"""``(n, 2)`` x, y in px; a list of points in JSON."""
_Level = Annotated[Her2Level, BeforeValidator(Her2Level.parse), PlainSerializer(lambda level: level.text)]
_Size = Annotated[
    Size, PlainValidator(lambda sides: Size(*sides)), PlainSerializer(lambda size: [size.width, size.height])
]

TRUTH = "truth.json"
OUTLINES = "truth.geojson"
NOTE = "synthetic tissue of restain's phantom, never real; its HER2 rule is invented"
INKS: dict[str, tuple[float, float, float]] = {
    "blue": (0.95, 0.42, 0.13),
    "green": (0.90, 0.28, 0.72),
    "black": (1.15, 1.15, 1.10),
}
"""Optical density of a pen's stroke in R, G and B."""

OUTLINE_STEP_UM = 12.0
"""Distance of an outline's points."""
ISLAND_MM2 = 1.5
"""Tissue per island if their number is chosen by area."""
FOLD_UM = 45.0
"""Greatest width of a fold's band."""
PEN_UM = 450.0
"""Width of a pen's stroke; less on small slides."""
DUST_PER_MM2 = 0.3
_DUST_UM = (5.0, 22.0)
_MOST_DUST = 150
_PLAN_SIDE = 480
"""Islands are placed on a grid of this many cells along the longer side."""


@dataclass(frozen=True)
class Island:
    """A piece of tissue: outline in px of level 0, HER2 level and area.

    ``tumour_share`` is the share of its area that is tumour, in the mean over its textures; NaN before they are chosen.
    """

    outline: Outline
    level: _Level
    area_mm2: float
    tumour_share: float = math.nan


@dataclass(frozen=True)
class Fold:
    """A band in which the tissue of an island lies double; its outline may reach beyond the island."""

    outline: Outline
    island: int


@dataclass(frozen=True)
class Mark:
    """A stroke of a pen (``ink`` names its colour) or a speck of dust, with its optical density in R, G and B."""

    outline: Outline
    ink: str
    density: tuple[float, float, float]


@dataclass(frozen=True)
class SlidePlan:
    """Everything that a pair of phantom slides shows. Outlines are in px of the H&E slide, ``dust_ihc`` of the IHC's."""

    size: _Size
    mpp: float
    seed: int
    islands: tuple[Island, ...]
    folds_he: tuple[Fold, ...]
    folds_ihc: tuple[Fold, ...]
    pens: tuple[Mark, ...]
    dust_he: tuple[Mark, ...]
    dust_ihc: tuple[Mark, ...]
    deformation: Deformation

    @property
    def tissue_share(self) -> float:
        """Share of the H&E slide that is tissue."""
        return sum(Polygon(i.outline).area for i in self.islands) / (self.size.width * self.size.height)

    @property
    def level_shares(self) -> dict[Her2Level, float]:
        """Share of the tissue's area at each level that occurs."""
        return _shares((island.level, island.area_mm2) for island in self.islands)

    @property
    def tumour_area_shares(self) -> dict[Her2Level, float]:
        """Share of the tumour's area at each level that occurs."""
        return _shares((island.level, island.area_mm2 * island.tumour_share) for island in self.islands)


def _shares(areas: Iterable[tuple[Her2Level, float]]) -> dict[Her2Level, float]:
    by_level: dict[Her2Level, float] = {}
    for level, area in areas:
        by_level[level] = by_level.get(level, 0.0) + area
    return {level: area / sum(by_level.values()) for level, area in sorted(by_level.items())}


def draw_plan(
    size: Size,
    mpp: float,
    seed: int,
    mixture: Mapping[Her2Level, float],
    islands: int | None,
    tissue_share: float,
    distortion: Distortion | None,
) -> SlidePlan:
    """Draw a slide; see :func:`restain.phantom.write_phantom_slide` for the parameters.

    Without ``islands`` there is one per 1.5 mm² of tissue, 2 to 24, and at least one per level. Islands that do not fit
    shrink: :attr:`SlidePlan.tissue_share` is the actual share. Raises RestainError if there are fewer islands than
    levels or the distortion would fold the section.
    """
    rng = np.random.default_rng([seed, 11])
    wanted = {level: share for level, share in sorted(mixture.items()) if share > 0}
    tissue_mm2 = tissue_share * size.width * size.height * mpp**2 / 1e6
    count = islands if islands is not None else max(len(wanted), min(24, max(2, round(tissue_mm2 / ISLAND_MM2))))
    if count < len(wanted):
        raise RestainError(f"A mixture of {len(wanted)} levels needs at least as many islands, not {count}.")
    levels, shares = _distribute(wanted, count, rng)
    placed = _place(size, mpp, shares * tissue_share, rng)
    found = tuple(
        Island(ring, level, Polygon(ring).area * mpp**2 / 1e6) for ring, level in zip(placed, levels, strict=True)
    )
    deformation = Deformation.identity(size, mpp)
    if distortion is not None:
        try:
            deformation = draw_deformation(distortion, size, mpp, np.random.default_rng([seed, 12]), placed)
        except ValueError as fault:
            raise RestainError(f"The deformation cannot be made: {fault}.") from None
    return SlidePlan(
        size=size,
        mpp=mpp,
        seed=seed,
        islands=found,
        folds_he=_folds(found, mpp, rng),
        folds_ihc=_folds(found, mpp, rng)[:1],
        pens=_pens(found, size, mpp, rng),
        dust_he=_dust(size, mpp, rng),
        dust_ihc=_dust(deformation.target_size, mpp, rng),
        deformation=deformation,
    )


def _distribute(
    wanted: Mapping[Her2Level, float], count: int, rng: np.random.Generator
) -> tuple[list[Her2Level], NDArray[np.float64]]:
    """A level for each island, and its share of the tissue; shares of a level add up to the level's share."""
    total = sum(wanted.values())
    number = {level: 1 for level in wanted}
    for _ in range(count - len(wanted)):
        # The next island goes to the level whose islands are largest.
        number[max(wanted, key=lambda level: wanted[level] / number[level])] += 1
    levels: list[Her2Level] = []
    shares: list[float] = []
    for level, n in number.items():
        parts = rng.uniform(0.7, 1.3, n)
        levels += [level] * n
        shares += list(parts / parts.sum() * wanted[level] / total)
    return levels, np.array(shares)


def _place(size: Size, mpp: float, shares: NDArray[np.float64], rng: np.random.Generator) -> list[Ring]:
    """Outlines that cover ``shares`` of the slide's area and do not touch; all shrink until they fit."""
    scale = max(size.width, size.height) / _PLAN_SIDE
    rows, columns = math.ceil(size.height / scale), math.ceil(size.width / scale)
    for attempt in range(80):
        areas = shares * size.width * size.height * 0.94**attempt
        taken = np.ones((rows, columns), dtype=bool)
        border = max(2, round(0.015 * _PLAN_SIDE))
        taken[border:-border, border:-border] = False
        rings: dict[int, Ring] = {}
        for number in np.argsort(-areas, kind="stable"):
            ring = _outline(float(areas[number]), mpp, rng)
            place = _free_place(taken, ring, scale, rng)
            if place is None:
                break
            rings[int(number)] = ring + place
            taken |= rasterize([Polygon(rings[int(number)])], Size(columns, rows), scale)
        if len(rings) == len(areas):
            return [np.round(rings[number], 2) for number in range(len(areas))]
    raise RestainError(f"{len(shares)} islands of tissue do not fit a slide of {size.width}x{size.height} px.")


def _outline(area: float, mpp: float, rng: np.random.Generator) -> Ring:
    """An irregular smooth outline of ``area`` square px about the origin."""
    radius = math.sqrt(area / np.pi)
    count = int(np.clip(1.4 * 2 * np.pi * radius * mpp / OUTLINE_STEP_UM, 64, 6000))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    order = np.arange(2, max(3, min(120, count // 12)))
    strength = rng.normal(0, 0.20, len(order)) / order**1.15
    ripple = strength[:, None] * np.cos(order[:, None] * angle + rng.uniform(0, 2 * np.pi, len(order))[:, None])
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.exp(ripple.sum(axis=0))[:, None]
    ring[:, 0] *= rng.uniform(1.0, 1.7)
    turn = rng.uniform(0, np.pi)
    ring = ring @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return np.asarray(ring * math.sqrt(area / Polygon(ring).area))


def _free_place(taken: NDArray[np.bool_], ring: Ring, scale: float, rng: np.random.Generator) -> Ring | None:
    """A shift in px that puts the outline on free cells only, or None."""
    gap = 3
    corner = ring.min(axis=0) - gap * scale
    extent = np.ceil((ring.max(axis=0) - corner) / scale).astype(int) + gap
    if extent[0] > taken.shape[1] or extent[1] > taken.shape[0]:
        return None
    mask = rasterize([Polygon(ring - corner)], Size(*map(int, extent)), scale)
    mask = ndimage.binary_dilation(mask, iterations=gap)
    overlap = signal.fftconvolve(taken.astype(np.float64), mask[::-1, ::-1].astype(np.float64), mode="valid")
    free = np.argwhere(overlap < 0.5)
    if not len(free):
        return None
    row, column = free[rng.integers(len(free))]
    return np.array([column, row]) * scale - corner


def _folds(islands: tuple[Island, ...], mpp: float, rng: np.random.Generator) -> tuple[Fold, ...]:
    """A band across every third island, from its border inwards."""
    found = []
    for number in rng.permutation(len(islands))[: max(1, len(islands) // 3)]:
        outline = islands[number].outline
        middle = outline.mean(axis=0)
        start = outline[rng.integers(len(outline))]
        end = middle + (middle - start) * rng.uniform(-0.2, 0.6)
        t = np.linspace(0, 1, 40)
        bow = rng.uniform(-0.15, 0.15) * np.sin(np.pi * t) + 0.02 * np.sin(9 * t + rng.uniform(0, 6))
        along = end - start
        line = start + t[:, None] * along + bow[:, None] * np.array([-along[1], along[0]])
        radius = math.sqrt(islands[number].area_mm2 * 1e6 / np.pi) / mpp
        width = min(FOLD_UM / mpp, 0.12 * radius) * rng.uniform(0.6, 1.0)
        taper = np.sqrt(np.clip(1.02 - t, 0, 1)) * (1 + 0.25 * np.sin(14 * t + rng.uniform(0, 6)))
        found.append(Fold(_band(line, width * taper), int(number)))
    return tuple(found)


def _pens(islands: tuple[Island, ...], size: Size, mpp: float, rng: np.random.Generator) -> tuple[Mark, ...]:
    """An arc about one island that touches it here and there, and a stroke beside."""
    width = min(PEN_UM / mpp, 0.03 * min(size.width, size.height))
    inks = list(rng.permutation(list(INKS)))
    island = islands[rng.integers(len(islands))]
    middle = island.outline.mean(axis=0)
    away = np.hypot(*(island.outline - middle).T)
    first, span = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.1) * np.pi
    angle = first + np.linspace(0, span, 60)
    radius = float(np.quantile(away, 0.8)) * (1.02 + 0.05 * np.sin(3 * (angle - first)))
    arc = middle + np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    start = rng.uniform((0.1, 0.1), (0.9, 0.9)) * (size.width, size.height)
    turn, length = rng.uniform(0, 2 * np.pi), 0.12 * min(size.width, size.height)
    t = np.linspace(-1, 1, 24)
    stroke = start + length * np.stack(
        [np.cos(turn) * t - 0.15 * t**2 * np.sin(turn), np.sin(turn) * t + 0.15 * t**2 * np.cos(turn)], axis=1
    )
    return tuple(
        Mark(_band(line, width * (1 + 0.08 * np.sin(np.linspace(0, 9, len(line))))), str(ink), INKS[str(ink)])
        for line, ink in ((arc, inks[0]), (stroke, inks[1]))
    )


def _dust(size: Size, mpp: float, rng: np.random.Generator) -> tuple[Mark, ...]:
    area = size.width * size.height * mpp**2 / 1e6
    found = []
    for _ in range(min(_MOST_DUST, 3 + round(DUST_PER_MM2 * area))):
        angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        radius = rng.uniform(*_DUST_UM) / mpp * rng.uniform(0.6, 1.2, len(angle))
        ring = np.stack([np.cos(angle) * rng.uniform(0.4, 1), np.sin(angle)], axis=1) * radius[:, None]
        place = rng.uniform((0, 0), (size.width, size.height))
        grey = rng.uniform(0.2, 0.7)
        found.append(Mark(np.round(ring + place, 2), "dust", (grey, grey * 1.05, grey * 1.2)))
    return tuple(found)


def _band(line: NDArray[np.float64], width: NDArray[np.float64]) -> Ring:
    """The outline of a line of the given width at each of its points."""
    along = np.gradient(line, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.hypot(*along.T)[:, None]
    half = across * np.maximum(width, 1e-3)[:, None] / 2
    return np.round(np.concatenate([line + half, (line - half)[::-1]]), 2)


_PLAN = TypeAdapter(SlidePlan)


@dataclass(frozen=True)
class SlideTruth:
    """The truth of the phantom slide pair in ``folder``.

    ``plan`` holds islands, folds, pen marks, dust and deformation; ``parameters`` what the pair was made with; ``files``
    the slides' names (keys ``he``, ``ihc``, ``ihc-registered``, ``dab``); ``appearance`` the stain vectors, white points
    and so on of ``he`` and ``ihc``; ``version`` that of restain.
    """

    folder: Path
    plan: SlidePlan
    parameters: dict[str, Any]
    files: dict[str, str]
    appearance: dict[str, Any]
    version: str

    def describe(self) -> str:
        """Three lines for the command line."""
        plan = self.plan
        shares = ", ".join(f"{level.text} {share:.1%}" for level, share in plan.level_shares.items())
        return (
            f"{self.folder}: {', '.join(sorted(self.files.values()))} ({plan.size.width}x{plan.size.height} px at "
            f"{plan.mpp:g} µm)\n{len(plan.islands)} islands; tissue {plan.tissue_share:.1%} of the slide, of which "
            f"{shares}\n{NOTE}"
        )


def write_slide_truth(truth: SlideTruth) -> None:
    """Write ``truth.geojson``, then ``truth.json``, which marks the pair as complete.

    Raises RestainError if they cannot be written.
    """
    plan = truth.plan
    write_geojson(truth.folder / OUTLINES, [Polygon(island.outline) for island in plan.islands])

    def texts(shares: dict[Her2Level, float]) -> dict[str, float]:
        return {level.text: share for level, share in shares.items()}

    content = {
        "note": NOTE,
        "restain": truth.version,
        "parameters": truth.parameters,
        "files": truth.files,
        "tissue_share": plan.tissue_share,
        "level_shares": texts(plan.level_shares),
        "tumour_area_shares": texts(plan.tumour_area_shares),
        **_PLAN.dump_python(plan, mode="json"),
        "appearance": truth.appearance,
    }
    write_json(truth.folder / TRUTH, content)


def read_slide_truth(folder: Path) -> SlideTruth:
    """Read what :func:`restain.phantom.write_phantom_slide` wrote into ``folder``.

    Raises RestainError if there is no truth of a phantom slide pair, or it is damaged.
    """
    path = folder / TRUTH
    try:
        values = json.loads(path.read_bytes())
    except OSError:
        raise RestainError(f"{folder} holds no finished phantom slide pair: it has no readable {TRUTH}.") from None
    except ValueError:
        raise RestainError(f"{path} is damaged: it is not valid JSON.") from None
    try:
        return SlideTruth(
            folder=folder,
            plan=_PLAN.validate_python(values),
            parameters=dict(values["parameters"]),
            files=dict(values["files"]),
            appearance=dict(values["appearance"]),
            version=str(values["restain"]),
        )
    except (LookupError, TypeError, ValueError, RestainError):
        raise RestainError(f"{path} is not the truth of a phantom slide pair.") from None
