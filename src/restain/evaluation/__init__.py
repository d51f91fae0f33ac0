"""Measure virtual stains: the stain itself, PSNR and SSIM by the BCI protocol, and the baselines."""

from restain.evaluation.job import evaluate_folder
from restain.evaluation.report import (
    EvaluationSection,
    GalleryItem,
    GallerySection,
    ReportSection,
    render_report,
    write_page,
)
from restain.evaluation.run import evaluate
from restain.evaluation.summary import EvaluationSummary, Interval, load_summary

__all__ = [
    "EvaluationSection",
    "EvaluationSummary",
    "GalleryItem",
    "GallerySection",
    "Interval",
    "ReportSection",
    "evaluate",
    "evaluate_folder",
    "load_summary",
    "render_report",
    "write_page",
]
