"""What the comparisons of a set's pairs say of the set: exchanged, equal and turned partners, and scales that differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restain.data.compare import ORIENTATIONS, STAINS_APART, Comparison, halves_of_one, stain_difference
from restain.data.pairs import Fault, Pair
from restain.errors import RestainError
from restain.geometry import same_mpp

CLEAR_FIT = 0.35
CLEAR_MARGIN = 0.2
"""Correlation in another orientation, and by how much it is above that of the pair as it lies, from which on one pair alone is
called turned. Pictures of different tissue stay below the first; right pairs of serial sections have a margin below 0.03."""
SET_MARGIN = 0.03
SET_CERTAINTY = 2.0
SET_PAIRS = 3
"""The same for a set: the mean margin in one orientation, in how many standard errors it must be above 0, and least pairs."""

SAMPLE = 5
"""Pairs that are looked at before a training or an evaluation."""

SWAP = "exchange the folders, or read the data with data.swap=true (in a recipe) or --swap"
JOINED = "the halves are one picture that goes on over the middle, not H&E and IHC side by side"
NO_SWAP = "read the data without data.swap (in a recipe) or --swap"


@dataclass(frozen=True, slots=True)
class Compared:
    """A pair, its comparison (None where its pictures are too small) and the µm per px that its files state."""

    pair: Pair
    comparison: Comparison | None
    he_mpp: float | None
    ihc_mpp: float | None


def set_faults(seen: Sequence[Compared]) -> Iterator[Fault]:
    """One fault per kind that is met, naming the first pair by name and how many there are."""
    seen = sorted(seen, key=lambda one: (one.pair.name, one.pair.split))
    told = [(one.pair, one.comparison) for one in seen if one.comparison is not None]
    joined = [pair for pair, found in told if pair.side_by_side and found.joined]
    if joined:
        path = joined[0].he_path
        yield Fault(path, f"{path}: {JOINED} ({_of(len(joined), len(seen))}).")
    told = [(pair, found) for pair, found in told if not (pair.side_by_side and found.joined)]
    same = [pair for pair, found in told if found.same]
    if same:
        path = same[0].he_path
        what = "its two halves" if same[0].side_by_side else f"{path} and its partner {same[0].ihc_path}"
        where = f"{path}: " if same[0].side_by_side else ""
        yield Fault(path, f"{where}{what} are the same picture ({_of(len(same), len(seen))}); one of them must be IHC.")
    told = [(pair, found) for pair, found in told if not found.same]
    yield from _exchanged(told)
    # Of pictures of one stain, nobody knows what they are; they need not be of one place.
    yield from _turned([(pair, found) for pair, found in told if abs(found.stains) >= STAINS_APART])
    yield from _scales(seen)


def _of(count: int, total: int) -> str:
    return f"{count} of {total} pair{'' if total == 1 else 's'}"


def _exchanged(told: Sequence[tuple[Pair, Comparison]]) -> Iterator[Fault]:
    if not told:
        return
    stains = np.array([found.stains for _, found in told])
    exchanged = [pair for (pair, _), value in zip(told, stains, strict=True) if value < -STAINS_APART]
    if exchanged:
        yield Fault(exchanged[0].he_path, _swapped(exchanged[0], len(exchanged), len(told)))
    elif np.median(stains) < STAINS_APART:
        pair = told[int(np.argsort(stains)[len(stains) // 2])][0]
        sentence = f"{pair.he_path}: the H&E side and the IHC side are of one stain ({len(told)} pairs were compared)."
        yield Fault(pair.he_path, sentence)


def _swapped(example: Pair, count: int, total: int) -> str:
    swap = NO_SWAP if example.swapped else SWAP
    how = swap if count > total / 2 else "exchange the sides of these"
    return f"{example.he_path}: the H&E side looks more like DAB than the IHC side ({_of(count, total)}); {how}."


def _turned(told: Sequence[tuple[Pair, Comparison]]) -> Iterator[Fault]:
    if not told:
        return
    fits = np.stack([found.fit for _, found in told])
    margins = fits - fits[:, :1]
    best = fits[:, 1:].argmax(axis=1) + 1
    each = np.arange(len(told))
    clear = np.flatnonzero((fits[each, best] > CLEAR_FIT) & (margins[each, best] > CLEAR_MARGIN))
    mean = margins.mean(axis=0)
    which = int(mean[1:].argmax()) + 1
    error = float(margins[:, which].std()) / math.sqrt(len(told) - 1) if len(told) > 1 else math.inf
    if len(told) >= SET_PAIRS and mean[which] > max(SET_MARGIN, SET_CERTAINTY * error):
        path = told[int(margins[:, which].argmax())][0].he_path
        sentence = (
            f"the IHC fits the H&E better when {ORIENTATIONS[which]} ({_of(len(told), len(told))} taken together)"
        )
        yield Fault(path, f"{path}: {sentence}; bring the partners into one orientation.")
    elif len(clear):
        pair, turn = told[clear[0]][0], ORIENTATIONS[best[clear[0]]]
        sentence = (
            f"{pair.he_path}: its partner fits it better when {turn} ({_of(len(clear), len(told))} so or otherwise)"
        )
        yield Fault(pair.he_path, f"{sentence}; bring the partners into one orientation.")


def _scales(seen: Sequence[Compared]) -> Iterator[Fault]:
    apart = [one for one in seen if one.he_mpp and one.ihc_mpp and not same_mpp(one.he_mpp, one.ihc_mpp)]
    if apart:
        one = apart[0]
        files = f"{one.pair.he_path} states {one.he_mpp:.4g} µm per px but its partner {one.pair.ihc_path} {one.ihc_mpp:.4g}"
        yield Fault(one.pair.he_path, f"{files} ({_of(len(apart), len(seen))}); resample one of them.")
        return
    stated: list[tuple[Path, float]] = [
        (path, mpp)
        for one in seen
        for path, mpp in ((one.pair.he_path, one.he_mpp), (one.pair.ihc_path, one.ihc_mpp))
        if mpp is not None
    ]
    if not stated:
        return
    # The value that most files state; a median could lie between two scales.
    usual = max((mpp for _, mpp in stated), key=lambda mpp: sum(same_mpp(mpp, other) for _, other in stated[:1000]))
    example = next(path for path, mpp in stated if mpp == usual)
    odd = [(path, mpp) for path, mpp in stated if not same_mpp(mpp, usual)]
    if odd:
        path, mpp = odd[0]
        sentence = f"{path} states {mpp:.4g} µm per px but {example} of the same set {usual:.4g}"
        yield Fault(path, f"{sentence} ({len(odd)} of {len(stated)} files differ so); resample them to one scale.")


def require_sides(pairs: Sequence[Pair]) -> None:
    """See on a few pairs that H&E and IHC are not exchanged and that halves of one picture are not taken for a pair.

    Raises:
        RestainError: if most of the pairs that are looked at are so, or one of them cannot be read.
    """
    chosen = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, SAMPLE).astype(int))] if pairs else []
    seen = [(pair, *pair.load()) for pair in chosen]
    joined = [pair for pair, he, ihc in seen if pair.side_by_side and halves_of_one(he, ihc)]
    if len(joined) > len(seen) / 2:
        raise RestainError(f"{joined[0].he_path}: {JOINED}.")
    exchanged = [
        p for p, he, ihc in seen if (stains := stain_difference(he, ihc)) is not None and stains < -STAINS_APART
    ]
    if len(exchanged) > len(seen) / 2:
        raise RestainError(_swapped(exchanged[0], len(exchanged), len(seen)))
