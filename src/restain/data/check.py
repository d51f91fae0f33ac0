"""Check of a data folder: decode every picture and list all faults."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from restain.data.compare import compare_sides
from restain.data.consistency import ComparedPair, read_header, set_faults
from restain.data.decoded import in_threads
from restain.data.layouts import SPLITS, Layout, Split
from restain.data.pairs import Fault, Pair, Scan, scan_pairs
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.progress import Progress
from restain.slides import read_image

NO_LEVEL = "none"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Content of a data folder and all its faults.

    ``counts[split][level]`` is the number of pairs; the level is ``none`` if a name gives none. ``notes`` are no faults.
    """

    root: Path
    layout: Layout
    counts: dict[Split, dict[str, int]]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Layout, counts per split and level, notes and the number of faults, one line each."""
        lines = [f"{self.layout.title} layout in {self.root}"]
        for split, levels in self.counts.items():
            listed = ", ".join(f"{'no level' if level == NO_LEVEL else level}: {n}" for level, n in levels.items())
            lines.append(f"  {split}: {_count(sum(levels.values()), 'pair')} ({listed})")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  {_count(len(self.faults), 'fault') if self.faults else 'no faults'}")
        return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Decoded:
    """Result for one pair or single file: its faults, or the comparison and a hash of the H&E pixels."""

    faults: tuple[Fault, ...] = ()
    compared: ComparedPair | None = None
    he_hash: bytes = b""


def check_folder(root: Path, progress: Progress | None = None, *, swap: bool = False) -> CheckReport:
    """Decode every picture of a data folder and list all faults.

    Faults of files: a missing partner on either side, files that differ in suffix only, an unknown level, a name in two splits,
    a file that is truncated, unreadable or not 8-bit RGB, partners that differ in size, one H&E image (the same pixels) in two
    splits. Faults of the set, each reported once with the number of pairs: swapped sides, halves of one picture, identical
    partners, rotated or mirrored partners, and stated scales that differ.

    Args:
        root: the data folder.
        swap: H&E and IHC are exchanged on reading.
        progress: called with (decoded pairs and single files, their total). An exception from it, like a keyboard
            interrupt, ends the check at once.

    Raises:
        RestainError: if the folder is missing, empty or of no known layout.
    """
    scan = scan_pairs(root, swap=swap)
    paired = {path for pair in scan.pairs for path in (pair.he_path, pair.ihc_path)}
    single = [fault.path for fault in scan.faults if fault.path not in paired]
    decoded: list[_Decoded] = []
    items: list[Pair | Path] = [*scan.pairs, *single]
    for result in in_threads(_decode, items):
        decoded.append(result)
        if progress is not None:
            progress(len(decoded), len(items))
    faults = [*scan.faults, *(fault for result in decoded for fault in result.faults), *_duplicates(decoded)]
    faults += set_faults([result.compared for result in decoded if result.compared is not None])
    faults.sort(key=lambda fault: str(fault.path))
    return CheckReport(root, scan.layout, _counts(scan), tuple(faults), tuple(_notes(scan)))


def _decode(item: Pair | Path) -> _Decoded:
    return _decode_pair(item) if isinstance(item, Pair) else _decode_file(item)


def _decode_pair(pair: Pair) -> _Decoded:
    paths = dict.fromkeys((pair.he_path, pair.ihc_path))
    try:
        he, ihc = pair.load()
        he_mpp, ihc_mpp = (read_header(path).mpp for path in (pair.he_path, pair.ihc_path))
    except RestainError as fault:
        # Both files can be at fault, and load stops at the first; if neither is, their sizes are.
        alone = tuple(found for path in paths for found in _decode_file(path).faults)
        return _Decoded(alone or (Fault(pair.he_path, str(fault)),))
    pixels = hashlib.blake2b(repr(he.shape).encode() + he.tobytes(), digest_size=16).digest()
    return _Decoded((), ComparedPair(pair, compare_sides(he, ihc), he_mpp, ihc_mpp), pixels)


def _decode_file(path: Path) -> _Decoded:
    try:
        read_image(path)
    except RestainError as fault:
        return _Decoded((Fault(path, str(fault)),))
    return _Decoded()


def _duplicates(decoded: list[_Decoded]) -> Iterator[Fault]:
    pairs = [(result.he_hash, result.compared.pair) for result in decoded if result.compared is not None]
    first: dict[bytes, Pair] = {}
    for pixels, pair in sorted(pairs, key=lambda item: (SPLITS.index(item[1].split), item[1].name)):
        other = first.setdefault(pixels, pair)
        if other.split != pair.split:
            sentence = f"{pair.he_path} ({pair.split}) is the same image as {other.he_path} ({other.split})."
            yield Fault(pair.he_path, sentence)


def _counts(scan: Scan) -> dict[Split, dict[str, int]]:
    found = Counter((pair.split, NO_LEVEL if pair.level is None else pair.level.text) for pair in scan.pairs)
    order = (*(level.text for level in Her2Level), NO_LEVEL)
    counts = {split: {text: found[split, text] for text in order if found[split, text]} for split in SPLITS}
    return {split: levels for split, levels in counts.items() if levels}


def _notes(scan: Scan) -> Iterator[str]:
    slides = {split: {pair.slide for pair in scan.pairs if pair.split == split and pair.slide} for split in SPLITS}
    if shared := slides["test"] & (slides["train"] | slides["val"]):
        yield (
            f"{len(shared)} of {len(slides['test'])} test slides also have patches for training "
            f"(for example {min(shared)}), so the test part is not unseen tissue."
        )
