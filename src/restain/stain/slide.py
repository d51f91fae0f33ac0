"""Whole slides: a slide in, a pyramidal virtual IHC slide out, tile by tile, in bounded memory.

A slide is stained in blocks on a fixed grid. The network sees a margin (``HALO``) round each block, which is cut off
again, and its attention reads from a survey of the whole slide made beforehand, so that a block's influence on its
pixels is below what 8 bits can show (``benchmarks/seams.py``): blocks are set side by side, not blended. They are therefore
independent of one another. Any of them can be made first, and a job that was killed goes on where it stood.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from restain.errors import RestainError
from restain.files import make_folder, whole_file
from restain.models.heads import StainHead
from restain.slides import (
    Polygon,
    Slide,
    TileStore,
    TissueMask,
    open_slide,
    tissue_mask,
    to_polygons,
    write_geojson,
    write_ome_tiff,
)
from restain.slides.dicom import write_dicom
from restain.stain.area import Area, everywhere
from restain.stain.blocks import TILE, BlockStainer, seen_side
from restain.stain.glass import Glass, measure_noise
from restain.stain.provenance import FAMILIAR, provenance, same_origin, tell
from restain.stain.restainer import Restainer
from restain.stain.seams import measure_seams
from restain.stain.sources import slide_name
from restain.stain.survey import places, survey_slide
from restain.stain.unlike import COLOUR, NAME, UnlikeTiles

Format = Literal["ome-tiff", "dicom"]

LOOKED, SURVEYED, STAINED = 40, 140, 940
"""Thousandths of a job's progress at which the look at the slide, the survey and the staining end; then files are written."""


class NoTissue(RestainError):  # noqa: N818  (as RestainError)
    """There is nothing to be stained where it was looked for."""


@dataclass(frozen=True)
class SlideOptions:
    """How slides are stained, beside the model.

    ``mpp``: of slides that do not say theirs. ``dab``: write the DAB density as a pyramid of its own. ``roi``: outlines in
    level-0 px outside of which nothing is stained. ``everywhere``: do not look for tissue, stain all. ``strict``: the first
    tile that cannot be read ends the job, instead of becoming a marked hole. ``quality``: of JPEG, 1 to 100.
    ``glass_noise``: give glass the noise of the H&E's glass, in place of one exact colour.
    """

    mpp: float | None = None
    dab: bool = False
    roi: tuple[Polygon, ...] | None = None
    everywhere: bool = False
    strict: bool = False
    format: Format = "ome-tiff"
    quality: int = 90
    glass_noise: bool = True


@dataclass(frozen=True)
class StainedSlide:
    """The files of a result, and what was measured (see :func:`stain_slide`); ``kept`` where they were there already.

    ``unlike``: outlines of tiles unlike the training images; None where the model does not know those.
    """

    source: Path
    path: Path
    dab: Path | None
    tissue: Path
    unlike: Path | None
    report: Path
    figures: dict[str, Any]
    kept: bool


def stain_slide(
    source: Path,
    out: Path,
    restainer: Restainer,
    options: SlideOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> StainedSlide:
    """Stain a whole slide into the folder ``out``.

    Writes, NAME being :func:`~restain.stain.sources.slide_name`: ``NAME.ome.tiff`` (or the folder ``NAME.dicom``), the
    virtual IHC slide over the H&E slide's whole extent at the model's mpp; ``NAME.dab.ome.tiff`` where the DAB density is
    asked for; ``NAME.tissue.geojson``, what was taken for tissue; ``NAME.unlike.geojson``, where the H&E is unlike the
    training images, if the model knows them; and ``NAME.stain.json`` with the provenance and these figures: ``tissue_mm2``, ``glass`` (RGB of the H&E's), ``glass_noise`` (:meth:`~restain.stain.glass.Glass.figures`), ``megapixels`` that went through the network, ``megapixels_per_second``,
    ``seconds`` (:class:`~restain.stain.pipeline.Seconds`), ``seams`` (:class:`~restain.stain.seams.Seams` with their
    ``ratio``; None without borders in tissue), ``unlike`` (:meth:`~restain.stain.unlike.UnlikeTiles.figures`, or None), ``holes`` (``x, y, width, height, reason`` in px of the result) and
    ``slide_faults``. Times and megapixels are of the last run, if a job was killed and went on.

    Pixels without tissue get the colour of the H&E slide's glass, on which tissue is rendered as well where the model has
    a stain head and no white was told; with the noise of that glass, if it has any. Tissue outside of ``options.roi`` or under a pen mark is grey. Finished tiles are kept in
    ``NAME.part`` until the slide is whole: the same command goes on after a kill, and its result is the same. A finished
    result of the same source, bundle and options is kept.

    Args:
        source: the slide, or the folder of a DICOM series or OME-Zarr.
        out: made where needed.
        restainer: the model; its ``tile`` is the side of the blocks.
        options: see :class:`SlideOptions`.
        progress: called with what is done and what is to do, in parts of the work.
        warn: called with sentences that name the source: unlike the training images, damaged, with holes.

    Raises:
        RestainError: if the slide cannot be read, has no mpp, no tissue, or (``strict``) a fault; if the result cannot be
            written, or another process is making it.
    """
    options = options or SlideOptions()
    name, suffix = slide_name(source), ".dicom" if options.format == "dicom" else ".ome.tiff"
    target, tissue, report = (out / f"{name}{end}" for end in (suffix, ".tissue.geojson", ".stain.json"))
    unlike = None if restainer.bundle.familiarity is None else out / f"{name}.unlike.geojson"
    dab = out / f"{name}.dab.ome.tiff" if options.dab else None
    if target.resolve() == source.resolve():
        raise RestainError(f"{source}: the result would overwrite its source; choose another output folder.")
    if options.dab and not isinstance(getattr(restainer.generator, "head", None), StainHead):
        raise RestainError(f"{restainer.label}: the model has no stain output, so it gives no DAB density.")
    make_folder(out)
    steps, began = _Steps(progress), time.perf_counter()
    with open_slide(source, options.mpp) as slide, ExitStack() as stack:
        if options.strict and slide.faults:
            raise RestainError(f"{source}: {' '.join(slide.faults)}")
        mpp = restainer.bundle.card.mpp
        size = slide.size_at(mpp)
        text = provenance(source, _made_by(restainer, options, slide.mpp), steps.part(LOOKED // 2))
        if (before := _finished(report, text)) is not None and target.exists() and (dab is None or dab.is_file()):
            tell(source, {FAMILIAR: before.get(FAMILIAR, "")}, warn)
            return StainedSlide(source, target, dab, tissue, unlike, report, before, kept=True)
        warn = warn or _silent
        for fault_found in slide.faults:
            warn(f"{source}: {fault_found}")

        found = tissue_mask(slide, progress=steps.part(LOOKED - LOOKED // 2))
        if not options.everywhere and not found.mask.any():
            raise NoTissue(f"{source}: no tissue was found; --everywhere stains the whole slide.")
        shown = everywhere(slide.size_at(found.mpp), found) if options.everywhere else found
        area = Area(shown, slide.mpp, mpp, options.roi)
        windows = places(slide, restainer, area)
        if not windows:
            raise NoTissue(f"{source}: the region of interest holds no tissue.")
        identity = {key: value for key, value in text.items() if key != "created"}
        stores = [
            stack.enter_context(
                TileStore.open(out / f"{name}.{kind}.part", identity, size, TILE, kind, options.quality)
            )
            for kind in (("rgb", "dab") if dab else ("rgb",))
        ]
        looking = time.perf_counter()
        survey = survey_slide(slide, restainer, windows, stores[0].folder, identity, steps.part(SURVEYED - LOOKED))
        tiles = None
        if restainer.bundle.familiarity is not None:
            tiles = UnlikeTiles(stores[0].folder / "unlike.jsonl", stores[0].grid, restainer.bundle.familiarity)
        white = found.glass if restainer.white is None else restainer.white
        noise = measure_noise(slide, found, mpp) if options.glass_noise else None
        glass = Glass(white, found.glass, mpp, noise, options.quality)
        stainer = BlockStainer(
            slide, restainer, area, glass, survey.context, stores, strict=options.strict, unlike=tiles
        )
        stainer.seconds.survey = time.perf_counter() - looking
        stainer.run(steps.part(STAINED - SURVEYED))

        text |= {FAMILIAR: survey.familiar}
        tell(source, text, warn)
        figures = _figures(text, stainer, found, slide, stores[0])
        figures["unlike"] = None if tiles is None else tiles.figures()
        if figures["holes"]:
            warn(f"{source}: {len(figures['holes'])} tiles could not be read and are marked holes in {target}.")
        write_geojson(tissue, to_polygons(found.mask, found.mpp, slide.mpp))
        if tiles is not None and unlike is not None:
            write_geojson(unlike, tiles.outlines(TILE, size, mpp, slide.mpp), NAME, COLOUR)
        for store, path, share in zip(stores, (target, dab), (40, 20), strict=False):
            assert path is not None
            write = write_dicom if path.suffix == ".dicom" else write_ome_tiff
            write(store, path, mpp=mpp, metadata=text, progress=steps.part(share))
        stainer.seconds.all = time.perf_counter() - began
        figures["seconds"] = asdict(stainer.seconds)
        with whole_file(report) as partial:
            partial.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        for store in stores:
            store.discard()
    return StainedSlide(source, target, dab, tissue, unlike, report, figures, kept=False)


def _made_by(restainer: Restainer, options: SlideOptions, slide_mpp: float) -> dict[str, str]:
    """All that decides what a result looks like beside the source, as metadata text."""
    card = restainer.bundle.card
    roi = "whole slide"
    if options.roi is not None:
        outlines = b"".join(ring.astype("<f8").tobytes() for polygon in options.roi for ring in polygon.rings)
        roi = f"{len(options.roi)} outlines, SHA-256 {hashlib.sha256(outlines).hexdigest()}"
    return {
        "bundle": card.name,
        "bundle_hash": card.hash,
        "mpp": f"{card.mpp:g}",
        "source_mpp": f"{slide_mpp:g}",
        "engine": restainer.engine_for(seen_side(restainer)).name,
        "block": str(restainer.tile),
        "survey": "none" if restainer.survey is None else restainer.survey.describe(),
        "white": "the slide's glass" if restainer.white is None else " ".join(f"{v:g}" for v in restainer.white),
        "region": roi,
        "tissue": "everywhere" if options.everywhere else "found",
        "quality": str(options.quality),
        "dab": str(options.dab),
        "glass_noise": str(options.glass_noise),
    }


def _silent(sentence: str) -> None:
    """For callers who do not want to be warned."""


def _finished(report: Path, text: Mapping[str, str]) -> dict[str, Any] | None:
    """The figures of a result made as ``text`` says; None where there is none."""
    try:
        figures = json.loads(report.read_bytes())
        return figures if same_origin(text, figures["provenance"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _figures(
    text: Mapping[str, str], stainer: BlockStainer, found: TissueMask, slide: Slide, store: TileStore
) -> dict[str, Any]:
    seams = measure_seams(
        store.read_region, store.size, stainer.side * TILE, stainer.area.is_stained, scale=stainer.mpp / slide.mpp
    )
    megapixels, seconds = stainer.stained_px / 1e6, stainer.seconds
    return {
        "provenance": dict(text),
        "size_px": [store.size.width, store.size.height],
        "tissue_mm2": found.area_um2 / 1e6,
        "glass": [round(float(v), 1) for v in found.glass],
        "glass_noise": stainer.glass.figures(),
        "megapixels": megapixels,
        "megapixels_per_second": megapixels / seconds.blocks if seconds.blocks else None,
        "seams": None if seams is None else asdict(seams) | {"ratio": seams.ratio},
        "holes": [
            [column * TILE, row * TILE, *reversed(store.extent(row, column)), reason]
            for row, column, reason in store.holes
        ],
        "slide_faults": slide.faults,
    }


class _Steps:
    """Progress of several jobs as one: each has its share of a thousand."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self._progress, self._before = progress, 0

    def part(self, share: int) -> Callable[[int, int], None] | None:
        before, self._before = self._before, self._before + share
        if (tell := self._progress) is None:
            return None
        return lambda done, total: tell(before + share * done // max(total, 1), 1000)
