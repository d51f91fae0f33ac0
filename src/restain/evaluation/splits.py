"""Which pairs are scored, and which may be learnt from beside them."""

from __future__ import annotations

from collections.abc import Sequence

from restain.data import Pair, PairSet
from restain.data.layouts import SPLITS
from restain.errors import RestainError


def scored_pairs(pairs: PairSet, split: str) -> tuple[Pair, ...]:
    """The pairs of a split.

    Raises:
        RestainError: if there are none, naming the splits that there are.
    """
    by_split = {name: pairs.split(name) for name in SPLITS}
    scored = {str(name): found for name, found in by_split.items()}.get(split, ())
    if not scored:
        there = [f"{name} ({len(found)})" for name, found in by_split.items() if found]
        roots = ", ".join(map(str, pairs.roots))
        raise RestainError(f"{roots} has no pairs in the split '{split}'; it has {' and '.join(there) or 'none'}.")
    return scored


def unseen_training(source: PairSet, scored: Sequence[Pair]) -> list[Pair]:
    """Training pairs of ``source``, none of them nor of their slides scored."""
    seen = {path.resolve() for pair in scored for path in (pair.he_path, pair.ihc_path)}
    slides = {pair.slide for pair in scored if pair.slide is not None}
    return [
        pair
        for pair in source.split("train")
        if not seen & {pair.he_path.resolve(), pair.ihc_path.resolve()} and pair.slide not in slides
    ]
