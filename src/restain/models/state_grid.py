"""Attention states on a coarse grid over an image, interpolated at every pixel.

One state for a whole slide mixes all of its tissue. Here each node ``k`` of a lattice has the state of the tissue round it,
and a query at place ``x`` attends to the keys of the nodes round it, weighted by the bilinear weights ``w_k(x)`` of their
places. With the symbols of :mod:`restain.models.streamed`,

    y_q = Σ_k w_k(x) Σ_j exp(w_j · q̃ + lse_jk) value(mean_jk) / Σ_k w_k(x) Σ_j exp(w_j · q̃ + lse_jk)

per head. That is a softmax over pairs ``(j, k)``, but ``exp(w_j · q̃ + max_k lse_jk)`` is one number for all ``k``: queries
are projected and exponentiated once whatever the number of nodes, and only the product with the values is wider.

The weights follow from the pixel's place on the image alone, at every level of a decoder, so the result depends neither on the
tile nor on the number of nodes that it touches; and they are continuous, so it has no seams where cells meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restain.geometry import Region, Size
from restain.models.streamed import AttentionState, folded, split_heads, value_rows


@dataclass(frozen=True)
class Lattice:
    """``rows`` by ``columns`` nodes, each in the middle of a cell; the cells are equal and cover an image of ``size`` px."""

    size: Size
    rows: int = 1
    columns: int = 1

    @staticmethod
    def spaced(size: Size, spacing: int | None) -> Lattice:
        """Nodes about every ``spacing`` px: one for an image below one and a half times that, or without a spacing."""
        if spacing is None:
            return Lattice(size)
        return Lattice(size, max(1, round(size.height / spacing)), max(1, round(size.width / spacing)))

    @property
    def cell(self) -> tuple[float, float]:
        """Height and width in px."""
        return self.size.height / self.rows, self.size.width / self.columns

    def cell_of(self, region: Region) -> tuple[int, int]:
        """Row and column of the cell that holds the middle of ``region``."""
        y, x = self._middle(region)
        return min(int(y + 0.5), self.rows - 1), min(int(x + 0.5), self.columns - 1)

    def shares(self, region: Region) -> dict[tuple[int, int], float]:
        """How much of ``region`` each node near it gets, by its middle: bilinear weights above 0, which sum to 1."""
        y, x = self._middle(region)
        return {
            (row, column): down * across
            for row, down in _two_nearest(y, self.rows)
            for column, across in _two_nearest(x, self.columns)
        }

    def reach(self, region: Region) -> tuple[slice, slice]:
        """Rows and columns of the nodes that have weight anywhere in ``region``."""
        (height, width), origin = self.cell, region.origin
        return (
            _reach((origin.y + 0.5) / height - 0.5, (region.bottom - 0.5) / height - 0.5, self.rows),
            _reach((origin.x + 0.5) / width - 0.5, (region.right - 0.5) / width - 0.5, self.columns),
        )

    def _middle(self, region: Region) -> tuple[float, float]:
        """In cells, with the first node at 0."""
        height, width = self.cell
        y, x = region.origin.y + region.size.height / 2, region.origin.x + region.size.width / 2
        return y / height - 0.5, x / width - 0.5


def _two_nearest(position: float, count: int) -> list[tuple[int, float]]:
    position = min(max(position, 0.0), count - 1.0)
    first = int(position)
    share = position - first
    return [(first, 1.0)] if share == 0 else [(first, 1 - share), (first + 1, share)]


def _reach(first: float, last: float, count: int) -> slice:
    first, last = (min(max(v, 0.0), count - 1.0) for v in (first, last))
    return slice(int(first), int(np.ceil(last)) + 1)


class Stretch(NamedTuple):
    """Consecutive rows, or columns, of a map between two nodes, and the second one's share at each; one node is both."""

    pixels: slice
    nodes: tuple[int, int]
    share: NDArray[np.float32]


def _stretches(positions: NDArray[np.floating], count: int) -> list[Stretch]:
    """``positions``, rising, in cells with the first node at 0."""
    inside = positions.clip(0, count - 1)
    first = np.floor(inside).astype(int)
    # Beyond the outermost nodes there is nothing between which to interpolate.
    kind = np.where(positions <= 0, -1, np.where(positions >= count - 1, count - 1, first))
    starts = [0, *(np.flatnonzero(np.diff(kind)) + 1), len(kind)]
    return [
        Stretch(
            slice(start, stop),
            (int(first[start]), int(np.ceil(inside[stop - 1]))),
            (inside[start:stop] - first[start]).astype(np.float32),
        )
        for start, stop in pairwise(starts)
    ]


class Patch(NamedTuple):
    """A rectangle of a map between the same four nodes."""

    rows: slice
    columns: slice
    corners: tuple[int, int, int, int]
    """States of the nodes: top left, top right, bottom left, bottom right."""
    down: NDArray[np.float32]
    """``(h,)``: what the lower nodes' share is in each row."""
    across: NDArray[np.float32]
    """``(w,)``: what the right nodes' share is in each column."""


@dataclass(frozen=True)
class LocalState:
    """What queries need to know of the keys round them: the states of a grid, and where the queries' map lies on it.

    ``states``: of all nodes, ``(nodes, ...)``; their masses are comparable (a mean over tokens, up to one factor for all).
    ``index``: ``(rows, columns)``, the state of each node of the lattice.
    ``origin``: y and x of the map's top left corner, in cells of the lattice.
    ``pitch``: height and width of the map's pixels, in cells.
    """

    states: AttentionState
    index: NDArray[np.int64]
    origin: tuple[float, float]
    pitch: tuple[float, float]

    def halved(self, times: int) -> LocalState:
        """For the same map at a resolution that was halved so often."""
        return replace(self, pitch=(self.pitch[0] * 2**times, self.pitch[1] * 2**times))

    def to(self, device: torch.device) -> LocalState:
        return replace(self, states=AttentionState(self.states.log_mass.to(device), self.states.mean.to(device)))

    def patches(self, row: int, height: int, width: int) -> Iterator[Patch]:
        """The rectangles of ``height`` rows of the map, from ``row`` on, and ``width`` columns; together they are all."""
        down = self.origin[0] + (np.arange(row, row + height) + 0.5) * self.pitch[0] - 0.5
        across = self.origin[1] + (np.arange(width) + 0.5) * self.pitch[1] - 0.5
        columns = _stretches(across, self.index.shape[1])
        for vertical in _stretches(down, self.index.shape[0]):
            for horizontal in columns:
                corners = [int(self.index[r, c]) for r in vertical.nodes for c in horizontal.nodes]
                top_left, top_right, low_left, low_right = corners
                yield Patch(
                    vertical.pixels,
                    horizontal.pixels,
                    (top_left, top_right, low_left, low_right),
                    vertical.share,
                    horizontal.share,
                )


State: TypeAlias = AttentionState | LocalState
"""What one attention block reads from, in place of its own map."""


def is_local(context: object) -> bool:
    """Whether any state of a context depends on the place; graphs of fixed operations cannot hold that."""
    return isinstance(context, Sequence) and any(isinstance(state, LocalState) for state in context)


def spread_between(
    tokens: Tensor,
    states: AttentionState,
    patch: Patch,
    to_q: Tensor,
    projection: Tensor,
    value_map: Tensor,
    bias: Tensor,
    chunk: int,
    out: Tensor,
) -> None:
    """Second pass between nodes: the output for the tokens of a patch, ``(N, h, w, channels)`` both; on a CPU in chunks of rows.

    In a row the weights are linear in the column, so each row has a table of what its left and its right side say, and its
    tokens are multiplied with those two in place of four nodes' values.

    Args:
        tokens: of a rectangle of the map.
        states: of all nodes.
        patch: where the rectangle lies.
        to_q: query projection ``(channels, channels)`` with its share of the temperature.
        projection: ``(heads, features, dim)``.
        value_map: value and output projection of each head, ``(heads, channels, channels)``.
        bias: ``(channels,)``.
        chunk: tokens at a time, about.
        out: filled.
    """
    heads, (height, width, channels) = len(projection), tokens.shape[1:]
    query_features = folded(to_q, projection)
    corners = torch.tensor(patch.corners, device=tokens.device)
    log_mass = states.log_mass[corners]
    top = log_mass.amax(0)
    mass = torch.exp(log_mass - top).unsqueeze(-1)
    of_head = torch.eye(heads).repeat_interleave(projection.shape[1], 0).to(tokens)
    values = _by_side(value_rows(states.mean[corners], value_map, bias) * mass)
    masses = _by_side(of_head * mass)
    down, across = (torch.from_numpy(share).to(tokens).view(-1, 1, 1) for share in (patch.down, patch.across))
    across = across.view(1, -1, 1)

    rows = max(1, chunk // width) if tokens.device.type == "cpu" else height
    wide = tokens.new_empty(2, min(rows, height) * width, len(query_features))
    for image, made in zip(tokens, out, strict=True):
        for start in range(0, height, rows):
            here, share = slice(start, start + rows), down[start : start + rows]
            x = image[here].reshape(-1, channels)
            logits, weights = wide[:, : len(x)]
            torch.mm(x, query_features.t(), out=logits).add_(top)
            by_head = torch.softmax(split_heads(logits, heads), -1, out=split_heads(weights, heads))
            by_row = weights.view(len(share), width, -1)
            # Of what each feature is looked at, so much is there; a head's weights are to sum to one again.
            left, right = torch.split(torch.bmm(by_row, torch.lerp(*masses, share)), heads, -1)
            there = torch.lerp(left, right, across).clamp_(min=torch.finfo(tokens.dtype).tiny)
            by_head.div_(there.view(-1, heads, 1))
            left, right = torch.split(torch.bmm(by_row, torch.lerp(*values, share)), channels, -1)
            made[here] = torch.lerp(left, right, across)


def _by_side(corners: Tensor) -> tuple[Tensor, Tensor]:
    """``(4, rows, columns)``, as in a patch: of the upper nodes and of the lower, ``(rows, 2 * columns)``, left and right."""
    upper, lower = corners.view(2, 2, *corners.shape[1:]).transpose(1, 2).flatten(2)
    return upper, lower


@dataclass(frozen=True)
class StateGrid:
    """The states of an image's nodes.

    ``lattice``: where the nodes are. ``index``: ``(rows, columns)``, which state each has; nodes without tissue have the
    nearest other's. ``states``: of each attention block, ``(states, ...)``; their masses are per token, up to one factor.
    """

    lattice: Lattice
    index: NDArray[np.int64]
    states: tuple[AttentionState, ...]

    def around(self, region: Region) -> Sequence[State]:
        """What the attention blocks of a tile at ``region`` of the image read from.

        Where the tile is near one node alone, or all near it have the same state, that is the state itself.
        """
        found = np.unique(self.index[self.lattice.reach(region)])
        if len(found) == 1:
            return self._alone[int(found[0])]
        height, width = self.lattice.cell
        origin, pitch = (region.origin.y / height, region.origin.x / width), (1 / height, 1 / width)
        return [LocalState(state, self.index, origin, pitch) for state in self.states]

    @cached_property
    def _alone(self) -> list[Sequence[AttentionState]]:
        """Of each node; the same object at every call, by which those who work in batches know that it is the same."""
        return [[state.one(i) for state in self.states] for i in range(len(self.states[0].log_mass))]
