"""Names of images: suffixes, numbers of several in a file, folders that are one slide, files that a slide needs."""

from __future__ import annotations

import re
from pathlib import Path

from restain.errors import RestainError
from restain.images import IMAGE_SUFFIXES

ONE_FILE_SUFFIXES = (".svs", ".ndpi", ".scn", ".bif", ".svslide")
"""Suffixes of scanners' files that need no other file."""

SLIDE_SUFFIXES = frozenset({*ONE_FILE_SUFFIXES, ".mrxs", ".vms", ".vmu", ".dcm"})
"""Suffixes of scanner files. A path that a user gives is read whatever its suffix."""

SUFFIXES = IMAGE_SUFFIXES | SLIDE_SUFFIXES
"""Suffixes of images that are searched in a folder."""

ZARR_METADATA = ("zarr.json", ".zattrs", ".zgroup")


def split_number(path: str | Path) -> tuple[Path, int | None]:
    """Split ``#N``, the number of an image in a file, from a path; a path that exists is not split.

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
    """Name without suffix, with the number of the image in the file: ``three-fields-1``."""
    whole, number = split_number(path)
    return whole.stem if number is None else f"{whole.stem}-{number}"


def is_there(path: Path) -> bool:
    """Whether the file or folder of a path exists, with or without ``#N``."""
    return _exists(split_number(path)[0])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # For example a name that is too long.
        return False


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is one slide: an OME-Zarr or a DICOM series, without slides of other formats beside it."""
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
    """DICOM files of a folder, recognised by content, sorted by name. Raises OSError if the folder cannot be listed."""
    return [file for file in sorted(folder.iterdir()) if _is_dicom(file)]


def _is_dicom(file: Path) -> bool:
    # Fast, since a library has many folders with thousands of pictures.
    if file.suffix.lower() in SUFFIXES - {".dcm"}:
        return False
    try:
        if not file.is_file():
            return False
        with open(file, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def check_companions(path: Path) -> None:
    """Check the files that a slide's file needs; without them OpenSlide would take it for a plain picture.

    Raises RestainError if a folder or file is missing, or the format cannot be read.
    """
    check = {".mrxs": _mirax, ".vms": _hamamatsu, ".vmu": _hamamatsu, ".vsi": _olympus}.get(path.suffix.lower())
    if check is not None:
        check(path)


def _mirax(path: Path) -> None:
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise RestainError(f"{path} is a MIRAX slide; the folder {folder} with its pixels is missing.")
    if not (folder / "Slidedat.ini").is_file():
        raise RestainError(f"{path} is a MIRAX slide; {folder / 'Slidedat.ini'} is missing.")


def _hamamatsu(path: Path) -> None:
    try:
        text = path.read_bytes()[: 1 << 20].decode("utf-8", "replace")
    except OSError:
        return
    for name in re.findall(r"^\s*(?:ImageFile[^=\n]*|MapFile|MacroImage)=[ \t]*(\S[^\r\n]*)", text, re.MULTILINE):
        file = path.parent / name.strip()
        if not file.is_file():
            raise RestainError(f"{path} is a Hamamatsu slide; its file {file} is missing.")
    if "[Virtual Microscope Specimen]" not in text and "[Uncompressed Virtual Microscope Specimen]" not in text:
        raise RestainError(f"{path} is no Hamamatsu slide, as its name says.")


def _olympus(path: Path) -> None:
    raise RestainError(f"{path} is an Olympus slide whose pixels are in .ets files, which restain does not read.")
