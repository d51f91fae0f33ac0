"""Windows of one slide pair: the slides are registered, every window is measured, and measurements are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from restain._version import __version__
from restain.dataset_builder.masks import find_masks
from restain.dataset_builder.quality import MaskShares, PatchQuality, mask_shares, measure_patch
from restain.dataset_builder.rules import Candidate, Thresholds, first_reason
from restain.dataset_builder.table import SlidePair
from restain.errors import RestainError
from restain.files import digest, journal, read_journal
from restain.geometry import Point, Region, Size
from restain.progress import Progress, part
from restain.registration import Transform, Verdict, read_transform, write_transform
from restain.registration.output import register_files, slide_state
from restain.registration.transform_file import TRANSFORM_FILE
from restain.slides import Slide, open_slide

FORMAT = 1
"""Version of the kept measurements; raised when the same patch would be measured differently."""
LEAST_WINDOW = 0.05
"""Windows with less tissue than this share are glass, and no candidates."""


class DoubtfulPairError(RestainError):
    """A doubtful pair is left out of the data set."""


@dataclass(frozen=True)
class Grid:
    """The grid of patches: ``size`` px at ``mpp`` with ``overlap`` px in common."""

    mpp: float = 0.46
    size: int = 1024
    overlap: int = 0

    def check(self) -> None:
        """Raises RestainError if a value is out of range."""
        if not 0.05 <= self.mpp <= 20:
            raise RestainError(f"The scale of patches must be 0.05 to 20 micrometres per pixel, not {self.mpp:g}.")
        if not 64 <= self.size <= 8192:
            raise RestainError(f"The side of patches must be 64 to 8192 px, not {self.size}.")
        if not 0 <= self.overlap < self.size:
            raise RestainError(f"An overlap of {self.overlap} px does not fit patches of {self.size} px.")

    def windows(self, extent: Size) -> Iterator[Region]:
        """Whole windows of a slide of ``extent`` (px at ``mpp``), row by row."""
        step, side = self.size - self.overlap, Size(self.size, self.size)
        for y in range(0, extent.height - self.size + 1, step):
            for x in range(0, extent.width - self.size + 1, step):
                yield Region(Point(x, y), side)


@dataclass(frozen=True)
class MeasuredPair:
    """A registered slide pair and its windows. ``verdict`` is the registration's, None with an external transform."""

    pair: SlidePair
    name: str
    transform: Transform
    identity: str
    """Hash of all that decides a patch's pixels but its place: slides, transform, grid."""
    glass: tuple[float, float, float]
    """RGB of the IHC slide's."""
    verdict: Verdict | None
    windows: int
    candidates: tuple[Candidate, ...]


def measure_pair(
    pair: SlidePair,
    name: str,
    out: Path,
    grid: Grid,
    thresholds: Thresholds,
    accept: Verdict = Verdict.ACCEPTED,
    progress: Progress | None = None,
) -> MeasuredPair:
    """Register a pair and measure all windows that the early rules accept.

    ``out/registration/NAME`` gets the files of :func:`restain.registration.output.register_files` (or the external transform),
    ``out/measured/NAME.jsonl`` the measurements, one line at a time: a killed job resumes with the next window, and other
    thresholds measure only what was not measured before.

    Args:
        pair: the slides.
        name: of the pair's files.
        out: the data set's folder.
        grid: of the patches.
        thresholds: see :data:`restain.dataset_builder.rules.RULES`.
        accept: ``DOUBTFUL`` uses doubtful pairs as well.
        progress: called with thousandths done and 1000.

    Raises:
        DoubtfulPairError: if the registration is doubtful and only accepted ones are wanted; its result is written.
        RestainError: if a slide cannot be read or has no mpp, the two do not show the same tissue, or a file cannot be written.
    """
    with ExitStack() as stack:
        he, ihc = (stack.enter_context(slide) for slide in open_pair(pair))
        folder = out / "registration" / name
        transform, verdict = _register(pair, he, ihc, folder, accept, part(progress, 0, 400))
        identity = {
            "format": FORMAT,
            "restain": __version__,
            "slides": [slide_state(he), slide_state(ihc)],
            "transform": hashlib.sha256((folder / TRANSFORM_FILE).read_bytes()).hexdigest(),
            **asdict(grid),
        }
        windows = _Windows(he, ihc, transform, grid, thresholds, out / "measured" / f"{name}.jsonl", identity)
        if not windows.read() or windows.unmeasured():
            windows.measure(part(progress, 400, 1000))
    part(progress, 0, 1000)(1, 1)
    pixels, candidates = digest([identity, windows.glass]), tuple(windows.candidates)
    return MeasuredPair(pair, name, transform, pixels, windows.glass, verdict, windows.total, candidates)


def open_pair(pair: SlidePair) -> Iterator[Slide]:
    """Open the H&E, then the IHC slide.

    Raises:
        RestainError: if a slide cannot be read or has no mpp.
    """
    for path, mpp, option in ((pair.he, pair.mpp_he, "mpp-he"), (pair.ihc, pair.mpp_ihc, "mpp-ihc")):
        slide = open_slide(path, mpp, override_mpp=pair.override_mpp)
        if not slide.has_mpp:
            slide.close()
            raise RestainError(
                f"{path} does not state its micrometres per pixel; give them with --{option} or in the "
                f"table's column {option.replace('-', '_')}."
            )
        yield slide


def _register(
    pair: SlidePair, he: Slide, ihc: Slide, folder: Path, accept: Verdict, progress: Progress
) -> tuple[Transform, Verdict | None]:
    if pair.transform is None:
        mpps = he.mpp, ihc.mpp
        report = register_files(pair.he, pair.ihc, folder, mpps=mpps, override_mpp=pair.override_mpp, progress=progress)
        if report.doubt is not None and accept is Verdict.ACCEPTED:
            raise DoubtfulPairError(f"{report.doubt} in {folder}; --accept doubtful uses the pair.")
        return read_transform(folder), report.verdict
    external = read_transform(pair.transform)
    for slide, size in ((he, external.fixed_size), (ihc, external.moving_size)):
        if size is not None and size != slide.size:
            raise RestainError(
                f"{pair.transform} is of slides of other sizes: {slide.path} is {slide.size.width}x{slide.size.height} px, not "
                f"{size.width}x{size.height}."
            )
    # A bare matrix states nothing about the slides, and the transform is read at an mpp.
    external = replace(external, fixed_size=he.size, moving_size=ihc.size, fixed_mpp=he.mpp, moving_mpp=ihc.mpp)
    write_transform(folder, external, (pair.he.name, pair.ihc.name))
    return external, None


@dataclass
class _Windows:
    """The windows of one slide pair; ``total`` counts those on glass as well."""

    he: Slide
    ihc: Slide
    transform: Transform
    grid: Grid
    thresholds: Thresholds
    path: Path
    identity: dict[str, Any]
    glass: tuple[float, float, float] = (255.0, 255.0, 255.0)
    total: int = 0
    candidates: list[Candidate] = field(default_factory=list)

    def read(self) -> bool:
        """Read kept measurements of the same slides, transform and grid."""
        try:
            head, *lines = read_journal(self.path, self.identity) or []
            red, green, blue = head["glass"]
            side = Size(self.grid.size, self.grid.size)
            found = [Candidate(Region(Point(x, y), side), MaskShares(*shares)) for x, y, *shares in head["candidates"]]
            for line in lines:
                quality = None if line["quality"] is None else PatchQuality.from_dict(line["quality"])
                found[line["number"]] = replace(found[line["number"]], quality=quality, fault=line["fault"])
            self.glass, self.total, self.candidates = (red, green, blue), int(head["windows"]), found
        except (ValueError, LookupError, TypeError):
            return False
        return True

    def unmeasured(self) -> list[int]:
        """Numbers of the candidates that the early rules accept and that are not measured yet."""
        return [
            number
            for number, one in enumerate(self.candidates)
            if one.quality is None and not one.fault and first_reason(one, self.thresholds, early=True) is None
        ]

    def measure(self, progress: Progress) -> None:
        he, ihc = find_masks(self.he, "he"), find_masks(self.ihc, "ihc")
        mpp = self.grid.mpp
        if not self.candidates:
            regions = list(self.grid.windows(self.he.size_at(mpp)))
            red, green, blue = (float(v) for v in ihc.tissue.glass)
            self.glass, self.total = (red, green, blue), len(regions)
            self.candidates = [
                Candidate(region, mask_shares(he, ihc, self.transform, region, mpp))
                for region in regions
                if he.tissue.covers(region, mpp) >= LEAST_WINDOW
            ]
        found = self.candidates
        windows = [[one.region.origin.x, one.region.origin.y, *asdict(one.shares).values()] for one in found]
        entries = [{"glass": self.glass, "windows": self.total, "candidates": windows}]
        entries += [_line(number, one) for number, one in enumerate(found) if one.quality is not None or one.fault]
        unmeasured = self.unmeasured()
        with journal(self.path, self.identity, entries) as append:
            for done, number in enumerate(unmeasured):
                progress(done, len(unmeasured))
                try:
                    quality = measure_patch(he, ihc, self.transform, found[number].region, mpp)
                    found[number] = replace(found[number], quality=quality)
                except RestainError as fault:
                    found[number] = replace(found[number], fault=str(fault))
                append(_line(number, found[number]))


def _line(number: int, one: Candidate) -> dict[str, Any]:
    return {"number": number, "quality": None if one.quality is None else one.quality.as_dict(), "fault": one.fault}
