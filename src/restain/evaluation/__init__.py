"""Measure virtual stains against real ones, with baselines beside every figure."""

from restain.evaluation.evaluator import evaluate
from restain.evaluation.report import EvaluationSection, render_report, write_page
from restain.evaluation.summary import Evaluation, load_evaluation

__all__ = ["Evaluation", "EvaluationSection", "evaluate", "load_evaluation", "render_report", "write_page"]
