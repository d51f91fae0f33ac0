"""OME-Zarr (NGFF 0.4 and 0.5) folders through zarr: one image, or a collection as bioformats2raw writes it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import RestainError, needs
from restain.geometry import Region, Size
from restain.images import Rgb
from restain.images.scale import micrometres
from restain.slides.source import LEAST_SHARE, SlideImage, Source, choose_image, damaged, levels_of

_NO_IMAGES = ("OME", "labels")
_DEEPEST = 2
_LEVEL_PX = 2
"""Tolerance in px for the sides of a level, since writers round differently."""


@dataclass(frozen=True)
class _Plane:
    """One plane of a multiscale image: its arrays, finest first, and its index on the axes t and z."""

    image: SlideImage
    arrays: list[Any]
    axes: list[str]
    at: dict[str, int]
    faults: list[str]


class ZarrSource(Source):
    """One plane of one multiscale image of an OME-Zarr; zarr is safe from several threads."""

    def __init__(self, path: Path, image: int | None = None) -> None:
        with needs("zarr", f"{path} is an OME-Zarr; reading it"):
            import zarr
        try:
            group = zarr.open_group(str(path), mode="r")
        except Exception:
            raise RestainError(
                f"{path} is no whole group of an OME-Zarr; an image is opened by the folder that holds its levels."
            ) from None
        found = [
            plane
            for name, at, scales in _multiscales(path, path.name, group, 0)
            for plane in _planes(path, name, at, scales)
        ]
        if not found:
            raise damaged(path, "it holds no image of an OME-Zarr")
        longest = max(max(plane.image.size.width, plane.image.size.height) for plane in found)
        large = [p for p in found if max(p.image.size.width, p.image.size.height) >= LEAST_SHARE * longest]
        images = tuple(plane.image for plane in large)
        number, refusals = choose_image(path, images, image)
        chosen = large[number]
        channels, dtype = _kind(chosen)
        if channels != 3 or dtype != np.uint8:
            raise RestainError(
                f"{chosen.image.name} in {path} has {channels} channel(s) of {dtype}; restain reads 8-bit RGB."
            )
        self._plane = chosen
        mpp, mpp_y = chosen.image.mpp or (None, None)
        super().__init__(
            path,
            "OME-Zarr",
            levels_of([_size(array, chosen.axes) for array in chosen.arrays]),
            mpp=mpp,
            mpp_y=mpp_y,
            associated={plane.image.name: plane.image.size for plane in found if plane not in large},
            images=images if len(images) > 1 else (),
            faults=chosen.faults,
            refusals=refusals,
        )

    def read(self, level: int, region: Region) -> Rgb:
        rows, columns = region.slices
        pick: dict[str, slice] = {"y": rows, "x": columns, "c": slice(0, 3)}
        axes = self._plane.axes
        try:
            block = np.asarray(
                self._plane.arrays[level][tuple(pick.get(name, self._plane.at.get(name, 0)) for name in axes)]
            )
        except Exception:
            raise damaged(self.path, "a chunk cannot be decoded") from None
        left = [name for name in axes if name in pick]
        return np.ascontiguousarray(block.transpose([left.index(name) for name in ("y", "x", "c")]), np.uint8)


def _multiscales(path: Path, name: str, group: Any, depth: int) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The multiscale images of a group, or of the groups in it: name, group and metadata of each."""
    import zarr

    attributes: dict[str, Any] = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, dict):
        raise damaged(path, f"the metadata of {name} are none of an OME-Zarr")
    if "image-label" in ome:
        raise RestainError(f"{path} is a label image (a segmentation), not an image of a slide.")
    if "plate" in ome:
        raise RestainError(f"{path} is a plate of wells; give the folder of one image in it.")
    if scales := ome.get("multiscales"):
        for number, one in enumerate(scales):
            several = f" ({one.get('name') or f'multiscale {number}'})" if len(scales) > 1 else ""
            yield name + several, group, one
        return
    if depth == _DEEPEST:
        return
    inside = {key: one for key, one in group.members() if isinstance(one, zarr.Group)}
    listed: list[str] = []
    if "OME" in inside:
        about: dict[str, Any] = dict(inside["OME"].attrs)
        listed = [str(key) for key in about.get("ome", about).get("series") or ()]
    for key in listed or sorted(inside, key=_natural):
        if key in _NO_IMAGES:
            continue
        try:
            one = group[key]
        except KeyError:
            raise damaged(path, f"its image '{key}' is missing") from None
        yield from _multiscales(path, f"{name}/{key}", one, depth + 1)


def _planes(path: Path, name: str, group: Any, scales: dict[str, Any]) -> Iterator[_Plane]:
    """The planes of a multiscale image: one, or one for each focal plane and time point.

    Raises RestainError if it is not whole, or has no axes y and x.
    """
    try:
        axes = [axis if isinstance(axis, str) else str(axis["name"]) for axis in scales.get("axes", "tczyx")]
        datasets = [(entry, group[entry["path"]]) for entry in scales["datasets"]]
        datasets.sort(key=lambda one: -one[1].shape[axes.index("x")])
        arrays = [array for _, array in datasets]
        size, shape = _size(arrays[0], axes), arrays[0].shape
        steps = [*datasets[0][0].get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())]
        sides = [_side(scales.get("axes", ()), axes.index(axis), steps) for axis in ("x", "y")]
        planes = [range(shape[axes.index(axis)]) if axis in axes else range(1) for axis in ("t", "z")]
        others = [axis for axis in axes if axis not in "tczyx" and shape[axes.index(axis)] > 1]
    except Exception:
        raise damaged(path, f"{name} is no whole image of an OME-Zarr with the axes y and x") from None
    if others:
        raise RestainError(f"{name} in {path} has the axis '{others[0]}', which restain does not know.")
    kept, faults = [arrays[0]], []
    for array in arrays[1:]:
        same = all(array.shape[i] == shape[i] for i, axis in enumerate(axes) if axis not in "yx")
        if same and _is_level(_size(kept[-1], axes), _size(array, axes), size):
            kept.append(array)
        else:
            small = _size(array, axes)
            faults.append(
                f"{path}: the level '{array.basename}' of {small.width} x {small.height} px is no smaller copy of"
                f" the image of {size.width} x {size.height} px; it is left out."
            )
    scaled = [f"{value:g}" for value, mpp in sides if value is not None and value != 1 and mpp is None]
    if scaled:
        faults.append(
            f"{path}: {name} has a scale of {' by '.join(scaled)} without a unit of length that restain knows."
        )
    mpp = None if sides[0][1] is None else (sides[0][1], sides[1][1] or sides[0][1])
    for t, z in itertools.product(*planes):
        several = [f"{axis} {i}" for axis, i, all_ in (("t", t, planes[0]), ("z", z, planes[1])) if len(all_) > 1]
        yield _Plane(SlideImage(", ".join([name, *several]), size, mpp), kept, axes, {"t": t, "z": z}, list(faults))


def _side(described: Any, axis: int, steps: list[dict[str, Any]]) -> tuple[float | None, float | None]:
    """The product of all scales along an axis, as stated and in µm; None if not stated."""
    scales = [float(step["scale"][axis]) for step in steps if step.get("type") == "scale" and "scale" in step]
    value = math.prod(scales) if scales else None
    if value is None or not (math.isfinite(value) and value > 0):
        return None, None
    unit = described[axis].get("unit") if len(described) and isinstance(described[axis], dict) else None
    factor = micrometres(str(unit or ""))
    return value, value * factor if factor else None


def _size(array: Any, axes: list[str]) -> Size:
    return Size(int(array.shape[axes.index("x")]), int(array.shape[axes.index("y")]))


def _kind(plane: _Plane) -> tuple[int, Any]:
    """Channels and type of a plane's pixels."""
    array = plane.arrays[0]
    return int(array.shape[plane.axes.index("c")]) if "c" in plane.axes else 1, array.dtype


def _is_level(finer: Size, size: Size, full: Size) -> bool:
    """Whether an image of ``size`` can be the level after ``finer`` of a pyramid whose finest level is ``full``."""
    if not (0 < size.width < finer.width and 0 < size.height <= finer.height):
        return False
    down = max(full.width, full.height) / max(size.width, size.height)
    return max(abs(full.width / down - size.width), abs(full.height / down - size.height)) <= _LEVEL_PX


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 62, name)
