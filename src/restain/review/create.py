"""How a study begins."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import sqlalchemy as sql

from restain.database import Database
from restain.errors import RestainError
from restain.geometry import Size
from restain.review import store as db
from restain.review.appearance import Appearance, appearance, differences
from restain.review.definition import Modality, StudyDefinition
from restain.review.order import reading_order
from restain.review.study import Study, moment, written
from restain.slides import open_slide
from restain.slides.find import split_number


def create_study(
    definition: StudyDefinition,
    folder: Path,
    url: str | None = None,
    *,
    now: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Study:
    """Make a study in a folder: all items of all readers, with their tokens. It is there whole or not at all.

    Args:
        definition: with paths that can be opened from here; see :func:`restain.review.read_definition`.
        folder: gets ``study.sqlite``; made where needed.
        url: a database in place of that file, as SQLAlchemy writes it.
        now: when it was made; the clock's time where it is not given.
        progress: called with the images looked at and all.
        warn: called with sentences on what could give an image's origin away all the same, or leave too little to measure:
            file formats, scale, size, and what :func:`restain.review.appearance.differences` finds.

    Raises:
        RestainError: if an image cannot be read, or the folder or database holds a study already.
    """
    sizes, scales = [], []
    for image in definition.images:
        with open_slide(image.path, header_only=True) as slide:
            sizes.append(slide.size)
            if slide.has_mpp:
                scales.append(slide.mpp)
    common = Size(min(size.width for size in sizes), min(size.height for size in sizes))
    for sentence in _doubts(definition, sizes, scales, common):
        warn(sentence)
    looks: dict[Modality, list[Appearance]] = {modality: [] for modality in Modality}
    for number, image in enumerate(definition.images):
        looks[image.modality].append(appearance(image.path, common))
        if progress is not None:
            progress(number + 1, len(definition.images))
    for sentence in differences(looks[Modality.CHEMICAL], looks[Modality.VIRTUAL]):
        warn(sentence)
    store = db.make_store(folder, url)
    try:
        _write(store, definition, sizes, common, moment(now))
    except BaseException:
        store.close()
        raise
    return Study(store)


def _write(store: Database, definition: StudyDefinition, sizes: list[Size], common: Size, now: datetime) -> None:
    with store.write() as connection:
        if connection.execute(sql.select(db.STUDY.c.id)).first() is not None:
            raise RestainError(f"{store.where} holds a study already; give another folder.")
        side = {"width": common.width, "height": common.height}
        text = definition.model_dump_json()
        connection.execute(db.STUDY.insert().values(id=1, definition=text, created=written(now), **side))
        for number, (image, size) in enumerate(zip(definition.images, sizes, strict=True)):
            about = {"path": str(image.path.absolute()), "case_id": image.case, "modality": image.modality.value}
            connection.execute(db.IMAGES.insert().values(id=number, width=size.width, height=size.height, **about))
        for reader, name in enumerate(definition.readers):
            connection.execute(db.READERS.insert().values(id=reader, name=name))
            for position, place in enumerate(reading_order(definition, reader)):
                facts = {
                    "session": place.session,
                    "position": position,
                    "repeat": place.repeat,
                    "image_id": place.image,
                }
                token = secrets.token_urlsafe(24)
                connection.execute(db.ITEMS.insert().values(token=token, reader_id=reader, **facts))


def _doubts(study: StudyDefinition, sizes: list[Size], scales: list[float], common: Size) -> list[str]:
    found = []
    kinds: dict[Modality, set[str]] = {modality: set() for modality in Modality}
    for image in study.images:
        kinds[image.modality].add(split_number(image.path)[0].suffix.lower())
    chemical, virtual = kinds.values()
    if chemical and virtual and not chemical & virtual:
        found.append(
            f"Chemical images are {', '.join(sorted(chemical))} files, virtual ones {', '.join(sorted(virtual))}: traces of JPEG in the one "
            "kind alone would give the origin away; convert all the same way."
        )
    if scales and max(scales) > min(scales) * 1.005:
        found.append(
            f"Images have from {min(scales):.4g} to {max(scales):.4g} µm per px: readers see cells of different sizes, which can give the "
            "origin away, and no scale bar; bring all images to one mpp before."
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
