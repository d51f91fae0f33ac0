"""DAB maps in files: uint16 TIFF, 1e-4 OD per count, so that one file format serves truth and result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.files import whole_file

OD_PER_COUNT = 1e-4
DESCRIPTION = "DAB optical density, uint16, 1e-4 OD per count"


def write_density(path: Path, density: NDArray[np.float32]) -> None:
    """Write a ``(H, W)`` density in OD units; values are rounded to 1e-4 OD and clipped to [0, 6.5535].

    Raises RestainError if the file cannot be written.
    """
    counts = np.round(np.clip(density / OD_PER_COUNT, 0, 65535)).astype(np.uint16)
    with whole_file(path) as partial:
        tifffile.imwrite(
            partial, counts, compression="adobe_deflate", predictor=True, description=DESCRIPTION, metadata=None
        )


def read_density(path: Path) -> NDArray[np.float32]:
    """Read what :func:`write_density` wrote: ``(H, W)`` ``float32`` in OD units.

    Raises RestainError if the file cannot be read or is not such a map.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            counts = page.asarray()
            described = page.description
    except (OSError, ValueError, tifffile.TiffFileError):
        raise RestainError(f"{path}: the DAB map cannot be read or is damaged.") from None
    if counts.dtype != np.uint16 or counts.ndim != 2 or not described.startswith(DESCRIPTION):
        raise RestainError(f"{path}: is not a DAB map ({DESCRIPTION}).")
    return counts.astype(np.float32) * np.float32(OD_PER_COUNT)
