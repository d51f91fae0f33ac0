"""The suite itself: pytest finds every file of tests, by the rules of pyproject.toml and of pytest's own defaults."""

from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def modules(folder: pytest.Dir | pytest.Package) -> Iterator[Path]:
    """Files that pytest collects below a folder; they are not imported."""
    for node in folder.collect():
        if isinstance(node, pytest.Dir | pytest.Package):
            yield from modules(node)
        elif isinstance(node, pytest.Module):
            yield node.path


def test_every_test_file_is_collected(request: pytest.FixtureRequest) -> None:
    assert request.config.getini("testpaths") == ["tests"]
    root = pytest.Dir.from_parent(request.session, path=TESTS)
    found = list(modules(root))
    assert sorted(found) == sorted(TESTS.rglob("test_*.py"))
    # Files of one name in different folders are different modules in this mode only; else one would hide the other.
    assert request.config.getoption("importmode") == "importlib"
