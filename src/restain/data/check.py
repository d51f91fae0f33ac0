"""Look through a data folder and list all that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from restain.data.compare import compare_sides
from restain.data.layouts import SPLITS, Layout, Split
from restain.data.pairs import Fault, Pair, Scan, scan_pairs
from restain.data.scale import stated_mpp
from restain.data.verdicts import Compared, set_faults
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.slides import read_image

Progress = Callable[[int, int], None]

NO_LEVEL = "none"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a data folder holds and all its faults.

    ``counts[split][level]`` is the number of pairs; the level's text is ``none`` where a name gives none.
    ``notes`` are things to know that are no faults.
    """

    root: Path
    layout: Layout
    counts: dict[Split, dict[str, int]]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def describe(self) -> str:
        """Layout, counts per split and level, notes and the number of faults, one line each."""
        lines = [f"{self.layout.title} layout in {self.root}"]
        for split, levels in self.counts.items():
            told = ", ".join(f"{'no level' if level == NO_LEVEL else level}: {n}" for level, n in levels.items())
            lines.append(f"  {split}: {_count(sum(levels.values()), 'pair')} ({told})")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  {_count(len(self.faults), 'fault') if self.faults else 'no faults'}")
        return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Looked:
    faults: tuple[Fault, ...]
    compared: Compared | None = None
    he_digest: bytes = b""


def check_folder(root: Path, progress: Progress | None = None, *, swap: bool = False) -> CheckReport:
    """Decode every picture of a data folder and list all faults at once.

    Faults are: a missing partner on either side, files that differ in suffix only, an unknown level, a name
    in two splits, a file that is truncated, unreadable or not 8-bit RGB, partners that differ in size,
    one H&E image (the same pixels) in two splits; and, each told once with the number of pairs, sides that are
    exchanged, halves of one picture, partners that are the same picture, turned or mirrored against each other, and stated scales that differ.

    Args:
        root: the data folder.
        swap: H&E and IHC are exchanged on reading.
        progress: called with (pairs and single files looked at, their total) as the work goes on. An
            exception from it, like a keyboard interrupt, ends the check at once.

    Raises:
        RestainError: if the folder is missing, empty or of no known layout.
    """
    scan = scan_pairs(root, swap=swap)
    paired = {path for pair in scan.pairs for path in (pair.he_path, pair.ihc_path)}
    single = [fault.path for fault in scan.faults if fault.path not in paired]
    total = len(scan.pairs) + len(single)
    looked: list[_Looked] = []
    for done, result in enumerate(_in_threads(scan.pairs, single), 1):
        looked.append(result)
        if progress is not None:
            progress(done, total)
    faults = [*scan.faults, *(fault for result in looked for fault in result.faults), *_twins(looked)]
    faults += set_faults([result.compared for result in looked if result.compared is not None])
    faults.sort(key=lambda fault: str(fault.path))
    return CheckReport(root, scan.layout, _counts(scan), tuple(faults), tuple(_notes(scan)))


def _in_threads(pairs: tuple[Pair, ...], single: list[Path]) -> Iterator[_Looked]:
    # Decoders release the interpreter's lock, so threads are enough.
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        jobs = [pool.submit(_look_at_pair, pair) for pair in pairs]
        jobs += [pool.submit(_look_at_file, path) for path in single]
        for job in as_completed(jobs):
            yield job.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look_at_pair(pair: Pair) -> _Looked:
    try:
        he, ihc = pair.load()
        he_mpp = stated_mpp(pair.he_path)
        ihc_mpp = he_mpp if pair.side_by_side else stated_mpp(pair.ihc_path)
    except RestainError as fault:
        # Both files can be at fault, and load stops at the first; if neither is, their sizes are.
        both = dict.fromkeys((pair.he_path, pair.ihc_path))
        alone = tuple(found for path in both for found in _look_at_file(path).faults)
        return _Looked(alone or (Fault(pair.he_path, str(fault)),))
    compared = Compared(pair, compare_sides(he, ihc), he_mpp, ihc_mpp)
    return _Looked((), compared, hashlib.blake2b(repr(he.shape).encode() + he.tobytes(), digest_size=16).digest())


def _look_at_file(path: Path) -> _Looked:
    try:
        read_image(path)
    except RestainError as fault:
        return _Looked((Fault(path, str(fault)),))
    return _Looked(())


def _twins(looked: list[_Looked]) -> Iterator[Fault]:
    pairs = [(result.he_digest, result.compared.pair) for result in looked if result.compared is not None]
    first: dict[bytes, Pair] = {}
    for digest, pair in sorted(pairs, key=lambda item: (SPLITS.index(item[1].split), item[1].name)):
        seen = first.setdefault(digest, pair)
        if seen.split != pair.split:
            sentence = f"{pair.he_path} ({pair.split}) is the same image as {seen.he_path} ({seen.split})."
            yield Fault(pair.he_path, sentence)


def _counts(scan: Scan) -> dict[Split, dict[str, int]]:
    levels: tuple[Her2Level | None, ...] = (*Her2Level, None)
    counts: dict[Split, dict[str, int]] = {}
    for split in SPLITS:
        members = [pair for pair in scan.pairs if pair.split == split]
        per_level = {
            NO_LEVEL if level is None else level.text: sum(pair.level is level for pair in members) for level in levels
        }
        if members:
            counts[split] = {text: count for text, count in per_level.items() if count}
    return counts


def _notes(scan: Scan) -> Iterator[str]:
    slides = {
        split: {pair.slide for pair in scan.pairs if pair.split == split and pair.slide is not None} for split in SPLITS
    }
    shared = slides["test"] & (slides["train"] | slides["val"])
    if shared:
        yield (
            f"{len(shared)} of {len(slides['test'])} test slides also have patches for training "
            f"(for example {min(shared)}), so the test part is not unseen tissue."
        )
