"""How far off is a registration? Phantom pairs with known deformation, and a rat kidney with landmarks, in one run.

    python benchmarks/register.py [--quick] [--kidney FOLDER] [--bci FOLDER]

A piece of phantom tissue on glass is stained as H&E and as IHC; the IHC section is turned, mirrored, shifted, scaled and
bent by a smooth field of increasing size, and a piece of it is lost. The target registration error (TRE) is taken at points all
over the tissue that both sections have, in µm. The rat kidney (differently stained neighbouring sections with 69 pairs of
landmarks, which registration never sees) is left out where its folder is not given. Prints one JSON object last:

- ``curve``: for each RMS of the elastic field in µm, TRE ``median_um`` and ``p95_um``, with ``affine_median_um`` and
  ``affine_p95_um`` of the affine stage alone.
- ``median_um``, ``p95_um``: the worst of the curve.
- ``bci_information_before``, ``bci_information_after``: local mutual information in bits of each BCI pair, where their folder
  is given; ``bci_refused`` counts pairs that were refused and left as they come.
- ``kidney_median_px``, ``kidney_p95_px`` (and ``..._affine_...``, ``..._unregistered_...``).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.data.images import read_rgb
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.optics import optical_density
from restain.phantom import make_pair
from restain.register import Transform, register_images, slide_of, warp_region
from restain.slides import tissue_of

Rgb = NDArray[np.uint8]
Field = NDArray[np.float64]

BUMP_UM = 150.0
"""Standard deviation of the bumps of the elastic field."""


def pair(side: int, mpp: float, rms_um: float, seed: int) -> tuple[Rgb, Rgb, Field, NDArray[np.bool_]]:
    """Fixed and moving picture, ``(side, side, 3)``; for each moving pixel the fixed point (x, y) that it shows; the lost piece."""
    tissue = make_pair(seed, 0, Her2Level.TWO, size=side, mpp=mpp)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    wave = 0.05 * np.sin(9 * columns + seed) + 0.04 * np.sin(13 * rows + 2 * seed)
    island = (columns / 0.36) ** 2 + ((rows + wave) / 0.30) ** 2 < 1
    lost = (columns - 0.25) ** 2 + (rows - 0.15) ** 2 < 0.08**2
    he, ihc = (
        np.rint(246 + ndimage.gaussian_filter(shown.astype(float), 0.7)[..., None] * (rgb - 246.0))
        for rgb, shown in ((tissue.he, island), (tissue.ihc, island & ~lost))
    )
    angle, scale = math.radians(40.0 * seed), 1 / 1.02
    matrix = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = matrix @ np.diag([-1.0 if seed % 2 else 1.0, 1.0])
    y, x = np.mgrid[:side, :side] + 0.5
    source = np.stack([x, y], axis=-1) @ matrix.T + (side / 2 - matrix @ (side / 2, side / 2)) + (12.0, -9.0)
    if rms_um > 0:
        noise = np.random.default_rng(seed).standard_normal((2, side, side))
        field = ndimage.gaussian_filter(noise, (0, BUMP_UM / mpp, BUMP_UM / mpp), mode="wrap")
        field *= rms_um / mpp / np.sqrt((field**2).sum(axis=0).mean())
        at = source[..., ::-1].transpose(2, 0, 1) - 0.5
        moved = [ndimage.map_coordinates(field[i], at, order=1, mode="nearest") for i in (0, 1)]
        source = source + np.stack(moved, axis=-1)
    at = source[..., ::-1].transpose(2, 0, 1) - 0.5
    moving = np.stack([ndimage.map_coordinates(ihc[..., i], at, order=1, cval=246) for i in range(3)], axis=-1)
    return he.astype(np.uint8), np.rint(moving).astype(np.uint8), source, lost


def tre(transform: Transform, he: Rgb, source: Field, lost: NDArray[np.bool_], mpp: float) -> tuple[float, float]:
    """Median and 95th percentile in µm over tissue that both have."""
    seen = tissue_of(he, mpp).mask & ~ndimage.binary_dilation(lost, iterations=round(40 / mpp))
    points = np.argwhere(seen)[::37, ::-1] + 0.5
    there = transform.forward(points)
    height, width = source.shape[:2]
    inside = ((there > 1) & (there < (width - 1, height - 1))).all(axis=1)
    back = [ndimage.map_coordinates(source[..., i], there[inside, ::-1].T - 0.5, order=1) for i in (0, 1)]
    error = np.hypot(*(np.stack(back, axis=1) - points[inside]).T) * mpp
    return float(np.median(error)), float(np.percentile(error, 95))


def landmarks(path: Path) -> NDArray[np.float64]:
    return np.loadtxt(path, delimiter=",", skiprows=1)[:69, 1:]


def kidney(folder: Path) -> dict[str, float]:
    names = ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin")
    fixed, moving = (read_rgb(folder / f"{name}.jpg") for name in names)
    one, other = (landmarks(folder / f"{name}.csv") for name in names)
    found = register_images(fixed, moving)
    results = {}
    for label, there in (
        ("unregistered_", one),
        ("affine_", found.affine.forward(one)),
        ("", found.transform.forward(one)),
    ):
        error = np.hypot(*(there - other).T)
        results[f"kidney_{label}median_px"] = float(np.median(error))
        results[f"kidney_{label}p95_px"] = float(np.percentile(error, 95))
    return results


def local_information(one: Rgb, other: Rgb) -> float:
    """Mutual information of the densities of two pictures in bits, the mean over fields of 128 px."""
    densities = [optical_density(rgb, 255).sum(axis=-1) for rgb in (one, other)]
    found = []
    for y in range(0, one.shape[0] - 127, 128):
        for x in range(0, one.shape[1] - 127, 128):
            a, b = (plane[y : y + 128, x : x + 128].ravel() for plane in densities)
            joint = np.histogram2d(a, b, bins=16)[0] / a.size
            apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
            found.append(float((joint[joint > 0] * np.log2(joint[joint > 0] / apart[joint > 0])).sum()))
    return float(np.mean(found))


def bci(folder: Path) -> dict[str, object]:
    """Local mutual information of real pairs as they come and after registration; refused pairs stay as they come."""
    before, after, refused = [], [], 0
    for path in sorted((folder / "HE" / "test").iterdir()):
        he, ihc = read_rgb(path), read_rgb(folder / "IHC" / "test" / path.name)
        before.append(local_information(he, ihc))
        whole = Region(Point(0, 0), Size(he.shape[1], he.shape[0]))
        try:
            found = register_images(he, ihc, 0.46)
        except RestainError:
            refused += 1
            after.append(before[-1])
        else:
            warped = warp_region(slide_of(ihc, 0.46), found.transform, whole, 0.46, outside=None)
            after.append(local_information(he, warped))
    return {"bci_information_before": before, "bci_information_after": after, "bci_refused": refused}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="two sizes of deformation on 512 px instead of five on 1536 px"
    )
    parser.add_argument("--kidney", type=Path, help="folder of the rat kidney's pictures and landmarks")
    parser.add_argument("--bci", type=Path, help="folder with HE/test and IHC/test of BCI")
    options = parser.parse_args()
    side, mpp = (512, 2.0) if options.quick else (1536, 1.0)
    sizes = (0.0, 10.0) if options.quick else (0.0, 5.0, 10.0, 20.0, 40.0)
    curve = []
    for number, rms in enumerate(sizes):
        he, moving, source, lost = pair(side, mpp, rms, number + 1)
        began = time.monotonic()
        found = register_images(he, moving, mpp)
        median, p95 = tre(found.transform, he, source, lost, mpp)
        affine_median, affine_p95 = tre(found.affine, he, source, lost, mpp)
        curve.append(
            {
                "rms_um": rms,
                "median_um": median,
                "p95_um": p95,
                "affine_median_um": affine_median,
                "affine_p95_um": affine_p95,
                "seconds": time.monotonic() - began,
            }
        )
        print(curve[-1], flush=True)
    result: dict[str, object] = {
        "side_px": side,
        "mpp": mpp,
        "curve": curve,
        "median_um": max(one["median_um"] for one in curve),
        "p95_um": max(one["p95_um"] for one in curve),
    }
    if options.kidney is not None:
        result |= kidney(options.kidney)
    if options.bci is not None:
        result |= bci(options.bci)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
