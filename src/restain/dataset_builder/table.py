"""The table of slides to build from: a CSV with the columns he, ihc, level, patient and block."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from restain.data import tables
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.slides.find import is_there

COLUMNS = ("he", "ihc", "level", "patient", "block")
OPTIONAL = ("mpp_he", "mpp_ihc", "transform")


@dataclass(frozen=True, slots=True)
class SlidePair:
    """An H&E slide, the HER2 IHC slide of the same block, and what is known of them.

    ``line`` is that of the table, 0 without one. ``mpp_he`` and ``mpp_ihc`` are micrometres per pixel of level 0 of files that
    do not say, with ``override_mpp`` also of files that state others; ``transform`` is a file as :func:`restain.register.read_transform` takes it, from the H&E to the IHC slide.
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
    def person(self) -> str:
        """The patient as splits know them: neither case nor spaces nor the way in which letters are encoded part one in two."""
        return " ".join(unicodedata.normalize("NFKC", self.patient).casefold().split())


def read_table(path: Path) -> list[SlidePair]:
    """Read a CSV (UTF-8; commas, semicolons or tabs) of slide pairs.

    The columns ``he, ihc, level, patient, block`` must be there, ``mpp_he, mpp_ihc, transform`` may be; others are not looked at.
    Paths are relative to the table. All faults are told at once, each with its line.

    Raises:
        RestainError: if the file cannot be read, a column is missing, or lines are at fault: a cell is empty, a file does not
            exist, a level is none, an mpp is no number, or a slide is named twice as the same partner or for two patients.
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
    """What is wrong with pairs as a set: a pair named twice, or a slide named for two patients or two levels."""
    faults: list[str] = []
    seen: dict[tuple[Path, Path], int] = {}
    first: dict[Path, SlidePair] = {}
    for pair in pairs:
        he, ihc = pair.he.resolve(), pair.ihc.resolve()
        if he == ihc:
            faults.append(f"line {pair.line} names {pair.he.name} both as H&E and as IHC")
        if (before := seen.setdefault((he, ihc), pair.line)) != pair.line:
            faults.append(f"line {pair.line} names the pair of line {before} again")
            continue
        for slide, name in ((he, pair.he.name), (ihc, pair.ihc.name)):
            other = first.setdefault(slide, pair)
            if other.person != pair.person:
                faults.append(
                    f"line {pair.line} gives {name} to patient {pair.patient}, line {other.line} to {other.patient}"
                )
            elif other.level != pair.level:
                faults.append(
                    f"line {pair.line} gives {name} the level {pair.level.text}, line {other.line} {other.level.text}"
                )
    return faults


def _pair(folder: Path, values: dict[str, str], line: int, faults: list[str]) -> SlidePair | None:
    """A line as a pair; what is wrong with it is added to ``faults``."""
    before = len(faults)
    if empty := [name for name in COLUMNS if not values.get(name)]:
        faults.append(f"line {line} has no {' and no '.join(empty)}")
    paths: dict[str, Path | None] = {}
    for name in ("he", "ihc", "transform"):
        said = values.get(name, "")
        paths[name] = folder / said if said else None
        if said and not is_there(folder / said):
            faults.append(f"line {line} names {said}, which does not exist")
    mpps: dict[str, float | None] = {}
    for name in ("mpp_he", "mpp_ihc"):
        said = values.get(name, "")
        mpps[name] = tables.mpp_of(said)
        if said and mpps[name] is None:
            faults.append(f"line {line} has the {name} {said}, which is no number above 0")
    level = None
    if values.get("level"):
        try:
            level = Her2Level.parse(values["level"])
        except RestainError as fault:
            faults.append(f"line {line}: {str(fault).rstrip('.')}")
    he, ihc = paths["he"], paths["ihc"]
    if len(faults) > before or he is None or ihc is None or level is None:
        return None
    return SlidePair(
        he,
        ihc,
        level,
        values["patient"],
        values["block"],
        line,
        mpps["mpp_he"],
        mpps["mpp_ihc"],
        paths["transform"],
    )
