"""Measure virtual stains: the stain itself, PSNR and SSIM by the BCI protocol, and the baselines."""

from restain.evaluation.job import evaluate_folder
from restain.evaluation.report import EvaluationSection, render_report, write_page
from restain.evaluation.run import evaluate
from restain.evaluation.summary import EvaluationSummary, load_summary

__all__ = [
    "EvaluationSection",
    "EvaluationSummary",
    "evaluate",
    "evaluate_folder",
    "load_summary",
    "render_report",
    "write_page",
]
