"""A phantom slide pair: pyramidal H&E and IHC slides with truth, streamed tile by tile in bounded memory."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from restain import __version__
from restain.errors import RestainError
from restain.files import make_folder
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom.deform import Distortion
from restain.phantom.quilting import MOST_GROWN, MOST_TEXTURES, TEXTURE_TILES, Texture, grow_texture
from restain.phantom.render import Appearance, he_appearance, ihc_appearance
from restain.phantom.slide_plan import (
    NOTE,
    TRUTH,
    SlidePlan,
    SlideTruth,
    draw_plan,
    read_slide_truth,
    write_slide_truth,
)
from restain.phantom.slide_tiles import DAB_REDUCTION, TileRenderer
from restain.progress import Progress, Steps
from restain.slides.metadata import read_metadata
from restain.slides.store import Kind, TileStore
from restain.slides.writer import write_ome_tiff

FORMAT = 1
"""Version of the pixels: raised when the same parameters give other slides."""
LARGE_PX = 4096
"""Slides with a longer side have tiles of 512 px, others of 256."""
_LEAST_SIDE_UM = 250.0
_QUALITY = 90
_BAND = 8
"""Tiles are made in bands of this many columns, so that what neighbours share is still cached."""
_NAMES = ("he.", "ihc.", "ihc-registered.", "dab.", "truth.", ".")
"""Beginnings of the names of files that may lie in the folder of an unfinished pair."""


def write_phantom_slide(
    out: Path,
    *,
    ihc: bool = True,
    registered: bool = False,
    dab: bool = False,
    progress: Progress | None = None,
    **parameters: Any,
) -> SlideTruth:
    """Write a pair of synthetic slides and the truth behind them; depends on the arguments alone.

    ``out`` gets ``he.ome.tiff``, ``ihc.ome.tiff`` (deformed, as it would be scanned), optionally ``ihc-registered.ome.tiff``
    (on the H&E's grid) and ``dab.ome.tiff`` (its DAB density in OD units, 4 times smaller), ``truth.geojson`` and
    ``truth.json``. Re-run after an interruption, it resumes and gives the same files; finished files are kept.

    Tissue is a quilt of grown pieces (:mod:`restain.phantom.quilting`), up to 6 per level, so a piece of 0.4 mm (at
    0.25 µm) occurs repeatedly, rotated and mirrored. ``parameters`` are those of :class:`SlidePair`.

    Raises RestainError if the parameters are out of range, ``out`` holds something else, or cannot be written.
    """
    pair = SlidePair(**parameters)
    pair.check()
    names = [
        name for name, wanted in (("he", True), ("ihc", ihc), ("ihc-registered", registered), ("dab", dab)) if wanted
    ]
    known = _claim(out, pair)
    kept = [name for name in names if _is_finished(out / _file(name), pair.identity(name))]
    before = {} if known is None else {name: file for name, file in known.files.items() if (out / file).is_file()}
    files = before | {name: _file(name) for name in names}
    if known is not None and len(kept) == len(names) and known.files == files:
        return known
    for name in kept:
        # Left by a process that was killed between writing the file and removing its tiles.
        shutil.rmtree(out / f"{name}.part", ignore_errors=True)
    left = [name for name in names if name not in kept]
    steps = Steps(sum(2 * pair.tile_count(name) for name in left) + sum(pair.texture_numbers.values()), progress)
    renderer = TileRenderer(pair.plan, pair.grow(steps), *pair.appearances, pair.tile)
    for name in left:
        _write_slide(out, name, renderer, pair, steps)
    appearances = {name: asdict(value) for name, value in zip(("he", "ihc"), pair.appearances, strict=True)}
    truth = SlideTruth(out, renderer.plan, pair.parameters(), files, appearances, __version__)
    write_slide_truth(truth)
    return truth


@dataclass(frozen=True)
class SlidePair:
    """Everything that decides the pixels of a slide pair."""

    size: Size
    """Level 0 of the H&E slide in px."""
    mpp: float = 0.25
    """Micrometres per pixel, 0.1 to 2."""
    seed: int = 0
    mixture: Mapping[Her2Level, float] = field(default_factory=lambda: {Her2Level.TWO: 1.0})
    """Share of the tissue's area at each level; every island has one level."""
    deformation: Distortion | None = Distortion()  # noqa: RUF009 (frozen)
    """Strength of the IHC's deformation, or None for none."""
    islands: int | None = None
    """Number of pieces of tissue; None chooses it by area."""
    tissue_share: float = 0.3
    """Share of the slide that is tissue; islands that do not fit shrink."""

    def check(self) -> None:
        """Raise RestainError for a parameter out of range."""
        size, islands = f"{self.size.width}x{self.size.height} px", 1 if self.islands is None else self.islands
        small = min(self.size.width, self.size.height) * self.mpp < _LEAST_SIDE_UM
        shares = list(self.mixture.values())
        for wrong, sentence in (
            (not 0.1 <= self.mpp <= 2, f"The slide's mpp must lie between 0.1 and 2 µm per px, not at {self.mpp}."),
            (small, f"A slide of {size} at {self.mpp} µm is too small: its least side is {_LEAST_SIDE_UM:.0f} µm."),
            (self.seed < 0, f"A seed must be 0 or greater, not {self.seed}."),
            (
                not shares or min(shares) < 0 or not 0 < sum(shares) < math.inf,
                "The mixture of a phantom slide needs shares that are not negative, and one above 0.",
            ),
            (
                not 0.005 <= self.tissue_share <= 0.8,
                f"The share of tissue must lie between 0.005 and 0.8, not at {self.tissue_share}.",
            ),
            (not 1 <= islands <= 200, f"A phantom slide has 1 to 200 islands of tissue, not {self.islands}."),
        ):
            if wrong:
                raise RestainError(sentence)

    @cached_property
    def plan(self) -> SlidePlan:
        return draw_plan(
            self.size, self.mpp, self.seed, self.mixture, self.islands, self.tissue_share, self.deformation
        )

    @cached_property
    def appearances(self) -> tuple[Appearance, Appearance]:
        """Appearances of the H&E and of the IHC section, without shading, which scanners correct."""
        rng = np.random.default_rng([self.seed, 13])
        return replace(he_appearance(rng), shading=0.0), replace(ihc_appearance(rng), shading=0.0)

    @property
    def tile(self) -> int:
        return 512 if max(self.size.width, self.size.height) > LARGE_PX else 256

    @property
    def texture_numbers(self) -> dict[Her2Level, int]:
        """Number of textures of each level: more where its islands are large, so that they repeat less."""
        side = TEXTURE_TILES * self.tile
        most = min(MOST_TEXTURES, MOST_GROWN // len(self.plan.level_shares))
        numbers = {}
        for level in self.plan.level_shares:
            area = sum(i.area_mm2 for i in self.plan.islands if i.level == level) * 1e6 / self.mpp**2
            numbers[level] = min(most, max(1, round(area / side**2)))
        return numbers

    def grow(self, steps: Steps) -> dict[Her2Level, list[Texture]]:
        """Grow the textures of every level."""
        grown: dict[Her2Level, list[Texture]] = {}
        for level, count in self.texture_numbers.items():
            for number in range(count):
                one = grow_texture(self.seed, level, number, TEXTURE_TILES * self.tile, self.mpp, *self.appearances)
                grown.setdefault(level, []).append(one)
                steps.add()
        return grown

    def parameters(self) -> dict[str, Any]:
        """The parameters, ready for JSON."""
        strength = self.deformation
        return {
            "format": FORMAT,
            "size": [self.size.width, self.size.height],
            "mpp": self.mpp,
            "seed": self.seed,
            "mixture": {level.text: share for level, share in sorted(self.mixture.items())},
            "islands": self.islands,
            "tissue_share": self.tissue_share,
            "deformation": None if strength is None else {"is": "distortion", **asdict(strength)},
        }

    def identity(self, name: str) -> dict[str, str]:
        """What distinguishes the tiles of the slide ``name`` from those of others."""
        return {"phantom slide": json.dumps(self.parameters(), sort_keys=True), "output": name}

    def size_of(self, name: str) -> Size:
        """Level 0 of the slide ``name``."""
        if name == "dab":
            return Size(-(-self.size.width // DAB_REDUCTION), -(-self.size.height // DAB_REDUCTION))
        return self.plan.deformation.target_size if name == "ihc" else self.size

    def tile_count(self, name: str) -> int:
        size = self.size_of(name)
        return -(-size.width // self.tile) * -(-size.height // self.tile)


def _claim(out: Path, pair: SlidePair) -> SlideTruth | None:
    """Make the folder. Return the truth of the same slides if there is one; refuse a folder that holds something else."""
    make_folder(out)
    if (out / TRUTH).is_file():
        known = read_slide_truth(out)
        if known.parameters != json.loads(json.dumps(pair.parameters())):
            raise RestainError(
                f"{out} holds a phantom slide made with other parameters; give another folder or the same parameters."
            )
        return known
    if any(not path.name.startswith(_NAMES) for path in out.iterdir()):
        raise RestainError(f"{out} is not empty and holds no phantom slide to resume; give a new folder.")
    return None


def _file(name: str) -> str:
    return f"{name}.ome.tiff"


def _is_finished(path: Path, identity: Mapping[str, str]) -> bool:
    return path.is_file() and identity.items() <= read_metadata(path).items()


def _write_slide(out: Path, name: str, renderer: TileRenderer, pair: SlidePair, steps: Steps) -> None:
    identity, count = pair.identity(name), pair.tile_count(name)
    kind: Kind = "dab" if name == "dab" else "rgb"
    mpp = pair.mpp * (DAB_REDUCTION if name == "dab" else 1)
    with TileStore.open(out / f"{name}.part", identity, pair.size_of(name), pair.tile, kind, _QUALITY) as store:
        for row, column in _order(store.grid):
            if not store.has(row, column):
                pixels = renderer.tile(name, row, column)
                if pixels is None:
                    store.put_blank(row, column, renderer.white[name])
                else:
                    height, width = store.extent(row, column)
                    store.put(row, column, pixels[:height, :width])
            steps.add()
        before = steps.done

        def report(done: int, total: int) -> None:
            steps.add(before + done * count // total - steps.done)

        metadata = {"notice": f"{NOTE}; research use only", **identity}
        write_ome_tiff(store, out / _file(name), mpp=mpp, metadata=metadata, progress=report)
        store.discard()


def _order(grid: tuple[int, int]) -> Iterator[tuple[int, int]]:
    for first in range(0, grid[1], _BAND):
        for row in range(grid[0]):
            for column in range(first, min(first + _BAND, grid[1])):
                yield row, column
