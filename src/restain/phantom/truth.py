"""The truth of a phantom pair: DAB density as 16-bit TIFF with a JSON record, and the tissue behind it, grown again."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images import OD_PER_COUNT
from restain.phantom.cells import Floats
from restain.phantom.pair import PhantomPair, grow_pair_tissue
from restain.phantom.tissue import Tissue

NOTE = "Synthetic tissue made by restain. The HER2 rule is invented; nothing here is, or was stained as, real IHC."
_NAME = re.compile(r"(\d{5})_(train|test)_(0|1\+|2\+|3\+)")
_TOLERANCE_PX = 0.02
"""Positions are kept with two decimals."""


def truth_file(name: str, mpp: float, pair: PhantomPair) -> bytes:
    """The truth file of the pair ``name`` at ``mpp`` µm per px."""
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
    """The true DAB density of a pair's IHC image from its truth file: ``(H, W)`` in OD units.

    Raises RestainError if the file is missing or is not a truth file.
    """
    return np.asarray(_read(path, lambda page: page.asarray()), dtype=np.float32) * np.float32(OD_PER_COUNT)


def read_record(path: Path) -> dict[str, Any]:
    """How a pair was made (stain vectors, white point, misalignment, cells), from its truth file.

    Raises RestainError if the file is missing or is not a truth file.
    """
    return dict(_read(path, lambda page: json.loads(page.description)))


def regrow(root: Path, name: str) -> Tissue:
    """Grow the tissue of the pair ``name`` (``00003_test_3+``) of the phantom in ``root`` again.

    The grown cells are compared with those of the truth file: another version of restain may grow others. Raises
    RestainError if ``root`` is not a phantom, was made on real H&E, has no such pair, or other cells grow.
    """
    parameters = _parameters(root)
    if parameters["from_he"]:
        raise RestainError(f"{root} is a phantom on real H&E images, whose tissue cannot be grown again from a seed.")
    match = _NAME.fullmatch(name)
    if match is None:
        raise RestainError(f"{name} is not the name of a pair of the phantom in {root}.")
    number, split, level = int(match[1]), match[2], Her2Level.parse(match[3])
    truth = root / "truth" / split / f"{name}.tif"
    listed = read_record(truth)["cells"]
    pairs, size = int(parameters["pairs"]), int(parameters["size"])
    first = 0 if split == "train" else pairs - round(pairs * float(parameters["test_share"]))
    seed, mpp = int(parameters["seed"]), float(parameters["mpp"])
    tissue, _ = grow_pair_tissue(seed, first + number, level, size=size, mpp=mpp)
    grown = list(tissue.cells.inside(size).rows())
    same = len(grown) == len(listed) and all(
        np.hypot(a[0] - b[0], a[1] - b[1]) < _TOLERANCE_PX and tuple(a[2:4]) == tuple(b[2:4])
        for a, b in zip(grown, listed, strict=True)
    )
    if not same:
        raise RestainError(
            f"{truth} lists other cells than grow from its seed now. It was written by restain "
            f"{parameters.get('restain', '?')}; write the phantom again to obtain its tissue."
        )
    return tissue


def _parameters(root: Path) -> dict[str, Any]:
    path = root / "phantom.json"
    try:
        parameters = json.loads(path.read_bytes())["parameters"]
        if {"from_he", "pairs", "size", "test_share", "seed", "mpp"} <= parameters.keys():
            return dict(parameters)
    except OSError:
        raise RestainError(f"{root} is not a phantom data set: it has no phantom.json.") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise RestainError(f"{path} is not readable as the description of a phantom.")


def _read(path: Path, read: Callable[[Any], Any]) -> Any:
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
