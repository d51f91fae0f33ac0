"""Does a pixel's result depend on the tile in which it fell? Tiled staining beside staining in one piece, in one run.

    python benchmarks/seams.py [--quick] [--model BUNDLE] [--threads 2]

A phantom H&E image (synthetic tissue of four HER2 levels in its quarters, so that tiles differ) is stained in one piece, as
``restain stain`` does (blocks of 256, 512 and 1024 px with a margin, which read from a survey of the whole image
and are set side by side), and as plain tiles that see only themselves. The blocks
read from one state of the whole image, and once more from states on a grid (``Survey.spacing``), of
512 px with ``--quick``, else 1024.
Differences are of 8-bit RGB values. Prints one JSON object last:

- ``mean_diff``, ``max_diff``: of the blocks to the image in one piece, the worst of the three sizes.
- ``mean_between``, ``max_between``: of the blocks' sizes to one another, the worst pair.
- ``seam_ratio``: ``restain.stain.seams`` at the borders of the blocks of 512 px, with ``seam_interval``; 1 is no seam.
  ``seam_ratio_whole`` is the same figure of the image in one piece, which has no seams.
- ``survey``: of the image in one piece that reads from the survey to the one that attends to itself.
- ``margins``: of blocks of 512 px with other margins than the one in use to the image in one piece that reads from the survey.
- ``plain``: the tiles that see only themselves, at 512 px.
- ``grid``: of blocks that read from the grid: ``mean_diff`` and ``max_diff`` to the image in one piece that reads from it,
  ``mean_between`` and ``max_between``, the worst pair of sizes; ``seam_ratio``; ``global``: to the image in one piece
  that attends to itself; ``seconds`` of CPU time for blocks of 512 px beside ``global_seconds``, and of the two surveys.
- ``truth``: of the image in one piece, blocks of 512 px with one state and with the grid, and plain tiles, against the phantom's true
  DAB density: ``dab_r16`` (Pearson's r over cells of 16 µm), ``dab_mae`` (mean difference over those cells in OD) and
  ``dab_mean`` (difference of the mean in OD in each quarter, of levels 0 to 3+).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

from restain.bundle import load_bundle
from restain.evaluation.stain import cell_means, cell_px, dab_mean, dab_r16
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.images import write_png
from restain.models.state_grid import State
from restain.models.survey import Survey
from restain.phantom import make_pair
from restain.slides import TissueMask, open_slide
from restain.stain import Model, StainOptions, blocks
from restain.stain.area import Area, everywhere
from restain.stain.blocks import BlockStainer
from restain.stain.glass import Glass
from restain.stain.memory import MemoryTiles
from restain.stain.seams import measure_seams
from restain.stain.survey import places, survey_slide

SIZES = (256, 512, 1024)
WHITE = (240.0, 240.0, 240.0)


def picture(side: int, mpp: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """``(side, side, 3)`` phantom H&E, a quarter of each HER2 level, and its true DAB density ``(side, side)``."""
    quarters = [make_pair(seed, i, level, size=side // 2, mpp=mpp) for i, level in enumerate(Her2Level)]
    he, dab = [q.he for q in quarters], [q.dab for q in quarters]
    return (
        np.vstack([np.hstack(he[:2]), np.hstack(he[2:])]),
        np.vstack([np.hstack(dab[:2]), np.hstack(dab[2:])]).astype(np.float32),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1536 px instead of 4096")
    parser.add_argument("--model", type=Path, help="bundle; without it the shipped one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7, help="of the phantom")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle = load_bundle(options.model)
    mpp, side = bundle.card.mpp, 1536 if options.quick else 4096
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", flush=True)

    he, truth = picture(side, mpp, options.seed)
    say("phantom made")
    with tempfile.TemporaryDirectory() as folder:
        write_png(Path(folder) / "he.png", he, {}, mpp)
        slide = open_slide(Path(folder) / "he.png", mpp)
        glass = TissueMask(np.zeros((1, 1), bool), 8.0, np.array(WHITE, np.float32))
        area = Area(everywhere(slide.size_at(8.0), glass), mpp, mpp)
        model = Model(bundle)
        surveys, survey_seconds = {}, {}
        for name, spacing in (("global", None), ("grid", side // (3 if options.quick else 4))):
            looking, started = Survey(spacing=spacing), time.process_time()
            surveys[name] = survey_slide(slide, model, looking, places(slide, mpp, looking, area))
            survey_seconds[name] = time.process_time() - started
            say(f"{surveys[name].windows} windows surveyed, {name}")
    survey, grid = surveys["global"], surveys["grid"]
    assert survey.context is not None
    assert grid.context is not None
    everything = Region(Point(0, 0), Size(side, side))

    def in_one_piece(context: Sequence[State] | None) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        engine = model.engine(StainOptions(engine="eager-fp32"))
        planes = engine(he[None], np.array(WHITE, np.float32), context)[0]
        return np.rint(planes[..., :3].clip(0, 1) * 255).astype(np.uint8), planes[..., 3]

    whole, whole_dab = in_one_piece(None)
    surveyed, _ = in_one_piece(survey.context(everything))
    gridded, _ = in_one_piece(grid.context(everything))
    say("in one piece, attending to itself, reading from the survey, and from the grid")
    fill = Glass(glass.glass, glass.glass, model.mpp)
    densities: dict[str, NDArray[np.float32]] = {"whole": whole_dab}
    seconds: dict[str, float] = {}

    def blocked(size: int, margin: int | None = None, *, by: str = "global") -> NDArray[np.uint8]:
        stores = [MemoryTiles(Size(side, side), size, kind) for kind in ("rgb", "dab")]
        own, blocks.HALO = blocks.HALO, blocks.HALO if margin is None else margin
        context = surveys[by].context if by in surveys else None
        small, started = StainOptions(tile=size, white=WHITE, engine="eager-fp32", strict=True), time.process_time()
        BlockStainer(slide, model, small, area, fill, context, stores).run()
        seconds[f"{by} {size}"] = time.process_time() - started
        blocks.HALO = own
        say(f"blocks of {size} px, margin {own if margin is None else margin}, {by}")
        densities.setdefault(f"{by} {size}", stores[1].pixels)
        return stores[0].pixels

    def apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[float, float]:
        difference = np.abs(a.astype(np.int16) - b)
        return float(difference.mean()), float(difference.max())

    def against(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> dict[str, float]:
        mean, most = apart(image, other)
        return {"mean_diff": mean, "max_diff": most}

    def seams(image: NDArray[np.uint8]) -> tuple[float, list[float]]:
        found = measure_seams(lambda r: image[r.slices], Size(side, side), 512, lambda _: True)
        assert found is not None
        return found.ratio, [found.low, found.high]

    by_size = {size: blocked(size) for size in SIZES}
    say(f"blocks to one piece: {[apart(image, whole) for image in by_size.values()]}; seams {seams(by_size[512])}")
    by_grid = {size: blocked(size, by="grid") for size in SIZES}
    to_gridded = [apart(image, gridded) for image in by_grid.values()]
    between_grid = [apart(a, b) for a, b in combinations(by_grid.values(), 2)]
    to_whole = [apart(image, whole) for image in by_size.values()]
    between = [apart(a, b) for a, b in combinations(by_size.values(), 2)]

    def against_truth(dab: NDArray[np.float32]) -> dict[str, float | list[float]]:
        cell, half = cell_px(mpp), side // 2
        quarters = [np.s_[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        return {
            "dab_r16": dab_r16(dab, truth, mpp),
            "dab_mae": float(np.abs(cell_means(dab, cell) - cell_means(truth, cell)).mean()),
            "dab_mean": [dab_mean(dab[quarter]) - dab_mean(truth[quarter]) for quarter in quarters],
        }

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
        "plain": against(plain := blocked(512, 32, by="alone"), whole) | {"seam_ratio": seams(plain)[0]},
        "grid": {
            "spacing": side // (3 if options.quick else 4),
            "mean_diff": max(mean for mean, _ in to_gridded),
            "max_diff": max(most for _, most in to_gridded),
            "mean_between": max(mean for mean, _ in between_grid),
            "max_between": max(most for _, most in between_grid),
            "seam_ratio": seams(by_grid[512])[0],
            "global": against(gridded, whole),
            "seconds": seconds["grid 512"],
            "global_seconds": seconds["global 512"],
            "survey_seconds": survey_seconds,
            "windows": {name: each.windows for name, each in surveys.items()},
        },
        "truth": {name: against_truth(densities[name]) for name in ("whole", "global 512", "grid 512", "alone 512")},
        "side": side,
        "seed": options.seed,
        "model": bundle.card.name,
        "threads": options.threads,
        "machine": f"{platform.machine()}, torch {torch.__version__}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
