"""Figures on the validation split during training: full-size images, averaged weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restain.data import Pair
from restain.data.normalization import Normalize, unchanged
from restain.engines import predict_at_once, to_prediction
from restain.evaluation.image import psnr, ssim
from restain.evaluation.stain import Moments, cell_moments, pearson
from restain.models.network import StainingNetwork
from restain.optics import dab_density, glass_white
from restain.statistics import finite_or_none

PANELS = 4
"""Validation pairs that are shown as pictures in the log."""

Panel = NDArray[np.uint8]


MATCHED = 16
"""Most training pairs whose mean DAB is matched."""
_MATCHED_PX = 512
_FACTORS = (0.25, 4.0)
"""Least and greatest factor of :func:`match_dab`."""


def match_dab(
    generator: StainingNetwork,
    pairs: Sequence[Pair],
    seed: int,
    normalize: Normalize = unchanged,
) -> float:
    """Scale the generator's DAB so that its mean over the middle of training pairs is that of their IHC; returns the factor.

    ``pairs`` are sampled with ``seed``; ``normalize`` is applied to each whole H&E picture. Without a stain head, or without
    any DAB, nothing is changed.
    """
    head = generator.stain_head
    if head is None:
        return 1.0
    was_training = generator.training
    generator.eval()
    chosen = np.random.default_rng([seed, 5]).permutation(len(pairs))[:MATCHED]
    virtual = real = 0.0
    for pair in (pairs[number] for number in sorted(chosen)):
        he, ihc = pair.load()
        he = normalize(he)
        top, left = (max(0, (side - _MATCHED_PX) // 2) for side in he.shape[:2])
        middle = np.s_[top : top + _MATCHED_PX, left : left + _MATCHED_PX]
        answer = to_prediction(predict_at_once(generator, np.ascontiguousarray(he[middle])))
        assert answer.dab is not None
        virtual += float(answer.dab.mean())
        real += float(dab_density(ihc[middle], glass_white(ihc)).mean())
    generator.train(was_training)
    if virtual <= 0 or real <= 0:
        return 1.0
    factor = float(np.clip(real / virtual, *_FACTORS))
    head.scale_dab(factor)
    return factor


def validate(
    generator: StainingNetwork,
    pairs: Sequence[Pair],
    mpp: float,
    normalize: Normalize = unchanged,
) -> tuple[dict[str, float | None], list[Panel]]:
    """PSNR, SSIM and the pooled DAB correlation per 16 µm cell over ``pairs``, and pictures of the first few.

    The DAB reference is the colour-deconvolved real image. Returns the figures (None where undefined) and panels
    ``(H, 3·W, 3)``: H&E, virtual, real.
    """
    was_training = generator.training
    generator.eval()
    psnrs: list[float] = []
    ssims: list[float] = []
    panels: list[Panel] = []
    moments = Moments()
    for pair in pairs:
        he, ihc = pair.load()
        virtual = to_prediction(predict_at_once(generator, normalize(he)))
        psnrs.append(psnr(virtual.rgb, ihc))
        ssims.append(ssim(virtual.rgb, ihc))
        white = glass_white(ihc)
        dab = dab_density(virtual.rgb, white) if virtual.dab is None else virtual.dab
        moments += cell_moments(dab, dab_density(ihc, white), mpp)
        if len(panels) < PANELS:
            panels.append(np.concatenate([he, virtual.rgb, ihc], axis=1))
    generator.train(was_training)
    figures: dict[str, float | None] = {"val_pairs": float(len(pairs))}
    if pairs:
        figures["val_psnr"] = float(np.mean(psnrs))
        figures["val_ssim"] = float(np.mean(ssims))
        figures["val_dab_r16"] = finite_or_none(pearson(moments))
    return figures, panels
