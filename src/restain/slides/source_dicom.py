"""A DICOM WSI series in a folder, as one pyramid, through wsidicom."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import RestainError
from restain.geometry import Region, Size
from restain.images import Rgb
from restain.slides.source import Source, damaged, levels_of

for _name in ("wsidicom", "pydicom"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class DicomSource(Source):
    """The instances of one slide in a folder (or one file) of DICOM; wsidicom locks its files itself."""

    def __init__(self, path: Path) -> None:
        import wsidicom

        if path.is_dir() and not any(path.iterdir()):
            raise RestainError(f"{path} is an empty folder.")
        try:
            self._slide = wsidicom.WsiDicom.open(path)
        except Exception as fault:
            raise RestainError(
                f"{path} holds no slide that restain reads (as DICOM: {str(fault).rstrip('.') or type(fault).__name__})."
            ) from None
        levels = list(self._slide.pyramid)
        self._keys = [level.level for level in levels]
        super().__init__(
            path,
            "DICOM",
            levels_of([Size(level.size.width, level.size.height) for level in levels]),
            mpp=levels[0].mpp.width,
        )
        if self._keys[0] != 0:
            self.faults.append(f"{path}: the series lacks its finest level.")
        dataset = levels[0].datasets[0].as_dataset()
        self.vendor = str(dataset.get("Manufacturer") or "") or None
        optical: Any = next(iter(dataset.get("OpticalPathSequence") or ()), {})
        self.icc = optical.get("ICCProfile")
        power = optical.get("ObjectiveLensPower")
        self.objective = float(power) if power else None
        for name, images in (("label", self._slide.labels), ("macro", self._slide.overviews)):
            for image in images.groups if images is not None else ():
                self.associated[name] = Size(image.size.width, image.size.height)

    def read(self, level: int, region: Region) -> Rgb:
        at, size = (region.origin.x, region.origin.y), (region.size.width, region.size.height)
        try:
            image = self._slide.read_region(at, self._keys[level], size)
        except Exception:
            raise damaged(self.path, "a frame cannot be decoded") from None
        return np.ascontiguousarray(image.convert("RGB"), np.uint8)

    def close(self) -> None:
        self._slide.close()
