"""A first look at a slide's tissue: what its attention reads from, and whether it is like the training's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restain.errors import RestainError
from restain.files import digest, whole_file
from restain.geometry import Region
from restain.images import Rgb
from restain.models.state_grid import Lattice, State, StateGrid
from restain.models.streamed import AttentionState
from restain.models.survey import SURVEY, Survey, look_around
from restain.slides import Slide
from restain.stain.area import Area
from restain.stain.provenance import Ood, judge

if TYPE_CHECKING:
    from restain.stain.model import Model

JUDGED = 12
"""Windows at most that are compared with the training images."""

_FILE = "survey.safetensors"
_INDEX = "index"


@dataclass(frozen=True)
class SlideSurvey:
    """``windows``: how many were looked at. ``grid``: the attention's states, None where nothing was surveyed. ``ood``: see
    :func:`restain.stain.provenance.judge`.
    """

    windows: int
    grid: StateGrid | None
    ood: Ood | None

    @property
    def context(self) -> Callable[[Region], Sequence[State]] | None:
        """What the attention of a region reads from, told what the network sees of it, in px at the model's mpp."""
        return None if self.grid is None else self.grid.around


def places(slide: Slide, mpp: float, survey: Survey | None, area: Area) -> list[Region]:
    """Windows that hold tissue to be stained, evenly spread over them; in px at ``mpp``."""
    return (survey or SURVEY).windows(slide.size_at(mpp), area.is_stained)


def survey_slide(
    slide: Slide,
    model: Model,
    survey: Survey | None,
    windows: Sequence[Region],
    progress: Callable[[int, int], None] | None = None,
    *,
    judged: bool = True,
) -> SlideSurvey:
    """Look at ``windows`` (see :func:`places`). A window that cannot be read is left out.

    Args:
        slide: the H&E slide.
        model: what is to stain it.
        survey: how its attention surveys; None where it does not, so that windows are only held against the training images.
        windows: in px at the model's mpp.
        progress: called with windows done and in all.
        judged: whether they are held against the training images.
    """
    some: set[int] = set()
    if judged and model.bundle.ood is not None:
        some = set(np.linspace(0, len(windows) - 1, min(JUDGED, len(windows))).round().astype(int))
    surveys = survey is not None and model.generator.surveys
    looks = survey.looks(model.generator) if survey is not None and surveys else 1
    pieces: list[Rgb] = []
    count = 0

    def looked_at(turn: int) -> Iterator[tuple[Region, Rgb]]:
        nonlocal count
        for number, window in enumerate(windows):
            if progress is not None:
                progress(turn * len(windows) + number, looks * len(windows))
            if surveys or number in some:
                try:
                    he = slide.read(window, model.mpp)
                except RestainError:
                    continue
                if turn == 0:
                    count += 1
                    pieces.extend([he] if number in some else [])
                yield window, he

    grid: StateGrid | None = None
    if surveys and survey is not None:
        grid = look_around(model.generator, survey, slide.size_at(model.mpp), looked_at)
    else:
        for _ in looked_at(0):
            pass
    return SlideSurvey(count, grid, judge(model.bundle, pieces))


def kept_survey(
    folder: Path,
    identity: Mapping[str, str],
    slide: Slide,
    model: Model,
    survey: Survey | None,
    windows: Sequence[Region],
    progress: Callable[[int, int], None] | None = None,
) -> SlideSurvey:
    """:func:`survey_slide`, kept in ``folder``, that of the unfinished result, and taken from there when ``identity`` is the
    same, so that a job that goes on reads from what it began with. ``identity`` is everything that decides the result.
    """
    name = digest(dict(identity))
    lattice = (survey or SURVEY).lattice(slide.size_at(model.mpp))
    if (kept := _load(folder / _FILE, name, lattice, model.device)) is not None:
        return kept
    found = survey_slide(slide, model, survey, windows, progress)
    tensors = {} if found.grid is None else _tensors(found.grid)
    ood = json.dumps(None if found.ood is None else asdict(found.ood))
    with whole_file(folder / _FILE) as partial:
        save_file(tensors, partial, {"identity": name, "windows": str(found.windows), "ood": ood})
    return found


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
    ood = json.loads(facts["ood"])
    return SlideSurvey(int(facts["windows"]), grid, None if ood is None else Ood(**ood))
