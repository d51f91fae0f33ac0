"""Staining into files: an H&E picture or slide in, a virtual IHC picture or slide out, in bounded memory.

The network sees fixed windows (:mod:`restain.stain.windows`). A tile is finished when its last window is; a slide's job that
was killed resumes with the tiles that are missing, and computes their windows again.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from restain.errors import RestainError
from restain.files import make_folder
from restain.images import read_text
from restain.ood.tiles import COLOUR, NAME, TileScores
from restain.progress import Progress, Warn, part
from restain.slides import Slide, TileStore, to_polygons, write_geojson, write_ome_tiff
from restain.slides.dicom import write_dicom
from restain.slides.slide import LARGEST_PICTURE
from restain.stain.figures import Hole, SlideFigures
from restain.stain.inputs import open_input
from restain.stain.options import Format, StainOptions
from restain.stain.pipeline import PREPARED, STAINED
from restain.stain.plan import StainJob, StainPlan
from restain.stain.provenance import Provenance
from restain.stain.result import StainedSlide, stain_in_memory
from restain.stain.seams import measure_seams
from restain.stain.sources import slide_name
from restain.stain.tiles import TILE
from restain.stain.windows import WindowStainer

if TYPE_CHECKING:
    from restain.stain.model import Model


SUFFIXES = {"png": ".png", "dicom": ".dicom", "ome-tiff": ".ome.tiff"}


def stain_slide(
    source: str | Path | Slide,
    out: str | Path,
    model: Model,
    options: StainOptions | None = None,
    *,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> StainedSlide:
    """Stain a picture or a whole slide into the folder ``out``; the result is at the model's mpp.

    For a picture, NAME being :func:`~restain.stain.sources.slide_name`, ``NAME.png`` is written and, with
    ``options.dab``, ``NAME.dab.tif``. For a slide, or if ``options.format`` says so: ``NAME.ome.tiff`` (or the
    folder ``NAME.dicom``), the virtual IHC slide over the H&E slide's whole extent; ``NAME.dab.ome.tiff`` with
    ``options.dab``; ``NAME.tissue.geojson``, the tissue; ``NAME.ood.geojson``, where the H&E is out of
    distribution, if the bundle has a detector; and ``NAME.stain.json`` with provenance and figures
    (:class:`SlideFigures`).

    Pixels without tissue get the rendered white, or the colour of the H&E's glass from a model without a stain head.
    Tissue outside of ``options.roi`` or under a pen mark is grey. Finished tiles of a slide are kept in ``NAME.part``:
    the same call resumes after a kill, with the same result. A finished result of the same source, bundle and options
    is kept.

    Raises RestainError if the image cannot be read, is a slide without mpp or tissue, or has (``strict``) a fault; for
    options that the model cannot serve; if the result cannot be written, or another process writes it.
    """
    options = options or model.options
    model.check(options)
    out = make_folder(Path(out))
    with open_input(source, model.mpp, options) as image:
        if options.strict and image.slide.faults:
            raise RestainError(f"{image.source}: {' '.join(image.slide.faults)}")
        job = StainJob(image, model, options, warn or (lambda sentence: None), progress)
        form = _form(job)
        target = out / f"{slide_name(image.source)}{SUFFIXES[form]}"
        if target.resolve() == image.slide.path.resolve():
            raise RestainError(f"{image.source}: the result would overwrite its source; choose another output folder.")
        if form == "png":
            return _stain_to_picture(job, target)
        # The frames of DICOM are JPEG.
        return _stain_to_slide(job, target, None if image.slide.is_picture and form == "ome-tiff" else options.quality)


def _form(job: StainJob) -> Format:
    image, form = job.image, job.options.format
    size = image.slide.size_at(job.model.mpp)
    small = size.width * size.height <= LARGEST_PICTURE
    if form == "auto":
        return "png" if image.slide.is_picture and small else "ome-tiff"
    if form == "png" and not small:
        raise RestainError(
            f"{image.source}: the result has {size.width} x {size.height} px, too many for PNG; "
            "choose OME-TIFF or DICOM (--format)."
        )
    return form


def _stain_to_picture(job: StainJob, target: Path) -> StainedSlide:
    source = job.image.source
    dab = target.with_name(f"{target.name.removesuffix('.png')}.dab.tif") if job.options.dab else None
    made = job.provenance(None)
    before = read_text(target) if target.is_file() else {}
    if made.made(before) and (dab is None or dab.is_file()):
        kept = Provenance.from_metadata(before)
        job.warn_of(kept)
        return StainedSlide(source, target, dab, kept, kept=True)
    result = stain_in_memory(job, made)
    if dab is not None:
        result.save_dab(dab)
    result.save(target)
    return StainedSlide(source, target, dab, result.provenance, kept=False)


def _stain_to_slide(job: StainJob, target: Path, quality: int | None) -> StainedSlide:
    slide, source, model, out = job.image.slide, job.image.source, job.model, target.parent
    name, detector, progress = slide_name(source), model.bundle.ood, job.progress
    tissue, report = out / f"{name}.tissue.geojson", out / f"{name}.stain.json"
    ood = None if detector is None else out / f"{name}.ood.geojson"
    dab = out / f"{name}.dab.ome.tiff" if job.options.dab else None
    began = time.perf_counter()
    made = job.provenance(quality, part(progress, 0, PREPARED // 2))
    if (before := _finished(report, made)) is not None and target.exists() and (dab is None or dab.is_file()):
        job.warn_of(before.provenance)
        return StainedSlide(source, target, dab, before.provenance, True, tissue, ood, report, before)
    job.warn_of_faults()
    plan = job.plan(PREPARED // 2, PREPARED)
    with ExitStack() as stack:
        stores = [
            stack.enter_context(
                TileStore.open(out / f"{name}.{kind}.part", made.identity, plan.size, TILE, kind, quality)
            )
            for kind in (("rgb", "dab") if dab else ("rgb",))
        ]
        scores = None if detector is None else TileScores(stores[0].folder / "ood.jsonl", stores[0].grid, detector)
        made = job.planned(made, plan)
        stainer = WindowStainer(job, plan, job.glass(plan.tissue, quality), stores, scores)
        stainer.run(part(progress, PREPARED, STAINED))

        job.warn_of(made)
        figures = _figures(made, stainer, plan, slide, stores[0])
        if figures.holes:
            job.warn(f"{source}: {len(figures.holes)} tiles could not be read and are marked holes in {target}.")
        write_geojson(tissue, to_polygons(plan.tissue.mask, plan.tissue.mpp, slide.mpp))
        if scores is not None and ood is not None:
            write_geojson(ood, scores.outlines(TILE, plan.size, model.mpp, slide.mpp), NAME, COLOUR)
        for store, path, start, end in zip(stores, (target, dab), (STAINED, 980), (980, 1000), strict=False):
            assert path is not None
            write = write_dicom if path.suffix == ".dicom" else write_ome_tiff
            write(store, path, mpp=model.mpp, metadata=made.metadata(), progress=part(progress, start, end))
        stainer.seconds.all = time.perf_counter() - began
        figures.write(report)
        for store in stores:
            store.discard()
    return StainedSlide(source, target, dab, made, False, tissue, ood, report, figures)


def _finished(report: Path, made: Provenance) -> SlideFigures | None:
    """The figures of a result made as ``made`` says; None where there is none."""
    try:
        figures = SlideFigures.read(report)
    except RestainError:
        return None
    return figures if made.made(figures.provenance.identity) else None


def _figures(made: Provenance, stainer: WindowStainer, plan: StainPlan, slide: Slide, store: TileStore) -> SlideFigures:
    seams = measure_seams(
        store.read_region, store.size, stainer.lattice.stride, stainer.area.is_stained, scale=made.mpp / slide.mpp
    )
    megapixels, seconds = stainer.stained_px / 1e6, stainer.seconds
    red, green, blue = (round(float(v), 1) for v in plan.tissue.glass)
    holes = []
    for row, column, reason in store.holes:
        height, width = store.extent(row, column)
        holes.append(Hole(column * TILE, row * TILE, width, height, reason))
    return SlideFigures(
        provenance=made,
        size=store.size,
        tissue_mm2=plan.tissue.area_um2 / 1e6,
        glass=(red, green, blue),
        glass_noise=stainer.glass.figures(),
        megapixels=megapixels,
        megapixels_per_second=megapixels / seconds.blocks if seconds.blocks else None,
        seams=seams,
        ood_tiles=None if stainer.scores is None else stainer.scores.figures(),
        holes=tuple(holes),
        slide_faults=tuple(slide.faults),
        seconds=seconds,
    )
