"""Which images belong together: an H&E image, its stained versions, real IHC that lies on it, and overlays."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from restain.web.origin import OUTLINES, Kind, Origin, Registered, outline_of, same_size

PAIR_FOLDERS = (("HE", "IHC"), ("trainA", "trainB"), ("valA", "valB"), ("testA", "testB"))
"""Where sets of pairs (BCI, MIST) keep the two images of one name."""


@dataclass(frozen=True)
class Image:
    """A slide or picture. ``name`` is its path in the folder, with ``/``; ``stamp`` changes when the file does."""

    id: str
    path: Path
    name: str
    stamp: str
    origin: Origin

    @property
    def kind(self) -> Kind:
        return self.origin.kind


@dataclass(frozen=True)
class Related:
    """What belongs to an image: its H&E, its stained versions, real IHC that lies on it, and overlays."""

    source: Image | None
    virtual: tuple[Image, ...]
    real: tuple[tuple[Image, Registered | None], ...]
    density: tuple[Image, ...]
    outlines: Mapping[str, Path]

    @property
    def others(self) -> tuple[Image, ...]:
        """What can be laid over the image, virtual stains first."""
        return self.virtual + tuple(image for image, _ in self.real)


class Links:
    """The links among the images of one scan; ``images`` are these, with what the links say of their kind."""

    def __init__(self, images: Mapping[str, Image], registered: Sequence[Registered]) -> None:
        self._registered = registered
        self.images = dict(images)
        self._by_place = {image.name: image for image in images.values()}
        self._by_name: dict[str, list[Image]] = defaultdict(list)
        self._densities: dict[Path, list[Image]] = defaultdict(list)
        for image in images.values():
            self._by_name[image.path.name].append(image)
            if image.kind is Kind.DENSITY:
                self._densities[image.path.parent].append(image)
        self._sources: dict[str, Image] = {}
        self._virtual: dict[str, list[Image]] = defaultdict(list)
        for image in images.values():
            if image.kind is Kind.VIRTUAL and (source := self._source(image)) is not None:
                self._sources[image.id] = source
                self._virtual[source.id].append(image)
        # What was stained is H&E, whatever its name says.
        for identity in self._virtual:
            image = self.images[identity]
            if image.kind is Kind.PICTURE:
                self.images[identity] = replace(image, origin=replace(image.origin, kind=Kind.HE))

    def related(self, image: Image, allowed: Callable[[Path], bool]) -> Related:
        """What belongs to ``image``; ``allowed`` says which files beside it may be read."""
        virtual = self._virtual.get(image.id, [])
        density = [one for shown in (image, *virtual) for one in self._density(shown)]
        # An outline is in px of the H&E slide, also where it lies beside what was made of it.
        beside = () if image.kind is Kind.VIRTUAL else (image, *virtual)
        outlines = {
            what: found
            for what in reversed(OUTLINES)
            for one in reversed(beside)
            if (found := outline_of(one.path, what)) is not None and allowed(found)
        }
        return Related(
            self.images.get(self._sources[image.id].id) if image.id in self._sources else None,
            tuple(virtual),
            tuple(self._real(image)),
            tuple(density),
            outlines,
        )

    def _real(self, image: Image) -> list[tuple[Image, Registered | None]]:
        found: dict[str, tuple[Image, Registered | None]] = {}
        for one in self._registered:
            if one.fixed == image.path.name:
                fixed, moving = self._nearest(one.fixed, one.folder), self._nearest(one.moving, one.folder)
                if fixed is not None and fixed.id == image.id and moving is not None and moving.id != image.id:
                    found[moving.id] = moving, one
        partner = self._partner(image)
        if partner is not None and partner.id not in found and same_size(image.path, partner.path):
            found[partner.id] = partner, None
        return list(found.values())

    def _source(self, image: Image) -> Image | None:
        if image.origin.place is not None:
            return self._by_place.get(image.origin.place)
        if image.origin.source is None:
            return None
        return self._nearest(image.origin.source, image.path.parent, without=(Kind.VIRTUAL, Kind.DENSITY, Kind.IHC))

    def _nearest(self, name: str, folder: Path, without: tuple[Kind, ...] = (Kind.DENSITY,)) -> Image | None:
        """Of the images with this file name, the one with the longest way in common with ``folder``."""
        named = [one for one in self._by_name.get(name, ()) if one.kind not in without]
        return max(named, key=lambda one: len(os.path.commonpath([one.path.parent, folder])), default=None)

    def _partner(self, image: Image) -> Image | None:
        parts = image.name.split("/")
        for he, ihc in PAIR_FOLDERS:
            if he in parts[:-1]:
                parts[parts.index(he)] = ihc
                return self._by_place.get("/".join(parts))
        return None

    def _density(self, image: Image) -> list[Image]:
        """The DAB pyramid made with an image: NAME.dab.ome.tiff beside NAME.ome.tiff or NAME.dicom."""
        end = ".dab.ome.tiff"
        return [
            one
            for one in self._densities.get(image.path.parent, ())
            if one.path.name.endswith(end)
            and image.path.name in {one.path.name[: -len(end)] + suffix for suffix in (".ome.tiff", ".dicom")}
        ]
