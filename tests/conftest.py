"""For all tests: one thread each, and the same draws in whatever order they run."""

import os

# Before any test imports torch: the workers of pytest-xdist share the cores, and threads that wait spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import sys

import pytest


@pytest.fixture(autouse=True)
def seeded() -> None:
    """torch.rand without a generator: the same in every run, alone or in a worker beside others."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
