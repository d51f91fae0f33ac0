"""Examples in the docstrings of restain.slides run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import restain.slides
from restain.images import write_png

MODULES = [module.name for module in pkgutil.iter_modules(restain.slides.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "source_zarr":
        pytest.importorskip("zarr", reason="the extra zarr is not installed")
    monkeypatch.chdir(tmp_path)
    write_png(Path("field.png"), np.full((300, 400, 3), 240, np.uint8), mpp=0.5)
    found = doctest.testmod(importlib.import_module(f"restain.slides.{name}"))
    assert not found.failed
    assert found.attempted or name != "slide"
