"""Patches as files: what they are called, how they are cut, and which of those in a folder are still wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restain.data.layouts import SPLITS, Split, image_files
from restain.dataset_builder.refine import Box, local_transform
from restain.dataset_builder.rules import Candidate
from restain.dataset_builder.survey import Grid, Survey, matrix_of
from restain.errors import RestainError
from restain.files import digest, make_folder
from restain.images import Rgb, read_text, write_png
from restain.register import Transform, warp_region
from restain.slides import Slide, open_slide

STAINS = ("HE", "IHC")
KEY = "restain build"
"""Of the text in a patch's file that tells what it was cut from, so that one that is there already is not cut again."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A candidate and what became of it: a pair called ``name``, or out for ``reason``. ``slide`` counts slide pairs."""

    slide: int
    candidate: Candidate
    split: Split
    reason: str | None
    name: str = ""


class PairReader:
    """A slide pair, open for reading patches; a context manager."""

    def __init__(self, survey: Survey, grid: Grid) -> None:
        self._survey, self._grid = survey, grid
        self._slides: list[Slide] = []

    def __enter__(self) -> PairReader:
        pair = self._survey.pair
        self._slides.append(open_slide(pair.he, pair.mpp_he, override_mpp=pair.override_mpp))
        try:
            self._slides.append(open_slide(pair.ihc, pair.mpp_ihc, override_mpp=pair.override_mpp))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._slides:
            self._slides.pop().close()

    def read(self, candidate: Candidate) -> tuple[Rgb, Rgb]:
        """H&E and IHC of a candidate, ``(size, size, 3)`` each; the IHC where refinement put it, or registration.

        Raises:
            RestainError: if pixels cannot be decoded.
        """
        he, ihc = self._slides
        region, mpp = candidate.region, self._grid.mpp
        red, green, blue = (int(v) for v in np.rint(self._survey.glass))
        other = warp_region(ihc, self.transform(candidate), region, mpp, outside=(red, green, blue))
        return he.read(region, mpp), other

    def transform(self, candidate: Candidate) -> Transform:
        """Of a candidate: the slides' own, corrected where it was refined."""
        figures, mpp = candidate.figures, self._slides[0].mpp
        if figures is None or figures.correction == "none":
            return self._survey.transform
        return local_transform(
            self._survey.transform, Box.of(candidate.region, self._grid.mpp, mpp), matrix_of(figures)
        )


def paths_of(out: Path, patch: Patch) -> tuple[Path, Path]:
    """The files of a pair, H&E and IHC."""
    he, ihc = (out / stain / patch.split / f"{patch.name}.png" for stain in STAINS)
    return he, ihc


def cut_pair(
    survey: Survey, patches: Sequence[Patch], out: Path, grid: Grid, progress: Callable[[int, int], None]
) -> None:
    """Write the patches of one slide pair; files that hold them already stay as they are.

    Raises:
        RestainError: if a slide cannot be read or a file cannot be written.
    """
    left = [
        patch for patch in patches if not all(_holds(path, _digest(survey, patch)) for path in paths_of(out, patch))
    ]
    if not left:
        return
    for stain in STAINS:
        for split in {patch.split for patch in left}:
            make_folder(out / stain / split)
    with PairReader(survey, grid) as reader:
        for done, patch in enumerate(left):
            progress(done, len(left))
            text = {KEY: _digest(survey, patch)}
            for path, rgb in zip(paths_of(out, patch), reader.read(patch.candidate), strict=True):
                write_png(path, rgb, text, grid.mpp)


def check_is_ours(out: Path) -> None:
    """Refuse a folder with pictures that no build wrote.

    Raises:
        RestainError: naming the first of them.
    """
    for path in _pictures(out):
        if KEY not in read_text(path):
            raise RestainError(f"{path} was not written by restain build; give the data set a folder of its own.")


def remove_stale(out: Path, wanted: Iterable[Path]) -> None:
    """Remove pictures of an earlier build that are not ``wanted`` any more."""
    stay = set(wanted)
    for path in _pictures(out):
        if path not in stay:
            path.unlink()
    for stain in STAINS:
        for partial in (out / stain).rglob(".*.part"):
            # Left by a process that was killed while it wrote.
            partial.unlink(missing_ok=True)


def _pictures(out: Path) -> list[Path]:
    return [path for stain in STAINS for split in SPLITS for path in image_files(out / stain / split)]


def _digest(survey: Survey, patch: Patch) -> str:
    origin, figures = patch.candidate.region.origin, patch.candidate.figures
    facts = [survey.origin, origin.x, origin.y, None if figures is None else figures.matrix]
    return digest(facts)[:32]


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and read_text(path).get(KEY) == digest
