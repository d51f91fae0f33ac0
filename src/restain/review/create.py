"""Creation of a study."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from restain.database import Database
from restain.errors import RestainError
from restain.geometry import Size
from restain.progress import Progress
from restain.review import tables as db
from restain.review.blinding import Appearance, differences, measure_appearance
from restain.review.definition import Modality, StudyDefinition, parse_definition
from restain.review.order import reading_order
from restain.review.study import Study, utc
from restain.slides import open_slide
from restain.slides.find import split_number

MPP_TOLERANCE = 0.01
"""Relative difference of mpp up to which images have one scale, and a scale bar."""


def create_study(
    definition: StudyDefinition,
    folder: Path,
    url: str | None = None,
    *,
    now: datetime | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Study:
    """Create a study with all items of all readers, in one transaction.

    Args:
        definition: with paths that exist; see :func:`restain.review.read_definition`.
        folder: gets ``study.sqlite``; created if it does not exist.
        url: SQLAlchemy URL of a database to use instead of that file.
        now: time of creation; default: the current time.
        progress: called with the number of images checked and of all.
        warn: called with sentences on what may unblind readers or leaves little to see: file formats, scale, size, and
            the findings of :func:`restain.review.blinding.differences`.

    Raises:
        RestainError: if an image cannot be read, or the folder or database already holds a study.
    """
    sizes, _ = _measure(definition)
    for sentence in blinding_warnings(definition, progress=progress):
        warn(sentence)
    database = db.create_database(folder, url)
    try:
        _write(database, definition, sizes, _common(sizes), utc(now))
        return Study(database)
    except BaseException:
        database.close()
        raise


def blinding_warnings(definition: StudyDefinition, *, progress: Progress | None = None) -> list[str]:
    """Sentences on what may unblind readers or leaves little to see; see :func:`create_study`.

    Raises:
        RestainError: if an image cannot be read.
    """
    sizes, scales = _measure(definition)
    common = _common(sizes)
    measured: dict[Modality, list[Appearance]] = {modality: [] for modality in Modality}
    for number, image in enumerate(definition.images, start=1):
        measured[image.modality].append(measure_appearance(image.path, common))
        if progress is not None:
            progress(number, len(definition.images))
    found = differences(measured[Modality.CHEMICAL], measured[Modality.VIRTUAL])
    return _warnings(definition, sizes, scales, common) + found


def add_reader(database: Database, definition: StudyDefinition, name: str) -> None:
    """Add a reader, with a reading order of their own, to a study that may already be read.

    Raises:
        RestainError: if the name is not valid, or is a reader's already.
    """
    changed = parse_definition(definition.model_dump(mode="json") | {"readers": [*definition.readers, name]}, "study")
    reader = len(definition.readers)
    with database.write() as connection:
        connection.execute(db.STUDY.update().values(definition=changed.model_dump_json()))
        connection.execute(db.READERS.insert().values(id=reader, name=changed.readers[reader]))
        connection.execute(db.ITEMS.insert(), _items(changed, reader))


def _measure(definition: StudyDefinition) -> tuple[list[Size], list[float]]:
    """The sizes of all images, and the stated mpp."""
    sizes, scales = [], []
    for image in definition.images:
        with open_slide(image.path, header_only=True) as slide:
            sizes.append(slide.size)
            if slide.has_mpp:
                scales.append(slide.mpp)
    return sizes, scales


def _common(sizes: list[Size]) -> Size:
    return Size(min(size.width for size in sizes), min(size.height for size in sizes))


def _items(definition: StudyDefinition, reader: int) -> list[dict[str, Any]]:
    return [
        {"token": secrets.token_urlsafe(24), "reader_id": reader, "part": place.part, "position": position}
        | {"repeat": place.repeat, "image_id": place.image}
        for position, place in enumerate(reading_order(definition, reader))
    ]


def _write(database: Database, definition: StudyDefinition, sizes: list[Size], common: Size, now: datetime) -> None:
    images = [
        {"id": number, "path": str(image.path.absolute()), "case_id": image.case, "modality": image.modality}
        | {"width": size.width, "height": size.height}
        for number, (image, size) in enumerate(zip(definition.images, sizes, strict=True))
    ]
    items = [item for reader in range(len(definition.readers)) for item in _items(definition, reader)]
    with database.write() as connection:
        if connection.execute(sql.select(db.STUDY.c.id)).first() is not None:
            raise RestainError(f"{database.where} already holds a study; give another folder.")
        study = {"id": 1, "definition": definition.model_dump_json(), "created": now}
        connection.execute(db.STUDY.insert().values(**study, width=common.width, height=common.height))
        connection.execute(db.IMAGES.insert(), images)
        connection.execute(
            db.READERS.insert(), [{"id": id_, "name": name} for id_, name in enumerate(definition.readers)]
        )
        connection.execute(db.ITEMS.insert(), items)


def _warnings(study: StudyDefinition, sizes: list[Size], scales: list[float], common: Size) -> list[str]:
    found = []
    suffixes: dict[Modality, set[str]] = {modality: set() for modality in Modality}
    for image in study.images:
        suffixes[image.modality].add(split_number(image.path)[0].suffix.lower())
    chemical, virtual = suffixes.values()
    if chemical and virtual and not chemical & virtual:
        found.append(
            f"Chemical images are {', '.join(sorted(chemical))} files, virtual ones {', '.join(sorted(virtual))}: JPEG artefacts in "
            "only one modality would unblind the readers; convert all images in the same way."
        )
    if scales and max(scales) > min(scales) * (1 + MPP_TOLERANCE):
        found.append(
            f"The scale of the images ranges from {min(scales):.4g} to {max(scales):.4g} µm per px: cells differ in size, which can "
            "unblind the readers, and there is no scale bar; bring all images to one mpp first."
        )
    small = [
        study.images[i] for i, size in enumerate(sizes) if 2 * common.width * common.height < size.width * size.height
    ]
    if small:
        found.append(
            f"All images are shown at {common.width} × {common.height} px, the smallest in the study, which is less than half of "
            f"{small[0].path.name}" + (f" and {len(small) - 1} more." if len(small) > 1 else ".")
        )
    return found
