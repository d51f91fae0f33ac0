"""Trust and stain sweep from paths: what ``restain evaluate --trust`` and ``--stain-sweep`` call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from restain.bundle import Bundle, load_bundle
from restain.data import Pair, PairSet, open_pairs
from restain.data.normalization import picture_normalizer
from restain.errors import RestainError
from restain.evaluation.her2_classifier import Her2Classifier, load_her2_classifier
from restain.evaluation.job import open_as_trained, require_data
from restain.evaluation.splits import scored_pairs, unseen_training
from restain.evaluation.sweep import sweep
from restain.evaluation.trust_job import measure_trust
from restain.files import make_folder
from restain.ood.detector import OodDetector, fit_ood_detector
from restain.stain import Model, expand

Progress = Callable[[int, int], None]


def trust_folder(
    data: Sequence[Path],
    out: Path,
    *,
    model: Path | None = None,
    ensemble: Sequence[Path] = (),
    classifier: Path | None = None,
    split: str = "test",
    fit_on: Sequence[Path] = (),
    foreign: Sequence[Path] = (),
    images: int = 24,
    mpp: float | None = None,
    swap: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """:func:`restain.evaluation.trust_job.measure_trust` of a bundle on a split of one or more folders.

    A bundle that does not know its training images is given that knowledge for this measurement, from the training split
    of ``fit_on`` or of the data, and the result says so.

    Args:
        data: folders of pairs.
        out: folder of the results.
        model: a bundle; None for the shipped one.
        ensemble: more bundles, whose disagreement with the first is then the doubt.
        classifier: a HER2 classifier; None for the shipped one.
        split: ``train``, ``val`` or ``test``.
        fit_on: folders whose training split stands for the training images where the bundle does not know them.
        foreign: pictures of other tissue, or folders of them.
        images: most pairs.
        mpp: micrometres per pixel of the data; None for the model's.
        swap: the data's H&E and IHC are exchanged on reading; that of ``fit_on`` too.
        command: the command line, for the page.
        progress: called with steps done and in all.

    Raises:
        RestainError: if data, a bundle, the classifier or a picture cannot be read, or a result cannot be written.
    """
    strangers = expand(foreign)
    bundle = load_bundle(model)
    pairs = open_as_trained(data, bundle.recipe, swap=swap)
    scored = scored_pairs(pairs, split)
    require_data(scored, mpp or bundle.recipe.mpp)
    make_folder(out)
    ood, note = _ood_detector(bundle, open_pairs(fit_on, val_share=0, swap=swap) if fit_on else pairs, scored, progress)
    classifiers, why = _her2_classifier(classifier)
    return measure_trust(
        [Model(bundle), *(Model(load_bundle(path)) for path in ensemble)],
        scored,
        out,
        ood=ood,
        ood_note=note,
        classifier=classifiers,
        classifier_note=why,
        foreign=strangers,
        images=images,
        mpp=mpp or bundle.recipe.mpp,
        command=command,
        progress=progress,
    )


def sweep_folder(
    data: Sequence[Path],
    out: Path,
    *,
    model: Path | None = None,
    classifier: Path | None = None,
    split: str = "test",
    fit_on: Sequence[Path] = (),
    images: int = 12,
    mpp: float | None = None,
    swap: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """:func:`restain.evaluation.sweep.sweep` of a bundle on a split of one or more folders.

    Args and raises as :func:`trust_folder`; ``fit_on`` gives the training images among which the stain normalisers' target is.
    """
    bundle = load_bundle(model)
    pairs = open_as_trained(data, bundle.recipe, swap=swap)
    scored = scored_pairs(pairs, split)
    require_data(scored, mpp or bundle.recipe.mpp)
    make_folder(out)
    classifiers, why = _her2_classifier(classifier)
    return sweep(
        Model(bundle),
        scored,
        out,
        training=unseen_training(open_pairs(fit_on, val_share=0, swap=swap) if fit_on else pairs, scored),
        classifier=classifiers,
        classifier_note=why,
        images=images,
        mpp=mpp or bundle.recipe.mpp,
        command=command,
        progress=progress,
    )


def _ood_detector(
    bundle: Bundle, source: PairSet, scored: Sequence[Pair], progress: Progress | None
) -> tuple[OodDetector | None, str]:
    if bundle.ood is not None:
        known = bundle.ood
        return known, f"The bundle's own, of {known.images} training images; the limit lets {known.quantile:.0%} pass."
    training = unseen_training(source, scored)
    if not training:
        return (
            None,
            "absent: the bundle does not know its training images, and there is no training split to learn from.",
        )
    found = fit_ood_detector(
        training,
        bundle.recipe.data.augment,
        seed=bundle.recipe.seed,
        normalize=picture_normalizer(bundle.recipe),
        progress=progress,
    )
    where = ", ".join(map(str, source.roots))
    return found, f"The bundle has none; learnt for this page from {found.images} training images of {where}."


def _her2_classifier(path: Path | None) -> tuple[Her2Classifier | None, str]:
    if path is not None:
        return load_her2_classifier(path), ""
    try:
        return load_her2_classifier(), ""
    except RestainError as fault:
        return None, str(fault)
