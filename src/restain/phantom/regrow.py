"""The tissue behind a pair of a phantom data set, grown again from its seed: where each cell lies, pixel by pixel."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.phantom.pair import grow_pair_tissue
from restain.phantom.tissue import Tissue
from restain.phantom.truth import read_record

_NAME = re.compile(r"(\d{5})_(train|test)_(0|1\+|2\+|3\+)")
_TOLERANCE_PX = 0.02
"""Positions are kept with two decimals."""


def regrow(root: Path, name: str) -> Tissue:
    """Grow the tissue of the pair ``name`` of the phantom in ``root`` again, in the H&E image's pixels.

    The cells that grow are compared with those that the pair's truth file lists, so that another version of restain, or
    another machine's arithmetic, cannot pass a wrong truth off as the pair's.

    Args:
        root: folder of the data set, as :func:`restain.phantom.write_phantom` wrote it.
        name: the pair's name, for example ``00003_test_3+``.

    Raises:
        RestainError: if ``root`` is no phantom, was made on real H&E (its tissue is found, not grown), has no such
            pair, or other cells grow than it lists.
    """
    parameters = _parameters(root)
    if parameters["from_he"]:
        raise RestainError(f"{root} is a phantom on real H&E pictures, whose tissue cannot be grown again from a seed.")
    match = _NAME.fullmatch(name)
    if match is None:
        raise RestainError(f"{name} is not the name of a pair of the phantom in {root}.")
    number, split, level = int(match[1]), match[2], Her2Level.parse(match[3])
    truth = root / "truth" / split / f"{name}.tif"
    record = read_record(truth)
    pairs, size = int(parameters["pairs"]), int(parameters["size"])
    first = 0 if split == "train" else pairs - round(pairs * float(parameters["test_share"]))
    tissue, _ = grow_pair_tissue(
        int(parameters["seed"]), first + number, level, size=size, mpp=float(parameters["mpp"])
    )
    cells = tissue.cells
    inside = cells.take((cells.x >= 0) & (cells.y >= 0) & (cells.x < size) & (cells.y < size))
    grown, listed = list(inside.rows()), record["cells"]
    same = len(grown) == len(listed) and all(
        np.hypot(a[0] - b[0], a[1] - b[1]) < _TOLERANCE_PX and tuple(a[2:4]) == tuple(b[2:4])
        for a, b in zip(grown, listed, strict=True)
    )
    if not same:
        raise RestainError(
            f"{truth} lists other cells than grow from its seed now (it was written by restain "
            f"{parameters.get('restain', '?')}); write the phantom anew to have its tissue."
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


__all__ = ["regrow"]
