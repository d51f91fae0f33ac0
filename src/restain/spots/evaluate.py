"""``restain evaluate-spots``: virtual HER2 staining against measured ERBB2 mRNA, spot by spot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain import NOTICE
from restain.data.spots import Spots, read_spots
from restain.errors import RestainError
from restain.files import make_folder, write_csv, write_json
from restain.progress import Progress, part
from restain.slides import DensitySlide, open_slide
from restain.spots.association import Association, associations, noise_ceiling
from restain.spots.densities import HEMATOXYLIN_GIVEN, dab_map, he_maps, under_spots
from restain.spots.page import write_page
from restain.stain import Model
from restain.statistics import json_ready

SPOT_UM = 100.0
"""Diameter of a spot where its source states none: that of the arrays of Spatial Transcriptomics."""

VIRTUAL = "virtual DAB"


@dataclass(frozen=True)
class SpotsEvaluation:
    """What :func:`evaluate_spots` found."""

    spots: Spots
    densities: dict[str, NDArray[np.float64]]
    """By name, the mean density of each spot in OD, ``(N,)``: the virtual DAB, then the baselines."""
    associations: dict[str, Association]
    """By the same names."""
    ceiling: float
    """The rho that noise in the counts allows; see :func:`restain.spots.association.noise_ceiling`."""
    page: Path

    def describe(self) -> str:
        """The leading figures, a line per density."""
        lines = [f"{len(self.spots.names)} spots; noise ceiling {self.ceiling:.2f}"]
        for name, found in self.associations.items():
            rho, partial = found.rho, found.given_hematoxylin
            lines.append(
                f"{name}: rho {rho.mean:z.2f} [{rho.low:z.2f}, {rho.high:z.2f}]"
                + (f", given hematoxylin {partial.mean:z.2f}" if name != HEMATOXYLIN_GIVEN else "")
            )
        return "\n".join(lines)


def evaluate_spots(
    slide: str | Path,
    spots: str | Path,
    out: str | Path,
    *,
    model: Model,
    gene: str = "ERBB2",
    spot_um: float | None = None,
    mpp: float | None = None,
    override_mpp: bool = False,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> SpotsEvaluation:
    """Stain a slide and compare the virtual DAB under each spot with the expression of a gene there.

    Writes ``spots.html``, ``spots.json``, ``spots.csv`` and the virtual slide into ``out``. A virtual slide that is there
    already is kept, and an interrupted one resumed.

    Args:
        slide: the H&E image, whose px the spots' places are in.
        spots: see :func:`restain.spots.read_spots`.
        out: folder of the results, made where needed.
        model: what stains; it must give a DAB density.
        gene: the gene's symbol.
        spot_um: diameter of a spot in µm; None for what the source states, else 100.
        mpp: micrometres per pixel of a slide that states none.
        override_mpp: take ``mpp`` also where the slide states another.
        seed: of the bootstrap and of the thinning.
        command: the command line, for the page.
        progress: called with what is done and what is to do, in thousandths.
        warn: called with sentences on the slide.

    Raises:
        RestainError: if a source cannot be read, spots lie outside the slide, the model gives no DAB density, or the
            results cannot be written.
    """
    report = progress or (lambda done, total: None)
    found = read_spots(spots, gene)
    if not model.has_dab:
        raise RestainError(f"{model.label} gives no DAB density; take a model with a stain head.")
    out = Path(out)
    make_folder(out)
    with open_slide(slide, mpp, override_mpp=override_mpp) as he:
        outside = np.any((found.xy < 0) | (found.xy > [he.size.width, he.size.height]), axis=1)
        if outside.any():
            raise RestainError(
                f"{spots}: {int(outside.sum())} of {len(found.names)} spots lie outside {slide} "
                f"({he.size.width} x {he.size.height} px); the places must be in its px of level 0."
            )
        diameter_px = spot_um / he.mpp if spot_um is not None else found.diameter_px or SPOT_UM / he.mpp
        maps = he_maps(he, part(progress, 0, 100))
        size, scale = he.size, he.mpp
    stained = model.stain_slide(
        slide,
        out,
        mpp=mpp,
        override_mpp=override_mpp,
        dab=True,
        format="ome-tiff",
        progress=part(progress, 100, 900),
        warn=warn,
    )
    assert stained.dab is not None
    with DensitySlide(stained.dab) as dab:
        maps = {VIRTUAL: dab_map(dab, maps["hematoxylin"].shape)} | maps
    densities = {name: under_spots(map_, found, size, diameter_px) for name, map_ in maps.items()}
    baselines = [name for name in densities if name != VIRTUAL]
    result = SpotsEvaluation(
        found,
        densities,
        associations(found, densities, scale, baselines=baselines, hematoxylin=HEMATOXYLIN_GIVEN, seed=seed),
        noise_ceiling(found, seed),
        out / "spots.html",
    )
    _write(
        result,
        out,
        {"model": model.label, "slide": str(slide), "spots": str(spots), "command": command, "seed": str(seed)},
    )
    report(1000, 1000)
    return result


def _write(result: SpotsEvaluation, out: Path, facts: dict[str, str]) -> None:
    spots = result.spots
    content = {
        "notice": NOTICE,
        "gene": spots.gene,
        "spots": len(spots.names),
        "noise_ceiling": result.ceiling,
        "facts": facts,
        "associations": result.associations,
    }
    write_json(out / "spots.json", json_ready(content))
    names = ["spot", "x_px", "y_px", "total", spots.gene, "log_cpm", *result.densities]
    columns = [spots.names, *spots.xy.T, spots.total, spots.counts, spots.log_cpm(), *result.densities.values()]
    write_csv(out / "spots.csv", names, zip(*columns, strict=True))
    write_page(result.page, spots, result.densities, result.associations, result.ceiling, facts)
