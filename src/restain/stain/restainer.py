"""A model bundle as a function from H&E to virtual IHC, tile by tile.

Images that fit one tile are restained whole. Larger ones are cut into overlapping tiles whose results are blended by
ramps over the overlap. What the attention of every tile reads from is a survey of the whole image, made beforehand
(:mod:`restain.models.survey`), so that a pixel's result does not depend on the tile in which it fell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from restain.bundle import Bundle
from restain.engines import Engine, choose_engine
from restain.engines.choose import NAMES
from restain.engines.eager import EagerEngine
from restain.errors import RestainError
from restain.geometry import Region, Size, tiles
from restain.models.blocks import channels_last
from restain.models.heads import StainHead
from restain.models.network import StainingNetwork
from restain.models.state_grid import State
from restain.models.survey import SURVEY, Survey, look_around
from restain.prediction import Prediction

OVERLAP = 192
"""px that tiles share. Blending leaves out the outer quarter and weighs the next px little, so that convolutions have 96 px
of margin on either side where it counts; ``benchmarks/seams.py`` measures what is left."""


def _ramp(length: int, overlap: int, at_start: bool, at_end: bool) -> NDArray[np.float32]:
    """Blending weights along one side of a tile: 1 inside, falling to 0 over each overlap that has a neighbour.

    The outer quarter of the overlap has no weight, since convolutions see the tile's border there; the middle half is
    a linear ramp. Weights of two neighbours add up to 1.
    """
    weight = np.ones(length, np.float32)
    if overlap:
        rise = np.clip((np.arange(overlap, dtype=np.float32) + 0.5) / overlap * 2 - 0.5, 0, 1)
        if not at_start:
            weight[:overlap] *= rise
        if not at_end:
            weight[-overlap:] *= rise[::-1]
    return weight


def restain_whole(
    generator: StainingNetwork,
    he: NDArray[np.uint8],
    white: NDArray[np.float32] | None = None,
    context: Sequence[State] | None = None,
) -> NDArray[np.float32]:
    """Restain an image in one piece, on the generator's device.

    ``(H, W, 3)`` uint8 RGB to ``(H, W, 3 or 4)``: RGB in [0, 1], then the DAB density in OD units where the model has a
    stain head. ``white``, ``(3,)`` in [0, 255], is the glass to render on in place of the model's own; it needs a stain head.
    ``context``: what a survey says of the image that ``he`` is a tile of, for restain's own generator.
    """
    engine = EagerEngine(generator, next(generator.parameters()).device)
    planes: NDArray[np.float32] = engine(he[None], white, context)[0]
    return planes


def to_prediction(planes: NDArray[np.float32]) -> Prediction:
    """What :func:`restain_whole` gives, as an 8-bit image and a DAB map."""
    rgb = np.round(planes[..., :3].clip(0, 1) * 255).astype(np.uint8)
    return Prediction(rgb, planes[..., 3] if planes.shape[2] == 4 else None)


class Restainer:
    """A model bundle as a function from H&E to virtual IHC (a :class:`restain.prediction.Predictor`).

    Args:
        bundle: the model.
        tile: largest side of a tile in px.
        overlap: px that neighbouring tiles share; without it ``OVERLAP``, or half a tile where that is less.
        device: torch device; CUDA where there is one, else the CPU.
        white: ``(3,)`` in [0, 255], the glass of the IHC slide or scanner that is to be imitated; None for the model's own.
        survey: how images of more than one tile are surveyed for the attention; None leaves each tile to itself.
        engine: what runs the network (:func:`restain.engines.choose_engine`); ``auto`` for the fastest that is there.

    Raises:
        RestainError: if a white is given for a model without a stain head, or one that is no intensity; if no engine has that name.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        tile: int = 1024,
        overlap: int | None = None,
        device: str | None = None,
        white: Sequence[float] | None = None,
        survey: Survey | None = SURVEY,
        engine: str = "eager-fp32",
    ) -> None:
        if white is not None and not (len(white) == 3 and all(0 < v <= 255 for v in white)):
            raise RestainError(f"{', '.join(map(str, white))}: a white is three intensities above 0 and up to 255.")
        if white is not None and not isinstance(getattr(bundle.generator, "head", None), StainHead):
            raise RestainError(
                f"{bundle.path}: the model has no stain output, so it has no white that could be another."
            )
        if engine not in NAMES:
            raise RestainError(f"{engine} is no engine; the engines are {', '.join(NAMES)}.")
        self.white = None if white is None else np.asarray(white, np.float32)
        self.bundle = bundle
        self.tile = tile
        self.overlap = min(OVERLAP, tile // 2) if overlap is None else overlap
        self.survey = survey
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.generator = channels_last(bundle.generator.to(self.device)).eval()
        self.batch = 1 if self.device.type == "cpu" else 8
        """Tiles that go through the network at a time."""
        self._engine = engine
        self._engines: dict[int, Engine] = {}

    @property
    def engine(self) -> Engine:
        """The engine for tiles of ``tile`` px."""
        return self.engine_for(self.tile)

    def engine_for(self, side: int) -> Engine:
        """The engine for tiles of ``side`` px. Made at its first use, since some take long to be compiled.

        Raises:
            RestainError: if this machine or network cannot have the engine that was asked for.
        """
        if side not in self._engines:
            self._engines[side] = choose_engine(self.generator, device=self.device, tile=side, name=self._engine)
        return self._engines[side]

    @property
    def label(self) -> str:
        """The bundle's name and the start of its hash."""
        return f"{self.bundle.card.name} ({self.bundle.card.hash[:12]})"

    def bands(
        self, he: NDArray[np.uint8], progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Finished rows from top to bottom: ``(first row, (h, W, C))``. Holds one row of tiles at a time."""
        height, width = he.shape[:2]
        regions = list(tiles(Size(width, height), self.tile, self.overlap))
        rows = sorted({r.origin.y for r in regions})
        # An image of one tile surveys itself.
        windows: list[Region] = []
        if self.survey is not None and len(regions) > 1 and self.generator.surveys:
            windows = self.survey.windows(Size(width, height))
        looks = len(windows) * (self.survey.looks(self.generator) if self.survey else 0)
        steps = looks + len(regions)

        def report(done: int) -> None:
            if progress is not None:
                progress(done, steps)

        def looked_at(number: int) -> Iterator[tuple[Region, NDArray[np.uint8]]]:
            for done, window in enumerate(windows):
                report(number * len(windows) + done)
                yield window, he[window.slices]

        grid = look_around(self.generator, self.survey, Size(width, height), looked_at) if self.survey else None
        total: NDArray[np.float32] | None = None
        weight = np.zeros(0, np.float32)
        for done, region in enumerate(regions):
            report(looks + done)
            context = None if grid is None else grid.around(region)
            (planes,) = self.engine(he[None, *region.slices], self.white, context)
            ramp = self._weight(region, Size(width, height))
            if total is None:
                total = np.zeros((region.size.height, width, planes.shape[2]), np.float32)
                weight = np.zeros((region.size.height, width, 1), np.float32)
            columns = region.slices[1]
            total[:, columns] += planes * ramp
            weight[:, columns] += ramp
            if region.right < width:
                continue
            top = region.origin.y
            following = rows.index(top) + 1
            ready = rows[following] - top if following < len(rows) else region.size.height
            yield top, total[:ready] / weight[:ready]
            total = np.concatenate([total[ready:], np.zeros_like(total[:ready])])
            weight = np.concatenate([weight[ready:], np.zeros_like(weight[:ready])])
        report(steps)

    def _weight(self, region: Region, size: Size) -> NDArray[np.float32]:
        down = _ramp(region.size.height, self.overlap, region.origin.y == 0, region.bottom == size.height)
        across = _ramp(region.size.width, self.overlap, region.origin.x == 0, region.right == size.width)
        weight: NDArray[np.float32] = (down[:, None] * across[None, :])[..., None]
        return weight

    def __call__(self, he: NDArray[np.uint8], progress: Callable[[int, int], None] | None = None) -> Prediction:
        """Restain one image at the model's mpp: ``(H, W, 3)`` uint8 RGB of any size."""
        rgb = np.empty(he.shape, np.uint8)
        dab: NDArray[np.float32] | None = None
        for top, planes in self.bands(he, progress):
            rows = slice(top, top + planes.shape[0])
            band = to_prediction(planes)
            rgb[rows] = band.rgb
            if band.dab is not None:
                dab = np.empty(he.shape[:2], np.float32) if dab is None else dab
                dab[rows] = band.dab
        return Prediction(rgb, dab)
