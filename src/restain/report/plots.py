"""Plots by matplotlib: inline SVG in the ink of the page that they stand in, and PNG files."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from restain.files import whole_file
from restain.report.pictures import colour_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#b0561f", "#2a6fb0", "#3f8f4f", "#8a4fa3", "#7d7d7d")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (2, 2)))
"""Dashes of the first, second, ... line, which differ in print without colour."""

VERDICTS = {"better": ("#2b7a3d", "▲"), "worse": ("#b3361e", "▼"), "no difference shown": ("#7d7d7d", "=")}
"""Colour and sign of a paired comparison's outcome."""

_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot; points whose y is not finite break it."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    """Lower ends of intervals, drawn as bars with ``high``."""
    high: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Gain:
    """One row of a forest plot; NaN ends where there is no interval."""

    verdict: str
    mean: float
    low: float
    high: float


def line_plot(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    from_zero: bool = True,
    goal: float | None = None,
    marks: bool = False,
) -> Markup:
    """At most five lines, in the order of ``COLOURS``, as inline SVG; a sentence where no point is finite.

    ``from_zero`` starts the y axis at zero, ``goal`` is a horizontal line to reach, ``marks`` are dots at the points.
    """
    if not any(math.isfinite(y) for line in lines for y in line.y):
        return Markup('<p class="soft">Nothing to draw: the figure is undefined on these images.</p>')
    with plot_panels(4.6, 3.0) as (figure, (axes,)):
        for line, colour, dash in zip(lines, COLOURS, DASHES, strict=False):
            marker = "o" if marks else ""
            axes.plot(line.x, line.y, color=colour, linestyle=dash, marker=marker, markersize=3.5, label=line.title)
            if line.low is not None and line.high is not None:
                axes.vlines(line.x, line.low, line.high, color=colour, alpha=0.5, linewidth=1)
        if goal is not None:
            axes.axhline(goal, color="#cc2222", linestyle=":", linewidth=1)
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(axis="y", color=_INK, alpha=0.12)
        figure.legend(loc="outside lower left", ncols=3, frameon=False, labelcolor=_INK)
        return inline_svg(figure, f"{y_label} against {x_label}")


def forest_plot(gains: Sequence[Gain], label: str) -> Markup:
    """Gains with their intervals, a numbered row each, and the line of no difference, as inline SVG."""
    with plot_panels(4.6, 0.75 + 0.24 * len(gains)) as (figure, (axes,)):
        for row, gain in enumerate(gains):
            colour = VERDICTS[gain.verdict][0]
            if math.isfinite(gain.low) and math.isfinite(gain.high):
                axes.hlines(row, gain.low, gain.high, color=colour, linewidth=2)
            axes.plot([gain.mean], [row], marker="s", markersize=6, color=colour)
        axes.axvline(0, color=_INK, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(gains)), [f"{k + 1} {VERDICTS[g.verdict][1]}" for k, g in enumerate(gains)])
        axes.set_ylim(len(gains) - 0.4, -0.6)
        axes.grid(axis="x", color=_INK, alpha=0.12)
        axes.set_xlabel("worse ◂   gain   ▸ better")
        return inline_svg(figure, label)


def save_histogram(path: Path, counts: NDArray[np.float64], top: float, x_label: str, y_label: str) -> None:
    """Write a 2-D histogram as PNG: darkness is the logarithm of the count, the dashed line equality.

    ``counts`` is ``(N, N)``, by x then y, both from 0 to ``top``. Raises RestainError if the file cannot be written.
    """
    from matplotlib.colors import ListedColormap

    with plot_panels(3.6, 3.4, ink="#1c1e21") as (figure, (axes,)):
        colours = ListedColormap(colour_scale("dab") / 255)
        axes.imshow(np.log1p(counts.T), origin="lower", extent=(0, top, 0, top), cmap=colours, vmin=0)
        axes.plot([0, top], [0, top], color="#2a6fb0", linestyle="--", linewidth=1)
        axes.set(xlabel=x_label, ylabel=y_label)
        with whole_file(path) as partial:
            figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})


@contextmanager
def plot_panels(width: float, height: float, ink: str = _INK, count: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of ``width`` by ``height`` inches with ``count`` panels in a row, under settings that end with the block."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {
        **{"svg.fonttype": "none", "svg.hashsalt": "restain", "text.parse_math": False, "font.size": 8},
        **{"axes.edgecolor": ink, "axes.labelcolor": ink, "text.color": ink, "xtick.color": ink, "ytick.color": ink},
        **{"font.family": "DejaVu Sans", "axes.linewidth": 0.5, "lines.linewidth": 1.5},
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, list(figure.subplots(1, count, squeeze=False)[0])


def inline_svg(figure: Figure, label: str) -> Markup:
    """A figure as inline SVG in the ink of its page; ``label`` is its text for screen readers."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Type": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Numbered names repeat from plot to plot of a page, and nothing refers to them.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text).replace(_INK, "currentColor")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip())
