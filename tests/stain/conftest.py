"""A small model and a small slide: three islands of stained texture on grey glass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from restain.bundle import Bundle, load_bundle

from .. import samples


def _make_bundle(folder: Path, **generator: object) -> Bundle:
    return load_bundle(samples.write_bundle(folder, samples.small_recipe(**generator)))


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    return _make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _make_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture(scope="session")
def write_slide() -> Callable[..., Path]:
    return samples.write_slide


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    return samples.tissue_picture(1100, 1500)


@pytest.fixture(scope="session")
def slide(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.write_slide(tmp_path_factory.mktemp("slides") / "block_1.ome.tiff", picture)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.write_slide(tmp_path_factory.mktemp("small") / "small.ome.tiff", samples.tissue_picture(560, 780))
