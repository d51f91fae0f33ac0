"""How good are the pairs that `restain build` keeps, and how many good ones does it throw away?

Phantom slide pairs with a known deformation, folds, pen, a tear and a missing piece are built twice: with restain's registration, and with its
affine matrix alone given as a file, which leaves the elastic part to the refinement of patches. Every window is then held against the truth: how
far its tissue lies from where it belongs, and whether a fold, pen, or the missing piece is in it.

    python benchmarks/build.py            four pairs of 3.2 x 2.8 mm, patches of 512 px; some 10 minutes on one core
    python benchmarks/build.py --quick    one pair of 1.4 x 1.2 mm, patches of 256 px

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from restain.dataset_builder import Grid, Settings, SlidePair, build_dataset, parse_rules
from restain.dataset_builder.patches import Patch, PatchSource
from restain.dataset_builder.windows import MeasuredPair, measure_pair
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom import Distortion, SlideTruth, read_slide_truth, write_phantom_slide
from restain.phantom.slide_plan import TRUTH
from restain.slides import rasterize
from restain.slides.geojson import Polygon

FULL = (
    ("s1", Size(6000, 5000), 1, Her2Level.TWO, Distortion(rotation_deg=12.0, elastic_um=15.0, tear_um=60.0)),
    ("s2", Size(7000, 6000), 2, Her2Level.THREE, Distortion(rotation_deg=-20.0, elastic_um=15.0, tear_um=60.0)),
    (
        "s3",
        Size(7000, 6000),
        3,
        Her2Level.ZERO,
        Distortion(rotation_deg=5.0, mirror=True, elastic_um=10.0, tear_um=40.0),
    ),
    ("s4", Size(7000, 6000), 4, Her2Level.ONE, Distortion(rotation_deg=170.0, elastic_um=20.0, tear_um=90.0)),
)
QUICK = (("q1", Size(3000, 2600), 1, Her2Level.TWO, Distortion(rotation_deg=12.0, elastic_um=6.0, tear_um=40.0)),)
MPP = 0.46
MISPLACED_UM = 5.0
POINTS = 24
FLAW = 0.02
"""Share of a window from which a fold, pen or the missing piece makes it bad."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path, help="Folder for slides and results, which are kept and gone on with.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(asked.work or Path(scratch), quick=asked.quick)


def run(work: Path, *, quick: bool) -> None:
    truths, pairs = [], []
    for name, size, seed, level, distortion in QUICK if quick else FULL:
        folder = work / name
        if not (folder / TRUTH).is_file():
            share = {"tissue_share": 0.4, "deformation": distortion}
            write_phantom_slide(folder, size=size, mpp=MPP, seed=seed, mixture={level: 1.0}, **share)
        truth = read_slide_truth(folder)
        truths.append(truth)
        pairs.append(SlidePair(truth.folder / "he.ome.tiff", truth.folder / "ihc.ome.tiff", level, name, "A"))
    grid = Grid(MPP, 256 if quick else 512)
    result = {"registered": measure(work / "registered", pairs, truths, grid)}
    given = []
    for number, pair in enumerate(pairs, 1):
        name = "he" if len(pairs) == 1 else f"he-{number}"
        report = json.loads((work / "registered" / "registration" / name / "report.json").read_text())
        file = work / f"affine-{number}.json"
        file.write_text(json.dumps(report["affine"]))
        given.append(SlidePair(pair.he, pair.ihc, pair.level, pair.patient, pair.block, transform=file))
    result["affine given"] = measure(work / "affine", given, truths, grid)
    result["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for title, figures in result.items():
        if isinstance(figures, dict):
            print(f"\n{title}")
            for key, value in figures.items():
                print(f"  {key:<46} {value}")
    print(json.dumps({"benchmark": "build", "quick": quick, **result}))


def measure(out: Path, pairs: list[SlidePair], truths: list[SlideTruth], grid: Grid) -> dict:
    # Balance leaves out good patches on purpose, so it is off here.
    settings = Settings(grid, parse_rules(["levels=off", "stained=off"]))
    built = build_dataset(pairs, out, settings, dry_run=True)
    names = ["he"] if len(pairs) == 1 else [f"he-{number}" for number in range(1, len(pairs) + 1)]
    measured = [measure_pair(p, n, out, grid, settings.thresholds) for p, n in zip(pairs, names, strict=True)]
    rows = []
    for number, (found, truth) in enumerate(zip(measured, truths, strict=True)):
        with PatchSource(found, grid) as source:
            rows += [judge(source, found, truth, patch, grid) for patch in built.patches if patch.slide == number]
    write(out / "truth.csv", rows)
    return summarise(rows)


def judge(source: PatchSource, measured: MeasuredPair, truth: SlideTruth, patch: Patch, grid: Grid) -> dict:
    """A window against the truth: errors in µm over its tissue before and after refinement, shares of flaws."""
    region = patch.candidate.region
    steps = (np.arange(POINTS) + 0.5) / POINTS * grid.size
    points = np.stack(np.meshgrid(region.origin.x + steps, region.origin.y + steps), axis=-1).reshape(-1, 2)
    points = points * grid.mpp / truth.plan.mpp

    def inside(rings: list) -> np.ndarray:
        """Which of the points lie in any of the rings."""
        if not rings:
            return np.zeros(len(points), bool)
        corner, step = (
            points[0] - steps[0] * grid.mpp / truth.plan.mpp,
            (steps[1] - steps[0]) * grid.mpp / truth.plan.mpp,
        )
        return np.any(
            [rasterize([Polygon(np.asarray(ring) - corner)], Size(POINTS, POINTS), step) for ring in rings], axis=0
        ).ravel()

    plan, deformation = truth.plan, truth.plan.deformation
    tissue = inside([island.outline for island in plan.islands])
    missing = inside([deformation.missing] if deformation.missing else [])
    fold = inside([fold.outline for fold in (*plan.folds_he, *plan.folds_ihc)]) & tissue
    pen = inside([mark.outline for mark in plan.pens])
    there = tissue & ~missing
    goal = deformation.forward(points[there])
    quality = patch.candidate.quality

    def error(transform) -> tuple[float, float]:
        if not there.any():
            return float("nan"), float("nan")
        away = np.hypot(*(transform.forward(points[there]) - goal).T) * truth.plan.mpp
        return float(np.median(away)), float(np.percentile(away, 95))

    before, after = error(measured.transform), error(source.transform(patch.candidate))
    return {
        **{"slide": truth.folder.name, "x": region.origin.x, "y": region.origin.y, "reason": patch.reason or ""},
        **{"before": before[0], "before95": before[1], "after": after[0], "after95": after[1]},
        **{"tissue": tissue.mean(), "missing": (missing & tissue).mean(), "fold": fold.mean(), "pen": pen.mean()},
        **{"match": getattr(quality, "match", float("nan")), "matched": getattr(quality, "matched", float("nan"))},
        **{"error_um": getattr(quality, "error_um", float("nan")), "shared": patch.candidate.shares.shared},
        **{"found_fold": patch.candidate.shares.fold, "found_pen": patch.candidate.shares.pen},
        **{"correction": getattr(quality, "correction", ""), "sharpness": patch.candidate.sharpness},
    }


def summarise(rows: list[dict]) -> dict:
    kept, out = [r for r in rows if not r["reason"]], [r for r in rows if r["reason"]]

    def column(of: list[dict], key: str) -> np.ndarray:
        return np.array([row[key] for row in of], float)

    def misplaced(of: list[dict]) -> int:
        return int((column(of, "after") > MISPLACED_UM).sum())

    def good(row: dict) -> bool:
        flaws = max(row["fold"], row["pen"], row["missing"])
        return row["tissue"] >= 0.5 and row["after95"] <= MISPLACED_UM and flaws < FLAW

    def shown(values: np.ndarray) -> list[float]:
        return [round(float(v), 2) for v in np.percentile(values, (50, 95, 100))] if len(values) else []

    goods = Counter(row["reason"] for row in out if good(row))
    return {
        "windows with tissue": len(rows),
        "kept": len(kept),
        "out": dict(Counter(row["reason"] for row in out)),
        "kept: error µm before refinement (50, 95, 100 %)": shown(column(kept, "before")),
        "kept: error µm (50, 95, 100 %)": shown(column(kept, "after")),
        "kept: error µm at their worst places (95th pct.)": shown(column(kept, "after95")),
        "kept and misplaced by > 5 µm": misplaced(kept),
        "kept, worst places > 5 µm": int((column(kept, "after95") > MISPLACED_UM).sum()),
        "kept with fold, pen, missing piece": [
            int((column(kept, key) >= FLAW).sum()) for key in ("fold", "pen", "missing")
        ],
        "all with fold, pen, missing piece": [
            int((column(rows, key) >= FLAW).sum()) for key in ("fold", "pen", "missing")
        ],
        "out but good, by rule": dict(goods),
        "out but good, all": sum(goods.values()),
        "refined (of kept)": dict(Counter(row["correction"] for row in kept)),
    }


def write(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
