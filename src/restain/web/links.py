"""Relations among images: an H&E image, its virtual stains, chemical IHC aligned with it, and overlays."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from restain.slides.find import split_number
from restain.web.provenance import OUTLINES, ImageKind, ImageProvenance, Registered, find_outline, same_size

PAIR_FOLDERS = (("HE", "IHC"), ("trainA", "trainB"), ("valA", "valB"), ("testA", "testB"))
"""Folders in which data sets of pairs (BCI, MIST) keep the two images of one name."""


@dataclass(frozen=True)
class Image:
    """A slide or picture. ``name`` is its path in the library, with ``/``; ``stamp`` changes with the file.

    ``path`` and ``name`` end in ``#N`` if the file holds several images.
    """

    id: str
    path: Path
    name: str
    stamp: str
    provenance: ImageProvenance

    @property
    def kind(self) -> ImageKind:
        return self.provenance.kind

    @property
    def file(self) -> Path:
        """``path`` without the number of the image."""
        return split_number(self.path)[0]


@dataclass(frozen=True)
class Overlays:
    """What can be drawn over a stain: its DAB density, and outlines in px of the H&E image."""

    density: Image | None = None
    outlines: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Related:
    """The images that belong to an image.

    ``chemical`` are IHC images with the registration that aligns them, None if only names and sizes agree.
    ``overlays`` are those of the image and of each virtual stain, by their ids.
    """

    source: Image | None
    virtual: tuple[Image, ...]
    chemical: tuple[tuple[Image, Registered | None], ...]
    overlays: Mapping[str, Overlays]

    @property
    def registered(self) -> list[Image]:
        return [image for image, registration in self.chemical if registration is not None]

    @property
    def by_name(self) -> list[Image]:
        """Chemical IHC that is paired by name and size only; its alignment was never checked."""
        return [image for image, registration in self.chemical if registration is None]

    @property
    def others(self) -> tuple[Image, ...]:
        """The images that can be compared with this one, virtual stains first."""
        return self.virtual + tuple(image for image, _ in self.chemical)


class Links:
    """Relations among the images of one scan; ``images`` have the kinds that relations reveal."""

    def __init__(self, images: Mapping[str, Image], registered: Sequence[Registered]) -> None:
        self._registered = registered
        self.images = dict(images)
        self._by_name = {image.name: image for image in images.values()}
        self._by_file_name: dict[str, list[Image]] = defaultdict(list)
        self._densities: dict[Path, list[Image]] = defaultdict(list)
        for image in images.values():
            self._by_file_name[image.path.name].append(image)
            if image.kind is ImageKind.DENSITY:
                self._densities[image.path.parent].append(image)
        self._sources: dict[str, Image] = {}
        self._virtual: dict[str, list[Image]] = defaultdict(list)
        for image in images.values():
            if image.kind is ImageKind.VIRTUAL and (source := self._source(image)) is not None:
                self._sources[image.id] = source
                self._virtual[source.id].append(image)
        # The source of a virtual stain is H&E, whatever its name says.
        for identity in self._virtual:
            image = self.images[identity]
            if image.kind is ImageKind.PICTURE:
                self.images[identity] = replace(image, provenance=replace(image.provenance, kind=ImageKind.HE))

    def related(self, image: Image, allowed: Callable[[Path], bool]) -> Related:
        """The images that belong to ``image``; ``allowed`` tells whether a file beside it may be read."""
        virtual = self._virtual.get(image.id, [])
        overlays = {}
        for stain in (image, *virtual):
            # Outlines are in px of the H&E image, so they do not fit a virtual stain's own view.
            found = {} if image.kind is ImageKind.VIRTUAL else {w: find_outline(stain.path, w) for w in OUTLINES}
            outlines = {which: path for which, path in found.items() if path is not None and allowed(path)}
            overlays[stain.id] = Overlays(self._density(stain), outlines)
        source = self._sources.get(image.id)
        return Related(
            None if source is None else self.images.get(source.id),
            tuple(virtual),
            tuple(self._chemical(image)),
            overlays,
        )

    def _chemical(self, image: Image) -> list[tuple[Image, Registered | None]]:
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
        provenance = image.provenance
        if provenance.source_name is not None:
            return self._by_name.get(provenance.source_name)
        if provenance.source is None:
            return None
        return self._nearest(
            provenance.source, image.path.parent, exclude=(ImageKind.VIRTUAL, ImageKind.DENSITY, ImageKind.IHC)
        )

    def _nearest(self, name: str, folder: Path, exclude: tuple[ImageKind, ...] = (ImageKind.DENSITY,)) -> Image | None:
        """The image with this file name whose folder shares the longest path with ``folder``."""
        named = [one for one in self._by_file_name.get(name, ()) if one.kind not in exclude]
        return max(named, key=lambda one: len(os.path.commonpath([one.path.parent, folder])), default=None)

    def _partner(self, image: Image) -> Image | None:
        parts = image.name.split("/")
        for he, ihc in PAIR_FOLDERS:
            if he in parts[:-1]:
                parts[parts.index(he)] = ihc
                return self._by_name.get("/".join(parts))
        return None

    def _density(self, image: Image) -> Image | None:
        """The DAB pyramid of an image: NAME.dab.ome.tiff beside NAME.ome.tiff or NAME.dicom."""
        end = ".dab.ome.tiff"
        for one in self._densities.get(image.path.parent, ()):
            stem = one.path.name.removesuffix(end)
            if one.path.name.endswith(end) and image.path.name in (f"{stem}.ome.tiff", f"{stem}.dicom"):
                return one
        return None
