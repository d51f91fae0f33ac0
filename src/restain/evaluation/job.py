"""An evaluation from paths: what ``restain evaluate`` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from restain.bundle import load_bundle
from restain.data import Pair, PairSet, open_pairs, require_scale, require_sides
from restain.evaluation.features import EFFICIENTNET
from restain.evaluation.run import evaluate
from restain.evaluation.splits import scored_pairs
from restain.evaluation.summary import EvaluationSummary
from restain.files import make_folder
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
    swap: bool = False,
    command: str = "",
    baselines: bool = True,
    align: bool = True,
    features: str | Path | None = EFFICIENTNET,
    lpips: str | Path | None = None,
    classifier: Path | None = None,
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
        fit_on: folders whose training split the baselines are fitted on instead of the data's own.
        mpp: micrometres per pixel of the data; None for the model's.
        swap: the data's H&E and IHC are exchanged on reading; that of ``fit_on`` too.
        command: the command line, for the report.
        baselines, align, features, lpips, classifier: as :func:`restain.evaluation.evaluate`; here FID and its kin are computed
            with ``efficientnet-lite0`` where it is installed, unless ``features`` is None.
        progress: called with images done and in all.

    Raises:
        RestainError: as :func:`restain.evaluation.evaluate`, or if data or bundle cannot be opened.
    """
    bundle = None if images is not None else load_bundle(model)
    recipe = Recipe() if bundle is None else bundle.recipe
    pairs = open_as_trained(data, recipe, swap=swap)
    require_data(scored_pairs(pairs, split), mpp or recipe.mpp)
    fitted = open_pairs(fit_on, val_share=0, swap=swap) if fit_on else None
    make_folder(out)
    return evaluate(
        None if bundle is None else Model(bundle),
        pairs,
        split,
        out,
        images=images,
        fit_on=fitted,
        mpp=mpp or recipe.mpp,
        command=command,
        provenance=None if bundle is None else {"bundle": bundle.card.name, "bundle_hash": bundle.card.hash},
        baselines=baselines,
        align=align,
        features=features,
        lpips=lpips,
        classifier=classifier,
        progress=progress,
    )


def require_data(pairs: Sequence[Pair], mpp: float) -> None:
    """See that pairs that are to be scored are at ``mpp`` as far as their files say, and that their sides are not exchanged.

    Raises:
        RestainError: naming a file that is not so.
    """
    require_scale(pairs, mpp, "--mpp ")
    require_sides(pairs)


def open_as_trained(data: Sequence[Path], recipe: Recipe, *, swap: bool = False) -> PairSet:
    """Open folders of pairs with the splits that a training by ``recipe`` made of them; ``swap`` exchanges their sides.

    Raises:
        RestainError: if a folder is of no known layout.
    """
    pairs = open_pairs(data, val_share=0, swap=swap)
    patterns = [p for p in recipe.data.holdout if any(fnmatchcase(pair.name, p) for pair in pairs.pairs)]
    slides = [s for s in recipe.data.same_slide if any(fnmatchcase(pair.name, p) for pair in pairs.pairs for p in s)]
    pairs = open_pairs(data, val_share=0, holdout=patterns, same_slide=slides, swap=swap)
    train = pairs.split("train")
    if pairs.split("val") or len(train) < 2 or recipe.data.val_share == 0:
        return pairs
    return pairs.with_validation(recipe.data.val_share, recipe.seed)
