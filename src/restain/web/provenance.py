"""Provenance of an image, from its metadata, its name and the files beside it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from restain import NOTICE
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images import read_text
from restain.slides import open_slide, read_metadata
from restain.slides.find import dicom_files, split_number

OUTLINES = ("tissue", "ood")
"""Outlines of a stain, ``NAME.tissue.geojson``: tissue, and regions out of the distribution of the training images."""
BUILT, PHANTOM_SLIDE = "restain build", "phantom slide"
"""Keys of metadata by which ``restain build`` and ``restain phantom-slide`` identify pixels."""
WHOLE = "whole image"
"""Region of a virtual stain that covers the image."""
_LARGEST_JSON = 1 << 20
_IHC_FOLDERS, _HE_FOLDERS = {"ihc", "trainb", "valb", "testb"}, {"he", "traina", "vala", "testa"}


class ImageKind(Enum):
    """What an image shows; ``PICTURE`` if unknown."""

    HE = "he"
    IHC = "ihc"
    VIRTUAL = "virtual"
    DENSITY = "density"
    PICTURE = "picture"


@dataclass(frozen=True)
class ImageProvenance:
    """Provenance of an image.

    ``source`` is the file name of a virtual stain's H&E, and ``source_name`` its name in the library if a job says so;
    ``level`` is the HER2 level in the file name; ``facts`` are all metadata that restain wrote.
    """

    kind: ImageKind
    source: str | None = None
    level: str | None = None
    synthetic: bool = False
    facts: tuple[tuple[str, str], ...] = ()
    source_name: str | None = None
    region: tuple[int, ...] = ()
    """x, y, width, height of a job's region in px of level 0."""
    case: tuple[str, str] = ("", "")
    """Patient and block that a DICOM slide states."""
    grid: str | None = None
    """Equal for images whose pixels show the same places, as restain's own metadata says."""


@dataclass(frozen=True)
class Registered:
    """A result of ``restain register``: its folder, and the file names of the two slides."""

    folder: Path
    fixed: str
    moving: str


def read_provenance(path: Path, name: str) -> ImageProvenance:
    """The provenance of the file at ``path``, called ``name`` in the library. Never fails: unknown facts are left out."""
    text, case = _metadata(path), _dicom_case(path)
    facts, level = tuple(sorted(text.items())), _level(name)
    true_density = path.parent.parent.name == "truth" and (path.parent.parent.parent / "phantom.json").is_file()
    if path.name.lower().endswith((".dab.ome.tiff", ".dab.tif")) or path.name == "dab.ome.tiff" or true_density:
        return ImageProvenance(ImageKind.DENSITY, text.get("source"), grid=_grid(path, text))
    notice = text.get("notice", "")
    if notice.startswith(NOTICE) or "bundle_hash" in text:
        job = _json(path.with_name("job.json")) if name.startswith("stained/") else None
        job = job if isinstance(job, dict) else {}
        source_name = job.get("image") if isinstance(job.get("image"), str) else None
        region = tuple(job.get("region") or ())
        return ImageProvenance(ImageKind.VIRTUAL, text.get("source"), level, False, facts, source_name, region, case)
    stem, folders = path.name.lower(), {part.lower() for part in name.split("/")[:-1]}
    kind = ImageKind.PICTURE
    if folders & _IHC_FOLDERS or re.match(r"ihc([._-]|$)", stem):
        kind = ImageKind.IHC
    elif folders & _HE_FOLDERS or re.match(r"he([._-]|$)", stem):
        kind = ImageKind.HE
    synthetic = "synthetic" in notice
    return ImageProvenance(kind, level=level, synthetic=synthetic, facts=facts, case=case, grid=_grid(path, text))


def _dicom_case(path: Path) -> tuple[str, str]:
    """Patient ID of a DICOM slide, and as block the short description of its specimen, else its container's identifier."""
    if not (path.is_dir() or path.suffix.lower() == ".dcm"):
        return "", ""
    # Takes half a second to import, and most folders have no DICOM.
    import pydicom

    tags = ["PatientID", "ContainerIdentifier", "SpecimenDescriptionSequence"]
    try:
        file = dicom_files(path)[0] if path.is_dir() else path
        stated = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        specimens = [
            str(one.get("SpecimenShortDescription") or "") for one in stated.get("SpecimenDescriptionSequence", ())
        ]
        block = next(filter(None, specimens), str(stated.get("ContainerIdentifier") or ""))
        patient = str(stated.get("PatientID") or "").strip()
        return (patient, block.strip()) if patient else ("", "")
    except Exception:
        # An OME-Zarr, or a damaged file, of which the page of the image says what is wrong.
        return "", ""


def _grid(path: Path, text: dict[str, str]) -> str | None:
    """What the images of one pixel grid share: a patch of ``restain build``, or a phantom that is not deformed."""
    if PHANTOM_SLIDE in text:
        return None if text.get("output") == "ihc" else text[PHANTOM_SLIDE]
    if BUILT in text:
        return text[BUILT]
    record = path.parents[2] / "phantom.json" if len(path.parents) > 2 else path
    return f"{record} {path.parent.name}/{path.name}" if path != record and _is_aligned_phantom(record) else None


def _is_aligned_phantom(record: Path) -> bool:
    content = _json(record) if record.is_file() else None
    parameters = content.get("parameters") if isinstance(content, dict) else None
    return isinstance(parameters, dict) and parameters.get("misalign_um") == 0


def image_numbers(path: Path) -> tuple[int, ...]:
    """The numbers of the images of slide size in a file or folder, if it holds several; else nothing."""
    if not (path.is_dir() or path.suffix.lower() in (".tif", ".tiff", ".dcm")):
        return ()
    try:
        with open_slide(path, inspect=True, header_only=True) as slide:
            return tuple(range(len(slide.images)))
    except Exception:
        # Decoders fail on damaged files in many ways; the page of the image says how.
        return ()


def read_registrations(transforms: list[Path]) -> list[Registered]:
    """The registrations whose ``transform.json`` names both slides."""
    found = []
    for path in transforms:
        content = _json(path)
        try:
            names = [Path(str(content[side]["name"])).name for side in ("fixed", "moving")]
        except (KeyError, TypeError):
            continue
        if all(names):
            found.append(Registered(path.parent, *names))
    return found


def find_outline(path: Path, which: str) -> Path | None:
    """The outline beside an image, as ``restain stain`` and ``restain tissue`` name it; ``which`` of :data:`OUTLINES`."""
    names = [bare_name(path)] if split_number(path)[1] is not None else dict.fromkeys((path.stem, bare_name(path)))
    return next((one for name in names if _is_file(one := path.with_name(f"{name}.{which}.geojson"))), None)


def bare_name(path: Path) -> str:
    """The name of an image without suffixes, and with the number of an image in a file: ``three-fields-1``."""
    file, number = split_number(path)
    bare = re.sub(r"\.(ome\.(tiff?|zarr)|[^.]+)$", "", file.name, flags=re.IGNORECASE)
    return bare if number is None else f"{bare}-{number}"


@lru_cache(maxsize=20_000)
def same_size(one: Path, other: Path, *stamps: str) -> bool:
    """Whether two images have one size; ``stamps`` change with the files."""
    try:
        with open_slide(one, header_only=True) as first, open_slide(other, header_only=True) as second:
            return first.size == second.size
    except RestainError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # The name with the suffix can be longer than the file system allows.
        return False


def _level(name: str) -> str | None:
    """The HER2 level at the end of a BCI name: ``00012_train_2+.png``."""
    found = re.search(r"_(?:train|val|test)_(0|[123]\+)\.[^./]+$", name)
    return Her2Level.parse(found[1]).text if found else None


def _metadata(path: Path) -> dict[str, str]:
    suffix = path.suffix.lower()
    if path.is_dir():
        report = _json(path.with_name(f"{bare_name(path)}.stain.json"))
        stated = report.get("provenance") if isinstance(report, dict) else None
        return {k: v for k, v in stated.items() if isinstance(v, str)} if isinstance(stated, dict) else {}
    try:
        if suffix in (".tif", ".tiff"):
            return read_metadata(path)
        return read_text(path) if suffix == ".png" else {}
    except Exception:
        # A damaged file must not fail the listing; the page of the image says what is wrong.
        return {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= _LARGEST_JSON else None
    except (OSError, ValueError, RecursionError):
        return None
