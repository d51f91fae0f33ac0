"""A phantom data set on disk: BCI's layout, with the truth beside it.

``OUT/{HE,IHC}/{train,test}/NNNNN_{train,test}_{0,1+,2+,3+}.png`` are the pairs (lossless),
``OUT/truth/{train,test}/*.tif`` the true DAB densities (:mod:`restain.phantom.truth`), ``OUT/truth/cells.csv``
every cell, and ``OUT/phantom.json`` what was asked for and how each pair was made. A pair depends on the
parameters, the seed and its index alone; its truth file is written last, so that a pair is whole when its
truth file exists, and an interrupted run resumes.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from restain._version import __version__
from restain.errors import RestainError
from restain.files import make_folder, whole_file, write_json, write_text
from restain.her2 import Her2Level
from restain.phantom.from_he import find_pictures
from restain.phantom.pair import make_pair, pair_from_picture
from restain.phantom.scanned import make_scanned_pair
from restain.phantom.truth import NOTE, read_record, truth_file
from restain.slides import open_slide
from restain.slides.find import split_number

LEAST_FIELD_UM = 45.0
"""A pair shows at least this much tissue, in µm, so that it holds enough cells to have a level."""
CELL_COLUMNS = ("name", "x_px", "y_px", "cell_class", "her2_score", "membrane_completeness", "membrane_dab_od")


@dataclass(frozen=True)
class PhantomSummary:
    """What a run of :func:`write_phantom` left behind.

    ``pairs`` are there in all, of which ``written`` are new and ``kept`` were there already; ``levels``
    counts pairs per split and level text, e.g. ``{"train": {"0": 2}}``; ``cells`` counts the rows of the
    truth table.
    """

    out: Path
    pairs: int
    written: int
    kept: int
    cells: int
    levels: dict[str, dict[str, int]]

    def describe(self) -> str:
        """One line for a person: what is there, and that it is synthetic."""
        splits = "; ".join(
            f"{split}: " + ", ".join(f"{level} x {count}" for level, count in sorted(counts.items()))
            for split, counts in self.levels.items()
        )
        return f"{self.out}: {self.pairs} synthetic pairs ({self.written} new), {self.cells} cells; {splits}"


@dataclass(frozen=True)
class _Job:
    out: Path
    index: int
    split: str
    number: int
    level: Her2Level
    size: int
    mpp: float
    seed: int
    misalign_um: float
    picture: Path | None
    picture_mpp: float | None
    scanned_at: float | None

    @property
    def stem(self) -> str:
        return f"{self.number:05d}_{self.split}"

    def truth(self) -> Path | None:
        """The truth file of this pair if the pair is whole."""
        for level in Her2Level:
            name = f"{self.stem}_{level.text}"
            truth = self.out / "truth" / self.split / f"{name}.tif"
            images = [self.out / stain / self.split / f"{name}.png" for stain in ("HE", "IHC")]
            if truth.is_file() and all(image.is_file() for image in images):
                return truth
        return None


def write_phantom(
    out: Path,
    *,
    pairs: int,
    size: int = 512,
    levels: Sequence[Her2Level] = tuple(Her2Level),
    seed: int = 0,
    mpp: float = 0.46,
    test_share: float = 0.2,
    misalign_um: float = 0.0,
    from_he: Sequence[Path] = (),
    from_he_mpp: float | None = None,
    scanned_at: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> PhantomSummary:
    """Write a phantom data set, or finish one that was begun with the same parameters.

    Args:
        out: folder to write to; new, empty, or begun by the same call.
        pairs: number of pairs in all.
        size: height and width of the images in pixels.
        levels: HER2 levels, taken in turn within each split.
        seed: source of all randomness, 0 or greater.
        mpp: micrometres per pixel of the images.
        test_share: share of the pairs that goes to the test split, in [0, 1]. With ``from_he`` the two splits
            take different pictures.
        misalign_um: RMS of the elastic field that moves each IHC (and its truth), in µm; 0 is exact
            alignment.
        from_he: H&E pictures, or folders of them, to keep as the H&E side; their cells decide the level.
        from_he_mpp: micrometres per pixel of those pictures that state none; None takes them to be at ``mpp``.
        scanned_at: micrometres per pixel at which the pairs are drawn and compressed before they are averaged to ``mpp``,
            as patches of slides are; None draws them at ``mpp``.
        progress: called with (pairs done, pairs in all) after each pair.
        workers: processes; the pixels do not depend on it.

    Returns:
        A summary of the data set.

    Raises:
        RestainError: if a parameter is out of range, ``out`` cannot be written or holds something else, or a
            picture cannot be read or used.
    """
    _check(pairs, size, levels, seed, mpp, test_share, misalign_um, from_he_mpp, workers)
    if scanned_at is not None and (from_he or not 0.05 <= scanned_at <= mpp):
        raise RestainError(f"Only drawn pairs are scanned, at 0.05 to {mpp} µm per px, not at {scanned_at}.")
    pictures = find_pictures(from_he)
    for one in pictures:
        open_slide(one, from_he_mpp, header_only=True).close()
    if pictures and set(levels) != set(Her2Level):
        raise RestainError("Levels cannot be chosen for real H&E pictures: the cells found in them decide the level.")
    n_test = round(pairs * test_share)
    parameters = {
        "restain": __version__,
        "pairs": pairs,
        "size": size,
        "levels": [level.text for level in levels],
        "seed": seed,
        "mpp": mpp,
        "test_share": test_share,
        "misalign_um": misalign_um,
        "from_he": [{"name": p.name, "sha256": _sha256(split_number(p)[0])} for p in pictures],
        "from_he_mpp": from_he_mpp,
    } | ({} if scanned_at is None else {"scanned_at": scanned_at})
    by_split = _share_out(pictures, pairs - n_test, n_test, seed)
    jobs = []
    for index in range(pairs):
        split, number = ("train", index) if index < pairs - n_test else ("test", index - (pairs - n_test))
        choice = by_split[split]
        picture = choice[number % len(choice)] if choice else None
        level = levels[number % len(levels)]
        jobs.append(
            _Job(out, index, split, number, level, size, mpp, seed, misalign_um, picture, from_he_mpp, scanned_at)
        )
    _begin(out, parameters)
    todo = [job for job in jobs if job.truth() is None]
    done = len(jobs) - len(todo)
    if progress is not None and done:
        progress(done, pairs)
    try:
        for _ in _written(todo, workers):
            done += 1
            if progress is not None:
                progress(done, pairs)
        return _finish(out, jobs, len(todo), parameters)
    except OSError as error:
        raise RestainError(f"{out} cannot be written: {error.strerror or error}.") from error


def _check(
    pairs: int,
    size: int,
    levels: Sequence[Her2Level],
    seed: int,
    mpp: float,
    test_share: float,
    misalign_um: float,
    from_he_mpp: float | None,
    workers: int,
) -> None:
    """Refuse what cannot be meant, in one sentence."""
    if pairs < 1:
        raise RestainError(f"A phantom needs at least one pair, not {pairs}.")
    if not 0.05 <= mpp <= 4:
        raise RestainError(f"A phantom is drawn at 0.05 to 4 micrometres per pixel, not {mpp}.")
    if from_he_mpp is not None and not 0.05 <= from_he_mpp <= 4:
        raise RestainError(f"The H&E pictures must be at 0.05 to 4 micrometres per pixel, not {from_he_mpp}.")
    if size * mpp < LEAST_FIELD_UM or size > 8192:
        raise RestainError(
            f"Phantom images of {size} px at {mpp} µm/px are out of range: "
            f"they must show at least {LEAST_FIELD_UM:.0f} µm and be at most 8192 px wide."
        )
    if not levels:
        raise RestainError("A phantom needs at least one HER2 level.")
    if seed < 0:
        raise RestainError(f"A seed must be 0 or greater, not {seed}.")
    if not 0 <= test_share <= 1:
        raise RestainError(f"The test share must lie between 0 and 1, not at {test_share}.")
    if not 0 <= misalign_um <= 200:
        raise RestainError(f"The misalignment must lie between 0 and 200 µm, not at {misalign_um}.")
    if workers < 1:
        raise RestainError(f"At least one worker is needed, not {workers}.")


def _share_out(pictures: list[Path], n_train: int, n_test: int, seed: int) -> dict[str, list[Path]]:
    """Give each split its own pictures, so that no picture stands on both sides."""
    if not pictures:
        return {"train": [], "test": []}
    if not (n_train and n_test):
        return {"train": pictures, "test": pictures}
    if len(pictures) == 1:
        raise RestainError(
            f"{pictures[0]} is the only H&E picture, but train and test must not share one: "
            "give more pictures or set the test share to 0."
        )
    order = [pictures[i] for i in np.random.default_rng([seed, 9]).permutation(len(pictures))]
    cut = min(max(1, round(len(order) * n_test / (n_train + n_test))), len(order) - 1)
    return {"train": sorted(order[cut:]), "test": sorted(order[:cut])}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RestainError(f"{path} cannot be read: {error.strerror or error}.") from error


def _begin(out: Path, parameters: dict[str, Any]) -> None:
    """Make the folders, and note the parameters; refuse a folder that holds something else."""
    manifest = out / "phantom.json"
    try:
        if manifest.is_file():
            if _known(manifest).get("parameters") != parameters:
                raise RestainError(
                    f"{out} holds a phantom made with other parameters; give another folder or the same ones."
                )
        elif out.is_dir() and any(out.iterdir()):
            raise RestainError(f"{out} is not empty and holds no phantom to go on with; give a new folder.")
        for part in ("HE", "IHC", "truth"):
            for split in ("train", "test"):
                make_folder(out / part / split)
        if not manifest.is_file():
            head = {"note": NOTE, "complete": False, "parameters": parameters, "pairs": []}
            write_json(manifest, head)
    except OSError as error:
        raise RestainError(f"{out} cannot be written: {error.strerror or error}.") from error


def _known(manifest: Path) -> dict[str, Any]:
    try:
        known = json.loads(manifest.read_bytes())
    except ValueError as error:
        raise RestainError(f"{manifest} is not readable as the description of a phantom.") from error
    return known if isinstance(known, dict) else {}


def _written(jobs: list[_Job], workers: int) -> Iterator[None]:
    """Write the pairs, yielding after each."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            _write_pair(job)
            yield
        return
    # Spawned, not forked: a caller may have loaded libraries with threads, which a fork does not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        try:
            yield from pool.map(_write_pair, jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@functools.lru_cache(maxsize=2)
def _picture(path: Path, mpp: float | None) -> tuple[NDArray[np.uint8], float | None]:
    """A picture and its mpp: its own, or the given one where it states none."""
    with open_slide(path, mpp) as slide:
        return slide.whole(), slide.mpp if slide.has_mpp else None


def _write_pair(job: _Job) -> None:
    """Make one pair and write its images, then its truth."""
    if job.scanned_at is not None:
        pair = make_scanned_pair(
            job.seed,
            job.index,
            job.level,
            size=job.size,
            mpp=job.mpp,
            scanned_at=job.scanned_at,
            misalign_um=job.misalign_um,
        )
    elif job.picture is None:
        pair = make_pair(job.seed, job.index, job.level, size=job.size, mpp=job.mpp, misalign_um=job.misalign_um)
    else:
        picture, picture_mpp = _picture(job.picture, job.picture_mpp)
        pair = pair_from_picture(
            picture,
            str(job.picture),
            job.seed,
            job.index,
            size=job.size,
            mpp=job.mpp,
            picture_mpp=picture_mpp,
            misalign_um=job.misalign_um,
        )
    name = f"{job.stem}_{pair.level.text}"
    for stain, image in (("HE", pair.he), ("IHC", pair.ihc)):
        with whole_file(job.out / stain / job.split / f"{name}.png") as partial:
            Image.fromarray(image).save(partial, "PNG", compress_level=1)
    with whole_file(job.out / "truth" / job.split / f"{name}.tif") as partial:
        partial.write_bytes(truth_file(name, job.mpp, pair))


def _finish(out: Path, jobs: list[_Job], written: int, parameters: dict[str, Any]) -> PhantomSummary:
    """Gather the pairs' records into the truth table and the description of the data set."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(CELL_COLUMNS)
    entries, levels, cells = [], {"train": Counter[str](), "test": Counter[str]()}, 0
    for job in jobs:
        truth = job.truth()
        if truth is None:
            raise RestainError(f"{out} lost pair {job.stem} while it was being written.")
        record = read_record(truth)
        rows = record.pop("cells")
        writer.writerows([record["name"], *row] for row in rows)
        cells += len(rows)
        levels[job.split][record["level"]] += 1
        entries.append({k: v for k, v in record.items() if k not in ("unit", "od_per_count", "note", "mpp")})
    write_text(out / "truth" / "cells.csv", table.getvalue())
    whole = {"note": NOTE, "complete": True, "parameters": parameters, "pairs": entries}
    write_json(out / "phantom.json", whole)
    counts = {split: dict(sorted(found.items())) for split, found in levels.items()}
    return PhantomSummary(out, len(jobs), written, len(jobs) - written, cells, counts)


__all__ = ["PhantomSummary", "write_phantom"]
