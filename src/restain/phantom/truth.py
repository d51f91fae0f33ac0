"""The truth of a phantom pair in a file: the DAB density as 16-bit TIFF, how the pair was made as JSON in its description."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from restain.errors import RestainError
from restain.images import OD_PER_COUNT
from restain.phantom.cells import Floats
from restain.phantom.pair import PhantomPair

NOTE = "Synthetic tissue made by restain. The HER2 rule is invented; nothing here is, or was stained as, real IHC."


def truth_file(name: str, mpp: float, pair: PhantomPair) -> bytes:
    """What :func:`read_truth` and :func:`read_record` read, of the pair ``name`` at ``mpp`` µm per px."""
    record = {
        "unit": "DAB density in OD units",
        "od_per_count": OD_PER_COUNT,
        "note": NOTE,
        "name": name,
        "mpp": mpp,
        "level": pair.level.text,
        **pair.record,
        "cells": list(pair.cells.rows()),
    }
    counts = np.clip(np.rint(pair.dab / OD_PER_COUNT), 0, 65535).astype(np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, counts, compression="zlib", predictor=True, description=json.dumps(record), metadata=None)
    return buffer.getvalue()


def read_truth(path: Path) -> Floats:
    """Read the true DAB density of a phantom pair: ``(H, W)`` ``float32``, in OD units, aligned with the IHC
    image.

    Raises:
        RestainError: if the file is missing or is not a truth file.
    """
    return np.asarray(_open_truth(path, lambda page: page.asarray()), dtype=np.float32) * np.float32(OD_PER_COUNT)


def read_record(path: Path) -> dict[str, Any]:
    """Read how a pair was made (stain vectors, white, misalignment, cells) from its truth file.

    Raises:
        RestainError: if the file is missing or is not a truth file.
    """
    return dict(_open_truth(path, lambda page: json.loads(page.description)))


def _open_truth(path: Path, read: Callable[[Any], Any]) -> Any:
    try:
        with tifffile.TiffFile(path) as tif:
            page: Any = tif.pages[0]
            if json.loads(page.description)["od_per_count"] != OD_PER_COUNT:
                raise KeyError("od_per_count")
            return read(page)
    except FileNotFoundError as error:
        raise RestainError(f"{path} does not exist.") from error
    except (OSError, ValueError, LookupError, TypeError, tifffile.TiffFileError) as error:
        raise RestainError(f"{path} is not a truth file of a phantom.") from error
