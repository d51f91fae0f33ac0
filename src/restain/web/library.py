"""What lies in the folder: images by an identity that tells no path, and what belongs together."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from restain.slides.find import SUFFIXES as OPENED
from restain.slides.find import is_slide_folder
from restain.web.faults import Fault
from restain.web.links import Image, Links, Related
from restain.web.origin import Kind, Origins, read_registrations

SUFFIXES = OPENED - {".vms", ".vmu"}
"""What is looked for. Not .vms and .vmu, text files that name other files, wherever they lie."""

DEEPEST, MOST = 8, 20_000
"""Folders below the first one, and images in all, that are looked at."""
DRAWN = {"checkerboard.png", "overlay.png", "error-map.png"}
"""Pictures of a registration, beside its transform."""
FRESH_S = 2.0
"""A scan younger than this answers the next request too."""


class Library:
    """The images of a folder; safe from many threads. Links out of the folder are passed over, at listing and at reading.

    ``more``: further folders, by the first part of the names that their images get.
    """

    def __init__(self, root: Path, more: Mapping[str, Path] | None = None) -> None:
        self.root = root.resolve()
        self._roots = {"": self.root} | {f"{name}/": path.resolve() for name, path in (more or {}).items()}
        self._origins = Origins()
        self._lock = threading.Lock()
        self._images: dict[str, Image] = {}
        self._links = Links({}, [])
        self._scanned = -FRESH_S
        self.truncated = False

    def images(self) -> list[Image]:
        """All images by name, without those that are overlays of others."""
        with self._lock:
            if time.monotonic() - self._scanned > FRESH_S:
                self._scan()
            return [image for image in self._images.values() if image.kind is not Kind.DENSITY]

    def get(self, identity: str) -> Image:
        """An image by its ``id``, its file looked at again.

        Raises:
            Fault: 404, if there is none, or it has become a link out of the folder.
        """
        with self._lock:
            image = self._images.get(identity)
            if image is None and time.monotonic() - self._scanned > FRESH_S:
                self._scan()
                image = self._images.get(identity)
        if image is None or not self.holds(image.path):
            raise Fault(404, "fault.no_image")
        if image.stamp != (stamp := _stamp(image.path)):
            with self._lock:
                image = replace(image, stamp=stamp, origin=self._origins.of(image.path, image.name, stamp))
                self._images[identity] = image
        return image

    def refresh(self) -> None:
        """Look into the folders now: something came or went."""
        with self._lock:
            self._scan()

    def holds(self, path: Path) -> bool:
        """Whether a path, its links followed, is in the folders; for a slide of several files, all of them."""
        try:
            return self._inside(path) and all(self._inside(one) for one in _companions(path))
        except (OSError, RuntimeError):
            return False

    def related(self, image: Image) -> Related:
        """What belongs to ``image``. Of several images with the source's name, the nearest in the folder is it."""
        with self._lock:
            links = self._links
        return links.related(image, self.holds)

    def _inside(self, path: Path) -> bool:
        found = path.resolve(strict=True)
        return any(found.is_relative_to(root) for root in self._roots.values())

    def _scan(self) -> None:
        found: dict[str, Image] = {}
        self.truncated = False
        transforms: list[Path] = []
        # The served folder last: however full, it leaves room for what was brought and made here.
        roots = sorted(self._roots, key=lambda first: first == "")
        places = ((first, path) for first in roots for path in self._walk(first, transforms))
        for first, path in places:
            if len(found) >= MOST:
                self.truncated = True
                break
            name = first + path.relative_to(self._roots[first]).as_posix()
            if any("\ud800" <= letter <= "\udfff" for letter in name):
                # Bytes that are no text: no page could show the name.
                continue
            try:
                stamp = _stamp(path)
            except Fault:
                continue
            identity = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:20]
            found[identity] = Image(identity, path, name, stamp, self._origins.of(path, name, stamp))
        images = dict(sorted(found.items(), key=lambda entry: entry[1].name.lower()))
        self._links = Links(images, read_registrations(transforms))
        self._images = self._links.images
        self._scanned = time.monotonic()

    def _walk(self, first: str, transforms: list[Path]) -> Iterator[Path]:
        root = self._roots[first]
        others = [other for other in self._roots.values() if other != root]
        for folder, folders, files in os.walk(root):
            here = Path(folder)
            depth = len(here.relative_to(root).parts)
            folders[:] = [name for name in folders if here / name not in others]
            slides = {
                name
                for name in folders
                if not name.startswith(".") and not (here / name).is_symlink() and is_slide_folder(here / name)
            }
            folders[:] = sorted(
                name for name in folders if depth < DEEPEST and name not in slides and not name.startswith(".")
            )
            # The data folder of a MIRAX slide, and the unfinished tiles of a job, hold no slides.
            folders[:] = [name for name in folders if not name.endswith(".part") and f"{name}.mrxs" not in files]
            candidates = [here / name for name in sorted(slides)]
            for name in sorted(files):
                path = here / name
                if name == "transform.json" and self.holds(path):
                    transforms.append(path)
                drawn = name.endswith(".tissue.png") or ("transform.json" in files and name in DRAWN)
                if path.suffix.lower() in SUFFIXES and not name.startswith(".") and not drawn:
                    candidates.append(path)
            yield from (path for path in candidates if self.holds(path))


def _companions(path: Path) -> Iterator[Path]:
    """The other files that a reader opens with this one."""
    if path.is_dir():
        yield from (one for one in path.rglob("*") if one.is_symlink())
    elif path.suffix.lower() == ".mrxs":
        beside = path.with_suffix("")
        yield from ([beside, *beside.iterdir()] if beside.is_dir() else [])
    elif path.suffix.lower() == ".dcm":
        yield from (one for one in path.parent.iterdir() if one.is_symlink() and one.suffix.lower() == ".dcm")


def _stamp(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        raise Fault(404, "fault.no_image") from None
    return hashlib.sha256(f"{state.st_mtime_ns} {state.st_size}".encode()).hexdigest()[:10]
