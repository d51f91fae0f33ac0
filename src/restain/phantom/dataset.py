"""A phantom data set on disk: BCI's layout, with the truth beside it.

``OUT/{HE,IHC}/{train,test}/NNNNN_{train,test}_{0,1+,2+,3+}.png`` are the pairs. ``OUT/truth/{train,test}/*.tif`` are the
true DAB densities (:mod:`restain.phantom.truth`), ``OUT/truth/cells.csv`` all cells. ``OUT/phantom.json`` holds the
parameters and how each pair was made. A pair depends on the parameters, the seed and its index alone. Its truth file is
written last, so that a pair is complete when its truth file exists, and an interrupted run resumes.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from restain._version import __version__
from restain.errors import RestainError
from restain.files import file_digest, make_folder, read_bytes, whole_file, write_csv, write_json
from restain.her2 import Her2Level
from restain.phantom.expression import read_expression
from restain.phantom.from_he import find_images
from restain.phantom.pair import PhantomPair, make_pair, pair_from_image
from restain.phantom.truth import NOTE, read_record, truth_file
from restain.progress import Progress
from restain.slides import open_slide
from restain.slides.find import split_number

LEAST_FIELD_UM = 45.0
"""Least side of a pair, in µm, that holds enough cells to have a level."""
CELL_COLUMNS = ("name", "x_px", "y_px", "cell_class", "her2_score", "membrane_completeness", "membrane_dab_od")


@dataclass(frozen=True)
class PhantomSummary:
    """Result of :func:`write_phantom`.

    ``written`` of the ``pairs`` are new and ``kept`` existed; ``cells`` counts the rows of the truth table; ``levels``
    counts pairs per split and level text, e.g. ``{"train": {"0": 2}}``.
    """

    out: Path
    pairs: int
    written: int
    kept: int
    cells: int
    levels: dict[str, dict[str, int]]

    def describe(self) -> str:
        """One line for the command line."""
        splits = "; ".join(
            f"{split}: " + ", ".join(f"{level} x {count}" for level, count in sorted(counts.items()))
            for split, counts in self.levels.items()
        )
        return f"{self.out}: {self.pairs} synthetic pairs ({self.written} new), {self.cells} cells; {splits}"


@dataclass(frozen=True)
class _Job:
    """A pair to write: ``make`` makes it, at ``mpp``."""

    out: Path
    split: str
    number: int
    mpp: float
    make: Callable[[], PhantomPair]

    @property
    def stem(self) -> str:
        return f"{self.number:05d}_{self.split}"

    def file(self, part: str, level: Her2Level) -> Path:
        """Path of the pair's file in ``HE``, ``IHC`` or ``truth``."""
        suffix = "tif" if part == "truth" else "png"
        return self.out / part / self.split / f"{self.stem}_{level.text}.{suffix}"

    def truth(self) -> Path | None:
        """The truth file of this pair if the pair is complete."""
        for level in Her2Level:
            if all(self.file(part, level).is_file() for part in ("truth", "HE", "IHC")):
                return self.file("truth", level)
        return None

    def write(self) -> None:
        """Make the pair and write its images, then its truth."""
        pair = self.make()
        for part, image in (("HE", pair.he), ("IHC", pair.ihc)):
            with whole_file(self.file(part, pair.level)) as partial:
                Image.fromarray(image).save(partial, "PNG", compress_level=1)
        path = self.file("truth", pair.level)
        with whole_file(path) as partial:
            partial.write_bytes(truth_file(path.stem, self.mpp, pair))


@dataclass(frozen=True)
class PhantomSettings:
    """Everything that decides the pixels of a phantom data set."""

    pairs: int
    size: int = 512
    """Height and width of the images in px."""
    levels: Sequence[Her2Level] = tuple(Her2Level)
    """Taken in turn within each split."""
    seed: int = 0
    mpp: float = 0.46
    test_share: float = 0.2
    """Share of pairs in the test split, in [0, 1]. With ``from_he`` the splits take different images."""
    misalign_um: float = 0.0
    """RMS of the elastic field that moves each IHC (and its truth), in µm; 0 is exact alignment."""
    from_he: Sequence[Path] = ()
    """H&E images, or folders of them, to keep as the H&E side; their cells decide the level."""
    from_he_mpp: float | None = None
    """mpp of the H&E images that state none; None for ``mpp``."""
    spots: Sequence[Path] = ()
    """For each of these images mRNA counts of spots (:func:`restain.data.read_spots`), which then decide the HER2 score of
    its cells."""
    scanned_at: float | None = None
    """The mpp at which pairs are rendered and compressed before they are averaged to ``mpp``."""

    def check(self) -> None:
        """Raise RestainError for a setting that is out of range, or an image that cannot be used."""
        size, mpp, scanned_at = self.size, self.mpp, self.scanned_at
        he_mpp = mpp if self.from_he_mpp is None else self.from_he_mpp
        fits = size * mpp >= LEAST_FIELD_UM and size <= 8192
        scans = scanned_at is None or (not self.from_he and 0.05 <= scanned_at <= mpp)
        mpp_range = "must lie between 0.05 and 4 µm per px, not at"
        for right, sentence in (
            (self.pairs >= 1, f"A phantom needs at least one pair, not {self.pairs}."),
            (0.05 <= mpp <= 4, f"The phantom's mpp {mpp_range} {mpp}."),
            (0.05 <= he_mpp <= 4, f"The mpp of the H&E images {mpp_range} {he_mpp}."),
            (fits, f"Images must be {LEAST_FIELD_UM:.0f} µm to 8192 px wide, not {size} px at {mpp} µm/px."),
            (self.levels, "A phantom needs at least one HER2 level."),
            (self.seed >= 0, f"A seed must be 0 or greater, not {self.seed}."),
            (0 <= self.test_share <= 1, f"The test share must lie between 0 and 1, not at {self.test_share}."),
            (
                0 <= self.misalign_um <= 200,
                f"The misalignment must lie between 0 and 200 µm, not at {self.misalign_um}.",
            ),
            (scans, f"Only grown pairs are scanned, at 0.05 to {mpp} µm per px, not at {scanned_at}."),
            (
                not self.spots or len(self.spots) == len(self.from_he),
                "Each H&E image needs its spots: "
                f"there are {len(self.from_he)} images and {len(self.spots)} tables of spots.",
            ),
            (
                not self.from_he or set(self.levels) == set(Her2Level),
                "Levels cannot be chosen for real H&E images: the cells found in them decide the level.",
            ),
        ):
            if not right:
                raise RestainError(sentence)
        tables = self._tables()
        for image in self.from_he:
            with open_slide(image, self.from_he_mpp, header_only=True) as slide:
                if image in tables:
                    read_expression(tables[image], slide.mpp if slide.has_mpp else mpp)

    def _tables(self) -> dict[Path, Path]:
        return dict(zip(self.from_he, self.spots, strict=True)) if self.spots else {}

    def parameters(self) -> dict[str, Any]:
        """The settings, ready for JSON."""
        values = {
            "restain": __version__,
            **{key: value for key, value in vars(self).items() if key != "scanned_at" or value is not None},
            "levels": [level.text for level in self.levels],
            "from_he": [{"name": p.name, "sha256": file_digest(split_number(p)[0])} for p in self.from_he],
        }
        del values["spots"]
        return values | ({"spots": [file_digest(path) for path in self.spots if path.is_file()]} if self.spots else {})

    def jobs(self, out: Path) -> Iterator[_Job]:
        """The pairs to write."""
        n_train = self.pairs - round(self.pairs * self.test_share)
        tables = self._tables()
        by_split = _split_images(self.from_he, n_train, self.pairs - n_train, self.seed)
        options: dict[str, Any] = {"size": self.size, "mpp": self.mpp, "misalign_um": self.misalign_um}
        for index in range(self.pairs):
            split, number = ("train", index) if index < n_train else ("test", index - n_train)
            make: Callable[[], PhantomPair]
            if images := by_split[split]:
                image = images[number % len(images)]
                make = functools.partial(
                    _on_image, image, self.from_he_mpp, tables.get(image), self.seed, index, **options
                )
            else:
                level = self.levels[number % len(self.levels)]
                make = functools.partial(make_pair, self.seed, index, level, scanned_at=self.scanned_at, **options)
            yield _Job(out, split, number, self.mpp, make)


def write_phantom(out: Path, *, progress: Progress | None = None, workers: int = 1, **settings: Any) -> PhantomSummary:
    """Write a phantom data set into a new or empty folder, or resume one that was begun with the same settings.

    ``settings`` are those of :class:`PhantomSettings`; ``workers`` is the number of processes, on which the pixels do not
    depend. Raises RestainError if a setting is out of range, ``out`` cannot be written or holds something else, or an
    image cannot be read or used.
    """
    given = PhantomSettings(**settings)
    given = replace(given, from_he=find_images(given.from_he))
    given.check()
    if workers < 1:
        raise RestainError(f"At least one worker is needed, not {workers}.")
    parameters, jobs = given.parameters(), list(given.jobs(out))
    _begin(out, parameters)
    todo = [job for job in jobs if job.truth() is None]
    done = len(jobs) - len(todo)
    if progress is not None and done:
        progress(done, len(jobs))
    for _ in _written(todo, workers):
        done += 1
        if progress is not None:
            progress(done, len(jobs))
    return _finish(out, jobs, len(todo), parameters)


def _split_images(images: Sequence[Path], n_train: int, n_test: int, seed: int) -> dict[str, Sequence[Path]]:
    """Images of each split; no image is in both."""
    if not (images and n_train and n_test):
        return {"train": images, "test": images}
    if len(images) == 1:
        raise RestainError(
            f"{images[0]} is the only H&E image, but train and test must not share one: "
            "give more images or set the test share to 0."
        )
    order = [images[i] for i in np.random.default_rng([seed, 9]).permutation(len(images))]
    cut = min(max(1, round(len(order) * n_test / (n_train + n_test))), len(order) - 1)
    return {"train": sorted(order[cut:]), "test": sorted(order[:cut])}


def _begin(out: Path, parameters: dict[str, Any]) -> None:
    """Make the folders, and note the parameters; refuse a folder that holds something else."""
    manifest = out / "phantom.json"
    resumed = manifest.is_file()
    if resumed:
        try:
            known = json.loads(read_bytes(manifest))
        except ValueError as error:
            raise RestainError(f"{manifest} is not readable as the description of a phantom.") from error
        if not isinstance(known, dict) or known.get("parameters") != parameters:
            raise RestainError(
                f"{out} holds a phantom made with other parameters; give another folder or the same parameters."
            )
    make_folder(out)
    if not resumed and any(out.iterdir()):
        raise RestainError(f"{out} is not empty and holds no phantom to resume; give a new folder.")
    for part in ("HE", "IHC", "truth"):
        for split in ("train", "test"):
            make_folder(out / part / split)
    if not resumed:
        write_json(manifest, {"note": NOTE, "complete": False, "parameters": parameters, "pairs": []})


def _written(jobs: list[_Job], workers: int) -> Iterator[None]:
    """Write the pairs, yielding after each."""
    if workers == 1 or len(jobs) < 2:
        yield from map(_Job.write, jobs)
        return
    # Spawned, not forked: a caller may have loaded libraries with threads, which a fork does not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        try:
            yield from pool.map(_Job.write, jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@functools.lru_cache(maxsize=4)
def _read_image(path: Path, mpp: float | None) -> tuple[NDArray[np.uint8], float | None]:
    """An image and its mpp: its own, or ``mpp`` where it states none."""
    with open_slide(path, mpp) as slide:
        return slide.read_all(), slide.mpp if slide.has_mpp else None


def _on_image(
    path: Path, stated_mpp: float | None, spots: Path | None, seed: int, index: int, **options: Any
) -> PhantomPair:
    image, mpp = _read_image(path, stated_mpp)
    expression = None if spots is None else read_expression(spots, mpp or options["mpp"])
    return pair_from_image(image, str(path), seed, index, image_mpp=mpp, expression=expression, **options)


def _finish(out: Path, jobs: list[_Job], written: int, parameters: dict[str, Any]) -> PhantomSummary:
    """Gather the pairs' records into the truth table and the description of the data set."""
    cells: list[list[Any]] = []
    entries, levels = [], {"train": Counter[str](), "test": Counter[str]()}
    for job in jobs:
        truth = job.truth()
        if truth is None:
            raise RestainError(f"{out} lost pair {job.stem} while it was being written.")
        record = read_record(truth)
        cells += ([record["name"], *row] for row in record.pop("cells"))
        levels[job.split][record["level"]] += 1
        entries.append({k: v for k, v in record.items() if k not in ("unit", "od_per_count", "note", "mpp")})
    write_csv(out / "truth" / "cells.csv", CELL_COLUMNS, cells)
    write_json(out / "phantom.json", {"note": NOTE, "complete": True, "parameters": parameters, "pairs": entries})
    counts = {split: dict(sorted(found.items())) for split, found in levels.items()}
    return PhantomSummary(out, len(jobs), written, len(jobs) - written, len(cells), counts)
