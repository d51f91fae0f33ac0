"""A phantom slide pair: pyramidal H&E and IHC slides with truth, streamed tile by tile in bounded memory."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from restain import __version__
from restain.errors import RestainError
from restain.files import make_folder
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom.deform import Deformation, Distortion
from restain.phantom.render import Appearance, he_appearance, ihc_appearance
from restain.phantom.slide_paint import Painter
from restain.phantom.slide_plan import SlidePlan, draw_plan
from restain.phantom.slide_texture import MOST_GROWN, MOST_TEXTURES, TEXTURE_TILES, Texture, grow_texture
from restain.phantom.slide_truth import NOTE, TRUTH, SlideTruth, read_slide_truth, write_slide_truth
from restain.slides.store import Kind, TileStore
from restain.slides.writer import read_metadata, write_ome_tiff

Progress = Callable[[int, int], None]

FORMAT = 1
"""Of the pixels: raised when the same parameters give other slides."""
DAB_REDUCTION = 4
"""``dab.ome.tiff`` has one pixel for this many of the slide's, squared."""
LARGE_PX = 4096
"""Slides with a longer side are made of tiles of 512 px, others of 256."""
_LEAST_SIDE_UM = 250.0
_QUALITY = 90
_BAND = 8
"""Tiles are made in bands of this many columns, so that what neighbours share is still at hand."""


def write_phantom_slide(
    out: Path,
    *,
    size: Size,
    mpp: float = 0.25,
    seed: int = 0,
    mixture: Mapping[Her2Level, float] | None = None,
    deformation: Deformation | Distortion | None = Distortion(),  # noqa: B008 (frozen)
    ihc: bool = True,
    registered: bool = False,
    dab: bool = False,
    islands: int | None = None,
    tissue_share: float = 0.3,
    progress: Progress | None = None,
) -> SlideTruth:
    """Write a pair of synthetic slides and the truth behind them; depends on the arguments alone.

    ``out`` gets ``he.ome.tiff``, ``ihc.ome.tiff`` (deformed, as it would be scanned), on request ``ihc-registered.ome.tiff``
    (on the H&E's grid, not deformed) and ``dab.ome.tiff`` (its DAB density in OD units, 4 times smaller), then
    ``truth.geojson`` and ``truth.json``. No slide is ever whole in memory. Killed and called again it goes on where it
    was, and ends with the same files; what is finished is kept.

    Tissue is a quilt of grown pieces (:mod:`restain.phantom.slide_texture`), up to 6 of each level, so that a piece of
    0.4 mm (at 0.25 µm) occurs again and again, turned and mirrored.

    Args:
        out: folder, made where needed; empty, or with the same slide pair, finished or not.
        size: level 0 of the H&E slide in px.
        mpp: micrometres per pixel, 0.1 to 2.
        seed: of everything.
        mixture: share of the tissue's area at each level; every island has one level. 2+ alone where not given.
        deformation: of the IHC slide: itself, how strong it shall be drawn, or None for none.
        ihc: whether to write the IHC slide.
        registered: whether to write the IHC on the H&E's grid.
        dab: whether to write the DAB density.
        islands: how many pieces of tissue; chosen by area where not given.
        tissue_share: of the slide; islands that do not fit shrink, and the truth says what became of it.
        progress: told ``(done, total)``, in tiles and grown textures.

    Raises:
        RestainError: if the parameters are out of range, ``out`` holds something else, or cannot be written.
    """
    job = _Job(
        size=size,
        mpp=mpp,
        seed=seed,
        mixture={Her2Level.TWO: 1.0} if mixture is None else dict(mixture),
        deformation=deformation,
        islands=islands,
        tissue_share=tissue_share,
    )
    job.check()
    wanted = ["he", *(["ihc"] if ihc else []), *(["ihc-registered"] if registered else []), *(["dab"] if dab else [])]
    known = _claim(out, job)
    outputs = [job.output(name) for name in wanted]
    kept = {output.name for output in outputs if _is_finished(out / _file(output.name), job.identity(output.name))}
    before = {} if known is None else {name: file for name, file in known.files.items() if (out / file).is_file()}
    files = before | {name: _file(name) for name in wanted}
    if known is not None and len(kept) == len(outputs) and known.files == files:
        return known
    for name in kept:
        # Left by a process that was killed between the file and its end.
        shutil.rmtree(out / f"{name}.part", ignore_errors=True)
    left = [output for output in outputs if output.name not in kept]
    steps = _Steps(sum(2 * output.tiles(job.tile) for output in left) + job.texture_count, progress)
    textures = job.grow(steps)
    painter = Painter(job.plan, textures, *job.looks, job.tile)
    for output in left:
        _write_output(out / _file(output.name), output, painter, job, steps)
    shares = painter.tumour_shares
    looks = {name: look.as_dict() for name, look in zip(("he", "ihc"), job.looks, strict=True)}
    truth = SlideTruth(out, job.plan, job.parameters(), files, looks, shares, __version__)
    write_slide_truth(truth)
    return truth


@dataclass(frozen=True)
class _Output:
    """A file to write: ``reduction`` px of the plan's grid become one."""

    name: str
    size: Size
    mpp: float
    kind: Kind
    reduction: int = 1

    def tiles(self, tile: int) -> int:
        return -(-self.size.width // tile) * -(-self.size.height // tile)


@dataclass(frozen=True)
class _Job:
    size: Size
    mpp: float
    seed: int
    mixture: Mapping[Her2Level, float]
    deformation: Deformation | Distortion | None
    islands: int | None
    tissue_share: float

    def check(self) -> None:
        """Refuse what cannot be meant, in one sentence."""
        if not 0.1 <= self.mpp <= 2:
            raise RestainError(f"A phantom slide is drawn at 0.1 to 2 micrometres per pixel, not {self.mpp}.")
        if min(self.size.width, self.size.height) * self.mpp < _LEAST_SIDE_UM:
            raise RestainError(
                f"A phantom slide of {self.size.width}x{self.size.height} px at {self.mpp} µm is too small: its sides "
                f"must be at least {_LEAST_SIDE_UM:.0f} µm."
            )
        if self.seed < 0:
            raise RestainError(f"A seed must be 0 or greater, not {self.seed}.")
        shares = list(self.mixture.values())
        if not shares or min(shares) < 0 or not 0 < sum(shares) < math.inf:
            raise RestainError("The mixture of a phantom slide needs shares that are not negative, and one above 0.")
        if not 0.005 <= self.tissue_share <= 0.8:
            raise RestainError(f"The share of tissue must lie between 0.005 and 0.8, not at {self.tissue_share}.")
        if self.islands is not None and not 1 <= self.islands <= 200:
            raise RestainError(f"A phantom slide has 1 to 200 islands of tissue, not {self.islands}.")
        given = self.deformation
        if isinstance(given, Deformation) and given.size != (self.size.width, self.size.height):
            raise RestainError(
                f"The deformation is of slides of {given.size[0]}x{given.size[1]} px, "
                f"not of {self.size.width}x{self.size.height}."
            )

    @cached_property
    def plan(self) -> SlidePlan:
        return draw_plan(
            self.size,
            self.mpp,
            self.seed,
            self.mixture,
            islands=self.islands,
            tissue_share=self.tissue_share,
            deformation=self.deformation,
        )

    @cached_property
    def looks(self) -> tuple[Appearance, Appearance]:
        """Of the H&E and of the IHC section. Scanners correct shading."""
        rng = np.random.default_rng([self.seed, 13])
        return replace(he_appearance(rng), shading=0.0), replace(ihc_appearance(rng), shading=0.0)

    @property
    def tile(self) -> int:
        return 512 if max(self.size.width, self.size.height) > LARGE_PX else 256

    @property
    def texture_numbers(self) -> dict[Her2Level, int]:
        """How many textures of each level the islands are made of: a large one repeats itself less."""
        side = TEXTURE_TILES * self.tile
        numbers = {}
        most = min(MOST_TEXTURES, MOST_GROWN // len(self.plan.level_shares))
        for level in self.plan.level_shares:
            area = sum(i.area_mm2 for i in self.plan.islands if i.level == level) * 1e6 / self.mpp**2
            numbers[level] = min(most, max(1, round(area / side**2)))
        return numbers

    @property
    def texture_count(self) -> int:
        return sum(self.texture_numbers.values())

    def grow(self, steps: _Steps) -> dict[Her2Level, list[Texture]]:
        grown: dict[Her2Level, list[Texture]] = {}
        for level, count in self.texture_numbers.items():
            for number in range(count):
                one = grow_texture(self.seed, level, number, TEXTURE_TILES * self.tile, self.mpp, *self.looks)
                grown.setdefault(level, []).append(one)
                steps.add(1)
        return grown

    def parameters(self) -> dict[str, Any]:
        """All that decides the pixels, ready for JSON."""
        given = self.deformation
        return {
            "format": FORMAT,
            "size": [self.size.width, self.size.height],
            "mpp": self.mpp,
            "seed": self.seed,
            "mixture": {level.text: share for level, share in sorted(self.mixture.items())},
            "islands": self.islands,
            "tissue_share": self.tissue_share,
            "deformation": None if given is None else {"is": type(given).__name__.lower(), **asdict(given)},
        }

    def identity(self, name: str) -> dict[str, str]:
        """What tells the tiles of an output from those of another."""
        return {"phantom slide": json.dumps(self.parameters(), sort_keys=True), "output": name}

    def output(self, name: str) -> _Output:
        if name == "dab":
            size = Size(-(-self.size.width // DAB_REDUCTION), -(-self.size.height // DAB_REDUCTION))
            return _Output(name, size, self.mpp * DAB_REDUCTION, "dab", DAB_REDUCTION)
        return _Output(name, self.plan.deformation.target_size if name == "ihc" else self.size, self.mpp, "rgb")


class _Steps:
    """Counts what is done and tells it."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, count: int) -> None:
        self.done += count
        if self.progress is not None and count:
            self.progress(self.done, self.total)


def _claim(out: Path, job: _Job) -> SlideTruth | None:
    """Make the folder, or look into it: the truth of the same slides if there is one. Refuse what holds something else."""
    parameters = json.loads(json.dumps(job.parameters()))
    try:
        make_folder(out)
        if (out / TRUTH).is_file():
            known = read_slide_truth(out)
            if known.parameters != parameters:
                raise RestainError(
                    f"{out} holds a phantom slide made with other parameters; give another folder or the same ones."
                )
            return known
        if any(not path.name.startswith(_OURS) for path in out.iterdir()):
            raise RestainError(f"{out} is not empty and holds no phantom slide to go on with; give a new folder.")
    except OSError as fault:
        raise RestainError(f"{out} cannot be written: {fault.strerror or fault}.") from None
    return None


def _file(name: str) -> str:
    return f"{name}.ome.tiff"


_OURS = ("he.", "ihc.", "ihc-registered.", "dab.", "truth.", ".")


def _is_finished(path: Path, identity: Mapping[str, str]) -> bool:
    if not path.is_file():
        return False
    found = read_metadata(path)
    return all(found.get(key) == value for key, value in identity.items())


def _write_output(path: Path, output: _Output, painter: Painter, job: _Job, steps: _Steps) -> None:
    identity = job.identity(output.name)
    folder = path.with_name(f"{output.name}.part")
    weight = output.tiles(job.tile)
    with TileStore.open(folder, identity, output.size, job.tile, output.kind, _QUALITY) as store:
        for row, column in _order(store.grid):
            if not store.has(row, column):
                _put(store, row, column, output, painter)
            steps.add(1)
        before = steps.done

        def told(done: int, total: int) -> None:
            steps.add(before + done * weight // total - steps.done)

        metadata = {"notice": f"{NOTE}; research use only", **identity}
        write_ome_tiff(store, path, mpp=output.mpp, metadata=metadata, progress=told)
        store.discard()


def _order(grid: tuple[int, int]) -> Iterator[tuple[int, int]]:
    for first in range(0, grid[1], _BAND):
        for row in range(grid[0]):
            for column in range(first, min(first + _BAND, grid[1])):
                yield row, column


def _put(store: TileStore, row: int, column: int, output: _Output, painter: Painter) -> None:
    height, width = store.extent(row, column)
    if output.kind == "dab":
        density = painter.reduced_dab(row, column, output.reduction)
        if density is None:
            store.put_blank(row, column)
        else:
            store.put(row, column, density[:height, :width])
        return
    paint, white = {
        "he": (painter.he, painter.white_he),
        "ihc": (painter.ihc, painter.white_ihc),
        "ihc-registered": (painter.registered, painter.white_ihc),
    }[output.name]
    image = paint(row, column)
    if image is None:
        store.put_blank(row, column, white)
    else:
        store.put(row, column, image[:height, :width])


__all__ = ["DAB_REDUCTION", "write_phantom_slide"]
