"""An evaluation from paths: what ``restain evaluate`` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from restain.bundle import load_bundle
from restain.data import PairSet, open_pairs
from restain.evaluate.features import EFFICIENTNET
from restain.evaluate.run import evaluate
from restain.evaluate.summary import EvaluationSummary
from restain.recipe import Recipe
from restain.stain import Model


def evaluate_folder(
    data: Sequence[Path],
    out: Path,
    *,
    model: Path | None = None,
    images: Path | None = None,
    split: str = "test",
    fit_on: Sequence[Path] = (),
    mpp: float | None = None,
    command: str = "",
    trivial: bool = True,
    align: bool = True,
    features: str | Path | None = EFFICIENTNET,
    lpips: str | Path | None = None,
    reader: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationSummary:
    """Score a bundle, or the pictures of any other tool, on a split of one or more folders of pairs.

    The split is the one that the bundle was trained with: its recipe's held-out names, seed and validation share are
    used again, so that what it was trained on cannot be taken for a test.

    Args:
        data: folders of pairs.
        out: folder of the results.
        model: a bundle; None for the shipped one, unless ``images`` is given.
        images: folder of virtual images named as the pairs.
        split: ``train``, ``val`` or ``test``.
        fit_on: folders whose training split the trivial answers are fitted on instead of the data's own.
        mpp: micrometres per pixel of the data; None for the model's.
        command: the command line, for the report.
        trivial, align, features, lpips, reader: as :func:`restain.evaluate.evaluate`; here FID and its kin are computed
            with ``efficientnet-lite0`` where it is installed, unless ``features`` is None.
        progress: called with images done and in all.

    Raises:
        RestainError: as :func:`restain.evaluate.evaluate`, or if data or bundle cannot be opened.
    """
    bundle = None if images is not None else load_bundle(model)
    recipe = Recipe() if bundle is None else bundle.recipe
    return evaluate(
        None if bundle is None else Model(bundle),
        open_as_trained(data, recipe),
        split,
        out,
        images=images,
        fit_on=open_pairs(fit_on, val_share=0) if fit_on else None,
        mpp=mpp or recipe.mpp,
        command=command,
        provenance=None if bundle is None else {"bundle": bundle.card.name, "bundle_hash": bundle.card.hash},
        trivial=trivial,
        align=align,
        features=features,
        lpips=lpips,
        reader=reader,
        progress=progress,
    )


def open_as_trained(data: Sequence[Path], recipe: Recipe) -> PairSet:
    """Open folders of pairs with the splits that a training by ``recipe`` made of them.

    Raises:
        RestainError: if a folder is of no known layout.
    """
    pairs = open_pairs(data, val_share=0)
    patterns = [p for p in recipe.data.holdout if any(fnmatchcase(pair.name, p) for pair in pairs.pairs)]
    slides = [s for s in recipe.data.same_slide if any(fnmatchcase(pair.name, p) for pair in pairs.pairs for p in s)]
    pairs = open_pairs(data, val_share=0, holdout=patterns, same_slide=slides)
    train = pairs.split("train")
    if pairs.split("val") or len(train) < 2 or recipe.data.val_share == 0:
        return pairs
    return pairs.with_validation(recipe.data.val_share, recipe.seed)
