"""Paired patches of all layouts: H&E, IHC, HER2 level, name and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from restain.data.layouts import SPLITS, Layout, Place, Split, image_files, recognise
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images import Rgb
from restain.slides import read_image


@dataclass(frozen=True, slots=True)
class Pair:
    """An H&E patch and the HER2 IHC patch of the same place.

    ``name`` is the file's stem, unique in its set. ``level`` is the slide's HER2 level, None where the layout
    does not give it. With ``side_by_side`` both paths are one picture, H&E in its left half and IHC in its
    right, or with ``swapped`` the other way round. ``slide`` is the slide that the patch was cut from, where the layout tells it.
    """

    name: str
    split: Split
    level: Her2Level | None
    he_path: Path
    ihc_path: Path
    side_by_side: bool = False
    slide: str | None = None
    swapped: bool = False

    def load(self) -> tuple[Rgb, Rgb]:
        """Read ``(he, ihc)``, both ``(H, W, 3)`` ``uint8`` RGB of the same size.

        Raises:
            RestainError: if a file cannot be read as 8-bit RGB (see :func:`restain.slides.read_image`), if the
                two sizes differ, or if a side-by-side picture has no two equal halves.
        """
        he = read_image(self.he_path)
        if self.side_by_side:
            width = he.shape[1]
            if width % 2:
                raise RestainError(f"{self.he_path} is {width} px wide; a side-by-side picture needs two equal halves.")
            left, right = np.ascontiguousarray(he[:, : width // 2]), np.ascontiguousarray(he[:, width // 2 :])
            return (right, left) if self.swapped else (left, right)
        ihc = read_image(self.ihc_path)
        if he.shape != ihc.shape:
            raise RestainError(
                f"{self.he_path} is {he.shape[1]}x{he.shape[0]} px but its partner {self.ihc_path} is "
                f"{ihc.shape[1]}x{ihc.shape[0]} px."
            )
        return he, ihc


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one file of a data folder, in a sentence that names it."""

    path: Path
    sentence: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What a data folder holds by its file names alone; a pair whose level is at fault has none."""

    root: Path
    layout: Layout
    pairs: tuple[Pair, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class PairSet:
    """Name-sorted pairs of one or several data folders."""

    roots: tuple[Path, ...]
    layouts: tuple[Layout, ...]
    pairs: tuple[Pair, ...]

    @property
    def root(self) -> Path:
        """The (first) data folder."""
        return self.roots[0]

    @property
    def layout(self) -> Layout:
        """The (first) data folder's layout."""
        return self.layouts[0]

    def __len__(self) -> int:
        return len(self.pairs)

    def split(self, name: Split) -> tuple[Pair, ...]:
        """The pairs of a split, name-sorted; empty if there are none."""
        return tuple(pair for pair in self.pairs if pair.split == name)

    def describe(self) -> str:
        """What was recognised and how much of it, in one line."""
        where = ", ".join(
            f"{layout.title} layout in {root}" for root, layout in zip(self.roots, self.layouts, strict=True)
        )
        per_split = Counter(pair.split for pair in self.pairs)
        splits = ", ".join(f"{per_split[split]} {split}" for split in SPLITS if per_split[split])
        levels = Counter(pair.level for pair in self.pairs)
        if set(levels) <= {None}:
            listed = "no HER2 levels given"
        else:
            listed = "levels " + ", ".join(f"{level.text}: {levels[level]}" for level in Her2Level)
            listed += f", not given: {levels[None]}" if levels[None] else ""
        return f"{where}: {splits} {'pair' if len(self.pairs) == 1 else 'pairs'}; {listed}."

    def with_validation(self, share: float, seed: int = 0) -> PairSet:
        """Move ``max(1, round(share * n))`` of the ``n`` training pairs, drawn by ``seed``, to the validation split.

        Known slides move as a whole, so the number is then the nearest that slides allow. Nothing moves if there is a
        validation split, no training split, or a share of 0. BCI's names do not contain the slide: patches of one slide can
        be in both splits, and only the test split is unseen tissue.

        Raises:
            RestainError: if there is one training pair only, or all training pairs are of one slide.
        """
        train = self.split("train")
        if share <= 0 or not train or self.split("val"):
            return self
        chosen = _draw(train, share, np.random.default_rng([seed]))
        if not chosen:
            what = "one training pair" if len(train) == 1 else f"training pairs of one slide ({train[0].slide})"
            raise RestainError(
                f"{self.root} holds only {what}, from which no validation part can be cut; "
                "give more data or set data.val_share to 0."
            )
        return replace(
            self,
            pairs=tuple(replace(pair, split="val") if pair.name in chosen else pair for pair in self.pairs),
        )


def _draw(train: Sequence[Pair], share: float, rng: np.random.Generator) -> set[str]:
    def group(pair: Pair) -> tuple[str, str]:
        return ("slide", pair.slide) if pair.slide is not None else ("pair", pair.name)

    groups = [list(members) for _, members in groupby(sorted(train, key=group), key=group)]
    target = min(max(1, round(share * len(train))), len(train) - 1)
    order = [groups[i] for i in rng.permutation(len(groups))]
    chosen: list[Pair] = []
    taken = 0
    for members in order:
        nearer = abs(len(chosen) + len(members) - target) < abs(len(chosen) - target)
        if nearer and taken < len(groups) - 1:
            chosen += members
            taken += 1
    if not chosen and len(groups) > 1:
        chosen = min(order, key=len)
    return {pair.name for pair in chosen}


def scan_pairs(root: Path, *, swap: bool = False) -> Scan:
    """Find the pairs of a data folder and all faults that file names show, without decoding any picture.

    With ``swap`` what the layout calls H&E is taken for IHC, and the other way round.

    Raises:
        RestainError: if the folder is missing, empty, of no known layout, or has a layout's folders but no
            pictures.
    """
    layout = recognise(root)
    pairs: list[Pair] = []
    faults: list[Fault] = []
    for place in layout.places(root):
        he_files = _by_stem(image_files(place.he), faults)
        ihc_files = he_files if place.ihc is None else _by_stem(image_files(place.ihc), faults)
        for stem in sorted(he_files.keys() | ihc_files.keys()):
            he, ihc = he_files.get(stem), ihc_files.get(stem)
            if he is None or ihc is None:
                faults.append(_no_partner(he, ihc, place))
                continue
            level = None
            try:
                level = layout.level(stem)
            except RestainError as fault:
                faults.append(Fault(he, f"{he}: {fault}"))
            he, ihc = (ihc, he) if swap else (he, ihc)
            pairs.append(Pair(stem, place.split, level, he, ihc, place.ihc is None, layout.slide(stem), swap))
    if not pairs and not faults:
        raise RestainError(f"{root} has the folders of the {layout.title} layout but no pictures in them.")
    pairs.sort(key=lambda pair: (pair.name, pair.split))
    for before, after in pairwise(pairs):
        if before.name == after.name:
            sentence = f"{after.he_path} has the same name as a {before.split} pair; a pair belongs to one split."
            faults.append(Fault(after.he_path, sentence))
    return Scan(root, layout, tuple(pairs), tuple(faults))


def _by_stem(files: Iterable[Path], faults: list[Fault]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        first = found.setdefault(path.stem, path)
        if first is not path:
            faults.append(Fault(path, f"{path} and {first.name} beside it have the same name but for the suffix."))
    return found


def _no_partner(he: Path | None, ihc: Path | None, place: Place) -> Fault:
    path, stain, folder = (he, "IHC", place.ihc) if he is not None else (ihc, "H&E", place.he)
    if path is None:
        raise AssertionError("a file without a partner is a file")
    return Fault(path, f"{path} has no {stain} partner of the same name in {folder}.")


def open_pairs(
    roots: Path | Sequence[Path],
    *,
    val_share: float = 0.1,
    seed: int = 0,
    holdout: Sequence[str] = (),
    same_slide: Sequence[Sequence[str]] = (),
    swap: bool = False,
) -> PairSet:
    """Open the pairs of one or several data folders; pixels are read by :meth:`Pair.load` only.

    Args:
        roots: a data folder, or several to join. Names that several of them use are prefixed by their folder's name.
        val_share: share of the training split for validation if the data has none (see :meth:`PairSet.with_validation`).
        seed: of the choice of validation pairs.
        holdout: ``fnmatch`` patterns of names; matching pairs are the test split and all others are for training.
        same_slide: groups of ``fnmatch`` patterns of names; the pairs that a group matches are of one slide.
        swap: H&E and IHC are exchanged on reading.

    Raises:
        RestainError: if a folder is missing, empty or not recognised, if file names show a fault (missing partner, unknown
            level, a name in two splits), if ``holdout`` or ``same_slide`` matches nothing or contradicts known slides, or if
            there is too little data for a validation split.
    """
    folders = (roots,) if isinstance(roots, Path) else tuple(roots)
    if not folders:
        raise RestainError("No data folder was given.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RestainError(f"A data folder is given twice ({', '.join(map(str, folders))}).")
    scans = [scan_pairs(folder, swap=swap) for folder in folders]
    for scan in scans:
        if scan.faults:
            raise RestainError(_first_fault(scan))
    pairs = _with_slides(_joined(scans), same_slide)
    if holdout:
        pairs = _held_out(pairs, holdout)
    found = PairSet(folders, tuple(scan.layout for scan in scans), tuple(sorted(pairs, key=lambda pair: pair.name)))
    return found.with_validation(val_share, seed)


def _first_fault(scan: Scan) -> str:
    first, more = scan.faults[0].sentence, len(scan.faults) - 1
    return f"{first} (and {more} more; 'restain check {scan.root}' lists them)" if more else first


def _joined(scans: Sequence[Scan]) -> list[Pair]:
    uses = Counter(pair.name for scan in scans for pair in scan.pairs)
    labels = [scan.root.resolve().name for scan in scans]
    if len(set(labels)) < len(labels):
        labels = [f"{number}_{label}" for number, label in enumerate(labels, 1)]
    joined = [
        replace(pair, name=f"{label}_{pair.name}") if uses[pair.name] > 1 else pair
        for label, scan in zip(labels, scans, strict=True)
        for pair in scan.pairs
    ]
    twice = [name for name, count in Counter(pair.name for pair in joined).items() if count > 1]
    if twice:
        raise RestainError(
            f"Two pairs of the joined data folders come to the same name, {twice[0]}; rename one of them."
        )
    return joined


def _matches(pair: Pair, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in (pair.name, pair.he_path.stem) for pattern in patterns)


def _with_slides(pairs: Sequence[Pair], groups: Sequence[Sequence[str]]) -> list[Pair]:
    """``pairs`` with the slides that the groups of patterns make; a slide is called by its first pair's name."""
    found = list(pairs)
    for group in groups:
        members = [number for number, pair in enumerate(found) if _matches(pair, group)]
        if not members:
            raise RestainError(f"The patterns of one slide ({', '.join(group)}) match no pair's name.")
        known = {slide for number in members if (slide := found[number].slide) is not None}
        if len(known) > 1:
            raise RestainError(
                f"The patterns of one slide ({', '.join(group)}) match slides {' and '.join(sorted(known))}."
            )
        slide = known.pop() if known else found[members[0]].name
        for number in members:
            found[number] = replace(found[number], slide=slide)
    return found


def _held_out(pairs: Sequence[Pair], patterns: Sequence[str]) -> list[Pair]:
    parted: list[Pair] = [replace(pair, split="test" if _matches(pair, patterns) else "train") for pair in pairs]
    shown = ", ".join(patterns)
    test_slides = {pair.slide for pair in parted if pair.split == "test" and pair.slide is not None}
    if all(pair.split == "train" for pair in parted):
        raise RestainError(f"The holdout patterns ({shown}) match no pair's name.")
    for pair in parted:
        if pair.split == "train" and pair.slide in test_slides:
            raise RestainError(
                f"The holdout patterns ({shown}) part slide {pair.slide}: {pair.name} would be trained on "
                "while other patches of its slide are tested on."
            )
    return parted
