from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import ndimage

from restain.dataset_builder import SlidePair
from restain.dataset_builder.masks import FOLD_DENSER, find_folds, find_masks
from restain.dataset_builder.quality import PatchQuality, focus, mask_shares, positive_share
from restain.geometry import Point, Region, Size
from restain.optics import DAB, HEMATOXYLIN, mix, transmit
from restain.phantom import SlideTruth
from restain.registration import Transform
from restain.slides import open_slide, rasterize
from restain.slides.geojson import Polygon

GLASS = np.full(3, 240, np.float32)


def tissue(strength: float, dab: float = 0.0) -> np.ndarray:
    """Nuclei of 6 to 8 µm at 0.5 µm per px, and DAB over a quarter of the picture."""
    rng = np.random.default_rng(3)
    nuclei = ndimage.gaussian_filter((ndimage.gaussian_filter(rng.random((256, 256)), 3) > 0.52).astype(float), 0.8)
    stained = np.zeros((256, 256))
    stained[:128, :128] = dab
    light = transmit(mix(np.stack([strength * nuclei + 0.1, stained], axis=-1), (HEMATOXYLIN, DAB)), GLASS)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def test_focus_falls_with_defocus_and_not_with_the_stain() -> None:
    sharp = [focus(tissue(strength), GLASS, 0.5) for strength in (0.3, 0.8)]
    assert sharp[0] == pytest.approx(sharp[1], rel=0.1)
    blurred = [focus(np.uint8(ndimage.gaussian_filter(tissue(0.5), (s, s, 0))), GLASS, 0.5) for s in (1, 2, 4)]
    assert sharp[1] > blurred[0] > blurred[1] > blurred[2]
    assert blurred[1] < 0.6 * sharp[1]
    assert focus(np.full((64, 64, 3), 240, np.uint8), GLASS, 0.5) == 0


def test_stained_area_is_that_of_dab() -> None:
    assert positive_share(tissue(0.5, dab=0.4), GLASS) == pytest.approx(0.25, abs=0.01)
    assert positive_share(tissue(0.5), GLASS) < 0.01


def test_a_long_double_band_is_a_fold_and_a_dense_nest_is_none() -> None:
    rng = np.random.default_rng(0)
    density = (0.5 + 0.08 * rng.standard_normal((150, 150))).astype(np.float32)
    inside = np.ones((150, 150), bool)
    nest = density.copy()
    nest[90:110, 90:110] *= 2
    assert not find_folds(nest, inside, 8.0, *FOLD_DENSER["he"]).any()
    folded = nest.copy()
    folded[30:33, 20:80] *= 2
    found = find_folds(folded, inside, 8.0, *FOLD_DENSER["he"])
    assert found[30:33, 25:75].mean() > 0.9
    assert not found[80:].any()
    assert not find_folds(folded, np.zeros_like(inside), 8.0, *FOLD_DENSER["he"]).any()


@pytest.mark.slow
def test_the_missing_piece_and_the_pen_show_in_the_overviews(pair: SlidePair, truth: SlideTruth) -> None:
    with open_slide(pair.he) as he, open_slide(pair.ihc) as ihc:
        one, other = find_masks(he, "he"), find_masks(ihc, "ihc")
        transform = Transform(np.eye(3), he.size, he.size, he.mpp, he.mpp)
        missing = rasterize([Polygon(np.array(truth.plan.deformation.missing))], he.size_at(1.0), 2.0)
        pens = rasterize([Polygon(mark.outline) for mark in truth.plan.pens], he.size_at(1.0), 2.0)
        island = rasterize([Polygon(i.outline) for i in truth.plan.islands], he.size_at(1.0), 2.0)
        lost, inked, whole = [], [], []
        for y in range(0, he.size_at(1.0).height - 64, 64):
            for x in range(0, he.size_at(1.0).width - 64, 64):
                region = Region(Point(x, y), Size(64, 64))
                if island[region.slices].mean() < 1:
                    continue
                shares = mask_shares(one, other, transform, region, 1.0)
                gone, pen = missing[region.slices].mean(), pens[region.slices].mean()
                if pen > 0.5:
                    inked.append(shares.pen)
                elif gone > 0.9:
                    lost.append(shares.shared)
                elif gone == 0 and pen == 0:
                    whole.append(shares.shared)
    assert lost
    assert max(lost) < 0.5
    assert np.percentile(whole, 5) > 0.85
    assert not inked or min(inked) > 0.3


def test_figures_survive_being_written_down() -> None:
    figures = PatchQuality(0.5, math.nan, 1.5, 0.2, 0.6, 0.7, 0.1, "affine", 2.5, (1.0, 0.0, 3.0, 0.0, 1.0, -2.0))
    back = PatchQuality.from_dict(json.loads(json.dumps(figures.as_dict())))
    assert math.isnan(back.matched)
    assert back.matrix == figures.matrix
    assert back.as_dict() == figures.as_dict()
