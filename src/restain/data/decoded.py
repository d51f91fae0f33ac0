"""Decoded training pairs: in memory where they are small, else in files that all processes of a training map.

A crop needs a fraction of a picture, but a PNG or JPEG is decoded as a whole. Decoding a pair of 1024 px takes some 15
times longer than cutting and augmenting a crop of 256 px.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from restain.data.consistency import read_header
from restain.data.normalization import Normalize, unchanged
from restain.data.pairs import Pair
from restain.errors import RestainError
from restain.files import digest, file_state, make_folder, whole_file
from restain.images import Rgb
from restain.optics import glass_white
from restain.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class DecodedPair:
    """A pair's pixels, mapped or in memory."""

    he: Rgb
    """``(H, W, 3)``, normalised if training normalises."""
    ihc: Rgb
    """``(H, W, 3)``."""
    white: NDArray[np.float32]
    """``(3,)`` intensity of the IHC image's glass in [0, 1] (:func:`restain.optics.glass_white`)."""


def decode(pair: Pair, normalize: Normalize = unchanged) -> DecodedPair:
    """Read both pictures.

    Raises:
        RestainError: as :meth:`Pair.load`.
    """
    he, ihc = pair.load()
    return DecodedPair(normalize(he), ihc, glass_white(ihc[::4, ::4]) / np.float32(255))


def decoded_bytes(pair: Pair) -> int:
    """Bytes of a pair's decoded pixels, from its header; for side-by-side pictures the same."""
    size = read_header(pair.he_path).size
    return size.width * size.height * 3 * (1 if pair.side_by_side else 2)


class DecodedInMemory:
    """Pairs that are decoded at their first use and kept by each process."""

    def __init__(self, pairs: Sequence[Pair], normalize: Normalize = unchanged) -> None:
        self.pairs, self.normalize = pairs, normalize
        self._kept: dict[int, DecodedPair] = {}

    def __getitem__(self, index: int) -> DecodedPair:
        if index not in self._kept:
            self._kept[index] = decode(self.pairs[index], self.normalize)
        return self._kept[index]


class PairStore:
    """A folder with one file of pixels per pair, which loader workers and processes share through the page cache.

    A pair is mapped while a crop is cut from it, so a process holds none of the pixels for long. Files are written whole
    or not at all, so several processes may fill one folder, and a killed one leaves finished files. Each file states size
    and time of its two sources and is written anew when they change.

    Args:
        folder: where the files lie; made by :meth:`fill`. Trainings on the same pictures can share it.
        pairs: the pairs, by their index.
        normalize: applied to each whole H&E picture before it is stored.
        variant: facts that decide what ``normalize`` does, as JSON can hold them.
    """

    def __init__(
        self, folder: Path, pairs: Sequence[Pair], normalize: Normalize = unchanged, variant: object = None
    ) -> None:
        self.folder, self.pairs, self.normalize = folder, pairs, normalize
        self._paths = [folder / f"{_key(pair, variant)}.npy" for pair in pairs]

    def __getitem__(self, index: int) -> DecodedPair:
        path = self._paths[index]
        try:
            (record,) = np.load(path, mmap_mode="r")
            return DecodedPair(record["he"], record["ihc"], np.array(record["white"]))
        except (OSError, ValueError, IndexError):
            raise RestainError(f"{path}: the decoded pair is missing or damaged; re-run the same command.") from None

    def missing(self) -> list[int]:
        """Indices of pairs that have no file, or one of other sources."""
        return [i for i, pair in enumerate(self.pairs) if _stored_state(self._paths[i]) != _state(pair)]

    def require_space(self, missing: Sequence[int]) -> None:
        """Check that these pairs fit on the disk.

        Raises:
            RestainError: naming the folder, what is needed and what is free.
        """
        needed = sum(decoded_bytes(self.pairs[index]) for index in missing)
        free = shutil.disk_usage(make_folder(self.folder)).free
        if needed > free:
            raise RestainError(
                f"{self.folder}: the decoded pairs need {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB "
                "free; give a folder on a larger disk (--store)."
            )

    def fill(self, progress: Progress | None = None, *, part: int = 0, parts: int = 1) -> None:
        """Decode the pairs that are missing, in threads.

        Args:
            progress: called with pairs done and in all.
            part: number of this node, where ``parts`` nodes fill the folder at the same time: each begins elsewhere, and
                skips what another has written by then.
            parts: number of nodes.

        Raises:
            RestainError: if the disk is too small or cannot be written, or a picture cannot be read.
        """
        missing = self.missing()
        self.require_space(missing)
        start = len(missing) * part // parts
        done = len(self.pairs) - len(missing)
        for _ in in_threads(self._store, missing[start:] + missing[:start]):
            done += 1
            if progress is not None:
                progress(done, len(self.pairs))

    def _store(self, index: int) -> None:
        path, pair = self._paths[index], self.pairs[index]
        state = _state(pair)
        if _stored_state(path) == state:
            return
        found = decode(pair, self.normalize)
        fields = [
            ("state", "<i8", 4),
            ("white", "<f4", 3),
            ("he", "u1", found.he.shape),
            ("ihc", "u1", found.ihc.shape),
        ]
        record = np.zeros(1, np.dtype(fields))
        record["state"], record["white"], record["he"], record["ihc"] = state, found.white, found.he, found.ihc
        with whole_file(path) as partial, partial.open("wb") as file:
            np.save(file, record)


def _key(pair: Pair, variant: object) -> str:
    paths = [str(path.resolve()) for path in (pair.he_path, pair.ihc_path)]
    return f"{pair.he_path.stem}-{digest([paths, pair.side_by_side, pair.swapped, variant])[:16]}"


def _state(pair: Pair) -> list[int]:
    return [fact for path in (pair.he_path, pair.ihc_path) for fact in file_state(path)[1:]]


def _stored_state(path: Path) -> list[int] | None:
    try:
        return [int(fact) for fact in np.load(path, mmap_mode="r")["state"][0]]
    except (OSError, ValueError, IndexError):
        return None


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The results of ``work`` on pairs or pictures, in the order in which they are done."""
    # Decoders release the interpreter's lock, so threads are enough. Few, since each holds a whole pair.
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        for job in as_completed([pool.submit(work, item) for item in items]):
            yield job.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
