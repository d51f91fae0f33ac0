"""Which images a TIFF holds: series of OME-XML and ImageJ, or plain pages; which are of slide size, and what their levels are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from restain.geometry import Size
from restain.images import Scale, ome_scale, tiff_form, tiff_scale
from restain.slides.source import LEAST_SHARE

Plane = tuple[Any, ...]
"""The tifffile pages of one level of one image: one page, or a page for each of its one-sample channels."""

_SMALL_NAMES = ("macro", "label", "thumbnail", "overview", "barcode")
_COARSER = 4.0
_AXES = {"Z": "focal plane", "T": "time point", "C": "channel"}
_NEUTRAL_CHANNEL = re.compile(r"(channel|ch|c)?[ _:-]*\d*(:\d+)*|r(ed)?|g(reen)?|b(lue)?", re.IGNORECASE)


@dataclass
class TiffImage:
    """One image: its levels, finest first; ``form`` describes its pixels unless they are 8-bit RGB."""

    name: str
    levels: list[Plane]
    scale: Scale | None
    form: str
    reduced: bool = False
    rejected: list[Plane] = field(default_factory=list)
    """Pages that the file lists as levels, but that have another shape or show another picture."""

    @property
    def size(self) -> Size:
        return size_of(self.levels[0])

    @property
    def orientation(self) -> int:
        tag = self.levels[0][0].tags.get("Orientation")
        value = 1 if tag is None else int(tag.value)
        return value if 1 <= value <= 8 else 1


def size_of(plane: Plane) -> Size:
    return Size(int(plane[0].imagewidth), int(plane[0].imagelength))


SamePicture = Callable[[Plane, Plane], bool]
"""Whether a plane and a smaller one show the same."""


def tiff_images(tiff: tifffile.TiffFile, same: SamePicture) -> list[TiffImage]:
    """All images of a file, in file order. Levels come from SubIFDs, reduced pages and successive smaller pages."""
    found = list(_series_images(tiff))
    known = {_key(page) for image in found for plane in image.levels for page in plane}
    pages = [(number, page.aspage()) for number, page in enumerate(tiff.pages)]
    # A pyramid whose levels are both SubIFDs and pages is one.
    single = [_page_image(number, page) for number, page in pages if _key(page) not in known]
    for image in sorted(single, key=lambda one: -one.size.width):
        if _key(image.levels[0][0]) in known:
            continue
        host = next((one for one in found if _fits(one, image) and same(one.levels[-1], image.levels[0])), None)
        if host is None:
            found.append(image)
            known |= {_key(page) for plane in image.levels for page in plane}
        else:
            host.levels += image.levels
    order = {_key(page): number for number, page in pages}
    return sorted(found, key=lambda one: order.get(_key(one.levels[0][0]), len(order)))


def of_slide_size(images: Sequence[TiffImage]) -> tuple[list[TiffImage], list[TiffImage]]:
    """The images that can be the slide, and the others (macro, label, thumbnail).

    Pyramids take precedence over images of one level. An image much coarser than the finest one is not a slide.
    """
    pool = [one for one in images if not one.reduced and not any(word in one.name.lower() for word in _SMALL_NAMES)]
    finest = min((one.scale[0] for one in pool or images if one.scale), default=math.inf)
    fine = [one for one in pool if one.scale is None or one.scale[0] <= _COARSER * finest]
    pool = fine or pool or list(images)
    pyramids = [one for one in pool if len(one.levels) > 1]
    main = max(pyramids or pool, key=lambda one: (one.size.width * one.size.height, len(one.levels)))

    def is_large(one: TiffImage) -> bool:
        if pyramids and len(one.levels) == 1:
            return one.size == main.size
        return max(one.size.width, one.size.height) >= LEAST_SHARE * max(main.size.width, main.size.height)

    large = [one for one in pool if is_large(one)]
    return large, [one for one in images if one not in large]


def keep_true_levels(image: TiffImage, same: SamePicture) -> None:
    """Move levels that are not smaller copies of the previous level to ``rejected``."""
    offered, image.levels = image.levels[1:], image.levels[:1]
    for plane in sorted(offered, key=lambda one: -size_of(one).width):
        if len(plane) == len(image.levels[0]) and _is_smaller(image, plane) and same(image.levels[-1], plane):
            image.levels.append(plane)
        elif size_of(plane) not in map(size_of, image.levels):
            image.rejected.append(plane)


def _key(page: Any) -> tuple[int, int, int]:
    first = page.dataoffsets[0] if page.dataoffsets and any(page.databytecounts) else -page.offset
    return first, int(page.imagewidth), int(page.imagelength)


def _page_image(number: int, page: Any) -> TiffImage:
    tag = page.tags.get("PageName")
    name = f"page {number + 1}" + (f" ({tag.value})" if tag is not None and tag.value else "")
    inside: list[Plane] = sorted(((sub.aspage(),) for sub in page.pages or ()), key=lambda one: -size_of(one).width)
    # A transparency mask (bit 4) is no image of its own.
    small = page.is_reduced or bool(page.subfiletype & 4)
    return TiffImage(name, [(page,), *inside], tiff_scale(page), tiff_form(page), small)


def _fits(host: TiffImage, image: TiffImage) -> bool:
    return host.form == image.form and len(image.levels) == 1 and _is_smaller(host, image.levels[0])


def _is_smaller(image: TiffImage, plane: Plane) -> bool:
    """Whether a plane is smaller than the last level of an image and has its aspect ratio, up to rounding."""
    full, last, size = image.size, size_of(image.levels[-1]), size_of(plane)
    ratio_x, ratio_y = full.width / size.width, full.height / size.height
    slack = max(1 / size.width, 1 / size.height) + 0.005
    smaller = size != last and size.width <= last.width and size.height <= last.height
    return smaller and abs(ratio_x / ratio_y - 1) <= slack


def _series_images(tiff: tifffile.TiffFile) -> Iterator[TiffImage]:
    """The images that OME-XML or ImageJ describe; each focal plane and time point is one."""
    if not (tiff.is_ome or tiff.is_imagej):
        return
    series = [one for one in tiff.series if one.kind in ("ome", "imagej")]
    described = _ome_elements(tiff) if tiff.is_ome else []
    if len(described) != len(series):
        described = [next((d for d in described if d[0] == one.name), ("", None, [])) for one in series]
    for number, (one, (name, pixels, channels)) in enumerate(zip(series, described, strict=True)):
        scale = ome_scale(pixels) if pixels is not None else None
        yield from _planes(
            one, name or ("" if one.kind == "imagej" else f"image {number + 1}"), scale, channels, ome=tiff.is_ome
        )


def _ome_elements(tiff: tifffile.TiffFile) -> list[tuple[str, Any, list[dict[str, str]]]]:
    """Name, attributes of the pixels and those of the channels of each image."""
    root = ElementTree.fromstring(tiff.ome_metadata or "<OME/>")
    found = []
    for image in (node for node in root if node.tag.endswith("Image")):
        pixels = next((node for node in image if node.tag.endswith("Pixels")), None)
        if pixels is not None:
            channels = [dict(node.attrib) for node in pixels if node.tag.endswith("Channel")]
            found.append((image.attrib.get("Name", ""), dict(pixels.attrib), channels))
    return found


def _planes(
    series: Any, name: str, scale: Scale | None, channels: list[dict[str, str]], ome: bool
) -> Iterator[TiffImage]:
    levels = [one for one in series.levels if _lead(one) == _lead(series)]
    lead = _lead(series)
    pages: list[list[Any]] = [[None if page is None else page.aspage() for page in one.pages] for one in levels]
    if lead is None or math.prod(series.shape[: len(lead)]) != len(pages[0]) or any(page is None for page in pages[0]):
        first = next(page for page in pages[0] if page is not None)
        form = f"a stack of {'x'.join(map(str, series.shape))} ({series.axes}) whose planes are not all in the file"
        yield TiffImage(name, [(first,)], scale or tiff_scale(first), form)
        return
    shape = series.shape[: len(lead)]
    numbers = np.arange(len(pages[0])).reshape(shape)
    # Channels of one sample each are the colours of one image.
    if "C" in lead and pages[0][0].samplesperpixel == 1:
        numbers = np.moveaxis(numbers, lead.index("C"), -1)
        lead = lead.replace("C", "")
    else:
        numbers = numbers[..., None]
    own = scale or tiff_scale(pages[0][0])
    for place in np.ndindex(numbers.shape[:-1]):
        words = [f"{_AXES.get(axis, 'plane')} {at + 1}" for axis, at in zip(lead, place, strict=True)]
        planes = [
            tuple(of[n] for n in numbers[place]) for of in pages if all(of[n] is not None for n in numbers[place])
        ]
        form = _channels_form(planes[0], channels, ome) if len(planes[0]) > 1 else tiff_form(planes[0][0])
        yield TiffImage(", ".join([name, *words] if name else words) or "image 1", planes, own, form)


def _lead(series: Any) -> str | None:
    """The axes of a series along which its pages are ordered; None if unknown."""
    page = series.pages[0]
    axes = series.keyframe.axes if page is None else page.aspage().axes
    return str(series.axes[: -len(axes)]) if series.axes.endswith(axes) else None


def _channels_form(plane: Plane, channels: list[dict[str, str]], ome: bool) -> str:
    """Description of a plane of one-sample channels; empty for 8-bit red, green and blue."""
    names = [one.get("Name", "") for one in channels]
    light = any(one.keys() & {"Fluor", "EmissionWavelength"} for one in channels)
    if any(page.dtype != np.uint8 for page in plane):
        return f"an image of {len(plane)} one-channel planes of {plane[0].dtype}"
    if len(plane) != 3 or light or not all(_NEUTRAL_CHANNEL.fullmatch(one) for one in names):
        listed = f" ({', '.join(names)})" if any(names) else ""
        return f"an image of {len(plane)} one-channel planes{listed}"
    return "" if ome else "an image of 3 one-channel planes that are not said to be red, green and blue"
