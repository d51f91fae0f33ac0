"""A slide with a coloured square per field, as inline SVG: pointing at a field shows its text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

from restain.geometry import Region, Size


@dataclass(frozen=True, slots=True)
class Square:
    """One field: where it lies in level-0 px, its CSS colour (``none`` for a frame only) and its text."""

    region: Region
    colour: str
    text: str
    label: str = ""
    """Written on the field in ``ink``."""
    ink: str = "#000"
    dashed: bool = False


def slide_map(
    size: Size,
    squares: Iterable[Square],
    label: str,
    picture: str = "",
    *,
    opacity: float = 1.0,
    frame: float = 1 / 900,
) -> Markup:
    """The map of a slide of ``size`` px at level 0, over ``picture`` (a link, drawn with ``opacity``) if there is one.

    ``label`` says what the map shows, for those who do not see it; ``frame`` is the width of the fields' frames as a
    share of the longer side.
    """
    width, height = size.width, size.height
    parts = []
    if not picture or opacity < 1:
        parts.append(f'<rect width="{width}" height="{height}" fill="#fff"/>')
    if picture:
        fade = f' opacity="{opacity:g}"' if opacity < 1 else ""
        parts.append(
            f'<image href="{escape(picture)}" width="{width}" height="{height}" preserveAspectRatio="none"{fade}/>'
        )
    line = max(width, height) * frame
    for square in squares:
        at, box = square.region.origin, square.region.size
        dash = f' stroke-dasharray="{3 * line:.0f} {2 * line:.0f}"' if square.dashed else ""
        place = f'x="{at.x}" y="{at.y}" width="{box.width}" height="{box.height}"'
        parts.append(f"<g><title>{escape(square.text)}</title><rect {place} ")
        parts.append(f'fill="{square.colour}" fill-opacity=".8" stroke="#444" stroke-width="{line:.1f}"{dash}/>')
        if square.label:
            parts.append(
                f'<text x="{at.x + box.width / 2:.0f}" y="{at.y + box.height / 2:.0f}" text-anchor="middle" '
                f'dominant-baseline="central" style="font-size:{min(box.width, box.height) / 3:.0f}px;'
                f'fill:{square.ink}">{escape(square.label)}</text>'
            )
        parts.append("</g>")
    head = f'<svg viewBox="0 0 {width} {height}" style="width:100%;height:auto;display:block" role="img" '
    return Markup(f'{head}aria-label="{escape(label)}">{"".join(parts)}</svg>')
