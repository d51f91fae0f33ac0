"""Does a pixel's result depend on the tile in which it fell? Tiled staining beside staining in one piece, in one run.

    python benchmarks/seams.py [--quick] [--model BUNDLE] [--threads 2]

A phantom H&E image (synthetic tissue of four HER2 levels side by side, so that tiles differ) is stained in one piece, as
``restain stain`` does slides (blocks of 256, 512 and 1024 px with a margin, which read from a survey of the whole image
and are set side by side), as it does pictures (tiles of 512 px that read from the survey and are blended over their overlap),
with tiles that see only themselves and are blended, and as plain tiles that see only themselves, set side by side.
Differences are of 8-bit RGB values. Prints one JSON object last:

- ``mean_diff``, ``max_diff``: of the blocks to the image in one piece, the worst of the three sizes.
- ``mean_between``, ``max_between``: of the blocks' sizes to one another, the worst pair.
- ``seam_ratio``: ``restain.stain.seams`` at the borders of the blocks of 512 px, with ``seam_interval``; 1 is no seam.
  ``seam_ratio_whole`` is the same figure of the image in one piece, which has no seams.
- ``survey``: of the image in one piece that reads from the survey to the one that attends to itself.
- ``margins``: of blocks of 512 px with other margins than the one in use to the image in one piece that reads from the survey.
- ``pictures``, ``blended``, ``plain``: the other ways, at 512 px.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from itertools import combinations
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

from restain.bundle import load_bundle
from restain.data import write_png
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.models.survey import Survey
from restain.phantom import make_pair
from restain.slides import TissueMask, open_slide
from restain.stain import Restainer, blocks
from restain.stain.area import Area, everywhere
from restain.stain.blocks import BlockStainer
from restain.stain.seams import measure_seams
from restain.stain.survey import places, survey_slide

SIZES = (256, 512, 1024)
WHITE = (240.0, 240.0, 240.0)


def picture(side: int, mpp: float) -> NDArray[np.uint8]:
    """``(side, side, 3)`` phantom H&E: a quarter of each HER2 level."""
    quarters = [make_pair(7, i, level, size=side // 2, mpp=mpp).he for i, level in enumerate(Her2Level)]
    return np.vstack([np.hstack(quarters[:2]), np.hstack(quarters[2:])])


class Canvas:
    """What a block stainer needs of a store, on an array: no JPEG comes between."""

    def __init__(self, side: int, tile: int) -> None:
        self.tile, self.grid = tile, (-(-side // tile),) * 2
        self.rgb = np.zeros((side, side, 3), np.uint8)

    def has(self, row: int, column: int) -> bool:
        return False

    def extent(self, row: int, column: int) -> tuple[int, int]:
        side = len(self.rgb)
        return min(self.tile, side - row * self.tile), min(self.tile, side - column * self.tile)

    def put(self, row: int, column: int, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        self.rgb[row * self.tile :, column * self.tile :][:height, :width] = image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1536 px instead of 4096")
    parser.add_argument("--model", type=Path, help="bundle; without it the shipped one")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle = load_bundle(options.model)
    mpp, side = bundle.card.mpp, 1536 if options.quick else 4096
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", flush=True)

    he = picture(side, mpp)
    say("phantom made")
    with tempfile.TemporaryDirectory() as folder:
        write_png(Path(folder) / "he.png", he, {}, mpp)
        slide = open_slide(Path(folder) / "he.png", mpp)
        glass = TissueMask(np.zeros((1, 1), bool), 8.0, np.array(WHITE, np.float32))
        area = Area(everywhere(slide.size_at(8.0), glass), mpp, mpp)
        restainer = Restainer(bundle, white=WHITE)
        survey = survey_slide(slide, restainer, places(slide, restainer, area), Path(folder), {})
    say(f"{survey.windows} windows surveyed")
    whole, surveyed = (
        np.rint(restainer.engine(he[None], restainer.white, context)[0, ..., :3].clip(0, 1) * 255).astype(np.uint8)
        for context in (None, survey.states)
    )
    say("in one piece, attending to itself, and reading from the survey")

    def blocked(size: int, margin: int | None = None, *, alone: bool = False) -> NDArray[np.uint8]:
        canvas = Canvas(side, size)
        own, blocks.HALO = blocks.HALO, blocks.HALO if margin is None else margin
        context = None if alone else survey.context
        small = Restainer(bundle, tile=size, white=WHITE)
        BlockStainer(slide, small, area, glass.glass, context, [canvas], strict=True).run()  # type: ignore[list-item]
        blocks.HALO = own
        say(f"blocks of {size} px, margin {own if margin is None else margin}{', alone' if alone else ''}")
        return canvas.rgb

    def tiled(survey: Survey | None) -> NDArray[np.uint8]:
        result = Restainer(bundle, tile=512, white=WHITE, survey=survey)(he).rgb
        say(f"blended tiles of 512 px, {'surveyed' if survey else 'alone'}")
        return result

    def apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[float, float]:
        difference = np.abs(a.astype(np.int16) - b)
        return float(difference.mean()), float(difference.max())

    def against(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> dict[str, float]:
        mean, most = apart(image, other)
        return {"mean_diff": mean, "max_diff": most}

    by_size = {size: blocked(size) for size in SIZES}
    to_whole = [apart(image, whole) for image in by_size.values()]
    between = [apart(a, b) for a, b in combinations(by_size.values(), 2)]

    def seams(image: NDArray[np.uint8]) -> tuple[float, list[float]]:
        found = measure_seams(lambda r: image[r.slices], Size(side, side), 512, lambda _: True)
        assert found is not None
        return found.ratio, [found.low, found.high]

    ratio, interval = seams(by_size[512])
    result = {
        "mean_diff": max(mean for mean, _ in to_whole),
        "max_diff": max(most for _, most in to_whole),
        "mean_between": max(mean for mean, _ in between),
        "max_between": max(most for _, most in between),
        "seam_ratio": ratio,
        "seam_interval": interval,
        "seam_ratio_whole": seams(whole)[0],
        "survey": against(surveyed, whole),
        "margins": {str(margin): against(blocked(512, margin), surveyed) for margin in (32, 64, 128)},
        "margin": blocks.HALO,
        "pictures": against(tiled(Survey()), whole),
        "blended": against(alone := tiled(None), whole) | {"seam_ratio": seams(alone)[0]},
        "plain": against(plain := blocked(512, 32, alone=True), whole) | {"seam_ratio": seams(plain)[0]},
        "side": side,
        "model": bundle.card.name,
        "threads": options.threads,
        "machine": f"{platform.machine()}, torch {torch.__version__}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
