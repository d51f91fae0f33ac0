"""Cases: slides by patient and block, from a table or from the folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restain.errors import RestainError
from restain.web.links import Image

TABLE = "cases.csv"
"""In the served folder: columns slide, patient and block, as for ``restain cohort``."""
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

    def of(self, image: Image) -> Case:
        """The case in the table, else by the folders: the first names the patient, the second the block."""
        known = self._table().get(image.file.resolve())
        if known is not None:
            return known
        folders = image.title.split("/")[:-1]
        return Case(folders[0] if folders else "", folders[1] if len(folders) > 1 else "")

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


def in_order(images: Sequence[Image], cases: Cases, sort: str) -> list[Image]:
    """The images by ``name``, ``kind``, newest first (``time``), or ``case``."""
    if sort == "time":
        return sorted(images, key=lambda one: -_changed(one.file))
    if sort == "kind":
        return sorted(images, key=lambda one: (one.kind.value, one.name.lower()))
    if sort == "case":
        return sorted(images, key=lambda one: ((case := cases.of(one)).patient, case.block, one.name.lower()))
    return list(images)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
