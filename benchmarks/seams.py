"""Does a pixel's result depend on the tile in which it fell? Tiled staining beside staining in one piece, in one run.

    python benchmarks/seams.py [--quick] [--model BUNDLE] [--threads 2]

A phantom H&E image (synthetic tissue of four HER2 levels side by side, so that tiles differ) is stained in one piece,
and in tiles of 256, 512 and 1024 px: with the attention's survey of the whole image (what ``restain stain`` does), with
tiles that only see themselves and are blended over the same overlap, and as plain tiles set side by side. All
differences are of 8-bit RGB values, before rounding. Prints one JSON object last:

- ``mean_diff``, ``max_diff``: of the surveyed tiles to the image in one piece, the worst of the tile sizes.
- ``mean_between``, ``max_between``: of the surveyed tile sizes to one another, the worst pair.
- ``seam_ratio``: mean gradient across the borders of surveyed 512 px tiles, over the mean gradient across lines three px
  beside them. 1 is no seam, up to what the tissue itself does at these lines: ``seam_ratio_whole`` is the same figure of
  the image in one piece, which has no seams, and ``seam_ratio_random`` that of the tiled one at as many other lines.
- ``blended`` and ``plain``: the same figures of 512 px tiles that see only themselves, with blending and without.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from itertools import combinations, pairwise
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

from restain.bundle import load_bundle
from restain.geometry import Size, tiles
from restain.her2 import Her2Level
from restain.phantom import make_pair
from restain.stain import OVERLAP, Restainer

TILES = (256, 512, 1024)


def picture(side: int, mpp: float) -> NDArray[np.uint8]:
    """``(side, side, 3)`` phantom H&E: a quarter of each HER2 level."""
    quarters = [make_pair(7, i, level, size=side // 2, mpp=mpp).he for i, level in enumerate(Her2Level)]
    return np.vstack([np.hstack(quarters[:2]), np.hstack(quarters[2:])])


def stained(restainer: Restainer, he: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB in [0, 255], not rounded."""
    return np.concatenate([planes[..., :3] for _, planes in restainer.bands(he, None)]) * 255


def borders(side: int, tile: int, overlap: int) -> list[int]:
    """Where one tile's own part ends and the next one's begins: the middles of their overlaps."""
    starts = sorted({region.origin.x for region in tiles(Size(side, side), tile, overlap)})
    return [(start + before + tile) // 2 for before, start in pairwise(starts)]


def seam_ratio(image: NDArray[np.float32], lines: list[int]) -> float:
    """Mean gradient across ``lines``, rows and columns, over the mean gradient three px beside them."""
    at, beside = [], []
    for picture in (image, image.swapaxes(0, 1)):
        steps = np.abs(np.diff(picture, axis=1)).mean(axis=(0, 2))
        at += [steps[line - 1] for line in lines]
        beside += [steps[line - 1 + shift] for line in lines for shift in (-3, 3)]
    return float(np.mean(at) / np.mean(beside))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1536 px instead of 4096")
    parser.add_argument("--model", type=Path, help="bundle; without it the shipped one")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle = load_bundle(options.model)
    side = 1536 if options.quick else 4096
    he = picture(side, bundle.card.mpp)
    began = time.monotonic()

    def run(tile: int, overlap: int | None = None, **more: object) -> NDArray[np.float32]:
        result = stained(Restainer(bundle, tile=tile, overlap=overlap, **more), he)  # type: ignore[arg-type]
        print(f"tile {tile}, overlap {overlap}, {more or 'surveyed'}: {time.monotonic() - began:.0f} s", flush=True)
        return result

    whole = run(side)
    surveyed = {tile: run(tile) for tile in TILES}

    def apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
        difference = np.abs(a - b)
        return float(difference.mean()), float(difference.max())

    def figures(image: NDArray[np.float32], overlap: int) -> dict[str, float]:
        mean, most = apart(image, whole)
        return {"mean_diff": mean, "max_diff": most, "seam_ratio": seam_ratio(image, borders(side, 512, overlap))}

    to_whole = [apart(image, whole) for image in surveyed.values()]
    between = [apart(a, b) for a, b in combinations(surveyed.values(), 2)]
    lines = borders(side, 512, OVERLAP)
    random = sorted(int(x) for x in np.random.default_rng(0).integers(8, side - 8, len(lines)))
    result = {
        "mean_diff": max(mean for mean, _ in to_whole),
        "max_diff": max(most for _, most in to_whole),
        "mean_between": max(mean for mean, _ in between),
        "max_between": max(most for _, most in between),
        "seam_ratio": seam_ratio(surveyed[512], lines),
        "seam_ratio_whole": seam_ratio(whole, lines),
        "seam_ratio_random": seam_ratio(surveyed[512], random),
        "blended": figures(run(512, survey=None), OVERLAP),
        "plain": figures(run(512, overlap=0, survey=None), 0),
        "side": side,
        "model": bundle.card.name,
        "threads": options.threads,
        "machine": f"{platform.machine()}, torch {torch.__version__}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
