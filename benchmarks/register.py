"""How far off is a registration? Phantom pairs with known deformation, and a rat kidney with landmarks, in one run.

    python benchmarks/register.py [--quick] [--kidney FOLDER] [--bci FOLDER] [--mist FOLDER] [--calibrate [--jobs N]]
        [--hisalign-python PYTHON]

A piece of phantom tissue on glass is stained as H&E and as IHC; the IHC section is turned, mirrored, shifted, scaled and
bent by a smooth field of increasing size, and a piece of it is lost. The target registration error (TRE) is taken at points all
over the tissue that both sections have, in µm. The rat kidney (differently stained neighbouring sections with 69 pairs of
landmarks, which registration never sees) is left out where its folder is not given. Prints one JSON object last:

- ``curve``: for each RMS of the elastic field in µm, TRE ``median_um`` and ``p95_um``, with ``affine_median_um`` and
  ``affine_p95_um`` of the affine stage alone.
- ``median_um``, ``p95_um``: the worst of the curve.
- ``bci_information_before``, ``bci_information_after``: local mutual information in bits of each BCI pair, where their folder
  is given, and ``bci_verdicts``. The same with ``mist_``.
- ``kidney_median_px``, ``kidney_p95_px`` (and ``..._affine_...``, ``..._unregistered_...``).
- With ``--calibrate``, instead of all these: ``calibration``. Real pairs and tiles of the kidney are divided into two halves by slide. Each
  is tried as it is, turned or mirrored, and, as wrong pairs, with another part of the same section and with another pair's IHC.
  ``tried_on_0`` and ``tried_on_1`` have the limits fitted on the other half, and the verdicts with them; ``shipped`` has the limits that
  restain uses, fitted on both; ``kinds`` has their verdicts by kind of case. With ``--quick``: without turned and mirrored pairs.
- With ``--hisalign-python``, the Python of an environment that has hisalign: ``hisalign_median_um`` and ``hisalign_p95_um`` within the
  curve, and ``kidney_hisalign_...``: the same pairs and points, so the same errors. ``hisalign_failed`` says why there are none.
  Pairs marked ``mirrored`` are given to hisalign mirrored back, because it does not look for that.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.geometry import Point, Region, Size
from restain.her2 import Her2Level
from restain.images import write_png
from restain.optics import optical_density
from restain.phantom import make_pair
from restain.registration import register_images, slide_of, warp_region
from restain.registration.acceptance import ACCEPTED_FROM, DOUBTFUL_FROM, PairRefusedError
from restain.registration.fitting import robust_affine
from restain.registration.register import align
from restain.slides import read_image, tissue_of
from restain.statistics import wilson_interval

Rgb = NDArray[np.uint8]
Field = NDArray[np.float64]

PATCH_MPP = 0.46
"""Of BCI; MIST's is near it."""
KIDNEY_MPP = 4.6
"""About what a pixel of the kidney is, for hisalign, which wants to be told."""
BUMP_UM = 150.0
"""Standard deviation of the bumps of the elastic field."""
GLASS = 246
RIGHT_UM = 30.0
"""Largest median distance from the known transform of a right one: the pairs themselves are 5 to 40 px apart."""
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
    """Real pairs of patches: local mutual information as they come and registered; refused pairs stay as they come."""
    before, after, verdicts = [], [], []
    for path in sorted(folders[0].iterdir()):
        he, ihc = read_image(path), read_image(folders[1] / path.name)
        whole = Region(Point(0, 0), Size(he.shape[1], he.shape[0]))
        before.append(local_information(he, ihc))
        try:
            found = register_images(he, ihc, PATCH_MPP)
        except PairRefusedError:
            verdicts.append("refused")
            after.append(before[-1])
        else:
            verdicts.append(found.verdict.value)
            warped = warp_region(slide_of(ihc, PATCH_MPP), found.transform, whole, PATCH_MPP, outside=None)
            after.append(local_information(he, warped))
        print(name, path.name, verdicts[-1], before[-1], after[-1], flush=True)
    results = {"information_before": before, "information_after": after, "verdicts": verdicts}
    return {f"{name}_{key}": values for key, values in results.items()}


@dataclass(frozen=True)
class Case:
    """Two pictures of one half; ``truth`` ``(3, 3)`` takes px of the H&E to the IHC, None for different tissue."""

    kind: str
    half: int
    he: Rgb
    ihc: Rgb
    mpp: float | None
    truth: NDArray[np.float64] | None


def real_cases(options: argparse.Namespace) -> Iterator[Case]:
    """Real pairs: as they are, turned or mirrored; and wrong ones: other parts of one pair, and swapped pairs.

    Pictures of one slide are in one half.
    """
    pairs: list[tuple[str, Rgb, Rgb, NDArray[np.float64], float | None]] = []
    for he, ihc in patch_folders(options).values():
        for name in sorted(path.name for path in he.iterdir()):
            pairs.append((name.partition("_")[0], read_image(he / name), read_image(ihc / name), np.eye(3), PATCH_MPP))
    slides = sorted({slide for slide, *_ in pairs})
    if options.kidney is not None:
        one, other = (read_image(options.kidney / f"{name}.jpg") for name in KIDNEY)
        # The upper and the lower row of tiles are the halves.
        tiles = [(row, column) for row in range(2) for column in range(3)]
        found, _ = robust_affine(*(landmarks(options.kidney / f"{name}.csv") for name in KIDNEY), np.ones(69), 2.0)
        for row, column in tiles:
            corners = [np.array([column * (rgb.shape[1] // 3), row * (rgb.shape[0] // 2)]) for rgb in (one, other)]
            truth = found.copy()
            truth[:2, 2] += found[:2, :2] @ corners[0] - corners[1]
            pairs.append((f"tile {row}", _tile(one, (row, column)), _tile(other, (row, column)), truth, None))
    halves: tuple[list[Any], list[Any]] = ([], [])
    for one_pair in pairs:
        half = int(one_pair[0][-1]) if one_pair[0].startswith("tile") else slides.index(one_pair[0]) % 2
        halves[half].append(one_pair)
    for half, members in enumerate(halves):
        for number, (_, he, ihc, truth, mpp) in enumerate(members):
            yield Case("as it is", half, he, ihc, mpp, truth)
            height, width = ihc.shape[:2]
            if options.quick:
                pass
            elif number % 2:
                turn, kind = np.array([[-1.0, 0, width], [0, -1, height], [0, 0, 1]]), "turned"
                yield Case(kind, half, he, np.ascontiguousarray(ihc[::-1, ::-1]), mpp, turn @ truth)
            else:
                turn, kind = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]), "mirrored"
                yield Case(kind, half, he, np.ascontiguousarray(ihc[:, ::-1]), mpp, turn @ truth)
            yield Case("shifted far", half, he[:, : width // 2].copy(), ihc[:, width // 2 :].copy(), mpp, None)
            others = [other for _, _, other, _, its_mpp in members[number + 1 :] + members[:number] if its_mpp == mpp]
            if others:
                yield Case("swapped", half, he, others[0], mpp, None)


@dataclass(frozen=True)
class Judged:
    """The score of a case, and whether its transform is right: within :data:`RIGHT_UM` of the truth in the median."""

    kind: str
    half: int
    patch: bool
    score: float
    right: bool


def judged(case: Case) -> Judged:
    one, two = slide_of(case.he, case.mpp), slide_of(case.ihc, case.mpp)
    first, second, found = align(one, two)
    if case.truth is None:
        return Judged(case.kind, case.half, found.patch, found.score, False)
    points = np.argwhere(first.tissue.mask)[::97, ::-1] + 0.5
    steps = [
        overview.slide.mpp / (slide.mpp if slide.has_mpp else 1.0) for overview, slide in ((first, one), (second, two))
    ]
    there = np.column_stack([points * steps[0], np.ones(len(points))]) @ case.truth[:2].T
    error = np.hypot(*(found.transform.forward(points) * steps[1] - there).T) * (case.mpp or KIDNEY_MPP)
    return Judged(case.kind, case.half, found.patch, found.score, bool(np.median(error) <= RIGHT_UM))


Limits = tuple[dict[bool, float], float]
SHIPPED: Limits = (ACCEPTED_FROM, DOUBTFUL_FROM)


def fitted(cases: list[Judged]) -> Limits:
    """Least scores of accepted patches and other sections, and of doubtful pairs, from one half of the pictures."""
    accepted = {
        patch: 1.05 * float(np.percentile([one.score for one in cases if not one.right and one.patch is patch], 98))
        for patch in {one.patch for one in cases}
    }
    true = [one.score for one in cases if one.right]
    return accepted, 0.9 * min(*accepted.values(), float(np.percentile(true, 5)))


def rates(cases: list[Judged], limits: Limits) -> dict[str, Any]:
    """Counts of verdicts with 95 % Wilson intervals of the two errors; a wrong transform of a true pair is wrong."""
    table: dict[str, Any] = {}
    for name, right in (("true", True), ("wrong", False)):
        mine = [one for one in cases if one.right is right]
        accepted = sum(one.score >= limits[0][one.patch] for one in mine)
        refused = sum(one.score < limits[1] for one in mine)
        error = wilson_interval(refused if right else accepted, len(mine))
        table |= {name: len(mine), f"{name}_accepted": accepted, f"{name}_refused": refused}
        table |= {f"{name}_doubtful": len(mine) - accepted - refused, f"{name}_error_interval": [error.low, error.high]}
    return table


def calibration(options: argparse.Namespace) -> dict[str, Any]:
    """Limits fitted on one half of the pictures and tried on the other, both ways; and the shipped limits."""
    cases = []
    order = ("as it is", "swapped", "shifted far", "turned", "mirrored")
    with ProcessPoolExecutor(options.jobs) as pool:
        for one in pool.map(judged, sorted(real_cases(options), key=lambda case: order.index(case.kind))):
            cases.append(one)
            print(one, flush=True)
    results: dict[str, Any] = {"kinds": {}}
    for half in (0, 1):
        limits = fitted([one for one in cases if one.half != half])
        results[f"tried_on_{half}"] = {"limits": limits, **rates([one for one in cases if one.half == half], limits)}
    results["all"] = {"limits": fitted(cases)}
    results["shipped"] = {"limits": SHIPPED, **rates(cases, SHIPPED)}
    for kind in dict.fromkeys(one.kind for one in cases):
        results["kinds"][kind] = rates([one for one in cases if one.kind == kind], SHIPPED)
    return results


def _tile(rgb: Rgb, at: tuple[int, int]) -> Rgb:
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 3
    return rgb[at[0] * height : (at[0] + 1) * height, at[1] * width : (at[1] + 1) * width].copy()


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
        "--calibrate",
        action="store_true",
        help="cross-fit the verdict's limits on the real pairs given, and nothing else",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes of the calibration")
    parser.add_argument("--hisalign-python", type=Path, help="Python of an environment that has hisalign")
    options = parser.parse_args()
    if options.calibrate:
        print(json.dumps({"calibration": calibration(options)}))
        return
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
    print(json.dumps(result))


if __name__ == "__main__":
    main()
