"""Cases: slides by patient and block, from a table, DICOM or the folders; and the tree of folders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from restain.errors import RestainError
from restain.web.links import PAIR_FOLDERS, Image

TABLE = "cases.csv"
"""In the served folder: columns slide, patient and block, as for ``restain cohort``."""
_NO_BLOCK = {name.lower() for pair in PAIR_FOLDERS for name in pair} | {"train", "val", "test"}
COHORT_PAGE = "cohort.html"


@dataclass(frozen=True)
class Case:
    """Patient and block of an image."""

    patient: str
    block: str


class Cases:
    """The cases of a library; the table is read again when it changes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: tuple[int, dict[Path, Case]] = (-1, {})
        self.fault = ""
        """Why the table cannot be used, without folders of this machine."""

    def of_all(self, images: Sequence[Image], source: Callable[[Image], Image | None]) -> dict[str, Case]:
        """The case of each image, by its id; a virtual stain whose own case is not stated has that of its ``source``."""
        table = self._table()
        found = {}
        for image in images:
            he = source(image)
            stated = self._stated(image, table)
            found[image.id] = stated or (he and self._stated(he, table)) or _of_folders(he or image)
        return found

    def _stated(self, image: Image, table: Mapping[Path, Case]) -> Case | None:
        """The case in the table, else in a DICOM slide."""
        if table and (known := table.get(image.file.resolve())) is not None:
            return known
        patient, block = image.provenance.case
        return Case(patient, block) if patient else None

    def report(self, patient: str) -> str:
        """The report of ``restain cohort``, by its path in the served folder: in the patient's folder, or beside the table.

        Empty if there is none.
        """
        folders = [name for name in (patient, "cohort", "") if "/" not in name and not name.startswith(".")]
        return next(
            (one for name in folders if (self._root / (one := f"{name}/{COHORT_PAGE}".lstrip("/"))).is_file()), ""
        )

    def report_file(self, name: str) -> Path | None:
        """A page or picture of a report, by its path in the served folder."""
        path = self._root / name
        inside = any((self._root / folder / COHORT_PAGE).is_file() for folder in Path(name).parents)
        return path if inside and path.suffix in (".html", ".png", ".jpg") and path.is_file() else None

    def _table(self) -> dict[Path, Case]:
        path = self._root / TABLE
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            self.fault = ""
            return {}
        if changed != self._read[0]:
            rows: dict[Path, Case] = {}
            self.fault = ""
            # Imports what stains, which takes seconds.
            from restain.cohort.table import read_table

            try:
                rows = {row.slide.resolve(): Case(row.patient, row.block) for row in read_table(path)}
            except RestainError as error:
                self.fault = str(error).replace(f"{self._root}/", "")
            self._read = changed, rows
        return self._read[1]


def _of_folders(image: Image) -> Case:
    """The first folder names the patient, the second the block; folders of a stain or of a split name neither."""
    folders = [one for one in image.title.split("/")[:-1] if one.lower() not in _NO_BLOCK]
    return Case(folders[0] if folders else "", folders[1] if len(folders) > 1 else "")


def in_order(images: Sequence[Image], cases: Mapping[str, Case], sort: str) -> list[Image]:
    """The images by ``name``, ``kind``, newest first (``time``), or ``case``, those of no case last."""
    if sort == "time":
        return sorted(images, key=lambda one: -_changed(one.file))
    if sort == "kind":
        return sorted(images, key=lambda one: (one.kind.value, one.name.lower()))
    if sort == "case":
        return sorted(
            images, key=lambda one: (not (case := cases[one.id]).patient, case.patient, case.block, one.name.lower())
        )
    return list(images)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True)
class Branch:
    """A folder in the tree: its path in the library, its own name, and the number of images in it and below."""

    path: str
    name: str
    count: int
    branches: tuple[Branch, ...] = ()
    """Its folders, if it is open."""


def folder_tree(images: Sequence[Image], opened: str) -> tuple[Branch, ...]:
    """The outermost folders; ``opened`` and those above it show their folders."""
    counts = Counter(
        "/".join(parts[:end]) for one in images for parts in [one.title.split("/")] for end in range(1, len(parts))
    )
    inside: dict[str, list[str]] = defaultdict(list)
    for path in sorted(counts, key=str.lower):
        inside[path.rpartition("/")[0]].append(path)

    def branches(above: str) -> tuple[Branch, ...]:
        return tuple(
            Branch(path, path.rpartition("/")[2], counts[path], branches(path) if is_open(path) else ())
            for path in inside[above]
        )

    def is_open(path: str) -> bool:
        return f"{opened}/".startswith(f"{path}/")

    return branches("")
