"""Recipes trained under one budget, on the same data and seeds, scored by the same code, in one table."""

from restain.benchmark.budget import Budget
from restain.benchmark.run import benchmark

__all__ = ["Budget", "benchmark"]
