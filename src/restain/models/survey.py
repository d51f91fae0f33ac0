"""What the attention of all of an image's tiles reads from, so that a pixel's result does not depend on its tile.

The state of FAVOR+ attention is a sum over tokens (:class:`~restain.models.streamed.AttentionState`): states of windows
on a fixed grid, which has nothing to do with the tiles, add up to one for the image, or to one for each place of a lattice
(:mod:`restain.models.state_grid`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from restain.errors import RestainError
from restain.geometry import Point, Region, Size, um_to_px
from restain.models.network import StainingNetwork, batch_of
from restain.models.state_grid import Lattice, StateGrid
from restain.models.streamed import AttentionState


@dataclass(frozen=True)
class Survey:
    """Where to look: windows on a fixed grid, at most ``most`` of them, or ``per_cell`` in each cell of a lattice.

    An image of more windows is surveyed at evenly spread ones: the state is a mean, which a sample estimates.

    Raises ``ValueError`` if the spacing is less than a window.
    """

    window: int = 512
    """Side of a window in px at the model's mpp."""
    most: int = 64
    spacing: int | None = None
    """px between nodes that have a state each; None for one state of the whole image, as images of one node have."""
    per_cell: int = 4
    exact: bool = True
    """Whether each attention block is surveyed after those below it, with one more look at the windows per block, so that its states
    are what they are in the whole image; else all in one look, in which attention sees a window alone."""

    def __post_init__(self) -> None:
        if self.spacing is not None and self.spacing < self.window:
            raise ValueError(
                f"nodes {self.spacing} px apart are nearer to one another than a window of {self.window} px"
            )

    @staticmethod
    def every(um: float, mpp: float) -> Survey:
        """With nodes ``um`` micrometres apart in an image at ``mpp``; 0 for one state of the whole image.

        Raises:
            RestainError: if that is less than a window.
        """
        least = Survey.window * mpp
        if 0 < um < least:
            raise RestainError(
                f"{um:g} µm: nodes of the attention grid are at least {least:.0f} µm apart, the side of a window that is surveyed."
            )
        return Survey(spacing=um_to_px(um, mpp) if um else None)

    def lattice(self, size: Size) -> Lattice:
        """The nodes of an image of ``size``."""
        return Lattice.spaced(size, self.spacing)

    def windows(self, size: Size, where: Callable[[Region], bool] | None = None) -> list[Region]:
        """The windows for an image of ``size``, row by row; no two overlap. ``where``: leave out all others."""
        lattice = self.lattice(size)
        by_cell: dict[tuple[int, int], list[Region]] = {}
        for y in range(0, size.height, self.window):
            for x in range(0, size.width, self.window):
                window = Region(Point(x, y), Size(min(self.window, size.width - x), min(self.window, size.height - y)))
                if where is None or where(window):
                    by_cell.setdefault(lattice.cell_of(window), []).append(window)
        most = self.most if lattice.rows * lattice.columns == 1 else self.per_cell
        chosen = [window for windows in by_cell.values() for window in _evenly(windows, most)]
        return sorted(chosen, key=lambda window: (window.origin.y, window.origin.x))

    def looks(self, generator: StainingNetwork) -> int:
        """How often each window is looked at; earlier looks end at their block, so all together cost less than as many calls."""
        return generator.surveyed_blocks if self.exact else min(1, generator.surveyed_blocks)

    def describe(self) -> str:
        """In words, for a result's metadata."""
        found = f"{self.most} of {self.window} px"
        if self.spacing is not None:
            found += f", or {self.per_cell} in each of cells of {self.spacing} px"
        return found if self.exact else f"{found}, each by itself"


SURVEY = Survey(spacing=4096)
"""How images are surveyed where nobody says otherwise: those of 6144 px and more on a grid, smaller ones as a whole."""


def _evenly(windows: list[Region], most: int) -> list[Region]:
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(most, len(windows))).round().astype(int))
    return [windows[i] for i in chosen]


def look_around(
    generator: StainingNetwork,
    survey: Survey,
    size: Size,
    windows: Callable[[int], Iterable[tuple[Region, NDArray[np.uint8]]]],
) -> StateGrid | None:
    """The states of an image of ``size``; ``windows`` gives its windows for each look (:meth:`Survey.looks`), from 0 on."""
    grid: StateGrid | None = None
    for number in range(looks := survey.looks(generator)):
        blocks = number + 1 if looks > 1 else None
        grid = grid_of(generator, survey.lattice(size), windows(number), grid, blocks)
    return grid


def grid_of(
    generator: StainingNetwork,
    lattice: Lattice,
    windows: Iterable[tuple[Region, NDArray[np.uint8]]],
    before: StateGrid | None = None,
    blocks: int | None = None,
) -> StateGrid | None:
    """The states of ``windows`` of an H&E image, ``(h, w, 3)`` each, gathered at the nodes near them; None without windows.

    Each window counts at a node by the node's bilinear weight in the window's middle. A node's masses are divided by the px that
    it was made from, times those of the first node, so that nodes with more windows weigh no more than others; with one node that
    changes nothing. Nodes without windows take the state of the nearest that has some. ``before``: what an earlier look found,
    which the windows' first attention blocks then read from; ``blocks``: no more than so many are surveyed.
    """
    device = next(generator.parameters()).device
    totals: dict[tuple[int, int], list[AttentionState]] = {}
    pixels: dict[tuple[int, int], float] = {}
    for region, he in windows:
        with torch.inference_mode():
            states = generator.survey(batch_of(he, device), () if before is None else before.around(region), blocks)
        for node, share in lattice.shares(region).items():
            parts = [_times(state, share) for state in states]
            pixels[node] = pixels.get(node, 0.0) + share * region.size.width * region.size.height
            so_far = totals.get(node)
            totals[node] = parts if so_far is None else [a + b for a, b in zip(so_far, parts, strict=True)]
    if not totals:
        return None
    nodes = sorted(totals)
    even = [[_times(state, pixels[nodes[0]] / pixels[node]) for state in totals[node]] for node in nodes]
    every = [(row, column) for row in range(lattice.rows) for column in range(lattice.columns)]
    _, nearest = KDTree(np.array(nodes) * lattice.cell).query(np.array(every) * lattice.cell)
    index = np.asarray(nearest, np.int64).reshape(lattice.rows, lattice.columns)
    return StateGrid(lattice, index, tuple(_together(block) for block in zip(*even, strict=True)))


def _times(state: AttentionState, factor: float) -> AttentionState:
    """Of so many times as many tokens."""
    return AttentionState(state.log_mass + math.log(factor), state.mean)


def _together(states: tuple[AttentionState, ...]) -> AttentionState:
    if len(states) == 1:
        return states[0]
    return AttentionState(torch.cat([s.log_mass for s in states]), torch.cat([s.mean for s in states]))
