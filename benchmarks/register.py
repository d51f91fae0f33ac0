"""How far off is a registration? Phantom pairs with known deformation, and a rat kidney with landmarks, in one run.

    python benchmarks/register.py [--quick] [--kidney FOLDER] [--bci FOLDER] [--mist FOLDER]
        [--hisalign-python PYTHON]

A piece of phantom tissue on glass is stained as H&E and as IHC; the IHC section is turned, mirrored, shifted, scaled and
bent by a smooth field of increasing size, and a piece of it is lost. The target registration error (TRE) is taken at points all
over the tissue that both sections have, in µm. The rat kidney (differently stained neighbouring sections with 69 pairs of
landmarks, which registration never sees) is left out where its folder is not given. Prints one JSON object last:

- ``curve``: for each RMS of the elastic field in µm, TRE ``median_um`` and ``p95_um``, with ``affine_median_um`` and
  ``affine_p95_um`` of the affine stage alone.
- ``median_um``, ``p95_um``: the worst of the curve.
- ``bci_information_before``, ``bci_information_after``: local mutual information in bits of each BCI pair, where their folder
  is given; ``bci_agreement_true``, and ``bci_agreement_wrong`` of each H&E with the next pair's IHC; ``bci_refused_true`` and
  ``bci_accepted_wrong`` count the errors. The same with ``mist_``.
- ``kidney_median_px``, ``kidney_p95_px`` (and ``..._affine_...``, ``..._unregistered_...``).
- With ``--hisalign-python``, the Python of an environment that has hisalign: ``hisalign_median_um`` and ``hisalign_p95_um`` within the
  curve, and ``kidney_hisalign_...``: the same pairs and points, so the same errors. ``hisalign_failed`` says why there are none.
  ``mirrored`` marks pairs that are mirrored, which hisalign does not look for.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.data.images import read_rgb, write_png
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.optics import optical_density
from restain.phantom import make_pair
from restain.register import register_images, slide_of, warp_region
from restain.slides import tissue_of

Rgb = NDArray[np.uint8]
Field = NDArray[np.float64]

PATCH_MPP = 0.46
"""Of BCI; MIST's is near it."""
KIDNEY_MPP = 4.6
"""About what a pixel of the kidney is, for hisalign, which wants to be told."""
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


def tissue_points(he: Rgb, lost: NDArray[np.bool_], mpp: float) -> Field:
    """``(n, 2)`` points (x, y) all over the tissue that both sections have."""
    seen = tissue_of(he, mpp).mask & ~ndimage.binary_dilation(lost, iterations=round(40 / mpp))
    return np.argwhere(seen)[::37, ::-1] + 0.5


def tre(points: Field, there: Field, source: Field, mpp: float) -> tuple[float, float]:
    """Median and 95th percentile in µm of where ``points`` were taken; a place off the picture counts by its way back as well."""
    height, width = source.shape[:2]
    inside = np.clip(there, 0.5, (width - 0.5, height - 0.5))
    back = [ndimage.map_coordinates(source[..., i], inside[:, ::-1].T - 0.5, order=1) for i in (0, 1)]
    error = np.hypot(*(np.stack(back, axis=1) - points).T) + np.hypot(*(there - inside).T)
    return float(np.median(error) * mpp), float(np.percentile(error, 95) * mpp)


def hisalign(python: Path, fixed: Rgb, moving: Rgb, points: Field, mpp: float) -> Field:
    """``points`` of the fixed picture carried to the moving one by hisalign in its own environment.

    Raises:
        RuntimeError: if it fails, with its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("fixed.png", "moving.png", "points.npy", "out.npy")]
        write_png(files[0], fixed)
        write_png(files[1], moving)
        np.save(files[2], points)
        command = [str(python), str(Path(__file__).with_name("hisalign_points.py")), *map(str, files), str(mpp)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
        return np.asarray(np.load(files[3]))


def landmarks(path: Path) -> NDArray[np.float64]:
    return np.loadtxt(path, delimiter=",", skiprows=1)[:69, 1:]


def kidney(folder: Path, peer: Path | None) -> dict[str, object]:
    names = ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin")
    fixed, moving = (read_rgb(folder / f"{name}.jpg") for name in names)
    one, other = (landmarks(folder / f"{name}.csv") for name in names)
    found = register_images(fixed, moving)
    results: dict[str, object] = {}
    carried = {"unregistered_": one, "affine_": found.affine.forward(one), "": found.transform.forward(one)}
    if peer is not None:
        try:
            carried["hisalign_"] = hisalign(peer, fixed, moving, one, KIDNEY_MPP)
        except RuntimeError as fault:
            results["kidney_hisalign_failed"] = str(fault)
    for label, there in carried.items():
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


def patches(folders: tuple[Path, Path], name: str) -> dict[str, object]:
    """Real pairs of patches, as they come and registered, and whether each is told from its H&E with the next one's IHC.

    Refused pairs stay as they come.
    """
    names = sorted(path.name for path in folders[0].iterdir())
    pictures = [(read_rgb(folders[0] / one), read_rgb(folders[1] / one)) for one in names]
    before, after = [], []
    agreements: dict[bool, list[float | None]] = {True: [], False: []}
    refused = {True: 0, False: 0}
    for number, (he, ihc) in enumerate(pictures):
        whole = Region(Point(0, 0), Size(he.shape[1], he.shape[0]))
        before.append(local_information(he, ihc))
        after.append(before[-1])
        for true, other in ((True, ihc), (False, pictures[(number + 1) % len(pictures)][1])):
            try:
                found = register_images(he, other, PATCH_MPP)
            except RestainError as fault:
                refused[true] += 1
                # A picture without tissue is refused with another sentence, and agrees with nothing.
                said = re.search(r"agreement (-?[\d.]+)", str(fault))
                agreements[true].append(None if said is None else float(said[1]))
            else:
                agreements[true].append(found.agreement)
                if true:
                    warped = warp_region(slide_of(ihc, PATCH_MPP), found.transform, whole, PATCH_MPP, outside=None)
                    after[-1] = local_information(he, warped)
            print(name, number, "true" if true else "wrong", agreements[true][-1], before[-1], after[-1], flush=True)
    return {
        f"{name}_information_before": before,
        f"{name}_information_after": after,
        f"{name}_agreement_true": agreements[True],
        f"{name}_agreement_wrong": agreements[False],
        f"{name}_refused_true": refused[True],
        f"{name}_accepted_wrong": len(pictures) - refused[False],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="two sizes of deformation on 512 px instead of five on 1536 px"
    )
    parser.add_argument("--kidney", type=Path, help="folder of the rat kidney's pictures and landmarks")
    parser.add_argument("--bci", type=Path, help="folder with HE/test and IHC/test of BCI")
    parser.add_argument("--mist", type=Path, help="folder with valA and valB of MIST")
    parser.add_argument("--hisalign-python", type=Path, help="Python of an environment that has hisalign")
    options = parser.parse_args()
    side, mpp = (512, 2.0) if options.quick else (1536, 1.0)
    sizes = (0.0, 10.0) if options.quick else (0.0, 5.0, 10.0, 20.0, 40.0)
    curve: list[dict[str, Any]] = []
    for number, rms in enumerate(sizes):
        he, moving, source, lost = pair(side, mpp, rms, number + 1)
        began = time.monotonic()
        found = register_images(he, moving, mpp)
        seconds = time.monotonic() - began
        points = tissue_points(he, lost, mpp)
        one: dict[str, Any] = {"rms_um": rms, "mirrored": number % 2 == 0, "seconds": seconds}
        carried = {"": found.transform.forward(points), "affine_": found.affine.forward(points)}
        if options.hisalign_python is not None:
            try:
                carried["hisalign_"] = hisalign(options.hisalign_python, he, moving, points, mpp)
            except RuntimeError as fault:
                one["hisalign_failed"] = str(fault)
        for label, there in carried.items():
            one[f"{label}median_um"], one[f"{label}p95_um"] = tre(points, there, source, mpp)
        curve.append(one)
        print(curve[-1], flush=True)
    result: dict[str, object] = {
        "side_px": side,
        "mpp": mpp,
        "curve": curve,
        "median_um": max(one["median_um"] for one in curve),
        "p95_um": max(one["p95_um"] for one in curve),
    }
    if options.kidney is not None:
        result |= kidney(options.kidney, options.hisalign_python)
    if options.bci is not None:
        result |= patches((options.bci / "HE" / "test", options.bci / "IHC" / "test"), "bci")
    if options.mist is not None:
        result |= patches((options.mist / "valA", options.mist / "valB"), "mist")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
