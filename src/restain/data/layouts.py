"""The four folder layouts of published H&E/HER2 pairs, and their recognition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images import IMAGE_SUFFIXES

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a split's pictures lie: two folders, or one (``ihc is None``) of side-by-side pictures."""

    split: Split
    he: Path
    ihc: Path | None


@dataclass(frozen=True, slots=True)
class _Form:
    title: str
    pattern: str
    he: str
    ihc: str | None
    level: Literal["needed", "optional", "none"]
    slides: bool


class Layout(Enum):
    """A folder layout.

    MIST is published with ``train`` and ``val`` only, and its authors report on ``val``: if a MIST folder has no ``test``, its
    ``val`` is read as the test split. A MIST slide is the part of the name before the first ``_``; BCI's and the challenge's
    names do not contain the slide.
    """

    BCI = _Form("BCI", "{HE,IHC}/{train,val,test}/NAME_LEVEL.png", "HE/{}", "IHC/{}", "needed", False)
    CHALLENGE = _Form("BCI challenge", "{train,val,test}/{HE,IHC}/NAME_LEVEL.png", "{}/HE", "{}/IHC", "needed", False)
    MIST = _Form("MIST", "{train,val,test}{A,B}/SLIDE_X_Y.jpg", "{}A", "{}B", "none", True)
    AB = _Form("pix2pix AB", "{train,val,test}/NAME.png with H&E left and IHC right", "{}", None, "optional", False)

    @property
    def title(self) -> str:
        """The layout's name for people."""
        return self.value.title

    @property
    def pattern(self) -> str:
        """The layout's folders and file names, for people."""
        return self.value.pattern

    def places(self, root: Path) -> tuple[Place, ...]:
        """The splits of this layout that are in ``root`` (at least one of a split's two folders exists), in any case."""
        form = self.value
        found = []
        for split in SPLITS:
            he = _folder(root, form.he.format(split))
            ihc = None if form.ihc is None else _folder(root, form.ihc.format(split))
            if image_files(he) if ihc is None else he.is_dir() or ihc.is_dir():
                found.append(Place(split, he, ihc))
        if self is Layout.MIST and all(place.split != "test" for place in found):
            return tuple(Place("test", p.he, p.ihc) if p.split == "val" else p for p in found)
        return tuple(found)

    def level(self, name: str) -> Her2Level | None:
        """The HER2 level at the end of a file's stem, or None if the layout needs none and there is none.

        In the AB layout only BCI's own form counts (``..._train_2+``), so that no other number is taken for a level.

        Raises:
            RestainError: if a required level is missing, or is none of 0, 1+, 2+, 3+.
        """
        if self.value.level == "none":
            return None
        head, underscore, last = name.rpartition("_")
        if self.value.level == "optional":
            bci_like = re.search(r"(^|_)(train|val|test)$", head) and (last == "0" or re.fullmatch(r"\d+\+", last))
            return Her2Level.parse(last) if bci_like else None
        if not underscore:
            raise RestainError(f"'{name}' does not end in a HER2 level (_0, _1+, _2+ or _3+).")
        return Her2Level.parse(last)

    def slide(self, name: str) -> str | None:
        """The slide that a file's stem names, or None if this layout's names do not contain it."""
        return name.partition("_")[0] if self.value.slides else None


def _folder(root: Path, name: str) -> Path:
    """The path of the (nested) folder ``name`` in ``root``, in any case; ``name`` itself if there is none.

    Raises:
        RestainError: if two folders differ in case only.
    """
    here = root
    for part in name.split("/"):
        found = [c for c in _children(here) if c.name.casefold() == part.casefold() and c.is_dir()]
        if len(found) > 1:
            raise RestainError(f"{found[0]} and {found[1].name} beside it differ in case only; keep one of them.")
        here = found[0] if found else here / part
    return here


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def image_files(folder: Path) -> list[Path]:
    """The pictures directly in ``folder`` (by suffix, without hidden files), sorted by name.

    Raises:
        RestainError: if the folder cannot be listed.
    """
    try:
        if not folder.is_dir():
            return []
        found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        return sorted(path for path in found if not path.name.startswith(".") and path.is_file())
    except OSError as fault:
        raise RestainError(f"{fault.filename or folder} cannot be read ({fault.strerror}).") from None


def _layout_of(root: Path) -> list[Layout]:
    found = [layout for layout in Layout if layout.places(root)]
    # A stray picture beside the challenge's HE and IHC folders must not make it an AB folder.
    return [layout for layout in found if layout is not Layout.AB] or found


def recognise(root: Path) -> Layout:
    """The layout of a data folder.

    Raises:
        RestainError: if the folder does not exist, is empty, or has the folders of no layout or of several.
    """
    try:
        if not root.exists():
            raise RestainError(f"{root}: there is no such data folder.")
        if not root.is_dir():
            raise RestainError(f"{root} is a file; a data folder is needed.")
        found = _layout_of(root)
        children = [child for child in _children(root) if not child.name.startswith(".")]
        inner = {} if found else {child: _layout_of(child) for child in children if child.is_dir()}
    except OSError as fault:
        raise RestainError(f"{fault.filename or root} cannot be read ({fault.strerror}).") from None
    if len(found) == 1:
        return found[0]
    if found:
        mixed = " and ".join(layout.title for layout in found)
        raise RestainError(f"{root} mixes layouts ({mixed}); give them a folder each.")
    if not children:
        raise RestainError(f"{root} is empty; a data folder holds paired patches.")
    below = [child for child, layouts in inner.items() if layouts]
    # Several folders of split folders are sides of pairs, not data sets of side-by-side pictures.
    if len(below) > 1 and all(inner[child] == [Layout.AB] for child in below):
        names = " and ".join(child.name for child in below[:2])
        raise RestainError(f"{root} holds the folders {names}; name the folder of the H&E images HE and the other IHC.")
    if below:
        raise RestainError(f"{root} is not a layout of pairs; did you mean {below[0]}?")
    known = "; ".join(f"{layout.title}: {layout.pattern}" for layout in Layout)
    raise RestainError(f"{root} has none of the layouts that restain reads ({known}).")
