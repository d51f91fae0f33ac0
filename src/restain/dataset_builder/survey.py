"""One slide pair: registered, looked over, and every window measured; what was measured is kept and not measured again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain._version import __version__
from restain.dataset_builder.maps import map_slide
from restain.dataset_builder.measure import Figures, Shares, measure_patch, overview_shares
from restain.dataset_builder.rules import Candidate, Thresholds, first_reason
from restain.dataset_builder.table import SlidePair
from restain.errors import RestainError
from restain.files import digest, file_state, journal, read_journal
from restain.geometry import Point, Region, Size
from restain.register import Transform, read_transform, write_transform
from restain.register.files import TRANSFORM_FILE
from restain.register.job import register_files
from restain.slides import Slide, open_slide
from restain.slides.find import split_number

Progress = Callable[[int, int], None]

FORMAT = 1
"""Of the kept measurements; raised when the same patch would be measured differently."""
LEAST_WINDOW = 0.05
"""Windows with less tissue than this share are glass: they are not even candidates."""


@dataclass(frozen=True)
class Grid:
    """Where patches are cut: ``size`` px at ``mpp`` with ``overlap`` px in common."""

    mpp: float = 0.46
    size: int = 1024
    overlap: int = 0

    def check(self) -> None:
        """Raises RestainError if no patch can be meant."""
        if not 0.05 <= self.mpp <= 20:
            raise RestainError(f"Patches are cut at 0.05 to 20 micrometres per pixel, not at {self.mpp:g}.")
        if not 64 <= self.size <= 8192:
            raise RestainError(f"The side of patches must lie between 64 and 8192 px, not at {self.size}.")
        if not 0 <= self.overlap < self.size:
            raise RestainError(f"An overlap of {self.overlap} px does not fit patches of {self.size} px.")

    def windows(self, extent: Size) -> Iterator[Region]:
        """Whole windows of a slide of ``extent`` (px at ``mpp``), row by row."""
        step, side = self.size - self.overlap, Size(self.size, self.size)
        for y in range(0, extent.height - self.size + 1, step):
            for x in range(0, extent.width - self.size + 1, step):
                yield Region(Point(x, y), side)


@dataclass(frozen=True)
class Survey:
    """What is known of a slide pair. ``agreement`` is the registration's, None where a transform was given."""

    pair: SlidePair
    name: str
    transform: Transform
    origin: str
    """A digest of all that decides a patch's pixels but its place: slides, transform, grid."""
    glass: tuple[float, float, float]
    """RGB of the IHC slide's."""
    agreement: float | None
    windows: int
    candidates: tuple[Candidate, ...]


def survey_pair(
    pair: SlidePair, name: str, out: Path, grid: Grid, thresholds: Thresholds, progress: Progress | None = None
) -> Survey:
    """Register a pair and measure all windows that the overviews' rules leave in.

    ``out/registration/NAME`` gets what :func:`restain.register.job.register_files` writes (or the transform that was given),
    ``out/measured/NAME.jsonl`` the measurements, line by line as they are made: killed and called again, the work goes on with the next
    window, and other thresholds measure only what was not measured before.

    Args:
        pair: the slides.
        name: of the pair's files.
        out: the data set's folder.
        grid: where patches lie.
        thresholds: see :data:`restain.dataset_builder.rules.RULES`.
        progress: called with thousandths done and 1000.

    Raises:
        RestainError: if a slide cannot be read or has no mpp, the two do not show the same tissue, or a file cannot be written.
    """

    def tell(start: int, end: int) -> Progress:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(start + (end - start) * done // max(total, 1), 1000)

        return report

    with ExitStack() as stack:
        he, ihc = (
            stack.enter_context(_opened(path, mpp, option, pair.override_mpp))
            for path, mpp, option in ((pair.he, pair.mpp_he, "mpp-he"), (pair.ihc, pair.mpp_ihc, "mpp-ihc"))
        )
        folder = out / "registration" / name
        transform, agreement = _registered(pair, he, ihc, folder, tell(0, 400))
        transform_hash = hashlib.sha256((folder / TRANSFORM_FILE).read_bytes()).hexdigest()
        kept = out / "measured" / f"{name}.jsonl"
        key = {
            "format": FORMAT,
            "restain": __version__,
            "slides": [_state(he), _state(ihc)],
            "transform": transform_hash,
            **asdict(grid),
        }
        known = _read(kept, key)
        if known is None or _unmeasured(known.candidates, thresholds):
            known = _measure(he, ihc, transform, grid, thresholds, known, kept, key, tell(400, 1000))
    tell(0, 1000)(1, 1)
    origin = digest([key, known.glass])
    return Survey(pair, name, transform, origin, known.glass, agreement, known.windows, tuple(known.candidates))


def _opened(path: Path, mpp: float | None, option: str, override_mpp: bool) -> Slide:
    slide = open_slide(path, mpp, override_mpp=override_mpp)
    if not slide.has_mpp:
        slide.close()
        raise RestainError(
            f"{path} does not say its micrometres per pixel; give them with --{option} or in the "
            f"table's column {option.replace('-', '_')}."
        )
    return slide


def _state(slide: Slide) -> list[Any]:
    state = file_state(split_number(slide.path)[0])
    return [str(slide.path.resolve()), *state[1:], slide.mpp]


def _registered(
    pair: SlidePair, he: Slide, ihc: Slide, folder: Path, progress: Progress
) -> tuple[Transform, float | None]:
    if pair.transform is None:
        mpps = he.mpp, ihc.mpp
        report = register_files(pair.he, pair.ihc, folder, mpps=mpps, override_mpp=pair.override_mpp, progress=progress)
        return read_transform(folder), float(report["agreement"])
    given = read_transform(pair.transform)
    for slide, size in ((he, given.fixed_size), (ihc, given.moving_size)):
        if size is not None and size != slide.size:
            raise RestainError(
                f"{pair.transform} is of slides of other sizes: {slide.path} is {slide.size.width}x{slide.size.height} px, not "
                f"{size.width}x{size.height}."
            )
    # A bare matrix says nothing of the slides, and the transform is read at an mpp.
    given = replace(given, fixed_size=he.size, moving_size=ihc.size, fixed_mpp=he.mpp, moving_mpp=ihc.mpp)
    write_transform(folder, given, (pair.he.name, pair.ihc.name))
    return given, None


@dataclass
class _Known:
    glass: tuple[float, float, float]
    windows: int
    candidates: list[Candidate]


def _unmeasured(candidates: list[Candidate], thresholds: Thresholds) -> list[int]:
    return [
        number
        for number, one in enumerate(candidates)
        if one.figures is None and not one.fault and first_reason(one, thresholds, early=True) is None
    ]


def _measure(
    he: Slide,
    ihc: Slide,
    transform: Transform,
    grid: Grid,
    thresholds: Thresholds,
    known: _Known | None,
    kept: Path,
    key: dict[str, Any],
    progress: Progress,
) -> _Known:
    one, other = map_slide(he, "he"), map_slide(ihc, "ihc")
    if known is None:
        regions = list(grid.windows(he.size_at(grid.mpp)))
        inside = [region for region in regions if one.tissue.covers(region, grid.mpp) >= LEAST_WINDOW]
        found = [Candidate(region, overview_shares(one, other, transform, region, grid.mpp)) for region in inside]
        red, green, blue = (float(v) for v in other.tissue.glass)
        known = _Known((red, green, blue), len(regions), found)
    left = _unmeasured(known.candidates, thresholds)
    windows = [[one.region.origin.x, one.region.origin.y, *asdict(one.shares).values()] for one in known.candidates]
    head = {"glass": known.glass, "windows": known.windows, "candidates": windows}
    before = [
        _entry(number, one) for number, one in enumerate(known.candidates) if one.figures is not None or one.fault
    ]
    with journal(kept, key, [head, *before]) as append:
        for done, number in enumerate(left):
            progress(done, len(left))
            region = known.candidates[number].region
            try:
                figures, fault = measure_patch(one, other, transform, region, grid.mpp)[0], ""
            except RestainError as caught:
                figures, fault = None, str(caught)
            known.candidates[number] = replace(known.candidates[number], figures=figures, fault=fault)
            append(_entry(number, known.candidates[number]))
    return known


def _entry(number: int, one: Candidate) -> dict[str, Any]:
    return {"at": number, "figures": None if one.figures is None else one.figures.as_dict(), "fault": one.fault}


def _read(kept: Path, key: dict[str, Any]) -> _Known | None:
    """What was measured before; None where nothing was, or of something else."""
    entries = read_journal(kept, key)
    if not entries:
        return None
    try:
        head, *measured = entries
        side = Size(int(key["size"]), int(key["size"]))
        red, green, blue = head["glass"]
        found = [Candidate(Region(Point(x, y), side), Shares(*shares)) for x, y, *shares in head["candidates"]]
        known = _Known((red, green, blue), int(head["windows"]), found)
        for said in measured:
            figures = None if said["figures"] is None else Figures.from_dict(said["figures"])
            found[said["at"]] = replace(found[said["at"]], figures=figures, fault=said["fault"])
    except (ValueError, LookupError, TypeError):
        return None
    return known


def matrix_of(figures: Figures) -> NDArray[np.float64]:
    """The refinement's affine map, ``(3, 3)``."""
    return np.vstack([np.reshape(figures.matrix, (2, 3)), [0.0, 0.0, 1.0]])
