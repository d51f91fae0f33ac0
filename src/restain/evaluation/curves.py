"""Line plots as inline SVG, in the colours of the page they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

COLOURS = ("#b0561f", "#2a6fb0", "#3f8f4f", "#8a4fa3", "#7d7d7d")
"""Of the first, second, ... line; all are told apart by their dashes too."""

DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 4")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot. Points whose y is not finite break it."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    """Lower ends of intervals, drawn as bars with ``high``."""
    high: Sequence[float] | None = None


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) that cover ``[low, high]``."""
    span = max(high - low, 1e-12)
    raw = span / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def plot(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    from_zero: bool = True,
    goal: float | None = None,
    marks: bool = False,
) -> Markup:
    """An SVG of 460 x 300 units that scales with its column.

    Args:
        lines: at most five.
        x_label: under the axis.
        y_label: beside the axis.
        from_zero: whether the y axis starts at zero, as it does for errors.
        goal: a horizontal line to reach.
        marks: dots at the points, for measured settings.

    Returns:
        Markup, safe to put into a page; an empty sentence where no point is finite.
    """
    finite = [
        (x, y, *(() if line.low is None or line.high is None else (line.low[i], line.high[i])))
        for line in lines
        for i, (x, y) in enumerate(zip(line.x, line.y, strict=True))
        if math.isfinite(y)
    ]
    if not finite:
        return Markup('<p class="soft">Nothing to draw: the figure is undefined on these images.</p>')
    values = [v for point in finite for v in point[1:] if math.isfinite(v)] + ([] if goal is None else [goal])
    xs = [point[0] for point in finite]
    y_ticks = ticks(0.0 if from_zero else min(values), max(values) if max(values) > 0 or not from_zero else 1.0)
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return 62 + 380 * (x - x_low) / (x_high - x_low), 240 - 225 * (y - y_low) / (y_high - y_low)

    parts = ['<rect x="62" y="15" width="380" height="225" fill="none" stroke="currentColor" stroke-opacity=".3"/>']
    for value in y_ticks:
        level = at(x_low, value)[1]
        parts.append(f'<line x1="62" x2="442" y1="{level:.1f}" y2="{level:.1f}" stroke="currentColor" opacity=".12"/>')
        parts.append(f'<text x="56" y="{level + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(x_low, x_high):
        if x_low <= value <= x_high:
            parts.append(f'<text x="{at(value, y_low)[0]:.1f}" y="256" text-anchor="middle">{value:g}</text>')
    if goal is not None:
        level = at(x_low, goal)[1]
        parts.append(f'<line x1="62" x2="442" y1="{level:.1f}" y2="{level:.1f}" stroke="#c22" stroke-dasharray="1 3"/>')
    for number, line in enumerate(lines):
        parts += _line(line, number, at, marks)
    parts.append(f'<text x="252" y="276" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text transform="translate(14 128) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    offset = 62
    for number, line in enumerate(lines):
        stroke = f'stroke="{COLOURS[number]}" stroke-width="2" stroke-dasharray="{DASHES[number]}"'
        parts.append(f'<line x1="{offset}" x2="{offset + 20}" y1="292" y2="292" {stroke}/>')
        parts.append(f'<text x="{offset + 25}" y="296">{escape(line.title)}</text>')
        offset += 34 + round(6.2 * len(line.title))
    label = escape(f"{y_label} against {x_label}")
    return Markup(f'<svg viewBox="0 0 460 304" role="img" aria-label="{label}">{"".join(parts)}</svg>')


def _line(line: Line, number: int, at: Callable[[float, float], tuple[float, float]], marks: bool) -> list[str]:
    colour, dash = COLOURS[number], DASHES[number]
    parts: list[str] = []
    run: list[str] = []
    runs = [run]
    for index, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        if not math.isfinite(y):
            run = []
            runs.append(run)
            continue
        px, py = at(x, y)
        run.append(f"{px:.1f},{py:.1f}")
        if line.low is not None and line.high is not None and math.isfinite(line.low[index] + line.high[index]):
            top, bottom = at(x, line.high[index])[1], at(x, line.low[index])[1]
            bar = f'x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"'
            parts.append(f'<line {bar} stroke="{colour}" stroke-opacity=".5"/>')
        if marks:
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.6" fill="{colour}"/>')
    for points in runs:
        if len(points) > 1:
            stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
            parts.append(f'<polyline points="{" ".join(points)}" fill="none" {stroke}/>')
    return parts
