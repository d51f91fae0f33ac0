"""Block matching: how far each block of one picture is shifted in another, by normalised cross-correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from restain.register.structure import Floats

VARIANCE_FLOOR = 0.02
"""Added to variances of blocks (of locally normalised channels), that empty blocks do not correlate by noise."""

TOGETHER = 16
"""Blocks that are transformed at once."""


@dataclass(frozen=True)
class Match:
    """One shift per block: ``shift`` ``(n, 2)`` (x, y) in px, ``correlation`` ``(n,)`` at it, in [-1, 1].

    ``contrast`` ``(n,)`` is by how many standard deviations of the block's other correlations it stands out; ``edge``
    marks blocks whose best shift is at the border of the search, so that it may lie beyond.
    """

    shift: NDArray[np.float64]
    correlation: NDArray[np.float64]
    contrast: NDArray[np.float64]
    edge: NDArray[np.bool_]


def correlations(fixed: Floats, moving: Floats, centres: NDArray[np.int64], block: int, reach: int) -> Floats:
    """Normalised cross-correlation of blocks of ``fixed`` with ``moving``, each channel by itself.

    Args:
        fixed: ``(C, H, W)`` channels.
        moving: the same, on the same grid.
        centres: ``(n, 2)`` centres (x, y) of the blocks; each block with its search must lie inside.
        block: side of the blocks in px; they are weighted by a Hann window.
        reach: largest shift in px along each axis.

    Returns:
        ``(n, C, 2 * reach + 1, 2 * reach + 1)`` ``float32``: [row, column] is the correlation with shift
        ``(column - reach, row - reach)``.
    """
    side = 2 * reach + 1
    length = fft.next_fast_len(block + 2 * reach, real=True)
    hann = np.hanning(block + 2)[1:-1].astype(np.float32)
    hann /= hann.sum()
    window = np.outer(hann, hann)
    # "same" lets a window of even length begin half its length before its centre, as the blocks do.
    mean = signal.fftconvolve(moving, window[None], mode="same", axes=(1, 2))
    variance = signal.fftconvolve(moving * moving, window[None], mode="same", axes=(1, 2)) - mean * mean
    deviation = np.sqrt(np.maximum(variance, 0) + VARIANCE_FLOOR)
    out = np.empty((len(centres), len(fixed), side, side), np.float32)
    # Many small transforms at once cost less than one by one.
    for first in range(0, len(centres), TOGETHER):
        chosen = slice(first, first + TOGETHER)
        corners = [(y - block // 2, x - block // 2) for x, y in centres[chosen]]
        one = np.stack([fixed[:, top : top + block, left : left + block] for top, left in corners])
        one = one - (window * one).sum(axis=(2, 3), keepdims=True)
        weighted = window * one
        own = np.sqrt((weighted * one).sum(axis=(2, 3), keepdims=True) + VARIANCE_FLOOR)
        wide = block + 2 * reach
        other = np.stack(
            [moving[:, top - reach : top - reach + wide, left - reach : left - reach + wide] for top, left in corners]
        )
        # The weighted block has mean 0, so the mean of the other one drops out of the product.
        spectrum = fft.rfft2(other, (length, length)) * np.conj(fft.rfft2(weighted, (length, length)))
        product = fft.irfft2(spectrum, (length, length))[..., :side, :side]
        there = np.stack(
            [deviation[:, y - reach : y + reach + 1, x - reach : x + reach + 1] for x, y in centres[chosen]]
        )
        out[chosen] = product / (own * there)
    return out


def best_shifts(surfaces: Floats) -> Match:
    """The highest place of each surface ``(n, side, side)`` of correlations, to a fraction of a px by a parabola."""
    count, side, _ = surfaces.shape
    if count == 0:
        none = np.zeros(0)
        return Match(np.zeros((0, 2)), none, none, np.zeros(0, bool))
    flat = surfaces.reshape(count, -1)
    row, column = np.divmod(flat.argmax(axis=1), side)
    edge = (row == 0) | (row == side - 1) | (column == 0) | (column == side - 1)
    inner_row, inner_column = np.clip(row, 1, side - 2), np.clip(column, 1, side - 2)
    every = np.arange(count)
    here = surfaces[every, inner_row, inner_column]
    dx = _vertex(surfaces[every, inner_row, inner_column - 1], here, surfaces[every, inner_row, inner_column + 1])
    dy = _vertex(surfaces[every, inner_row - 1, inner_column], here, surfaces[every, inner_row + 1, inner_column])
    best = flat.max(axis=1).astype(np.float64)
    shift = np.stack([column + np.where(edge, 0, dx), row + np.where(edge, 0, dy)], axis=1) - side // 2
    return Match(shift, best, (best - flat.mean(axis=1)) / (flat.std(axis=1) + 1e-6), edge)


def standing(surfaces: Floats) -> NDArray[np.float64]:
    """By how many standard deviations the middle of each surface (no shift) stands out of it; the last two axes go."""
    middle = surfaces.shape[-1] // 2
    still = surfaces[..., middle, middle].astype(np.float64)
    return np.asarray((still - surfaces.mean(axis=(-2, -1))) / (surfaces.std(axis=(-2, -1)) + 1e-6))


def _vertex(before: Floats, here: Floats, after: Floats) -> NDArray[np.float64]:
    bend = before - 2 * here + after
    safe = np.where(bend < -1e-6, bend, -1.0)
    return np.where(bend < -1e-6, np.clip(0.5 * (before - after) / safe, -0.5, 0.5), 0.0).astype(np.float64)
