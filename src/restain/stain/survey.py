"""A first look at a slide's tissue: what its attention reads from, and whether it is like the training's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restain.errors import RestainError
from restain.files import whole_file
from restain.geometry import Region
from restain.images import Rgb
from restain.models.state_grid import Lattice, State, StateGrid
from restain.models.streamed import AttentionState
from restain.models.survey import SURVEY, look_around
from restain.slides import Slide
from restain.stain.area import Area
from restain.stain.provenance import familiar_text
from restain.stain.restainer import Restainer

JUDGED = 12
"""Windows at most that are compared with the training images."""

_FILE = "survey.safetensors"
_INDEX = "index"


@dataclass(frozen=True)
class SlideSurvey:
    """``windows``: how many were looked at. ``grid``: the attention's states, None for models without a survey.
    ``familiar``: see :func:`restain.stain.provenance.familiar_text`.
    """

    windows: int
    grid: StateGrid | None
    familiar: str

    @property
    def context(self) -> Callable[[Region], Sequence[State]] | None:
        """What the attention of a region reads from, told what the network sees of it, in px at the model's mpp."""
        return None if self.grid is None else self.grid.around


def places(slide: Slide, restainer: Restainer, area: Area) -> list[Region]:
    """Windows that hold tissue to be stained, evenly spread over them; in px at the model's mpp."""
    return (restainer.survey or SURVEY).windows(slide.size_at(restainer.bundle.card.mpp), area.is_stained)


def survey_slide(
    slide: Slide,
    restainer: Restainer,
    windows: Sequence[Region],
    folder: Path,
    identity: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> SlideSurvey:
    """Look at ``windows`` (see :func:`places`).

    A window that cannot be read is left out. The result is kept in ``folder`` and taken from there when ``identity`` is
    the same, so that a job that goes on reads from what it began with.

    Args:
        slide: the H&E slide.
        restainer: the model, with how it surveys.
        windows: in px at the model's mpp.
        folder: of the unfinished result.
        identity: everything that decides the result.
        progress: called with windows done and in all.
    """
    name = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()
    if (kept := _load(folder / _FILE, name, _lattice(slide, restainer), restainer.device)) is not None:
        return kept
    mpp = restainer.bundle.card.mpp
    surveys = restainer.survey is not None and restainer.generator.surveys
    judged = set(np.linspace(0, len(windows) - 1, min(JUDGED, len(windows))).round().astype(int))
    pieces: list[Rgb] = []
    count = 0

    looks = restainer.survey.looks(restainer.generator) if surveys and restainer.survey is not None else 1

    def looked_at(turn: int) -> Iterator[tuple[Region, Rgb]]:
        nonlocal count
        for number, window in enumerate(windows):
            if progress is not None:
                progress(turn * len(windows) + number, looks * len(windows))
            if surveys or number in judged:
                try:
                    he = slide.read(window, mpp)
                except RestainError:
                    continue
                if turn == 0:
                    count += 1
                    pieces.extend([he] if number in judged else [])
                yield window, he

    grid: StateGrid | None = None
    if surveys and restainer.survey is not None:
        grid = look_around(restainer.generator, restainer.survey, slide.size_at(mpp), looked_at)
    else:
        for _ in looked_at(0):
            pass
    found = SlideSurvey(count, grid, familiar_text(restainer.bundle, pieces))
    tensors = {} if grid is None else _tensors(grid)
    facts = {"identity": name, "windows": str(count), "familiar": found.familiar}
    with whole_file(folder / _FILE) as partial:
        save_file(tensors, partial, facts)
    return found


def _lattice(slide: Slide, restainer: Restainer) -> Lattice:
    return (restainer.survey or SURVEY).lattice(slide.size_at(restainer.bundle.card.mpp))


def _tensors(grid: StateGrid) -> dict[str, Tensor]:
    tensors = {_INDEX: torch.from_numpy(grid.index)}
    for i, state in enumerate(grid.states):
        tensors |= {f"{i}.log_mass": state.log_mass.contiguous(), f"{i}.mean": state.mean.contiguous()}
    return tensors


def _load(path: Path, name: str, lattice: Lattice, device: torch.device) -> SlideSurvey | None:
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            if facts.get("identity") != name:
                return None
            tensors = {key: file.get_tensor(key).to(device) for key in file.keys()}  # noqa: SIM118 not a mapping
    except (OSError, SafetensorError):
        return None
    grid: StateGrid | None = None
    if tensors:
        if (index := tensors.pop(_INDEX, None)) is None:
            return None
        states = [AttentionState(tensors[f"{i}.log_mass"], tensors[f"{i}.mean"]) for i in range(len(tensors) // 2)]
        grid = StateGrid(lattice, index.cpu().numpy(), tuple(states))
    return SlideSurvey(int(facts["windows"]), grid, facts["familiar"])
