"""How far off is a registration? Phantom pairs with known deformation, and a rat kidney with landmarks, in one run.

    python benchmarks/register.py [--quick] [--kidney FOLDER] [--bci FOLDER] [--mist FOLDER] [--acceptance SEEDS]
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
- With ``--acceptance``: ``acceptance`` says, for each kind of pair, how many true ones were refused and how many wrong ones accepted, each
  ``[errors, pairs, low, high]`` with the 95 % Wilson interval of the rate, and all agreements. The kinds are phantom sections on glass (so many
  seeds, each also with the next one's IHC), the same with the finer structure of the IHC from other tissue, as in neighbouring sections, phantom
  patches, and, where their folders are given, tiles of the kidney and the patches of BCI and MIST, each with every other. The limits were set on
  half of all seeds, tiles and patches; only the other half is used here (``--set`` for the first).
- With ``--hisalign-python``, the Python of an environment that has hisalign: ``hisalign_median_um`` and ``hisalign_p95_um`` within the
  curve, and ``kidney_hisalign_...``: the same pairs and points, so the same errors. ``hisalign_failed`` says why there are none.
  Pairs marked ``mirrored`` are given to hisalign mirrored back, because it does not look for that.
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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.images import write_png
from restain.optics import optical_density
from restain.phantom import make_pair
from restain.registration import register_images, slide_of, warp_region
from restain.slides import read_image, tissue_of

Rgb = NDArray[np.uint8]
Field = NDArray[np.float64]

PATCH_MPP = 0.46
"""Of BCI; MIST's is near it."""
KIDNEY_MPP = 4.6
"""About what a pixel of the kidney is, for hisalign, which wants to be told."""
BUMP_UM = 150.0
"""Standard deviation of the bumps of the elastic field."""
GLASS = 246
ACCEPTANCE_SIDE, ACCEPTANCE_MPP = 384, 2.5
KIDNEY = ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin")


def pair(
    side: int, mpp: float, rms_um: float, seed: int, bump_um: float = BUMP_UM
) -> tuple[Rgb, Rgb, Field, NDArray[np.bool_]]:
    """Fixed and moving picture, ``(side, side, 3)``; for each moving pixel the fixed point (x, y) that it shows; the lost piece."""
    tissue = make_pair(seed, 0, Her2Level.TWO, size=side, mpp=mpp)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    wave = 0.05 * np.sin(9 * columns + seed) + 0.04 * np.sin(13 * rows + 2 * seed)
    island = (columns / 0.36) ** 2 + ((rows + wave) / 0.30) ** 2 < 1
    lost = (columns - 0.25) ** 2 + (rows - 0.15) ** 2 < 0.08**2
    he, ihc = (
        np.rint(GLASS + ndimage.gaussian_filter(shown.astype(float), 0.7)[..., None] * (rgb - float(GLASS)))
        for rgb, shown in ((tissue.he, island), (tissue.ihc, island & ~lost))
    )
    angle, scale = math.radians(40.0 * seed), 1 / 1.02
    matrix = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = matrix @ np.diag([-1.0 if seed % 2 else 1.0, 1.0])
    y, x = np.mgrid[:side, :side] + 0.5
    source = np.stack([x, y], axis=-1) @ matrix.T + (side / 2 - matrix @ (side / 2, side / 2)) + (12.0, -9.0)
    if rms_um > 0:
        noise = np.random.default_rng(seed).standard_normal((2, side, side))
        field = ndimage.gaussian_filter(noise, (0, bump_um / mpp, bump_um / mpp), mode="wrap")
        field *= rms_um / mpp / np.sqrt((field**2).sum(axis=0).mean())
        at = source[..., ::-1].transpose(2, 0, 1) - 0.5
        moved = [ndimage.map_coordinates(field[i], at, order=1, mode="nearest") for i in (0, 1)]
        source = source + np.stack(moved, axis=-1)
    at = source[..., ::-1].transpose(2, 0, 1) - 0.5
    moving = np.stack([ndimage.map_coordinates(ihc[..., i], at, order=1, cval=GLASS) for i in range(3)], axis=-1)
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


def hisalign(python: Path, fixed: Rgb, moving: Rgb, points: Field, mpp: float, mirrored: bool = False) -> Field:
    """``points`` of the fixed picture carried to the moving one by hisalign in its own environment.

    It does not look for mirrored sections, so it is given them mirrored back.

    Raises:
        RuntimeError: if it fails, with its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("fixed.png", "moving.png", "points.npy", "out.npy")]
        write_png(files[0], fixed)
        write_png(files[1], np.ascontiguousarray(moving[:, ::-1]) if mirrored else moving)
        np.save(files[2], points)
        command = [str(python), str(Path(__file__).with_name("hisalign_points.py")), *map(str, files), str(mpp)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
        there = np.asarray(np.load(files[3]))
        return there * (-1, 1) + (moving.shape[1], 0) if mirrored else there


def landmarks(path: Path) -> NDArray[np.float64]:
    return np.loadtxt(path, delimiter=",", skiprows=1)[:69, 1:]


def kidney(folder: Path, peer: Path | None) -> dict[str, object]:
    fixed, moving = (read_image(folder / f"{name}.jpg") for name in KIDNEY)
    one, other = (landmarks(folder / f"{name}.csv") for name in KIDNEY)
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
    pictures = [(read_image(folders[0] / one), read_image(folders[1] / one)) for one in names]
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
                agreements[true].append(said_agreement(fault))
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


def neighbour(ihc: Rgb, other: Rgb, shared_um: float, mpp: float) -> Rgb:
    """A section whose structure is that of ``ihc`` down to ``shared_um`` and that of ``other`` below, where there is tissue."""
    densities = [optical_density(rgb, GLASS) for rgb in (ihc, other)]
    coarse = [ndimage.gaussian_filter(od, (shared_um / mpp, shared_um / mpp, 0)) for od in densities]
    seen = ndimage.gaussian_filter((densities[0].sum(axis=-1) > 0.08).astype(float), 3)[..., None]
    mixed = np.maximum(coarse[0] + (densities[1] - coarse[1]) * seen, 0)
    return np.clip(np.rint(GLASS * 10**-mixed), 0, 255).astype(np.uint8)


def acceptance_pairs(options: argparse.Namespace) -> Iterator[tuple[str, bool, Rgb, Rgb, float | None]]:
    """Pairs of one half: kind, whether true, H&E, IHC, mpp."""
    half = 0 if options.set else 1
    seeds = [seed for seed in range(200, 200 + 2 * options.acceptance) if seed // 2 % 2 == half]
    found: dict[str, list[tuple[Rgb, Rgb]]] = {"section": [], "neighbour": [], "phantom patch": []}
    for seed in seeds:
        rng = np.random.default_rng([seed, 7])
        rms, bump = float(rng.choice([0, 10, 20, 40])), float(rng.choice([100, 150, 250]))
        he, ihc, _, _ = pair(ACCEPTANCE_SIDE, ACCEPTANCE_MPP, rms, seed, bump)
        other = make_pair(seed + 1000, 0, Her2Level.TWO, size=ACCEPTANCE_SIDE, mpp=ACCEPTANCE_MPP).ihc
        found["section"].append((he, ihc))
        found["neighbour"].append((he, neighbour(ihc, other, (10, 20)[seed // 4 % 2], ACCEPTANCE_MPP)))
        patch = make_pair(seed, 1, Her2Level.TWO, size=512, mpp=2 * PATCH_MPP, misalign_um=5.0 * (seed // 2 % 3))
        found["phantom patch"].append((patch.he, patch.ihc))
    for kind, pictures in found.items():
        mpp = 2 * PATCH_MPP if kind == "phantom patch" else ACCEPTANCE_MPP
        for number, (he, ihc) in enumerate(pictures):
            yield kind, True, he, ihc, mpp
            if number > 0:
                yield kind, False, he, pictures[number - 1][1], mpp
    real: dict[str, list[tuple[Rgb, Rgb]]] = {"kidney tile": [], "real patch": []}
    if options.kidney is not None:
        one, other = (read_image(options.kidney / f"{name}.jpg") for name in KIDNEY)
        tiles = [(row, column) for row in range(2) for column in range(3)]
        real["kidney tile"] = [(_tile(one, at), _tile(other, at)) for at in tiles if sum(at) % 2 == half]
    numbered = [
        (he / name, ihc / name)
        for he, ihc in patch_folders(options).values()
        for name in sorted(path.name for path in he.iterdir())
    ]
    real["real patch"] = [(read_image(he), read_image(ihc)) for he, ihc in numbered[half::2]]
    for kind, pictures in real.items():
        mpp = None if kind == "kidney tile" else PATCH_MPP
        for i, (he, _) in enumerate(pictures):
            for j, (_, ihc) in enumerate(pictures):
                yield kind, i == j, he, ihc, mpp


def _tile(rgb: Rgb, at: tuple[int, int]) -> Rgb:
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 3
    return rgb[at[0] * height : (at[0] + 1) * height, at[1] * width : (at[1] + 1) * width].copy()


def wilson(errors: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a rate."""
    if of == 0:
        return 0.0, 1.0
    z, rate = 1.96, errors / of
    middle, half = rate + z * z / (2 * of), z * math.sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    return max(0.0, (middle - half) / (1 + z * z / of)), min(1.0, (middle + half) / (1 + z * z / of))


def acceptances(options: argparse.Namespace) -> dict[str, object]:
    """Errors of the acceptance, kind by kind."""
    agreements: dict[str, dict[bool, list[float | None]]] = {}
    wrong: Counter[tuple[str, bool]] = Counter()
    for kind, true, he, ihc, mpp in acceptance_pairs(options):
        agreed, accepted = told(he, ihc, mpp)
        agreements.setdefault(kind, {True: [], False: []})[true].append(agreed)
        wrong[kind, true] += accepted is not true
        print(kind, "true" if true else "wrong", agreed, "accepted" if accepted else "refused", flush=True)
    return {
        kind: {
            "refused_true": [wrong[kind, True], len(found[True]), *wilson(wrong[kind, True], len(found[True]))],
            "accepted_wrong": [wrong[kind, False], len(found[False]), *wilson(wrong[kind, False], len(found[False]))],
            "agreement_true": found[True],
            "agreement_wrong": found[False],
        }
        for kind, found in agreements.items()
    }


def told(he: Rgb, ihc: Rgb, mpp: float | None) -> tuple[float | None, bool]:
    """The agreement of a pair (None where one shows no tissue), and whether it is registered."""
    try:
        return register_images(he, ihc, mpp).agreement, True
    except RestainError as fault:
        return said_agreement(fault), False


def said_agreement(fault: RestainError) -> float | None:
    """The agreement of a refused pair; None for a picture without tissue, which is refused with another sentence."""
    said = re.search(r"agreement (-?[\d.]+)", str(fault))
    return None if said is None else float(said[1])


def patch_folders(options: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """H&E and IHC folders of the real patches that are given."""
    given = {}
    if options.bci is not None:
        given["bci"] = (options.bci / "HE" / "test", options.bci / "IHC" / "test")
    if options.mist is not None:
        given["mist"] = (options.mist / "valA", options.mist / "valB")
    return given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="two sizes of deformation on 512 px instead of five on 1536 px"
    )
    parser.add_argument("--kidney", type=Path, help="folder of the rat kidney's pictures and landmarks")
    parser.add_argument("--bci", type=Path, help="folder with HE/test and IHC/test of BCI")
    parser.add_argument("--mist", type=Path, help="folder with valA and valB of MIST")
    parser.add_argument(
        "--acceptance", type=int, default=0, help="seeds of phantom pairs by which the acceptance is judged"
    )
    parser.add_argument(
        "--set", action="store_true", help="judge the acceptance on the half that its limits were set on"
    )
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
                carried["hisalign_"] = hisalign(options.hisalign_python, he, moving, points, mpp, one["mirrored"])
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
    for name, folders in patch_folders(options).items():
        result |= patches(folders, name)
    if options.acceptance:
        result["acceptance"] = acceptances(options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
