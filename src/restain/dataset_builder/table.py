"""Table of slide pairs: a CSV with the columns he, ihc, level, patient and block."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from restain.data import tables
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images.scale import positive_number

COLUMNS = ("he", "ihc", "level", "patient", "block")
OPTIONAL = ("mpp_he", "mpp_ihc", "transform")


@dataclass(frozen=True, slots=True)
class SlidePair:
    """An H&E slide and the HER2 IHC slide of the same block.

    ``line`` is that of the table, 0 without one. ``mpp_he`` and ``mpp_ihc`` are micrometres per pixel of level 0 of files that
    state none, with ``override_mpp`` also of files that state others. ``transform`` is a file for
    :func:`restain.registration.read_transform`, from the H&E to the IHC slide.
    """

    he: Path
    ihc: Path
    level: Her2Level
    patient: str
    block: str = ""
    line: int = 0
    mpp_he: float | None = None
    mpp_ihc: float | None = None
    transform: Path | None = None
    override_mpp: bool = False

    @property
    def patient_key(self) -> str:
        """The patient for comparisons, without regard to case, spaces and the encoding of letters."""
        return " ".join(unicodedata.normalize("NFKC", self.patient).casefold().split())


def read_table(path: Path) -> list[SlidePair]:
    """Read a CSV (UTF-8; commas, semicolons or tabs) of slide pairs.

    The columns ``he, ihc, level, patient, block`` are required, ``mpp_he, mpp_ihc, transform`` optional; others are ignored.
    Paths are relative to the table. All faults are reported at once, each with its line.

    Raises:
        RestainError: if the file cannot be read, a column is missing, or lines are at fault: a cell is empty, a file does not
            exist, a level or mpp is invalid, or a slide is named twice as the same partner or for two patients.
    """
    found: list[SlidePair] = []
    faults: list[str] = []
    for line, values in tables.read_table(path, COLUMNS, OPTIONAL):
        pair = _pair(path.parent, values, line, faults)
        if pair is not None:
            found.append(pair)
    faults += check_pairs(found)
    if faults:
        raise RestainError(f"{path}: {'; '.join(faults)}.")
    if not found:
        raise RestainError(f"{path} names no slides.")
    return found


def check_pairs(pairs: list[SlidePair]) -> list[str]:
    """Faults of pairs as a set: a pair named twice, or a slide named for two patients or two levels."""
    faults: list[str] = []
    lines: dict[tuple[Path, Path], int] = {}
    first: dict[Path, SlidePair] = {}
    for pair in pairs:
        he, ihc = pair.he.resolve(), pair.ihc.resolve()
        if he == ihc:
            faults.append(f"line {pair.line} names {pair.he.name} both as H&E and as IHC")
        if (before := lines.setdefault((he, ihc), pair.line)) != pair.line:
            faults.append(f"line {pair.line} names the pair of line {before} again")
            continue
        for slide, name in ((he, pair.he.name), (ihc, pair.ihc.name)):
            other = first.setdefault(slide, pair)
            if other.patient_key != pair.patient_key:
                clash = f"to patient {pair.patient}, line {other.line} to {other.patient}"
            elif other.level != pair.level:
                clash = f"the level {pair.level.text}, line {other.line} {other.level.text}"
            else:
                continue
            faults.append(f"line {pair.line} gives {name} {clash}")
    return faults


def _pair(folder: Path, values: dict[str, str], line: int, faults: list[str]) -> SlidePair | None:
    """A line as a pair; its faults are added to ``faults``."""
    files, numbers = ("he", "ihc", "transform"), ("mpp_he", "mpp_ihc")
    found = tables.row_faults(line, values, folder, needed=COLUMNS, files=files, numbers=numbers)
    level = Her2Level.ZERO
    if values["level"]:
        try:
            level = Her2Level.parse(values["level"])
        except RestainError as fault:
            found.append(f"line {line}: {str(fault).rstrip('.')}")
    faults += found
    if found:
        return None
    transform = folder / values["transform"] if values["transform"] else None
    mpp_he, mpp_ihc = (positive_number(values[name]) for name in numbers)
    he, ihc, patient, block = folder / values["he"], folder / values["ihc"], values["patient"], values["block"]
    return SlidePair(he, ihc, level, patient, block, line, mpp_he, mpp_ihc, transform)
