"""The whole chain: slides, pairs, training, staining of a slide that was held out, and comparison with its real IHC."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from restain.dataset_builder import Grid, Settings, SlidePair, build_dataset, parse_rules
from restain.evaluation.slide_pair import compare_slides
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom import Distortion, write_phantom_slide
from restain.stain import StainOptions, load, stain_slide
from restain.training import train

from ..samples import training_recipe

pytestmark = pytest.mark.slow


def test_from_two_scanned_slides_to_a_comparison_with_the_real_stain(pair: SlidePair, tmp_path: Path) -> None:
    turned = Distortion(rotation_deg=12.0, elastic_um=3.0, tear_um=0.0, missing=False)
    write_phantom_slide(
        tmp_path / "other",
        size=Size(900, 800),
        mpp=1.0,
        seed=8,
        mixture={Her2Level.ONE: 1.0},
        tissue_share=0.5,
        islands=1,
        deformation=turned,
    )
    he, ihc = tmp_path / "other" / "he.ome.tiff", tmp_path / "other" / "ihc.ome.tiff"
    pairs = [pair, SlidePair(he, ihc, Her2Level.ONE, "P2", "A")]
    settings = Settings(Grid(mpp=1.0, size=96), parse_rules(["fold=off", "pen=0.1"]), test_share=0.4, val_share=0.0)
    built = build_dataset(pairs, tmp_path / "data", settings)
    assert not built.failed, built.failed
    assert {one.split for one in built.outcomes} == {"train", "test"}

    bundle = train(
        training_recipe({"mpp": 1.0, "train": {"steps": 3}}), [built.out], tmp_path / "run", accelerator="cpu"
    )
    (number, held_out), *_ = ((i, one.pair) for i, one in enumerate(built.outcomes, 1) if one.split == "test")
    stained = stain_slide(held_out.he, tmp_path / "virtual", load(bundle, options=StainOptions(format="ome-tiff")))

    # The virtual slide is at the model's mpp, the registration in px of the H&E: a file of the matrix between the two.
    transform = tmp_path / "transform.json"
    registered = json.loads((built.out / "registration" / f"he-{number}" / "transform.json").read_text())
    scale = 1.0 / registered["fixed"]["mpp"]
    matrix = [[v * scale if i < 2 else v for i, v in enumerate(row)] for row in registered["matrix"]]
    transform.write_text(json.dumps([[row[0], row[1], row[2]] for row in matrix[:2]]))
    page = compare_slides(stained.path, held_out.ihc, tmp_path / "compared", transform=transform, side_um=250)
    result = json.loads((page.parent / "slides.json").read_text())
    assert result["fields"] > 0
    assert result["pooled"]["dab_r16_pooled"] is not None
