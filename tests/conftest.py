"""Set before any test imports torch: the workers of pytest-xdist share the cores, and threads that wait spin."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
