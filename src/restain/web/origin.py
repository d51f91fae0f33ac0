"""What an image's metadata, its name and the files beside it say of its origin."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from restain import NOTICE
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images import read_text
from restain.slides import open_slide, read_metadata

_LARGEST_JSON = 1 << 20


class Kind(Enum):
    """What an image shows, as far as it is known; ``PICTURE`` where nothing says."""

    HE = "he"
    IHC = "ihc"
    VIRTUAL = "virtual"
    DENSITY = "density"
    PICTURE = "picture"


@dataclass(frozen=True)
class Origin:
    """``source`` is the file name of a virtual stain's H&E; ``level`` the HER2 level that the name gives; ``facts`` what
    restain wrote of a result's making; ``place`` the name of a virtual stain's H&E in the library, where the job says it."""

    kind: Kind
    source: str | None = None
    level: str | None = None
    synthetic: bool = False
    facts: tuple[tuple[str, str], ...] = ()
    place: str | None = None


@dataclass(frozen=True)
class Registered:
    """A result of ``restain register``: file names of the two slides, and the folder of the transform."""

    folder: Path
    fixed: str
    moving: str


class Origins:
    """Origins by path and stamp, read once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[str, Origin]] = {}
        self._lock = threading.Lock()

    def of(self, path: Path, name: str, stamp: str) -> Origin:
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        origin = read_origin(path, name)
        with self._lock:
            self._known[path] = (stamp, origin)
        return origin


def read_origin(path: Path, name: str) -> Origin:
    """The origin of an image at ``path`` whose place in the folder is ``name``; never an error, at worst unknown."""
    text = _metadata(path)
    level = _level(name)
    if path.name.lower().endswith((".dab.ome.tiff", ".dab.tif")) or path.name == "dab.ome.tiff":
        return Origin(Kind.DENSITY, text.get("source"))
    notice = text.get("notice", "")
    if notice.startswith(NOTICE) or "bundle_hash" in text:
        place = _place(path) if name.startswith("stained/") else None
        return Origin(Kind.VIRTUAL, text.get("source"), level, facts=tuple(sorted(text.items())), place=place)
    stem, parts = path.name.lower(), {part.lower() for part in name.split("/")[:-1]}
    kind = Kind.PICTURE
    if parts & {"ihc", "trainb", "valb", "testb"} or re.match(r"ihc([._-]|$)", stem):
        kind = Kind.IHC
    elif parts & {"he", "traina", "vala", "testa"} or re.match(r"he([._-]|$)", stem):
        kind = Kind.HE
    return Origin(kind, level=level, synthetic="synthetic" in notice, facts=tuple(sorted(text.items())))


def _place(path: Path) -> str | None:
    """What the job that made an image says of its source (:mod:`restain.web.staining.queue`)."""
    job = _json(path.with_name("job.json"))
    place = job.get("image") if isinstance(job, dict) else None
    return place if isinstance(place, str) else None


def read_registrations(transforms: list[Path]) -> list[Registered]:
    """The ``transform.json`` files that name both their slides; others are passed over."""
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


OUTLINES = ("tissue", "ood")
"""What is outlined beside an image, ``NAME.tissue.geojson``: tissue, and where it is unlike the model's training images."""


def outline_of(path: Path, what: str) -> Path | None:
    """The outline beside an image, as ``restain stain`` and ``restain tissue`` name it; ``what`` is of :data:`OUTLINES`."""
    names = dict.fromkeys((path.stem, bare_name(path)))
    return next((one for name in names if _there(one := path.with_name(f"{name}.{what}.geojson"))), None)


def bare_name(path: Path) -> str:
    """A file's name without the suffixes of a slide."""
    return re.sub(r"\.(ome\.(tiff?|zarr)|[^.]+)$", "", path.name, flags=re.IGNORECASE)


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # With its ending the name is longer than the system takes.
        return False


def same_size(one: Path, other: Path) -> bool:
    try:
        with open_slide(one, header_only=True) as here, open_slide(other, header_only=True) as there:
            return here.size == there.size
    except RestainError:
        return False


def _level(name: str) -> str | None:
    """The HER2 level at the end of a BCI name: ``00012_train_2+.png``."""
    found = re.search(r"_(?:train|val|test)_(0|[123]\+)\.[^./]+$", name)
    return Her2Level.parse(found[1]).text if found else None


def _metadata(path: Path) -> dict[str, str]:
    suffix = path.suffix.lower()
    if path.is_dir():
        provenance = _json(path.with_name(f"{bare_name(path)}.stain.json"))
        kept = provenance.get("provenance") if isinstance(provenance, dict) else None
        return {k: v for k, v in kept.items() if isinstance(v, str)} if isinstance(kept, dict) else {}
    try:
        if suffix in (".tif", ".tiff"):
            return read_metadata(path)
        return read_text(path) if suffix == ".png" else {}
    except Exception:
        # A listing outlives any file: what is wrong with one is told where it is shown.
        return {}


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
