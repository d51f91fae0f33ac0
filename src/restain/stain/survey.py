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

from restain.data import whole_file
from restain.data.images import Rgb
from restain.errors import RestainError
from restain.geometry import Region
from restain.models.attention import AttentionState
from restain.models.survey import Survey, survey_of
from restain.slides import Slide
from restain.stain.area import Area
from restain.stain.provenance import familiar_text
from restain.stain.restainer import Restainer

JUDGED = 12
"""Windows at most that are compared with the training images."""

_FILE = "survey.safetensors"


@dataclass(frozen=True)
class SlideSurvey:
    """``windows``: how many were looked at. ``states``: of the attention, empty for models without a survey.
    ``familiar``: see :func:`restain.stain.provenance.familiar_text`.
    """

    windows: int
    states: tuple[AttentionState, ...]
    familiar: str

    @property
    def context(self) -> Callable[[Region], Sequence[AttentionState]] | None:
        """What the attention of a region reads from."""
        return (lambda _: self.states) if self.states else None


def places(slide: Slide, restainer: Restainer, area: Area) -> list[Region]:
    """Windows that hold tissue to be stained, evenly spread over them; in px at the model's mpp."""
    return (restainer.survey or Survey()).windows(slide.size_at(restainer.bundle.card.mpp), area.is_stained)


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
    if (kept := _load(folder / _FILE, name, restainer.device)) is not None:
        return kept
    mpp = restainer.bundle.card.mpp
    surveys = restainer.survey is not None and restainer.generator.surveys
    judged = set(np.linspace(0, len(windows) - 1, min(JUDGED, len(windows))).round().astype(int))
    pieces: list[Rgb] = []
    count = 0

    def looked_at() -> Iterator[Rgb]:
        nonlocal count
        for number, window in enumerate(windows):
            if progress is not None:
                progress(number, len(windows))
            if surveys or number in judged:
                try:
                    he = slide.read(window, mpp)
                except RestainError:
                    continue
                count += 1
                pieces.extend([he] if number in judged else [])
                yield he

    states = survey_of(restainer.generator, looked_at()) if surveys else [] * len(list(looked_at()))
    found = SlideSurvey(count, tuple(states), familiar_text(restainer.bundle, pieces))
    tensors = {f"{i}.log_mass": state.log_mass.contiguous() for i, state in enumerate(states)}
    tensors |= {f"{i}.mean": state.mean.contiguous() for i, state in enumerate(states)}
    facts = {"identity": name, "windows": str(count), "familiar": found.familiar, "states": str(len(states))}
    with whole_file(folder / _FILE) as partial:
        save_file(tensors, partial, facts)
    return found


def _load(path: Path, name: str, device: torch.device) -> SlideSurvey | None:
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            if facts.get("identity") != name:
                return None
            tensors = {key: file.get_tensor(key).to(device) for key in file.keys()}  # noqa: SIM118 not a mapping
    except (OSError, SafetensorError):
        return None
    states = [AttentionState(tensors[f"{i}.log_mass"], tensors[f"{i}.mean"]) for i in range(int(facts["states"]))]
    return SlideSurvey(int(facts["windows"]), tuple(states), facts["familiar"])
