"""Patches as files: their names, how they are cut, and which pictures in a folder are obsolete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restain.data.layouts import SPLITS, Split, image_files
from restain.dataset_builder.quality import read_ihc
from restain.dataset_builder.refinement import Box, local_transform
from restain.dataset_builder.rules import Candidate
from restain.dataset_builder.windows import Grid, MeasuredPair, open_pair
from restain.errors import RestainError
from restain.files import digest, make_folder
from restain.images import Rgb, read_text, write_png
from restain.progress import Progress
from restain.registration import Transform

STAINS = ("HE", "IHC")
KEY = "restain build"
"""Key of the text in a patch's file that identifies its pixels, so that a finished one is not cut again."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A candidate of slide pair number ``slide``: a pair called ``name``, or rejected for ``reason``."""

    slide: int
    candidate: Candidate
    split: Split
    reason: str | None
    name: str = ""


class PatchSource(ExitStack):
    """An open slide pair to read patches from; a context manager."""

    def __init__(self, measured: MeasuredPair, grid: Grid) -> None:
        super().__init__()
        self._measured, self._grid = measured, grid

    def __enter__(self) -> PatchSource:
        super().__enter__()
        try:
            self._he, self._ihc = (self.enter_context(slide) for slide in open_pair(self._measured.pair))
        except BaseException:
            self.close()
            raise
        return self

    def read(self, candidate: Candidate) -> tuple[Rgb, Rgb]:
        """H&E and IHC of a candidate, ``(size, size, 3)`` each, the IHC on the H&E's grid.

        Raises:
            RestainError: if pixels cannot be decoded.
        """
        region, mpp = candidate.region, self._grid.mpp
        other = read_ihc(self._ihc, self.transform(candidate), region, mpp, np.array(self._measured.glass))
        return self._he.read(region, mpp), other

    def transform(self, candidate: Candidate) -> Transform:
        """The slides' transform, corrected if the candidate was refined."""
        transform, quality = self._measured.transform, candidate.quality
        if quality is None or quality.correction == "none":
            return transform
        matrix = np.vstack([np.reshape(quality.matrix, (2, 3)), [0.0, 0.0, 1.0]])
        return local_transform(transform, Box.of(candidate.region, self._grid.mpp, self._he.mpp), matrix)


def paths_of(out: Path, patch: Patch) -> tuple[Path, Path]:
    """The files of a pair, H&E and IHC."""
    he, ihc = (out / stain / patch.split / f"{patch.name}.png" for stain in STAINS)
    return he, ihc


def cut_pair(measured: MeasuredPair, patches: Sequence[Patch], out: Path, grid: Grid, progress: Progress) -> None:
    """Write the patches of one slide pair; finished files are kept.

    Raises:
        RestainError: if a slide cannot be read or a file cannot be written.
    """
    todo = [
        (patch, text)
        for patch in patches
        if (text := _pixels(measured, patch)) and not all(_holds(path, text) for path in paths_of(out, patch))
    ]
    if not todo:
        return
    for stain in STAINS:
        for split in {patch.split for patch, _ in todo}:
            make_folder(out / stain / split)
    with PatchSource(measured, grid) as source:
        for done, (patch, text) in enumerate(todo):
            progress(done, len(todo))
            for path, rgb in zip(paths_of(out, patch), source.read(patch.candidate), strict=True):
                write_png(path, rgb, {KEY: text}, grid.mpp)


def require_own_pictures(out: Path) -> None:
    """Refuse a folder with pictures that restain build did not write.

    Raises:
        RestainError: naming the first of them.
    """
    for path in _pictures(out):
        if KEY not in read_text(path):
            raise RestainError(f"{path} was not written by restain build; give the data set its own folder.")


def remove_obsolete(out: Path, wanted: Iterable[Path]) -> None:
    """Remove pictures of an earlier build that are not ``wanted``, and what a killed process left."""
    kept = set(wanted)
    for path in _pictures(out):
        if path not in kept:
            path.unlink()
    for stain in STAINS:
        for partial in (out / stain).rglob(".*.part"):
            partial.unlink(missing_ok=True)


def _pictures(out: Path) -> list[Path]:
    return [path for stain in STAINS for split in SPLITS for path in image_files(out / stain / split)]


def _pixels(measured: MeasuredPair, patch: Patch) -> str:
    """A hash of all that decides a patch's pixels."""
    origin, quality = patch.candidate.region.origin, patch.candidate.quality
    return digest([measured.identity, origin.x, origin.y, None if quality is None else quality.matrix])[:32]


def _holds(path: Path, pixels: str) -> bool:
    return path.is_file() and read_text(path).get(KEY) == pixels
