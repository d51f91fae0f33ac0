"""Relations among images: an H&E image, its virtual stains, chemical IHC aligned with it, and overlays."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from restain.slides.find import split_number
from restain.web.provenance import OUTLINES, ImageKind, ImageProvenance, Registered, find_outline, same_size

PAIR_FOLDERS = (("HE", "IHC"), ("trainA", "trainB"), ("valA", "valB"), ("testA", "testB"))
"""Folders in which data sets of pairs (BCI, MIST) keep the two images of one name."""


def title_of(name: str) -> str:
    """A name in the library as people read it: without the folder that an upload or a job has for itself."""
    return re.sub(r"^(uploads|stained)/[0-9a-f]+/", "", name)


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
    def title(self) -> str:
        return title_of(self.name)

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
class Chemical:
    """A chemical IHC of an H&E image.

    ``registration`` warps it; without one it has the pixels of the H&E image. ``checked`` is false if only name and size
    say so.
    """

    image: Image
    registration: Registered | None = None
    checked: bool = True


@dataclass(frozen=True)
class Related:
    """The images that belong to an image; ``overlays`` are those of the image and of each stain, by their ids."""

    source: Image | None
    virtual: tuple[Image, ...]
    chemical: tuple[Chemical, ...]
    overlays: Mapping[str, Overlays]

    def chemical_images(self, *, checked: bool) -> list[Image]:
        """Chemical IHC whose alignment metadata state or registration found, or that name and size alone pair."""
        return [one.image for one in self.chemical if one.checked is checked]

    @property
    def others(self) -> tuple[Image, ...]:
        """The images that can be compared with this one, virtual stains first."""
        return self.virtual + tuple(one.image for one in self.chemical)


class Links:
    """Relations among the images of one scan; ``images`` have the kinds that relations reveal."""

    def __init__(self, images: Mapping[str, Image], registered: Sequence[Registered]) -> None:
        self._registered = registered
        self.images = dict(images)
        self._by_name = {image.name: image for image in images.values()}
        self._by_file_name: dict[str, list[Image]] = defaultdict(list)
        self._densities: dict[Path, list[Image]] = defaultdict(list)
        self._by_grid: dict[str, list[Image]] = defaultdict(list)
        for image in images.values():
            self._by_file_name[image.path.name].append(image)
            if image.provenance.grid is not None:
                self._by_grid[image.provenance.grid].append(image)
            if image.kind is ImageKind.DENSITY:
                self._densities[image.path.parent].append(image)
        self.sources: dict[str, Image] = {}
        """H&E images of virtual stains, by the ids of these."""
        self._virtual: dict[str, list[Image]] = defaultdict(list)
        for image in images.values():
            if image.kind is ImageKind.VIRTUAL and (source := self._source(image)) is not None:
                self.sources[image.id] = source
                self._virtual[source.id].append(image)
        # The source of a virtual stain is H&E, whatever its name says.
        for identity in self._virtual:
            image = self.images[identity]
            if image.kind is ImageKind.PICTURE:
                self.images[identity] = replace(image, provenance=replace(image.provenance, kind=ImageKind.HE))

    def related(self, image: Image, allowed: Callable[[Path], bool]) -> Related:
        """The images that belong to ``image``; ``allowed`` tells whether a file beside it may be read."""
        virtual, chemical = self._virtual.get(image.id, []), self._chemical(image)
        overlays = {}
        for stain in (image, *virtual, *(one.image for one in chemical if one.registration is None)):
            # Outlines are in px of the H&E image, so they do not fit a virtual stain's own view.
            found = {} if image.kind is ImageKind.VIRTUAL else {w: find_outline(stain.path, w) for w in OUTLINES}
            outlines = {which: path for which, path in found.items() if path is not None and allowed(path)}
            overlays[stain.id] = Overlays(self._density(stain), outlines)
        source = self.sources.get(image.id)
        return Related(
            None if source is None else self.images.get(source.id),
            tuple(virtual),
            tuple(chemical),
            overlays,
        )

    def _chemical(self, image: Image) -> list[Chemical]:
        if image.kind in (ImageKind.IHC, ImageKind.VIRTUAL, ImageKind.DENSITY):
            return []
        same = self._by_grid.get(image.provenance.grid or "", ())
        found = {one.id: Chemical(one) for one in same if one.kind is ImageKind.IHC}
        for one in self._registered:
            if one.fixed == image.path.name:
                fixed, moving = self._nearest(one.fixed, one.folder), self._nearest(one.moving, one.folder)
                if fixed is not None and fixed.id == image.id and moving is not None and moving.id != image.id:
                    found[moving.id] = Chemical(moving, one)
        partner = self._partner(image)
        if (
            partner is not None
            and partner.id not in found
            and same_size(image.path, partner.path, image.stamp, partner.stamp)
        ):
            found[partner.id] = Chemical(partner, checked=False)
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
        """The DAB pyramid of an image: NAME.dab.ome.tiff beside NAME.ome.tiff or NAME.dicom, or that of a phantom's IHC."""
        end, grid = ".dab.ome.tiff", image.provenance.grid
        for one in self._densities.get(image.path.parent, ()):
            if image.kind is ImageKind.IHC and grid is not None and grid == one.provenance.grid:
                return one
            stem = one.path.name.removesuffix(end)
            if one.path.name.endswith(end) and image.path.name in (f"{stem}.ome.tiff", f"{stem}.dicom"):
                return one
        return None
