"""The page of an evaluation by spots: maps of expression and virtual DAB side by side, a scatter, a table with baselines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.stats import rankdata

from restain.data.spots import Spots
from restain.report.page import write_page as write_report_page
from restain.report.plots import inline_svg, plot_panels
from restain.spots.association import BLOCK_UM, Association
from restain.spots.densities import HEMATOXYLIN_GIVEN
from restain.statistics import Interval


def write_page(
    path: Path,
    spots: Spots,
    densities: Mapping[str, NDArray[np.float64]],
    found: Mapping[str, Association],
    ceiling: float,
    facts: Mapping[str, str],
) -> None:
    """Write the page of :func:`restain.spots.evaluate_spots`.

    Raises:
        RestainError: if it cannot be written.
    """
    first, rest = next(iter(found.items())), list(found.items())[1:]
    best = max(rest, key=lambda item: item[1].rho.mean)
    write_report_page(
        path,
        "spots.html.j2",
        "restain.spots",
        title=f"{first[0]} against {spots.gene} mRNA",
        gene=spots.gene,
        count=len(spots.names),
        ceiling=f"{ceiling:.2f}",
        given=HEMATOXYLIN_GIVEN,
        block=f"{BLOCK_UM / 1000:g}",
        best=(best[0], _text(best[1].rho), _text(first[1].above[best[0]])),
        own=_text(first[1].rho),
        rows=[_row(name, one, first[1].above.get(name)) for name, one in found.items()],
        maps=_maps(spots, densities),
        scatter=_scatter(spots, densities, first[0]),
        facts=facts,
    )


def _row(name: str, found: Association, below_virtual: Interval | None) -> tuple[str, ...]:
    partial = "" if name == HEMATOXYLIN_GIVEN else _text(found.given_hematoxylin)
    return (
        name,
        _text(found.rho),
        _text(found.given_total),
        partial,
        "" if below_virtual is None else _text(below_virtual),
    )


def _text(estimate: Interval) -> str:
    if not np.isfinite(estimate.mean):
        return "undefined"
    return f"{estimate.mean:z.2f} [{estimate.low:z.2f}, {estimate.high:z.2f}]".replace("-", "−")


def _maps(spots: Spots, densities: Mapping[str, NDArray[np.float64]]) -> Markup:
    shown = {
        f"{spots.gene}, log CPM": spots.log_cpm(),
        **{name: densities[name] for name in (*list(densities)[:1], HEMATOXYLIN_GIVEN)},
    }
    with plot_panels(4.2 * len(shown), 4.2, count=len(shown)) as (figure, panels):
        for axes, (title, values) in zip(panels, shown.items(), strict=True):
            # Ranks, as Spearman's rho sees them: one bright spot does not darken all others.
            axes.scatter(spots.xy[:, 0], spots.xy[:, 1], c=rankdata(values), cmap="viridis", s=26)
            axes.set(title=title, aspect="equal", xticks=[], yticks=[])
            axes.invert_yaxis()
        return inline_svg(figure, f"maps of {', '.join(shown)}")


def _scatter(spots: Spots, densities: Mapping[str, NDArray[np.float64]], name: str) -> Markup:
    with plot_panels(8.4, 4.2, count=2) as (figure, panels):
        for axes, shown in zip(panels, (name, HEMATOXYLIN_GIVEN), strict=True):
            axes.scatter(densities[shown], spots.log_cpm(), s=12, alpha=0.7)
            axes.set(xlabel=f"{shown} density (OD)", ylabel=f"{spots.gene}, log CPM")
        return inline_svg(figure, f"{spots.gene} over density, spot by spot")
