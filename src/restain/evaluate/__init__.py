"""Measure virtual stains: the stain itself, PSNR and SSIM by the BCI protocol, and the trivial answers."""

from restain.evaluate.job import evaluate_folder
from restain.evaluate.report import (
    EvaluationSection,
    GalleryItem,
    GallerySection,
    ReportSection,
    render_report,
    write_page,
)
from restain.evaluate.run import evaluate
from restain.evaluate.summary import EvaluationSummary, Interval, load_summary

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
