"""Spots of spatial transcriptomics: where each lies on the H&E image, and its mRNA counts.

Three sources are read: a CSV, a 10x Visium folder as Space Ranger writes it, and AnnData (``.h5ad``) in the convention of
squidpy and scanpy. The last two need the extra ``spots``.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.data.tables import read_table
from restain.errors import RestainError, needs

CSV_COLUMNS = ("spot", "x_px", "y_px", "total")
"""Columns that a CSV must have beside the gene's own, which is named after the gene."""


@dataclass(frozen=True)
class Spots:
    """``N`` spots of one section."""

    names: tuple[str, ...]
    xy: NDArray[np.float64]
    """``(N, 2)`` centres in px of level 0 of the H&E image: x to the right, y down."""
    total: NDArray[np.int64]
    """``(N,)`` counts of all genes, above 0."""
    counts: NDArray[np.int64]
    """``(N,)`` counts of the gene."""
    gene: str
    diameter_px: float | None
    """Diameter of a spot in px of level 0, where the source states it."""
    also: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """``(N,)`` counts of further genes."""

    def log_cpm(self) -> NDArray[np.float64]:
        """``(N,)`` natural logarithm of 1 + counts per million."""
        return np.log1p(self.counts / self.total * 1e6)


def read_spots(path: str | Path, gene: str, also: Sequence[str] = ()) -> Spots:
    """Read spots and the counts of one gene; spots without any count, or outside the tissue, are left out.

    Args:
        path: a CSV with the columns spot, x_px, y_px, total and the gene; a Visium folder (``spatial/`` beside
            ``filtered_feature_bc_matrix.h5``); or an ``.h5ad`` file with ``obsm["spatial"]``.
        gene: the gene's symbol, in any case.
        also: symbols of further genes to read where the source has them.

    Raises:
        RestainError: if the source cannot be read, is none of these, lacks the gene, states a number that is none, or has
            fewer than ten spots; or if the extra ``spots`` is not installed where it is needed.
    """
    path = Path(path)
    if path.is_dir():
        spots = _read_visium(path, gene, also)
    elif path.suffix.lower() == ".h5ad":
        spots = _read_anndata(path, gene, also)
    else:
        spots = _read_csv(path, gene, also)
    if len(spots.names) < 10:
        raise RestainError(f"{path}: {len(spots.names)} spots with counts are too few; at least 10 are needed.")
    return spots


def _kept(
    path: Path, names: Sequence[str], xy: Any, total: Any, counts: Any, genes: Sequence[str], diameter_px: float | None
) -> Spots:
    """``counts``: ``(N, genes)``, those of :attr:`Spots.gene` first."""
    xy, total, counts = np.asarray(xy, np.float64), np.asarray(total), np.asarray(counts)
    for what, values in (("total counts", total), (f"counts of {' and '.join(genes)}", counts)):
        if (values < 0).any() or not np.array_equal(values, np.rint(values)):
            raise RestainError(f"{path}: the {what} are no whole numbers; give raw counts, not normalised ones.")
    if more := [gene for gene, values in zip(genes, counts.T, strict=True) if (values > total).any()]:
        raise RestainError(f"{path}: a spot has more counts of {more[0]} than in total.")
    kept = (total > 0) & np.isfinite(xy).all(axis=1)
    kept_names = tuple(name for name, keep in zip(names, kept, strict=True) if keep)
    first, *others = counts[kept].astype(np.int64).T
    also = dict(zip(genes[1:], others, strict=True))
    return Spots(kept_names, xy[kept], total[kept].astype(np.int64), first, genes[0], diameter_px, also)


def _read_csv(path: Path, gene: str, also: Sequence[str]) -> Spots:
    rows = read_table(path, [*CSV_COLUMNS, gene.lower()], [name.lower() for name in also])
    genes = [gene, *(name for name in also if any(row[name.lower()] for _, row in rows))]
    columns = [*CSV_COLUMNS[1:], *genes]
    named = f"{', '.join(columns[:-1])} and {columns[-1]}"
    numbers = []
    for line, row in rows:
        try:
            values = [float(row[key.lower()]) for key in columns]
        except ValueError:
            raise RestainError(f"{path}, line {line}: {named} must be numbers.") from None
        if not all(map(math.isfinite, values)):
            raise RestainError(f"{path}, line {line}: {named} must be finite numbers.")
        numbers.append(values)
    table = np.array(numbers, np.float64).reshape(-1, len(columns))
    names = [row["spot"] for _, row in rows]
    return _kept(path, names, table[:, :2], table[:, 2], table[:, 3:], genes, None)


def _gene_columns(path: Path, known: Sequence[str], gene: str, also: Sequence[str]) -> dict[str, int]:
    """The column of the gene, and of those of ``also`` that are named once."""
    lower = [name.lower() for name in known]
    if (times := lower.count(gene.lower())) != 1:
        raise RestainError(f"{path}: the gene {gene} is named {times} times among {len(known)} genes.")
    named = (gene, *(name for name in also if lower.count(name.lower()) == 1))
    return {name: lower.index(name.lower()) for name in named}


def _read_visium(folder: Path, gene: str, also: Sequence[str]) -> Spots:
    with needs("spots", "Reading Visium data"):
        import h5py
    from scipy.sparse import csc_matrix

    spatial = folder / "spatial"
    tables = sorted(folder.glob("*filtered_feature_bc_matrix.h5"))
    positions = [
        path for name in ("tissue_positions.csv", "tissue_positions_list.csv") if (path := spatial / name).is_file()
    ]
    if not tables or not positions:
        raise RestainError(
            f"{folder} is no Visium folder: it needs filtered_feature_bc_matrix.h5 and spatial/tissue_positions.csv."
        )
    try:
        with h5py.File(tables[0]) as file:
            group = file["matrix"]
            parts = (group["data"][:], group["indices"][:], group["indptr"][:])
            matrix = csc_matrix(parts, shape=tuple(group["shape"][:])).T.tocsc()
            barcodes = [text.decode() for text in group["barcodes"][:]]
            known = [text.decode() for text in group["features"]["name"][:]]
    except (OSError, KeyError, ValueError):
        raise RestainError(f"{tables[0]} is no count matrix of 10x Genomics, or is damaged.") from None
    try:
        lines = [row for row in csv.reader(positions[0].read_text(encoding="utf-8").splitlines()) if row]
        rows = lines[1:] if lines and lines[0][0] == "barcode" else lines
        # Columns after the barcode: in_tissue, array_row, array_col, row in px (y), column in px (x).
        places = {row[0]: (float(row[5]), float(row[4])) for row in rows if int(row[1]) == 1}
        factors = json.loads((spatial / "scalefactors_json.json").read_text(encoding="utf-8"))
        diameter = float(factors["spot_diameter_fullres"])
    except (OSError, ValueError, KeyError, IndexError):
        raise RestainError(f"{spatial}: the positions or scale factors cannot be read.") from None
    genes = _gene_columns(tables[0], known, gene, also)
    counts = matrix[:, list(genes.values())].toarray()
    total = np.asarray(matrix.sum(axis=1)).ravel()
    inside = [number for number, name in enumerate(barcodes) if name in places]
    names = [barcodes[number] for number in inside]
    xy = np.array([places[name] for name in names], np.float64).reshape(-1, 2)
    return _kept(folder, names, xy, total[inside], counts[inside], list(genes), diameter)


def _read_anndata(path: Path, gene: str, also: Sequence[str]) -> Spots:
    with needs("spots", "Reading AnnData"):
        import anndata
    if not path.is_file():
        raise RestainError(f"{path} does not exist.")
    try:
        data = anndata.read_h5ad(path)
    except Exception:
        raise RestainError(f"{path} is no AnnData file, or is damaged.") from None
    if "spatial" not in data.obsm:
        raise RestainError(f'{path}: obsm["spatial"] is missing; it holds the places of the spots in px.')
    # Raw counts lie in a layer where X was normalised: scanpy's convention.
    matrix = data.layers.get("counts", data.X)
    genes = _gene_columns(path, [str(name) for name in data.var_names], gene, also)
    columns = matrix[:, list(genes.values())]
    counts = np.asarray(columns.todense() if hasattr(columns, "todense") else columns)
    total = np.asarray(matrix.sum(axis=1)).ravel()
    inside = np.asarray(data.obs["in_tissue"] == 1) if "in_tissue" in data.obs else np.ones(len(total), bool)
    libraries = list(data.uns.get("spatial", {}).values())
    diameter = libraries[0].get("scalefactors", {}).get("spot_diameter_fullres") if len(libraries) == 1 else None
    names = [name for name, keep in zip(map(str, data.obs_names), inside, strict=True) if keep]
    xy = np.asarray(data.obsm["spatial"], np.float64)[inside][:, :2]
    diameter = None if diameter is None else float(diameter)
    return _kept(path, names, xy, total[inside], counts[inside], list(genes), diameter)
