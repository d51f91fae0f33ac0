"""Sources of staining: files, folders, globs and tables of slides."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from restain.data import tables
from restain.errors import RestainError
from restain.images import IMAGE_SUFFIXES
from restain.images.scale import positive_number
from restain.slides.find import SUFFIXES, is_slide_folder, is_there, split_number


@dataclass(frozen=True)
class Source:
    """A picture or slide, with its mpp if a table states it."""

    path: Path
    mpp: float | None = None


def slide_name(source: Path) -> str:
    """The base name of a slide's results: the file's without suffixes, with the number of an image in it."""
    source, number = split_number(source)
    if number is not None:
        return f"{slide_name(source)}-{number}"
    name = source.name
    for suffix in (".ome.tiff", ".ome.tif", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name if source.is_dir() and source.suffix.lower() != ".zarr" else source.stem


def expand(images: Sequence[Path], suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The images that files and folders name; a folder stands for the images directly in it.

    Raises RestainError if one is missing, a folder has no image, or the results of two would have one name.
    """
    wanted = set(suffixes)
    found: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in wanted and not p.name.startswith("."))
            if not inside:
                kinds = "PNG, JPEG, WebP or TIFF image" if wanted == IMAGE_SUFFIXES else "picture or slide"
                raise RestainError(f"{path}: the folder holds no {kinds}.")
            found += inside
        elif split_number(path)[0].is_file():
            found.append(path)
        else:
            raise RestainError(f"{path}: there is no such image.")
    _check_names(found)
    return found


def find_sources(names: Sequence[Path]) -> list[Source]:
    """Pictures and slides: files, folders, patterns (``*.svs``), and CSV tables with a column ``slide``.

    A folder stands for the pictures and slides directly in it, unless it is a slide itself (a DICOM series, an
    OME-Zarr). ``#N`` after a name is the number of one of several images. A table's paths are relative to it; it may
    have a column ``mpp``. Raises RestainError if something is missing, a folder or pattern has no match, a table is
    damaged, or the results of two would have one name.
    """
    found: list[Source] = []
    for name in names:
        if not is_there(name) and glob.has_magic(str(name)):
            matches = [Path(match) for match in sorted(glob.glob(str(name), recursive=True))]
            if not matches:
                raise RestainError(f"{name}: nothing matches this pattern.")
            found += [Source(path) for match in matches for path in _inside(match)]
        elif name.suffix.lower() == ".csv" and name.is_file():
            found += read_table(name)
        else:
            found += [Source(path) for path in _inside(name)]
    _check_names([source.path for source in found])
    return found


def read_table(path: Path) -> list[Source]:
    """The slides of a CSV file with the columns ``slide`` and, optionally, ``mpp``; RestainError for a damaged table or missing slide."""
    found: list[Source] = []
    faults: list[str] = []
    for line, cells in tables.read_table(path, ("slide",), ("mpp",)):
        faults += tables.row_faults(line, cells, path.parent, needed=("slide",), files=("slide",), numbers=("mpp",))
        found.append(Source(path.parent / cells["slide"], positive_number(cells["mpp"])))
    if faults:
        raise RestainError(f"{path}: {'; '.join(faults)}.")
    if not found:
        raise RestainError(f"{path}: the table holds no slides.")
    return found


def _inside(path: Path) -> list[Path]:
    whole, _ = split_number(path)
    if not path.is_dir() or is_slide_folder(path):
        return [path] if is_slide_folder(whole) else expand([path])
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and is_slide_folder(p)]
    try:
        return sorted([*folders, *expand([path], SUFFIXES)])
    except RestainError:
        if folders:
            return folders
        raise


def _check_names(paths: Sequence[Path]) -> None:
    by_name: dict[str, Path] = {}
    for path in paths:
        name = slide_name(path)
        if name in by_name:
            raise RestainError(
                f"{path} and {by_name[name]} would both become {name}; stain them into different folders."
            )
        by_name[name] = path
