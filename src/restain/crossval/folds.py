"""Which pairs are left out together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape

from restain.data import Pair
from restain.errors import RestainError
from restain.recipe import Recipe, parse_recipe

MIN_SLIDES = 2
"""One slide to learn from, one to be left out."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One slide to be left out."""

    slide: str
    """The slide's name, or its only pair's where slides are not known."""
    names: tuple[str, ...]
    """Names of its pairs."""

    @property
    def folder(self) -> str:
        """A folder name: the slide's, with what a file system might refuse replaced."""
        return re.sub(r"[^\w.+-]", "-", self.slide)

    def recipe(self, whole: Recipe) -> Recipe:
        """``whole`` with this slide held out."""
        values = whole.model_dump(mode="json")
        values["data"]["holdout"] = [escape(name) for name in self.names]
        return parse_recipe(values, whole.name)


def folds(pairs: Sequence[Pair]) -> tuple[Fold, ...]:
    """One fold per slide, sorted by name; a pair whose slide is not known is a slide of its own.

    Raises RestainError if there are fewer than two slides.
    """
    by_slide: dict[str, list[str]] = {}
    for pair in pairs:
        by_slide.setdefault(pair.name if pair.slide is None else pair.slide, []).append(pair.name)
    if len(by_slide) < MIN_SLIDES:
        raise RestainError(f"leaving one slide out needs at least {MIN_SLIDES} slides; the data has {len(by_slide)}.")
    return tuple(Fold(slide, tuple(sorted(names))) for slide, names in sorted(by_slide.items()))
