"""The examples in docstrings are true."""

import doctest
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import restain
from restain.images import write_png

SOURCE = Path(restain.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_png(folder / "field.png", np.full((300, 400, 3), 240, np.uint8), mpp=0.5)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    module = sys.modules.get(name) or importlib.import_module(name)
    found = doctest.testmod(module)
    assert not found.failed
    assert found.attempted or "+SKIP" in Path(str(module.__file__)).read_text(encoding="utf-8")
