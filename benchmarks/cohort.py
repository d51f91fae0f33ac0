"""How far the area shares of a cohort are from the truth, on phantom patients of known mixtures.

    python benchmarks/cohort.py [--quick] [--virtual] [--folder DIR] [--model BUNDLE]

Every patient is a phantom slide whose islands each have one level. The phantom's own IHC, registered to the H&E, is read
first: what that is off is the fault of reading by fields. With ``--virtual`` the H&E is stained by a bundle and read too:
the rest is the model's. ``--quick`` makes two small slides of 2.5 mm², else five of 9 mm² are made. Truth is the share of the tissue's area that
is of each level. Prints one JSON object last:

- ``worst_points``: greatest difference of a level's area share from the truth over all patients, in percentage points, as read
  from the virtual slides; null without ``--virtual``. The goal is 5.
- ``worst_points_real``: the same from the phantom's own IHC.
- ``worst_points_by_field``: as ``worst_points_real``, had every 1 mm² field counted as a whole for its own level.
- ``seconds_per_mm2``: of reading the fields.
- ``patients``: truth, shares and levels one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from restain.cohort.field import FieldReading, read_fields
from restain.cohort.patient import PatientReading, SlideReading
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom.slide import write_phantom_slide
from restain.phantom.slide_plan import SlideTruth
from restain.slides import DensitySlide, open_slide, tissue_mask
from restain.stain import Model, load

MIXTURES = (
    {Her2Level.ZERO: 0.5, Her2Level.THREE: 0.5},
    {Her2Level.ONE: 0.5, Her2Level.TWO: 0.5},
    {Her2Level.ZERO: 0.4, Her2Level.TWO: 0.2, Her2Level.THREE: 0.4},
    {Her2Level.ONE: 0.7, Her2Level.THREE: 0.3},
    {Her2Level.TWO: 1.0},
)
MPP = 0.46


def patient(fields: list[FieldReading]) -> PatientReading:
    return PatientReading("phantom", (SlideReading("phantom", "phantom", "A", tuple(fields)),))


def shares_of(one: PatientReading) -> dict[Her2Level, float]:
    return {level: share.mean for level, share in one.shares.levels.items()}


def off(shares: dict[Her2Level, float], truth: SlideTruth) -> float:
    return 100 * max(abs(shares[level] - truth.plan.level_shares.get(level, 0.0)) for level in Her2Level)


def by_field(fields: list[FieldReading]) -> dict[Her2Level, float]:
    area = np.zeros(len(Her2Level))
    for one in fields:
        area[one.level] += one.tissue_mm2
    return {level: float(area[level] / area.sum()) for level in Her2Level}


def measure(folder: Path, truth: SlideTruth, model: Model | None) -> dict[str, Any]:
    with open_slide(folder / "he.ome.tiff") as he, open_slide(folder / "ihc-registered.ome.tiff") as ihc:
        tissue = tissue_mask(he)
        begin = time.perf_counter()
        fields = read_fields(ihc, tissue, white=tissue_mask(ihc).glass)
        seconds = time.perf_counter() - begin
    real = patient(fields)
    row: dict[str, Any] = {
        "truth": {level.text: round(share, 3) for level, share in truth.plan.level_shares.items()},
        "real": {level.text: round(share, 3) for level, share in shares_of(real).items()},
        "level_real": real.level.text,
        "off_points_real": off(shares_of(real), truth),
        "off_points_by_field": off(by_field(fields), truth),
        "seconds_per_mm2": seconds / sum(one.tissue_mm2 for one in fields),
        "off_points": None,
    }
    if model is not None:
        stained = model.stain_slide(folder / "he.ome.tiff", folder / "virtual", dab=True)
        assert stained.dab is not None
        with open_slide(stained.path) as ihc, DensitySlide(stained.dab) as dab:
            virtual = patient(read_fields(ihc, tissue, dab=dab))
        row |= {
            "virtual": {level.text: round(share, 3) for level, share in shares_of(virtual).items()},
            "level_virtual": virtual.level.text,
            "off_points": off(shares_of(virtual), truth),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--virtual", action="store_true")
    parser.add_argument("--folder", type=Path, help="keeps the slides; the same ones are not made again")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    size, mixtures = (Size(4200, 3600), MIXTURES[:2]) if arguments.quick else (Size(9000, 8000), MIXTURES)
    model = load(arguments.model) if arguments.virtual else None
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed, mixture in enumerate(mixtures):
            folder = (arguments.folder or Path(scratch)) / f"{size.width}-{seed}"
            truth = write_phantom_slide(
                folder,
                size=size,
                mpp=MPP,
                seed=seed,
                mixture=mixture,
                deformation=None,
                ihc=False,
                registered=True,
                islands=2 * len(mixture),
                tissue_share=0.55,
            )
            rows.append(measure(folder, truth, model))
            print(json.dumps(rows[-1]), flush=True)
    virtual = [row["off_points"] for row in rows if row["off_points"] is not None]
    result = {
        "worst_points_real": round(max(row["off_points_real"] for row in rows), 2),
        "worst_points_by_field": round(max(row["off_points_by_field"] for row in rows), 2),
        "worst_points": round(max(virtual), 2) if virtual else None,
        "seconds_per_mm2": round(float(np.mean([row["seconds_per_mm2"] for row in rows])), 2),
        "patients": rows,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
