"""One small phantom slide pair on one grid, so that the true transform is the identity, and what is measured of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from restain.dataset_builder import Grid, SlidePair
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom import Distortion, SlideTruth, write_phantom_slide

from ..samples import little_tissue

STILL = Distortion(rotation_deg=0, scale=1, shift_um=(0, 0), elastic_um=0, tear_um=0, missing=True)
GRID = Grid(mpp=1.0, size=128)


@pytest.fixture(scope="session", autouse=True)
def grown_once() -> Iterator[None]:
    with little_tissue():
        yield


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> SlideTruth:
    out = tmp_path_factory.mktemp("slides") / "pair"
    mixture = {Her2Level.THREE: 1.0}
    return write_phantom_slide(
        out, size=Size(2400, 2000), mpp=0.5, seed=4, mixture=mixture, tissue_share=0.5, islands=1, deformation=STILL
    )


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("transform") / "identity.json"
    path.write_text(json.dumps([[1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    return path


@pytest.fixture(scope="session")
def pair(truth: SlideTruth, identity: Path) -> SlidePair:
    he, ihc = truth.folder / "he.ome.tiff", truth.folder / "ihc.ome.tiff"
    return SlidePair(he, ihc, Her2Level.THREE, "P1", "A", transform=identity)
