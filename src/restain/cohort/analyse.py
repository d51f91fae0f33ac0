"""Analysis of a cohort: stain the slides of a table, score their fields, pool them per patient, write one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

import restain
from restain.cohort.field import FIELD_UM, FieldReading, read_fields
from restain.cohort.page import cohort_page
from restain.cohort.patient import PatientReading, SlideReading, decisive_fields
from restain.cohort.table import Row, read_table
from restain.errors import RestainError
from restain.evaluation.her2_classifier import Her2Classifier
from restain.files import make_folder, read_kept, write_json, write_kept, write_text
from restain.optics import dab_density
from restain.progress import Progress, Warn, item, part
from restain.report import colour_map, save_picture
from restain.report.pictures import DAB_TOP
from restain.slides import DensitySlide, Slide, TissueMask, open_slide, rasterize, read_geojson
from restain.slides.mask import MASK_MPP
from restain.stain import Model, SlideFigures, slide_name, stain_slide

FORMAT = 2
"""Version of the kept scores; raised when the same slide would be scored differently."""

_PICTURE = 768
"""Longest side of the pictures on the page in px."""


def run_cohort(
    table: Path,
    out: Path,
    *,
    model: Model,
    classifier: Her2Classifier | None = None,
    mpp: float | None = None,
    override_mpp: bool = False,
    side_um: float = FIELD_UM,
    command: str = "",
    progress: Progress | None = None,
    warn: Warn = lambda sentence: None,
) -> Path:
    """Stain and score the slides of a cohort; returns the page ``out/cohort.html``.

    Beside it: ``cohort.json`` with all figures, ``pictures/``, and ``slides/PATIENT/`` with what
    :func:`restain.stain.stain_slide` writes, and ``NAME.fields.json``. A repeated call resumes. A failed slide does not
    stop the others; the page names it.

    Args:
        table: see :func:`restain.cohort.table.read_table`.
        model: without a stain head, DAB is unmixed from the colours of its output.
        classifier: HER2 classifier for a second score of each field.
        mpp: micrometres per pixel of slides that state no scale.
        override_mpp: use ``mpp``, or that of the table, even if a slide states another.
        side_um: side of a field in µm.

    Raises RestainError if the table is invalid, two slides of a patient share a name, every slide fails, or writing
    fails.
    """
    rows = read_table(table)
    folders = [out / "slides" / _safe(row.patient) for row in rows]
    _check_names(table, rows)
    job = _Job(out, model, classifier, side_um, override_mpp, warn)
    done: list[SlideReading] = []
    failed: list[tuple[str, str]] = []
    for number, (row, folder) in enumerate(zip(rows, folders, strict=True)):
        report = item(progress, number, len(rows))
        make_folder(folder)
        make_folder(out / "pictures" / folder.name)
        try:
            done.append(_read_slide(job, row, row.mpp or mpp, folder, report))
        except RestainError as fault:
            failed.append((row.slide.name, str(fault)))
            warn(str(fault))
        report(1, 1)
    if not done:
        raise RestainError(f"{table}: none of its {len(rows)} slides could be read; the first: {failed[0][1]}")
    names = dict.fromkeys(row.patient for row in rows)
    patients = [PatientReading(name, tuple(s for s in done if s.patient == name)) for name in names]
    patients = [patient for patient in patients if patient.slides]
    facts = {
        "Table": f"{table.name}, {len(rows)} slides",
        "Model": model.label,
        "Trained on": model.bundle.card.data,
        "Classifier": "none" if classifier is None else f"{classifier.label}, trained on {classifier.facts.data}",
        "Command": command,
        "restain": restain.__version__,
        "Date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    facts = {name: value for name, value in facts.items() if value}
    write_json(out / "cohort.json", _result(patients, failed, facts, side_um))
    page = out / "cohort.html"
    write_text(page, cohort_page(patients, facts=facts, failed=failed, side_um=side_um))
    return page


@dataclass(frozen=True)
class _Job:
    """Settings shared by all slides."""

    out: Path
    model: Model
    classifier: Her2Classifier | None
    side_um: float
    override_mpp: bool
    warn: Warn


def _read_slide(job: _Job, row: Row, mpp: float | None, folder: Path, report: Progress) -> SlideReading:
    model, classifier, side_um = job.model, job.classifier, job.side_um
    options = replace(model.options, mpp=mpp, override_mpp=job.override_mpp, dab=model.has_dab, format="ome-tiff")
    stained = stain_slide(row.slide, folder, model, options, progress=part(report, 0, 800), warn=job.warn)
    figures = stained.figures
    assert figures is not None
    assert stained.tissue is not None
    text = stained.provenance.identity
    key = {
        "format": FORMAT,
        "side_um": side_um,
        "classifier": None if classifier is None else classifier.facts.hash,
        "stain": text,
    }
    kept = folder / f"{slide_name(row.slide)}.fields.json"
    pictures = job.out / "pictures" / folder.name
    with open_slide(row.slide, mpp, override_mpp=job.override_mpp) as he, open_slide(stained.path) as ihc:
        tissue = _tissue(stained.tissue, figures, he)
        found = _kept(kept, key)
        density = None if stained.dab is None else DensitySlide(stained.dab)
        try:
            if found is None:
                found = read_fields(
                    ihc,
                    tissue,
                    dab=density,
                    white=model.own_white if options.white is None else options.white,
                    he=he,
                    ood=model.bundle.ood,
                    classifier=classifier,
                    side_um=side_um,
                    progress=part(report, 800, 990),
                )
                write_kept(kept, key, {"fields": [reading.as_dict() for reading in found]})
            links = _pictures(pictures, slide_name(row.slide), he, ihc, density, tissue.glass)
        finally:
            if density is not None:
                density.close()
        size = ihc.size
    reading = SlideReading(row.slide.name, row.patient, row.block, tuple(found), size=size, notes=_notes(row, figures))
    left_out = max(0.0, tissue.area_um2 / 1e6 - reading.tissue_mm2)
    return replace(
        reading,
        # Mask pixels at borders of fields count slightly differently.
        left_out_mm2=left_out if left_out > 0.01 * tissue.area_um2 / 1e6 else 0.0,
        links={name: quote(path.relative_to(job.out).as_posix()) for name, path in links.items()},
    )


def _tissue(outlines: Path, figures: SlideFigures, he: Slide) -> TissueMask:
    """The tissue mask that the staining used."""
    mpp = max(MASK_MPP, he.mpp)
    mask = rasterize(read_geojson(outlines), he.size_at(mpp), mpp / he.mpp)
    return TissueMask(mask, mpp, np.asarray(figures.glass, np.float32))


def _kept(path: Path, key: dict[str, Any]) -> list[FieldReading] | None:
    if (content := read_kept(path, key)) is None:
        return None
    try:
        return [FieldReading.from_dict(values) for values in content["fields"]]
    except (LookupError, TypeError, ValueError, RestainError):
        return None


def _pictures(
    folder: Path, name: str, he: Slide, ihc: Slide, density: DensitySlide | None, glass: np.ndarray
) -> dict[str, Path]:
    virtual, _ = ihc.thumbnail(_PICTURE)
    if density is None:
        shown = dab_density(virtual, glass)
    else:
        coarse = Image.fromarray(density.overview(_PICTURE))
        shown = np.asarray(coarse.resize((virtual.shape[1], virtual.shape[0]), Image.Resampling.BOX))
    drawn = {"he": he.thumbnail(_PICTURE)[0], "virtual": virtual, "dab": colour_map(shown, "dab", DAB_TOP)}
    paths = {what: folder / f"{name}.{what}.jpg" for what in drawn}
    for what, rgb in drawn.items():
        save_picture(paths[what], rgb, virtual=what != "he")
    return paths


def _notes(row: Row, figures: SlideFigures) -> tuple[str, ...]:
    notes = list(figures.slide_faults)
    if figures.holes:
        notes.append(f"{len(figures.holes)} tiles could not be read and are marked holes.")
    ood = figures.provenance.ood
    if ood is not None and ood.is_ood:
        notes.append(f"{row.slide.name}: {ood.reason}")
    return tuple(notes)


def _check_names(table: Path, rows: Sequence[Row]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        before = seen.setdefault((row.patient, slide_name(row.slide).lower()), row.line)
        if before != row.line:
            raise RestainError(
                f"{table}: lines {before} and {row.line} name slides of patient {row.patient} whose results would have the same name."
            )


def _safe(patient: str) -> str:
    """A folder name that is unique to the patient."""
    return quote(patient, safe=" ").replace(".", "%2E")


def _result(
    patients: Sequence[PatientReading], failed: Sequence[tuple[str, str]], facts: dict[str, str], side_um: float
) -> dict[str, Any]:
    return {
        "notice": restain.NOTICE,
        "facts": facts,
        "field_um": side_um,
        "patients": [_patient(patient) for patient in patients],
        "failed": [{"slide": name, "fault": fault} for name, fault in failed],
    }


def _patient(patient: PatientReading) -> dict[str, Any]:
    shares, parts, decisive = patient.shares, patient.heterogeneity, decisive_fields(patient.slides)
    return patient.facts() | {
        "patient": patient.patient,
        "highest_slide": patient.highest.text,
        "cells": list(patient.cells),
        "tissue_mm2": patient.tissue_mm2,
        "shares": {level.text: share.mean for level, share in shares.levels.items()},
        "share_intervals": {level.text: share.plain() for level, share in shares.levels.items()},
        "zero_shares": {kind.value: share.plain() for kind, share in shares.zero.items()},
        "heterogeneity": {"total": parts.total, "within": parts.within, "between": parts.between},
        "decisive_fields": None
        if decisive is None
        else {
            "level_without": decisive.level.text,
            "fields": [{"slide": slide.slide, "row": one.row, "column": one.column} for slide, one in decisive.fields],
        },
        "slides": [
            slide.facts()
            | {"slide": slide.slide, "block": slide.block}
            | {"left_out_mm2": slide.left_out_mm2, "notes": list(slide.notes)}
            | {"fields": [one.as_dict() | one.facts() | {"reasons": list(one.reasons)} for one in slide.fields]}
            for slide in patient.slides
        ],
    }
