"""OME-Zarr (NGFF 0.4 and 0.5) folders through zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import RestainError, needs
from restain.geometry import Region, Size
from restain.images import Rgb
from restain.slides.source import Source, damaged, levels_of

_MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3}


class ZarrSource(Source):
    """The first multiscale image of an OME-Zarr group; zarr is safe from several threads."""

    def __init__(self, path: Path) -> None:
        with needs("zarr", f"{path} is an OME-Zarr; reading it"):
            import zarr
        try:
            group = zarr.open_group(str(path), mode="r")
            attributes: dict[str, Any] = dict(group.attrs)
            scales = attributes.get("ome", attributes)["multiscales"][0]
            axes = [axis["name"] for axis in scales["axes"]]
            self._arrays: list[Any] = [group[entry["path"]] for entry in scales["datasets"]]
            x, y, c = axes.index("x"), axes.index("y"), axes.index("c")
            shape, dtype = self._arrays[0].shape, self._arrays[0].dtype
            sizes = [Size(int(one.shape[x]), int(one.shape[y])) for one in self._arrays]
            steps = scales["datasets"][0].get("coordinateTransformations", [])
            scale = next((step["scale"][x] for step in steps if step["type"] == "scale"), None)
            unit = _MICROMETRES.get(scales["axes"][x].get("unit", ""))
        except Exception:
            raise damaged(path, "it holds no whole OME-Zarr image with the axes c, y and x") from None
        if shape[c] != 3 or dtype != np.uint8:
            raise RestainError(f"{path} has {shape[c]} channels of {dtype}; restain reads 8-bit RGB.")
        self._axes = axes
        super().__init__(path, "OME-Zarr", levels_of(sizes), mpp=scale * unit if scale and unit else None)

    def read(self, level: int, region: Region) -> Rgb:
        rows, columns = region.slices
        pick: dict[str, slice] = {"y": rows, "x": columns, "c": slice(0, 3)}
        try:
            block = np.asarray(self._arrays[level][tuple(pick.get(name, 0) for name in self._axes)])
        except Exception:
            raise damaged(self.path, "a chunk cannot be decoded") from None
        left = [name for name in self._axes if name in pick]
        return np.ascontiguousarray(block.transpose([left.index(name) for name in ("y", "x", "c")]), np.uint8)
