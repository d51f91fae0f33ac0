"""Robust fits to the shifts of blocks, some of which are outliers: an affine matrix or a smooth field."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from restain.registration.transform import Matrix, Points

ROUNDS = 8
"""Rounds of reweighting."""


def robust_affine(
    source: Points, target: Points, weight: NDArray[np.float64], scale: float
) -> tuple[Matrix, NDArray[np.float64]]:
    """The 3 x 3 affine matrix that takes most of ``source`` near ``target``, and the residual distances, ``(n,)``.

    Iteratively reweighted least squares with Geman-McClure weights whose width shrinks to ``scale`` px.
    """
    centre = source.mean(axis=0)
    design = np.column_stack([source - centre, np.ones(len(source))])
    robust = np.ones(len(source))
    fitted = np.zeros((3, 2))
    error = np.zeros(len(source))
    for _ in range(3 * ROUNDS):
        root = np.sqrt(weight * robust)[:, None]
        fitted = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        error = np.hypot(*(target - design @ fitted).T)
        width = max(scale, float(np.median(error)))
        robust = 1 / (1 + (error / width) ** 2) ** 2
    matrix = np.eye(3)
    matrix[:2, :2] = fitted[:2].T
    matrix[:2, 2] = fitted[2] - fitted[:2].T @ centre
    return matrix, error


def smooth_field(
    shape: tuple[int, int],
    places: NDArray[np.int64],
    shifts: Points,
    weight: NDArray[np.float64],
    stiffness: float,
    scale: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The field on a lattice that minimises squared distances to the shifts plus ``stiffness`` times its bending energy.

    Distances have Geman-McClure weights; the bending energy is the sum of squared second differences.

    Args:
        shape: rows and columns of the lattice.
        places: ``(n, 2)`` lattice rows and columns at which shifts were measured.
        shifts: ``(n, 2)`` (x, y).
        weight: ``(n,)`` of each shift.
        stiffness: weight of the bending energy.
        scale: distance in the shifts' unit beyond which a shift counts as an outlier.

    Returns:
        The field ``(rows, columns, 2)`` and the distances of the shifts from it, ``(n,)``.
    """
    rows, columns = shape
    count = rows * columns
    bending = stiffness * _bending(rows, columns) + 1e-9 * sparse.identity(count)
    index = places[:, 0] * columns + places[:, 1]
    robust = np.ones(len(shifts))
    field = np.zeros((count, 2))
    error = np.zeros(len(shifts))
    for number in range(ROUNDS):
        weighted = weight * robust
        system = sparse.csc_matrix(bending + sparse.diags(np.bincount(index, weighted, count)))
        right = np.stack([np.bincount(index, weighted * shifts[:, axis], count) for axis in (0, 1)], axis=1)
        field = linalg.splu(system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(right)
        error = np.hypot(*(shifts - field[index]).T)
        # The first rounds admit distant shifts, or a bad start would decide which ones count.
        width = max(scale, float(np.median(error))) if number < ROUNDS // 2 else scale
        robust = 1 / (1 + (error / width) ** 2) ** 2
    return field.reshape(rows, columns, 2), error


def _bending(rows: int, columns: int) -> sparse.csr_matrix:
    across = sparse.kron(sparse.identity(rows), _differences(columns, (1.0, -2.0, 1.0)))
    down = sparse.kron(_differences(rows, (1.0, -2.0, 1.0)), sparse.identity(columns))
    twist = np.sqrt(2) * sparse.kron(_differences(rows, (-1.0, 1.0)), _differences(columns, (-1.0, 1.0)))
    return sparse.csr_matrix(
        sum((part.T @ part for part in (across, down, twist)), sparse.csr_matrix((rows * columns,) * 2))
    )


def _differences(length: int, stencil: tuple[float, ...]) -> sparse.csr_matrix:
    shape = (max(length - len(stencil) + 1, 0), length)
    return sparse.csr_matrix(sparse.diags(stencil, range(len(stencil)), shape=shape))
