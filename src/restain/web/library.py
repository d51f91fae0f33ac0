"""The images of a folder, by ids that reveal no path, and their relations."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from restain.slides.find import SUFFIXES as ALL_SUFFIXES
from restain.slides.find import is_slide_folder, split_number
from restain.web.caches import FactCache
from restain.web.errors import RequestError
from restain.web.links import Image, Links, Related
from restain.web.provenance import ImageKind, ImageProvenance, image_numbers, read_provenance, read_registrations

SUFFIXES = ALL_SUFFIXES - {".vms", ".vmu"}
"""Suffixes of listed files. A .vms or .vmu names other files, which can lie anywhere."""
MAX_DEPTH, MAX_IMAGES = 8, 20_000
REGISTRATION_PICTURES = {"checkerboard.png", "overlay.png", "error-map.png"}
"""Pictures that ``restain register`` writes beside its transform."""
MAX_AGE_S = 2.0
"""A scan answers requests for so long."""


class Library:
    """The images of a folder; safe from many threads. Links that lead out of the folder are ignored.

    ``extra`` are folders of ``state`` with further images, whose names begin with that of the folder. What metadata say
    is kept in ``state``, by file and stamp.
    """

    def __init__(self, root: Path, state: Path | None = None, extra: Sequence[str] = ()) -> None:
        self.root = root.resolve()
        self._roots = {"": self.root} | {f"{name}/": (state / name).resolve() for name in extra if state is not None}
        self._provenance: FactCache[tuple[ImageProvenance, tuple[int, ...]]] = FactCache(
            tuple[ImageProvenance, tuple[int, ...]], None if state is None else state / "provenance.json"
        )
        self._lock = threading.Lock()
        self._images: dict[str, Image] = {}
        self._links = Links({}, [])
        self._scanned = -MAX_AGE_S
        self.truncated = False

    def images(self) -> list[Image]:
        """All images by name, without DAB densities."""
        with self._lock:
            self._scan_if_old()
            return [image for image in self._images.values() if image.kind is not ImageKind.DENSITY]

    def get(self, identity: str) -> Image:
        """An image by its ``id``. Raises RequestError 404 if it is gone or has become a link out of the folder."""
        with self._lock:
            image = self._images.get(identity)
            if image is None:
                self._scan_if_old()
                image = self._images.get(identity)
        if image is None or not self.contains(image.path):
            raise RequestError(404, "error.no_image")
        if image.stamp != (stamp := file_stamp(image.path)):
            with self._lock:
                provenance, _ = self._read(image.file, image.name, stamp)
                image = replace(image, stamp=stamp, provenance=provenance)
                self._images[identity] = image
        return image

    def named(self, name: str) -> Image | None:
        """The image with this name, or the first image of the file with this name."""
        return next((one for one in self.images() if one.name == name or one.name.startswith(f"{name}#")), None)

    def refresh(self) -> None:
        """Scan the folders now, after files were added or removed."""
        with self._lock:
            self._scan()

    def contains(self, path: Path) -> bool:
        """Whether a path, with links resolved, is in the folders; for a slide of several files, all of them."""
        try:
            file = split_number(path)[0]
            return self._inside(file) and all(self._inside(one) for one in _companions(file))
        except (OSError, RuntimeError):
            return False

    def source(self, image: Image) -> Image | None:
        """The H&E image of a virtual stain."""
        with self._lock:
            return self._links.sources.get(image.id)

    def related(self, image: Image) -> Related:
        """The images that belong to ``image``; of several files with the name of its source, the nearest is taken."""
        with self._lock:
            links = self._links
        return links.related(image, self.contains)

    def _inside(self, path: Path) -> bool:
        found = path.resolve(strict=True)
        return any(found.is_relative_to(root) for root in self._roots.values())

    def _scan_if_old(self) -> None:
        if time.monotonic() - self._scanned > MAX_AGE_S:
            self._scan()

    def _scan(self) -> None:
        found: dict[str, Image] = {}
        known: set[str] = set()
        self.truncated = False
        transforms: list[Path] = []
        # The served folder last: however full it is, uploads and results are listed.
        roots = sorted(self._roots, key=lambda prefix: prefix == "")
        paths = ((prefix, path) for prefix in roots for path in self._walk(prefix, transforms))
        for prefix, path in paths:
            if len(found) >= MAX_IMAGES:
                self.truncated = True
                break
            name = prefix + path.relative_to(self._roots[prefix]).as_posix()
            if any("\ud800" <= letter <= "\udfff" for letter in name):
                # The file name is not text, so no page could show it.
                continue
            try:
                stamp = file_stamp(path)
            except RequestError:
                continue
            provenance, numbers = self._read(path, name, stamp)
            known.add(str(path))
            for end in [f"#{number}" for number in numbers] or [""]:
                identity = hashlib.sha256(f"{name}{end}".encode()).hexdigest()[:20]
                found[identity] = Image(identity, path.with_name(path.name + end), name + end, stamp, provenance)
        images = dict(sorted(found.items(), key=lambda entry: entry[1].name.lower()))
        self._links = Links(images, read_registrations(transforms))
        self._images = self._links.images
        self._provenance.save(known)
        self._scanned = time.monotonic()

    def _read(self, path: Path, name: str, stamp: str) -> tuple[ImageProvenance, tuple[int, ...]]:
        return self._provenance.get(str(path), stamp, lambda: (read_provenance(path, name), image_numbers(path)))

    def _walk(self, prefix: str, transforms: list[Path]) -> Iterator[Path]:
        root = self._roots[prefix]
        others = [other for other in self._roots.values() if other != root]
        for folder, folders, files in os.walk(root):
            here = Path(folder)
            depth = len(here.relative_to(root).parts)
            visible = [name for name in folders if not name.startswith(".") and here / name not in others]
            slides = {name for name in visible if not (here / name).is_symlink() and is_slide_folder(here / name)}
            # The data folder of a MIRAX slide and the unfinished tiles of a job hold no slides.
            folders[:] = sorted(
                name
                for name in visible
                if depth < MAX_DEPTH
                and name not in slides
                and not name.endswith(".part")
                and f"{name}.mrxs" not in files
            )
            found = [here / name for name in sorted(slides)]
            for name in sorted(files):
                path = here / name
                if name == "transform.json" and self.contains(path):
                    transforms.append(path)
                drawn = name.endswith(".tissue.png") or ("transform.json" in files and name in REGISTRATION_PICTURES)
                if path.suffix.lower() in SUFFIXES and not name.startswith(".") and not drawn:
                    found.append(path)
            yield from (path for path in found if self.contains(path))


def file_stamp(path: Path) -> str:
    """Ten hex digits that change with the file. Raises RequestError 404 if there is none."""
    try:
        state = split_number(path)[0].stat()
    except OSError:
        raise RequestError(404, "error.no_image") from None
    return hashlib.sha256(f"{state.st_mtime_ns} {state.st_size}".encode()).hexdigest()[:10]


def _companions(path: Path) -> Iterator[Path]:
    """The other files that belong to a slide."""
    if path.is_dir():
        yield from (one for one in path.rglob("*") if one.is_symlink())
    elif path.suffix.lower() == ".mrxs":
        beside = path.with_suffix("")
        yield from ([beside, *beside.iterdir()] if beside.is_dir() else [])
    elif path.suffix.lower() == ".dcm":
        yield from (one for one in path.parent.iterdir() if one.is_symlink() and one.suffix.lower() == ".dcm")
