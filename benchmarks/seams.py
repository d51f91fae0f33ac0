"""Do windows show in the result, does a region of interest equal the whole slide, and what do windows cost?

    python benchmarks/seams.py [--quick] [--model BUNDLE] [--threads 2]

A phantom H&E image (synthetic tissue of four HER2 levels in its quarters, so that windows differ) is stained as
``restain stain`` does, in windows of the model's context, blended in density. Beside it: the image in one
piece, and windows with half of their side shared in place of a quarter. Differences are of 8-bit RGB values. Prints one
JSON object last:

- ``roi_max_diff``: the greatest difference of regions of interest to the same places of the whole image; the goal is 0.
- ``seam_ratio``: ``restain.stain.seams`` where windows begin, with ``seam_interval``; 1 is no seam. ``seam_ratio_one_piece`` is
  the same figure of the image in one piece, which has no seams. Null where the image is constant.
- ``half_overlap``: ``seam_ratio``, ``seconds`` of CPU time and ``truth`` of windows that share half of their side; ``seconds``
  are those of the windows in use.
- ``one_piece``: ``mean_diff`` and ``max_diff`` of the windows to the image in one piece.
- ``truth``: against the phantom's true DAB density: ``dab_r16`` (Pearson's r over cells of 16 µm), ``dab_mae`` (mean
  difference over those cells in OD) and ``dab_mean`` (difference of the mean in OD in each quarter, of levels 0 to 3+).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

from restain.engines import predict_at_once
from restain.evaluation.stain import cell_means, cell_px, dab_mean, dab_r16
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.models.tensors import to_uint8
from restain.phantom import make_pair
from restain.stain import StainResult, load, windows
from restain.stain.area import rectangle
from restain.stain.seams import measure_seams

WHITE = (240.0, 240.0, 240.0)
REGIONS = (Region(Point(37, 411), Size(300, 200)), Region(Point(700, 600), Size(513, 257)))


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
    parser.add_argument("--quick", action="store_true", help="1600 px instead of 4096")
    parser.add_argument("--model", type=Path, help="bundle; without it the shipped one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7, help="of the phantom")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, side = load(options.model), 1600 if options.quick else 4096
    he, truth = picture(side, model.mpp, options.seed)

    def stained(**more: object) -> StainResult:
        return model.stain(
            he,
            mpp=model.mpp,
            everywhere=True,
            white=WHITE,
            engine="eager-fp32",
            glass_noise=False,
            progress=False,
            **more,
        )

    def timed() -> tuple[StainResult, float]:
        began = time.process_time()
        return stained(), time.process_time() - began

    def seams(image: NDArray[np.uint8], overlap: int) -> tuple[float | None, list[float] | None]:
        stride = model.context_px - model.context_px // overlap
        found = measure_seams(lambda r: image[r.slices], Size(side, side), stride, lambda _: True)
        return (None, None) if found is None else (found.ratio, [found.low, found.high])

    def against_truth(dab: NDArray[np.float32]) -> dict[str, float | list[float]]:
        cell, half = cell_px(model.mpp), side // 2
        quarters = [np.s_[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        return {
            "dab_r16": dab_r16(dab, truth, model.mpp),
            "dab_mae": float(np.abs(cell_means(dab, cell) - cell_means(truth, cell)).mean()),
            "dab_mean": [dab_mean(dab[quarter]) - dab_mean(truth[quarter]) for quarter in quarters],
        }

    whole, seconds = timed()
    own, windows.OVERLAP = windows.OVERLAP, 2
    halves, half_seconds = timed()
    windows.OVERLAP = own
    one_piece = predict_at_once(model.generator, he, np.array(WHITE, np.float32))
    assert whole.dab is not None
    assert halves.dab is not None
    worst = 0
    for region in REGIONS:
        part = stained(roi=(rectangle(region),)).rgb[region.slices]
        worst = max(worst, int(np.abs(part.astype(int) - whole.rgb[region.slices]).max()))
    difference = np.abs(to_uint8(one_piece[..., :3]).astype(int) - whole.rgb)
    ratio, interval = seams(whole.rgb, own)
    result = {
        "roi_max_diff": worst,
        "seam_ratio": ratio,
        "seam_interval": interval,
        "seam_ratio_one_piece": seams(to_uint8(one_piece[..., :3]), own)[0],
        "seconds": seconds,
        "one_piece": {"mean_diff": float(difference.mean()), "max_diff": float(difference.max())},
        "half_overlap": {
            "seam_ratio": seams(halves.rgb, 2)[0],
            "seconds": half_seconds,
            "truth": against_truth(halves.dab),
        },
        "truth": {"windows": against_truth(whole.dab), "one_piece": against_truth(one_piece[..., 3])},
        "context_px": model.context_px,
        "side": side,
        "seed": options.seed,
        "model": model.bundle.card.name,
        "threads": options.threads,
        "machine": f"{platform.machine()}, torch {torch.__version__}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
