"""``restain explain IMAGE``: which H&E evidence leads to a level, and to the DAB at chosen places, as one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from restain.bundle import Bundle, load_bundle
from restain.data.normalization import picture_normalizer
from restain.errors import RestainError
from restain.explain.attention import AttentionMap
from restain.explain.attribution import Attribution, Baseline, Calls
from restain.explain.faithful import smoothed
from restain.explain.figures import overlay, picture, save_picture, side_by_side, top_of
from restain.explain.maps import (
    DAB_EFFORT,
    DAB_WINDOW,
    LEAST_DAB,
    LEVEL_EFFORT,
    LEVEL_WINDOW,
    DabMaps,
    LevelMaps,
    cut,
    explain_dab,
    explain_level,
    window_around,
)
from restain.explain.page import write_json, write_page
from restain.explain.targets import DISC_UM, dab_map, disc_mask
from restain.explain.tissue import classes_found, per_class
from restain.files import make_folder
from restain.geometry import Point, Region, same_mpp
from restain.her2 import Her2Level
from restain.models.blocks import channels_last
from restain.models.tensors import batch_of
from restain.slides import open_slide
from restain.slides.find import stem_of
from restain.slides.slide import LARGEST_PICTURE

LEAST_SIDE = 32
"""Smallest side of an image in px at the model's mpp: one occluding patch, and one step of the larger backbone."""


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain_image` wrote, and what it found in words."""

    report: Path
    sentences: tuple[str, ...]


def explain_image(
    source: Path,
    out: Path,
    *,
    model: Path | None = None,
    points: Sequence[Point] = (),
    level: Her2Level | None = None,
    mpp: float | None = None,
    override_mpp: bool = False,
    baseline: Baseline = "glass",
    window: int | None = None,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Explain one image; writes ``explain.html``, ``explain.json`` and the overlays as PNG into ``out``.

    The level is explained on a window around the first point, or the middle; the DAB of each point on a smaller window
    around it. Without points the place where the window's DAB is highest is taken.

    Args:
        source: an H&E image, as :func:`restain.slides.open_slide` takes it.
        out: folder of the results.
        model: a bundle; None for the shipped one.
        points: places in ``source``'s px whose DAB is explained.
        level: the level whose logit is explained; None for the predicted one.
        mpp: micrometres per pixel of ``source`` where it does not say; without it such an image is taken as being at the
            model's mpp. At another mpp than the model's the image is resampled.
        override_mpp: take ``mpp`` also where the file states another.
        baseline: what "nothing there" looks like.
        window: side of both windows in px at the model's mpp; None for 256 (level) and 192 (DAB).
        command: the command line, for the report.
        progress: called with network calls done and in all.

    Raises:
        RestainError: if the image or the bundle cannot be read, a point lies outside the image, ``level`` is asked of a
            model without an expression classifier, the image is too small, or ``out`` cannot be written.
    """
    bundle = load_bundle(model)
    he, points = _at_model(source, points, mpp, override_mpp, bundle.card.mpp)
    normalize = picture_normalizer(bundle.recipe)
    he = he if normalize is None else normalize(he)
    network = channels_last(bundle.generator).eval()
    classifier = network.expression
    if classifier is None and level is not None:
        raise RestainError(
            f"{bundle.path}: the model has no label feature, so it has no level that could be explained."
        )
    scale = bundle.card.mpp
    if min(he.shape[:2]) < LEAST_SIDE:
        raise RestainError(
            f"{source} is {he.shape[1]}x{he.shape[0]} px at the model's {scale:g} µm/px; to explain it takes {LEAST_SIDE} px."
        )
    make_folder(out)

    middle = points[0] if points else Point(he.shape[1] // 2, he.shape[0] // 2)
    region = window_around(he.shape, middle, window or LEVEL_WINDOW)
    places = list(points) or [_most_stained(bundle, cut(he, region), region.origin)]
    corners = [window_around(he.shape, place, window or DAB_WINDOW) for place in places]
    level_calls = LEVEL_EFFORT.calls((region.size.height, region.size.width)) if classifier is not None else 0
    calls = Calls(level_calls + sum(DAB_EFFORT.calls((c.size.height, c.size.width)) for c in corners), progress)

    stem, facts, sentences = stem_of(source), {"window_px": [region.size.width, region.size.height]}, []
    shown_level = None
    if classifier is not None:
        crop = cut(he, region)
        found = explain_level(classifier, crop, scale, calls, level=level, baseline=baseline)
        shown_level = _level_part(found, classes_found(crop, scale), scale, out, stem)
        sentences.append(shown_level["sentence"])
    else:
        sentences.append("The model has no label feature, so no level is explained, only the DAB.")
    shown_points = []
    for number, (place, corner) in enumerate(zip(places, corners, strict=True), 1):
        crop = cut(he, corner)
        local = Point(place.x - corner.origin.x, place.y - corner.origin.y)
        maps = explain_dab(network, crop, local, scale, calls, baseline=baseline)
        part = _dab_part(maps, classes_found(crop, scale), scale, out, f"{stem}.point{number}")
        part |= {"point_px": [place.x, place.y], "window_origin_px": [corner.origin.x, corner.origin.y]}
        shown_points.append(part)
        sentences.append(f"At {place.x},{place.y}: {part['sentence']}")
    if max(he.shape[:2]) > max(region.size.width, region.size.height):
        sentences.append(
            f"The image is {he.shape[1]}x{he.shape[0]} px at the model's {scale:g} µm/px; only windows of it were looked "
            f"at, {region.size.width}x{region.size.height} px at {region.origin.x},{region.origin.y} for the level."
        )
    result: dict[str, Any] = {
        "kind": "image",
        "image": source.name,
        "model": f"{bundle.card.name} ({bundle.card.hash[:12]})",
        "trained_on": bundle.card.data,
        "mpp": scale,
        "baseline": baseline,
        "command": command,
        "sentences": sentences,
        "level": shown_level,
        "points": shown_points,
        **facts,
    }
    write_json(out, result)
    return Explanation(write_page(out, "image.html.j2", {"r": result, "chosen": bool(points)}), tuple(sentences))


def _at_model(
    source: Path, points: Sequence[Point], mpp: float | None, override_mpp: bool, model_mpp: float
) -> tuple[NDArray[np.uint8], list[Point]]:
    """The image at the model's mpp, and the points in its px; as they are where the mpp is unknown or the model's own."""
    with open_slide(source, mpp, override_mpp=override_mpp) as slide:
        for point in points:
            disc_mask((slide.size.height, slide.size.width), point, 1.0)
        if not slide.has_mpp or same_mpp(slide.mpp, model_mpp):
            return slide.whole(), list(points)
        scale = slide.mpp / model_mpp
        size = slide.size_at(model_mpp)
        if size.width * size.height > LARGEST_PICTURE:
            raise RestainError(
                f"{source} is {size.width}x{size.height} px at the model's {model_mpp:g} µm/px, too many to be explained."
            )
        he = slide.read(Region(Point(0, 0), size), model_mpp)
    return he, [Point(min(int(p.x * scale), size.width - 1), min(int(p.y * scale), size.height - 1)) for p in points]


def _most_stained(bundle: Bundle, crop: NDArray[np.uint8], origin: Point) -> Point:
    """The middle of the disc with the highest mean DAB in a window."""
    with torch.inference_mode():
        density = dab_map(bundle.generator(batch_of(crop)))[0].float().numpy()
    mean = ndimage.uniform_filter(density, max(1, round(DISC_UM / bundle.card.mpp)), mode="reflect")
    y, x = np.unravel_index(int(mean.argmax()), mean.shape)
    return Point(origin.x + int(x), origin.y + int(y))


def _map_part(
    found: Attribution,
    he: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    mpp: float,
    out: Path,
    name: str,
    point: Point | None = None,
) -> dict[str, Any]:
    values = smoothed(found.values, mpp)
    return {
        "method": found.method,
        "picture": save_picture(out, f"{name}.{found.method}", picture(overlay(he, values), point, mpp)),
        "top": top_of(values),
        "accounted": found.accounted,
        "classes": per_class(values, classes),
    }


def _level_part(found: LevelMaps, classes: NDArray[np.uint8], mpp: float, out: Path, stem: str) -> dict[str, Any]:
    names = [level.text for level in Her2Level]
    chance = {name: float(p) for name, p in zip(names, found.probabilities, strict=True)}
    predicted = names[int(found.probabilities.argmax())]
    maps = [_map_part(m, found.he, classes, mpp, out, f"{stem}.level") for m in found.maps]
    return {
        "explained": found.level.text,
        "predicted": predicted,
        "probabilities": chance,
        "he": save_picture(out, f"{stem}.level.he", picture(found.he)),
        "maps": maps,
        "sentence": f"The classifier reads the window as {predicted} (probability {chance[predicted]:.2f}); explained is the "
        f"logit of {found.level.text}. {_most(maps)}",
    }


def _dab_part(found: DabMaps, classes: NDArray[np.uint8], mpp: float, out: Path, name: str) -> dict[str, Any]:
    maps = [_map_part(m, found.he, classes, mpp, out, name, found.point) for m in found.maps]
    little = "" if found.dab >= LEAST_DAB else f" (below {LEAST_DAB:g} OD there is next to nothing to explain)"
    return {
        "dab_od": found.dab,
        "he": save_picture(out, f"{name}.he", picture(found.he, found.point, mpp)),
        "virtual": save_picture(out, f"{name}.virtual", picture(found.virtual, found.point, mpp)),
        "maps": maps,
        "classes_of_dab": per_class(found.density, classes),
        "attention": [_attention_part(m, found, mpp, out, name) for m in found.attention],
        "sentence": f"the model's mean DAB over {DISC_UM:g} µm is {found.dab:.3f} OD{little}. {_most(maps)}",
    }


def _attention_part(found: AttentionMap, dab: DabMaps, mpp: float, out: Path, name: str) -> dict[str, Any]:
    shape = (dab.he.shape[0], dab.he.shape[1])

    def shown(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
        values = found.on_pixels(weights, shape)
        return picture(overlay(dab.he, values, attention=True), dab.point, mpp)

    part: dict[str, Any] = found.describe(dab.point, mpp)
    part["picture"] = save_picture(out, f"{name}.attention.{found.stride}", shown(found.mean))
    heads = side_by_side([shown(head) for head in found.heads])
    part["heads_picture"] = save_picture(out, f"{name}.attention.{found.stride}.heads", heads)
    return part


def _most(maps: list[dict[str, Any]]) -> str:
    """Which class each map prefers most, in words."""
    words = []
    for part in maps:
        rows = [row for row in part["classes"] if row["share"] is not None]
        if rows:
            row = max(rows, key=lambda r: r["share"])
            method = part["method"].replace("_", " ")
            words.append(
                f"{row['share']:.0%} of what speaks for it by {method} lies on {row['class']}, {row['area']:.0%} of the area"
            )
    return "; ".join(words).capitalize() + "." if words else "No pixel speaks for it."
