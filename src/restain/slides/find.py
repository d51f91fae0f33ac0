"""What names an image: its suffix, its number among several, and whether a folder is one slide."""

from __future__ import annotations

import re
from pathlib import Path

from restain.images import IMAGE_SUFFIXES

ONE_FILE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif", ".svslide")
"""Suffixes of scanners' files that need no other file."""

SLIDE_SUFFIXES = frozenset({*ONE_FILE_SUFFIXES, ".mrxs", ".vms", ".vmu", ".dcm"})
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
    if numbered is None or _exists(path):
        return path, None
    return path.with_name(numbered[1]), int(numbered[2])


def stem_of(path: Path) -> str:
    """The name of a file or folder without its suffix, and behind it the number of an image: ``three-fields-1``."""
    whole, number = split_number(path)
    return whole.stem if number is None else f"{whole.stem}-{number}"


def is_there(path: Path) -> bool:
    """Whether the file or folder exists that a path names, with or without the number of an image in it."""
    return _exists(split_number(path)[0])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A name that the system cannot take is nobody's.
        return False


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is one slide: an OME-Zarr, or the files of a DICOM series.

    Pictures, texts and hidden files beside a series do not matter; slides of other formats make it a folder of slides.
    """
    try:
        if not path.is_dir():
            return False
        if any((path / name).is_file() for name in ZARR_METADATA):
            return True
        files = list(path.iterdir())
        slides = SLIDE_SUFFIXES - {".dcm"}
        return not any(file.suffix.lower() in slides for file in files) and any(map(_is_dicom, files))
    except OSError:
        return False


def dicom_files(folder: Path) -> list[Path]:
    """The files of a folder that begin as DICOM files do, by name.

    Raises:
        OSError: if the folder cannot be listed.
    """
    return [file for file in sorted(folder.iterdir()) if _is_dicom(file)]


def _is_dicom(file: Path) -> bool:
    # A folder can hold thousands of pictures, and this is asked of every folder of a library.
    if file.suffix.lower() in SUFFIXES - {".dcm"}:
        return False
    try:
        if not file.is_file():
            return False
        with open(file, "rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False
