"""Recipes trained under one budget, on the same data and seeds, scored by the same code, in one table."""

from restain.benchmark.budget import Budget as Budget
from restain.benchmark.train_and_score import benchmark as benchmark
