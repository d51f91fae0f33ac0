"""Consistency of a data set: swapped, identical and rotated partners, and scales that differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from restain.data.compare import ORIENTATIONS, STAINS_APART, Comparison, halves_of_one, stain_difference
from restain.data.pairs import Fault, Pair
from restain.errors import RestainError
from restain.geometry import Size, same_mpp
from restain.slides import open_slide

CLEAR_FIT = 0.35
CLEAR_MARGIN = 0.2
"""A single pair counts as rotated if its correlation in another orientation is above the first, and above that of the pair as it is by
the second. Different tissue stays below the first; right pairs of serial sections have a margin below 0.03."""
SET_MARGIN = 0.03
SET_CERTAINTY = 2.0
SET_PAIRS = 3
"""The same for a set: least mean margin in one orientation, in how many standard errors it must be above 0, and least pairs."""
SAMPLE = 5
"""Pairs that are compared before a training or an evaluation."""

SWAP = "exchange the folders, or read the data with data.swap=true (in a recipe) or --swap"
JOINED = "the halves are one picture that continues across the middle, not H&E and IHC side by side"
NO_SWAP = "read the data without data.swap (in a recipe) or --swap"


@dataclass(frozen=True, slots=True)
class Header:
    """Size of a picture, and the micrometres per pixel that it states; None if it states none."""

    size: Size
    mpp: float | None


def read_header(path: Path) -> Header:
    """The header of a picture, read once as long as the file does not change.

    Raises:
        RestainError: if the file cannot be read.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read_header(path, changed)


@lru_cache(maxsize=1 << 17)
def _read_header(path: Path, changed: int) -> Header:
    with open_slide(path, header_only=True) as slide:
        return Header(slide.size, slide.mpp if slide.has_mpp else None)


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """A pair, its comparison (None if its pictures are too small), and the stated mpp of both files."""

    pair: Pair
    comparison: Comparison | None
    he_mpp: float | None
    ihc_mpp: float | None


def set_faults(pairs: Sequence[ComparedPair]) -> Iterator[Fault]:
    """One fault per kind, which names the first pair by name and the number of pairs."""
    pairs = sorted(pairs, key=lambda one: (one.pair.name, one.pair.split))
    found = [(one.pair, one.comparison) for one in pairs if one.comparison is not None]
    if joined := [pair for pair, comparison in found if comparison.joined and pair.side_by_side]:
        path = joined[0].he_path
        yield Fault(path, f"{path}: {JOINED} ({_share(len(joined), len(pairs))}).")
    found = [(pair, comparison) for pair, comparison in found if not (comparison.joined and pair.side_by_side)]
    if same := [pair for pair, comparison in found if comparison.same]:
        path = same[0].he_path
        what = f"{path}: its two halves" if same[0].side_by_side else f"{path} and its partner {same[0].ihc_path}"
        yield Fault(path, f"{what} are the same picture ({_share(len(same), len(pairs))}); one of them must be IHC.")
    found = [(pair, comparison) for pair, comparison in found if not comparison.same]
    yield from _swapped(found)
    # Pictures of one stain may be of different places.
    yield from _rotated([one for one in found if abs(one[1].stains) >= STAINS_APART])
    yield from _scales(pairs)


def require_scale(pairs: Iterable[Pair], mpp: float, remedy: str) -> None:
    """Check that no file states another scale than ``mpp``; files that state none pass.

    Args:
        pairs: headers of both files of each are read.
        mpp: expected micrometres per pixel.
        remedy: the option that takes the other value, for the message: ``--set mpp=``.

    Raises:
        RestainError: naming the first file that states another one, and both values.
    """
    for pair in pairs:
        for path in dict.fromkeys((pair.he_path, pair.ihc_path)):
            stated = read_header(path).mpp
            if stated is not None and not same_mpp(stated, mpp):
                raise RestainError(
                    f"{path} states {stated:.4g} µm per px, but {mpp:.4g} was expected; "
                    f"resample the images, or give {remedy}{stated:.4g}."
                )


def require_sides(pairs: Sequence[Pair]) -> None:
    """Check on a few pairs that H&E and IHC are not swapped and that side-by-side pictures have two sides.

    Raises:
        RestainError: if most of the checked pairs are at fault, or one of them cannot be read.
    """
    sample = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, SAMPLE).astype(int))] if pairs else []
    loaded = [(pair, *pair.load()) for pair in sample]
    joined = [pair for pair, he, ihc in loaded if pair.side_by_side and halves_of_one(he, ihc)]
    if len(joined) > len(loaded) / 2:
        raise RestainError(f"{joined[0].he_path}: {JOINED}.")
    swapped = [pair for pair, he, ihc in loaded if (stain_difference(he, ihc) or 0.0) < -STAINS_APART]
    if len(swapped) > len(loaded) / 2:
        raise RestainError(_swapped_sentence(swapped[0], len(swapped), len(loaded)))


def _share(count: int, total: int) -> str:
    return f"{count} of {total} pair{'' if total == 1 else 's'}"


def _swapped(found: Sequence[tuple[Pair, Comparison]]) -> Iterator[Fault]:
    if not found:
        return
    stains = np.array([comparison.stains for _, comparison in found])
    if swapped := [pair for (pair, _), value in zip(found, stains, strict=True) if value < -STAINS_APART]:
        yield Fault(swapped[0].he_path, _swapped_sentence(swapped[0], len(swapped), len(found)))
    elif np.median(stains) < STAINS_APART:
        path = found[int(np.argsort(stains)[len(stains) // 2])][0].he_path
        yield Fault(path, f"{path}: the H&E side and the IHC side are of one stain ({len(found)} pairs were compared).")


def _swapped_sentence(example: Pair, count: int, total: int) -> str:
    remedy = "exchange the sides of these"
    if count > total / 2:
        remedy = NO_SWAP if example.swapped else SWAP
    return f"{example.he_path}: the H&E side looks more like DAB than the IHC side ({_share(count, total)}); {remedy}."


def _rotated(found: Sequence[tuple[Pair, Comparison]]) -> Iterator[Fault]:
    if not found:
        return
    count = len(found)
    fits = np.stack([comparison.fit for _, comparison in found])
    margins = fits - fits[:, :1]
    best = fits[:, 1:].argmax(axis=1) + 1
    each = np.arange(count)
    clear = np.flatnonzero((fits[each, best] > CLEAR_FIT) & (margins[each, best] > CLEAR_MARGIN))
    mean = margins.mean(axis=0)
    common = int(mean[1:].argmax()) + 1
    error = float(margins[:, common].std()) / math.sqrt(count - 1) if count > 1 else math.inf
    if count >= SET_PAIRS and mean[common] > max(SET_MARGIN, SET_CERTAINTY * error):
        path = found[int(margins[:, common].argmax())][0].he_path
        what = f"the IHC fits the H&E better when {ORIENTATIONS[common]} (mean of {count} pairs)"
    elif len(clear):
        path = found[clear[0]][0].he_path
        what = f"its partner fits it better when {ORIENTATIONS[best[clear[0]]]}"
        what += f" ({_share(len(clear), count)} in this or another orientation)"
    else:
        return
    yield Fault(path, f"{path}: {what}; bring the partners into one orientation.")


def _scales(pairs: Sequence[ComparedPair]) -> Iterator[Fault]:
    if apart := [one for one in pairs if one.he_mpp and one.ihc_mpp and not same_mpp(one.he_mpp, one.ihc_mpp)]:
        one, path = apart[0], apart[0].pair.he_path
        files = f"{path} states {one.he_mpp:.4g} µm per px but its partner {one.pair.ihc_path} {one.ihc_mpp:.4g}"
        yield Fault(path, f"{files} ({_share(len(apart), len(pairs))}); resample one of them.")
        return
    sides = (side for one in pairs for side in ((one.pair.he_path, one.he_mpp), (one.pair.ihc_path, one.ihc_mpp)))
    stated = [(path, mpp) for path, mpp in sides if mpp is not None]
    if not stated:
        return
    # The value that most files state; a median could lie between two scales.
    usual = max((mpp for _, mpp in stated), key=lambda mpp: sum(same_mpp(mpp, other) for _, other in stated[:1000]))
    if odd := [(path, mpp) for path, mpp in stated if not same_mpp(mpp, usual)]:
        example = next(path for path, mpp in stated if mpp == usual)
        path, mpp = odd[0]
        what = f"{path} states {mpp:.4g} µm per px but {example} of the same set {usual:.4g}"
        yield Fault(path, f"{what} ({len(odd)} of {len(stated)} files differ); resample them to one scale.")
