"""``restain explain IMAGE``: which H&E evidence drives a level, and the DAB at chosen places, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from restain.bundle import Bundle, load_bundle
from restain.data.normalization import picture_normalizer
from restain.errors import RestainError
from restain.explain import maps, page
from restain.explain.attention import AttentionFigures, AttentionMap
from restain.explain.attribution import Attribution, Baseline
from restain.explain.classes import ClassShare, class_shares, find_classes
from restain.explain.faithfulness import smoothed
from restain.explain.targets import DISC_UM, dab_map, disc_mask
from restain.files import make_folder
from restain.geometry import Point, Region, same_mpp
from restain.her2 import Her2Level
from restain.models.blocks import channels_last
from restain.models.tensors import batch_of
from restain.progress import Progress, Steps
from restain.slides import open_slide
from restain.slides.find import stem_of
from restain.slides.slide import LARGEST_PICTURE

LEAST_SIDE = 32
"""Least side of an image in px at the model's mpp: one occluding patch, and one step of the larger backbone."""


@dataclass(frozen=True)
class MapResult:
    """A map on the page: its picture, value at full colour, completeness, and shares per class."""

    method: str
    picture: str
    top: float
    completeness: float | None
    classes: list[ClassShare]


@dataclass(frozen=True)
class LevelResult:
    """The explained level of the window."""

    explained: str
    predicted: str
    probabilities: dict[str, float]
    he: str
    maps: list[MapResult]

    @property
    def sentence(self) -> str:
        return (
            f"The classifier predicts {self.predicted} for the window (probability "
            f"{self.probabilities[self.predicted]:.2f}); the logit of {self.explained} is explained. "
            f"{preferred_classes(self.maps)}"
        )


@dataclass(frozen=True)
class AttentionResult(AttentionFigures):
    """Attention at one level, with its pictures: mean over heads, and each head."""

    picture: str
    heads_picture: str


@dataclass(frozen=True)
class PointResult:
    """The explained DAB of a place."""

    point_px: tuple[int, int]
    window_corner_px: tuple[int, int]
    dab_od: float
    he: str
    virtual: str
    maps: list[MapResult]
    classes_of_dab: list[ClassShare]
    attention: list[AttentionResult]

    @property
    def sentence(self) -> str:
        little = (
            ""
            if self.dab_od >= maps.LEAST_DAB
            else f" (below {maps.LEAST_DAB:g} OD there is almost nothing to explain)"
        )
        mean = f"the model's mean DAB over {DISC_UM:g} µm is {self.dab_od:.3f} OD{little}"
        return f"At {self.point_px[0]},{self.point_px[1]}: {mean}. {preferred_classes(self.maps)}"


@dataclass(frozen=True)
class ImageResult:
    """All that the page shows."""

    image: str
    mpp: float
    window_px: tuple[int, int]
    level: LevelResult | None
    points: list[PointResult]
    sentences: list[str]


def explain_image(
    source: Path,
    out: Path,
    *,
    model: str | Path | None = None,
    points: Sequence[Point] = (),
    level: Her2Level | None = None,
    mpp: float | None = None,
    override_mpp: bool = False,
    baseline: Baseline = "glass",
    window: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> page.ExplainReport:
    """Explain one image; writes ``explain.html``, ``explain.json`` and the overlays as PNG into ``out``.

    The level is explained on a window around the first point, or the middle; the DAB of each point on a smaller window
    around it. Without points, the place with the highest DAB of the window is taken.

    Args:
        model: a bundle; None for the shipped one.
        points: places in ``source``'s px whose DAB is explained.
        level: the level whose logit is explained; None for the predicted one.
        mpp: µm per px of ``source`` where it states none; None for the model's. Another mpp is resampled.
        override_mpp: use ``mpp`` also where the file states another.
        baseline: image without evidence, see :mod:`restain.explain.attribution`.
        window: side of both windows in px at the model's mpp; None for 256 (level) and 192 (DAB).

    Raises RestainError if the image or the bundle cannot be read, a point lies outside the image, the model has no
    classifier for ``level``, the image is too small, or ``out`` cannot be written.
    """
    bundle = load_bundle(model)
    he, points = _at_model(source, points, mpp, override_mpp, bundle.card.mpp)
    he = picture_normalizer(bundle.recipe)(he)
    network = channels_last(bundle.generator).eval()
    classifier = network.expression
    if classifier is None and level is not None:
        raise RestainError(f"{bundle.path}: the model has no label feature, so it has no level to explain.")
    scale, size = bundle.card.mpp, f"{he.shape[1]}x{he.shape[0]} px at the model's {bundle.card.mpp:g} µm/px"
    if min(he.shape[:2]) < LEAST_SIDE:
        raise RestainError(f"{source} is {size}; an explanation needs at least {LEAST_SIDE} px.")
    make_folder(out)

    middle = points[0] if points else Point(he.shape[1] // 2, he.shape[0] // 2)
    region = maps.window_around(he.shape, middle, window or maps.LEVEL_WINDOW)
    places = list(points) or [_most_stained(bundle, maps.cut(he, region), region.origin)]
    windows = [maps.window_around(he.shape, place, window or maps.DAB_WINDOW) for place in places]
    level_calls = 0 if classifier is None else maps.LEVEL_EFFORT.calls(region.size)
    calls = Steps(level_calls + sum(maps.DAB_EFFORT.calls(one.size) for one in windows), progress)

    stem, shown_level, shown_points = stem_of(source), None, []
    if classifier is not None:
        found = maps.explain_level(classifier, maps.cut(he, region), scale, calls, level=level, baseline=baseline)
        shown_level = _level_result(found, scale, out, f"{stem}.level")
    for number, (place, own) in enumerate(zip(places, windows, strict=True), 1):
        local = Point(place.x - own.origin.x, place.y - own.origin.y)
        answer = maps.explain_dab(network, maps.cut(he, own), local, scale, calls, baseline=baseline)
        shown_points.append(_point_result(answer, place, own, scale, out, f"{stem}.point{number}"))
    sentences = [NO_LEVEL if shown_level is None else shown_level.sentence, *(p.sentence for p in shown_points)]
    if max(he.shape[:2]) > max(region.size.width, region.size.height):
        sentences.append(
            f"The image is {size}; only windows of it were explained, {region.size.width}x{region.size.height} px at "
            f"{region.origin.x},{region.origin.y} for the level."
        )
    side = (region.size.width, region.size.height)
    result = ImageResult(source.name, scale, side, shown_level, shown_points, sentences)
    facts = {"resolution": f"{scale} µm/px"}
    title = f"What drives the result: {source.name}"
    view = {"title": title, "chosen": bool(points)}
    path = page.write_report(out, "image.html.j2", result, bundle, baseline, command, facts, **view)
    return page.ExplainReport(path, tuple(sentences))


NO_LEVEL = "The model has no label feature, so no level is explained, only the DAB."


def _at_model(
    source: Path, points: Sequence[Point], mpp: float | None, override_mpp: bool, model_mpp: float
) -> tuple[NDArray[np.uint8], list[Point]]:
    """The image at the model's mpp, and the points in its px; unchanged where the mpp is unknown or the model's own."""
    with open_slide(source, mpp, override_mpp=override_mpp) as slide:
        for point in points:
            disc_mask((slide.size.height, slide.size.width), point, 1.0)
        if not slide.has_mpp or same_mpp(slide.mpp, model_mpp):
            return slide.read_all(), list(points)
        scale = slide.mpp / model_mpp
        size = slide.size_at(model_mpp)
        if size.width * size.height > LARGEST_PICTURE:
            raise RestainError(
                f"{source} is {size.width}x{size.height} px at the model's {model_mpp:g} µm/px, too large to explain."
            )
        he = slide.read(Region(Point(0, 0), size), model_mpp)
    return he, [Point(min(int(p.x * scale), size.width - 1), min(int(p.y * scale), size.height - 1)) for p in points]


def _most_stained(bundle: Bundle, window: NDArray[np.uint8], corner: Point) -> Point:
    """The middle of the disc with the highest mean DAB in a window at ``corner``."""
    with torch.inference_mode():
        density = dab_map(bundle.generator(batch_of(window)))[0].float().numpy()
    mean = ndimage.uniform_filter(density, max(1, round(DISC_UM / bundle.card.mpp)), mode="reflect")
    y, x = np.unravel_index(int(mean.argmax()), mean.shape)
    return Point(corner.x + int(x), corner.y + int(y))


def _map_results(
    attributions: Sequence[Attribution],
    he: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    mpp: float,
    out: Path,
    name: str,
    point: Point | None = None,
) -> list[MapResult]:
    results = []
    for one in attributions:
        values = smoothed(one.values, mpp)
        file = page.save(out, f"{name}.{one.method}", page.picture(page.overlay(he, values), point, mpp))
        shares = class_shares(values, classes)
        results.append(MapResult(one.method, file, page.top_of(values), one.completeness, shares))
    return results


def _level_result(found: maps.LevelMaps, mpp: float, out: Path, name: str) -> LevelResult:
    probabilities = dict(zip([level.text for level in Her2Level], found.probabilities.tolist(), strict=True))
    predicted = Her2Level(int(found.probabilities.argmax())).text
    shown = _map_results(found.attributions, found.he, find_classes(found.he, mpp), mpp, out, name)
    he = page.save(out, f"{name}.he", page.picture(found.he))
    return LevelResult(found.level.text, predicted, probabilities, he, shown)


def _point_result(found: maps.DabMaps, place: Point, window: Region, mpp: float, out: Path, name: str) -> PointResult:
    classes = find_classes(found.he, mpp)
    return PointResult(
        point_px=(place.x, place.y),
        window_corner_px=(window.origin.x, window.origin.y),
        dab_od=found.dab,
        he=page.save(out, f"{name}.he", page.picture(found.he, found.point, mpp)),
        virtual=page.save(out, f"{name}.virtual", page.picture(found.virtual, found.point, mpp)),
        maps=_map_results(found.attributions, found.he, classes, mpp, out, name, found.point),
        classes_of_dab=class_shares(found.density, classes),
        attention=[
            _attention_result(one, found, mpp, out, f"{name}.attention.{one.stride}") for one in found.attention
        ],
    )


def _attention_result(
    attention: AttentionMap, found: maps.DabMaps, mpp: float, out: Path, name: str
) -> AttentionResult:
    def shown(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
        values = attention.on_pixels(weights, (found.he.shape[0], found.he.shape[1]))
        return page.picture(page.overlay(found.he, values, attention=True), found.point, mpp)

    return AttentionResult(
        **vars(attention.figures(found.point, mpp)),
        picture=page.save(out, name, shown(attention.mean)),
        heads_picture=page.save(out, f"{name}.heads", page.side_by_side([shown(head) for head in attention.heads])),
    )


def preferred_classes(results: list[MapResult]) -> str:
    """A sentence that names the class with the largest share of each map's positive part."""
    parts = []
    for one in results:
        found = [(item.share, item) for item in one.classes if item.share is not None]
        if found:
            share, item = max(found, key=lambda pair: pair[0])
            method = one.method.replace("_", " ")
            parts.append(f"{share:.0%} of the evidence by {method} lies on {item.name}, {item.area:.0%} of the area")
    return "; ".join(parts) + "." if parts else "No pixel is evidence for it."
