"""Measure virtual stains: the stain itself, PSNR and SSIM by the BCI protocol, and the trivial answers."""

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
    "load_summary",
    "render_report",
    "write_page",
]
