"""What names an image: its suffix, its number among several, and whether a folder is one slide."""

from __future__ import annotations

import re
from pathlib import Path

from restain.images import IMAGE_SUFFIXES

SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".dcm"})
"""Suffixes of scanners' files; a file that is named is read whatever it is called."""

SUFFIXES = IMAGE_SUFFIXES | SLIDE_SUFFIXES
"""Suffixes of what is looked for in a folder."""

ZARR_METADATA = ("zarr.json", ".zattrs", ".zgroup")


def split_number(path: str | Path) -> tuple[Path, int | None]:
    """The file or folder that a path names, and the number of the image inside, where the path ends in ``#N``.

    A path that exists as it stands is taken as it stands, whatever it ends in.

    Example:
        >>> split_number("three-fields.tif#1")
        (PosixPath('three-fields.tif'), 1)
    """
    path = Path(path)
    numbered = re.fullmatch(r"(.+)#(\d+)", path.name)
    if numbered is None or is_there(path):
        return path, None
    return path.with_name(numbered[1]), int(numbered[2])


def is_there(path: Path) -> bool:
    """Whether the file or folder exists; a name that the system cannot take does not."""
    try:
        return path.exists()
    except OSError:
        return False


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is one slide: an OME-Zarr, or the files of a DICOM series, whatever else lies beside them."""
    try:
        if not path.is_dir():
            return False
        return any((path / name).is_file() for name in ZARR_METADATA) or bool(dicom_files(path))
    except OSError:
        return False


def dicom_files(folder: Path) -> list[Path]:
    """The files of a DICOM series in a folder, by name."""
    return [file for file in sorted(folder.iterdir()) if is_dicom(file)]


def is_dicom(file: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        return opened.read(132)[128:] == b"DICM"
