"""Weights of the pairs of a data folder: a table of names and weights beside the pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.data.pairs import Pair
from restain.data.tables import read_table
from restain.errors import RestainError
from restain.images import IMAGE_SUFFIXES

WEIGHT_FILES = ("weights.csv", "manifest.csv")
"""Names of the table, of which the first that exists is used; only its columns ``name`` and ``weight`` are read."""


def pair_weights(roots: Sequence[Path], pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """The weights of ``pairs``: ``(n,)``, not negative, with mean 1.

    ``roots`` are the data folders of the pairs, each with a table.

    Raises:
        RestainError: if a folder has no readable table, the table does not have one row for a pair's file name (with or without
            its suffix), a weight is not a number of 0 or more, or all weights are 0.
    """
    tables = {root: _read(root) for root in roots}
    weights = np.array([_weight_of(pair, tables) for pair in pairs])
    if not weights.sum() > 0:
        raise RestainError(f"{', '.join(map(str, roots))}: the weights of all training pairs are 0.")
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def _weight_of(pair: Pair, tables: dict[Path, tuple[Path, dict[str, float]]]) -> float:
    # Not resolved: a folder may hold links to pictures that lie elsewhere.
    folder = next(parent for parent in pair.he_path.parents if parent in tables)
    path, table = tables[folder]
    if pair.he_path.stem not in table:
        raise RestainError(f"{path} has no weight of the pair {pair.he_path.name}.")
    return table[pair.he_path.stem]


def _read(root: Path) -> tuple[Path, dict[str, float]]:
    path = next((root / name for name in WEIGHT_FILES if (root / name).is_file()), None)
    if path is None:
        raise RestainError(f"{root}: data.weighted needs {' or '.join(WEIGHT_FILES)} with the columns name and weight.")
    table: dict[str, float] = {}
    for line, row in read_table(path, ("name", "weight")):
        stem = _stem(row["name"])
        if stem in table:
            raise RestainError(f"{path}, line {line}: '{row['name']}' has a weight already.")
        table[stem] = _number(row["weight"], f"{path}, line {line}")
    return path, table


def _stem(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def _number(text: str, where: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise RestainError(f"{where}: the weight '{text}' is not a number of 0 or more.")
    return weight
