"""Pairs that are scored, with the splits that the model was trained with, and what may be learnt from beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from restain.data import Pair, PairSet, open_pairs, require_scale, require_sides
from restain.data.layouts import SPLITS
from restain.errors import RestainError
from restain.evaluation.her2_classifier import Her2Classifier, load_her2_classifier
from restain.recipe import Recipe
from restain.stain import Model, load

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A model with the pairs that it is tested on."""

    model: Model
    pairs: Sequence[Pair]
    mpp: float
    """Micrometres per pixel of the pairs."""
    training: Sequence[Pair] = ()
    """Training pairs; none of them, nor of their slides, is among ``pairs``."""
    classifier: Her2Classifier | None = None
    classifier_note: str = ""
    """Why there is no classifier."""

    @classmethod
    def open(
        cls,
        data: Paths,
        *,
        model: str | Path | None = None,
        split: str = "test",
        fit_on: Paths = (),
        classifier: Path | None = None,
        mpp: float | None = None,
        swap: bool = False,
    ) -> HeldOut:
        """Open a bundle and one split of folders of pairs; arguments as :func:`restain.evaluation.evaluate`.

        Raises:
            RestainError: if data, bundle or classifier cannot be opened, or the split is empty.
        """
        loaded = load(model)
        recipe = loaded.bundle.recipe
        pairs = open_as_trained(data, recipe, swap=swap)
        scored = scored_pairs(pairs, split)
        require_data(scored, mpp or recipe.mpp)
        source = open_pairs(as_paths(fit_on), val_share=0, swap=swap) if fit_on else pairs
        found, note = None, ""
        try:
            found = load_her2_classifier(classifier)
        except RestainError as fault:
            if classifier is not None:
                raise
            note = str(fault)
        return cls(loaded, scored, mpp or recipe.mpp, unseen_training(source, scored), found, note)

    def first(self, images: int) -> list[Pair]:
        """The first ``images`` pairs by name.

        Raises:
            RestainError: if there are none.
        """
        chosen = sorted(self.pairs, key=lambda pair: pair.name)[:images]
        if not chosen:
            raise RestainError("There are no pairs to evaluate on.")
        return chosen

    @property
    def classifier_label(self) -> str:
        """The HER2 classifier's label, or why it is absent."""
        return self.classifier.label if self.classifier is not None else f"absent: {self.classifier_note}"


def as_paths(data: Paths) -> list[Path]:
    """One path or several as a list."""
    return [Path(data)] if isinstance(data, str | Path) else [Path(one) for one in data]


def open_as_trained(data: Paths, recipe: Recipe, *, swap: bool = False) -> PairSet:
    """Open folders of pairs with the splits that a training by ``recipe`` made of them; ``swap`` exchanges their sides.

    Raises:
        RestainError: if a folder is of no known layout.
    """
    paths = as_paths(data)
    names = [pair.name for pair in open_pairs(paths, val_share=0, swap=swap).pairs]

    def used(pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names)

    patterns = [pattern for pattern in recipe.data.holdout if used(pattern)]
    slides = [slide for slide in recipe.data.same_slide if any(map(used, slide))]
    pairs = open_pairs(paths, val_share=0, holdout=patterns, same_slide=slides, swap=swap)
    if pairs.split("val") or len(pairs.split("train")) < 2 or recipe.data.val_share == 0:
        return pairs
    return pairs.with_validation(recipe.data.val_share, recipe.seed)


def require_data(pairs: Sequence[Pair], mpp: float) -> None:
    """Check that pairs are at ``mpp``, as far as their files state it, and that H&E and IHC are not exchanged.

    Raises:
        RestainError: naming a file that is at fault.
    """
    require_scale(pairs, mpp, "--mpp ")
    require_sides(pairs)


def scored_pairs(pairs: PairSet, split: str) -> tuple[Pair, ...]:
    """The pairs of a split.

    Raises:
        RestainError: if there are none, naming the splits that there are.
    """
    by_split = {str(name): pairs.split(name) for name in SPLITS}
    if scored := by_split.get(split, ()):
        return scored
    there = [f"{name} ({len(found)})" for name, found in by_split.items() if found]
    roots = ", ".join(map(str, pairs.roots))
    raise RestainError(f"{roots} has no pairs in the split '{split}'; it has {' and '.join(there) or 'none'}.")


def unseen_training(source: PairSet, scored: Sequence[Pair]) -> list[Pair]:
    """Training pairs of ``source`` without those that are scored, and without their slides."""
    seen = {path.resolve() for pair in scored for path in (pair.he_path, pair.ihc_path)}
    slides = {pair.slide for pair in scored if pair.slide is not None}
    return [
        pair
        for pair in source.split("train")
        if not seen & {pair.he_path.resolve(), pair.ihc_path.resolve()} and pair.slide not in slides
    ]
