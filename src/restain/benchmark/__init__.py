"""Recipes trained under one budget, on the same data and seeds, scored by the same code, in one table."""

from restain.benchmark.budget import Budget
from restain.benchmark.train_and_score import benchmark

__all__ = ["Budget", "benchmark"]
