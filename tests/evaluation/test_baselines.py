from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from restain.data import Pair
from restain.evaluation.baselines import (
    DESCRIPTIONS,
    apply_linear,
    baseline_answers,
    blurred,
    fit_baselines,
    flat,
    from_hematoxylin,
    mean_colour,
)
from restain.evaluation.image import gradient_energy, ratio
from restain.evaluation.scoring import read_reference
from restain.images import write_png
from restain.optics import DAB, EOSIN, HEMATOXYLIN, dab_density, mix, transmit
from restain.prediction import Prediction


def make_pair(folder: Path, name: str, seed: int, size: int = 24) -> Pair:
    """An IHC image that is an exact affine map of the H&E, so that the fit has a right answer."""
    he = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    ihc = (he[..., ::-1] * 0.5 + 40).round().astype(np.uint8)
    paths = folder / f"{name}_he.png", folder / f"{name}_ihc.png"
    for path, image in zip(paths, (he, ihc), strict=True):
        write_png(path, image)
    return Pair(name, "train", None, *paths)


def test_linear_map_and_mean_colour_are_found(tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, str(i), i) for i in range(3)]
    fit = fit_baselines(pairs)
    expected = np.vstack([np.eye(3)[::-1] * 0.5, np.full(3, 40.0)])
    assert fit.linear == pytest.approx(expected, abs=0.1)
    assert fit.mean == pytest.approx(np.mean([pair.load()[1] for pair in pairs], axis=(0, 1, 2)))
    assert (fit.images, fit.of) == (3, 3)
    he, ihc = make_pair(tmp_path, "unseen", 99).load()
    assert np.abs(apply_linear(he, fit.linear).astype(int) - ihc).max() <= 1


def test_a_sampled_fit_is_repeatable_and_close_to_the_whole(tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, str(i), i) for i in range(4)]
    whole, sampled = fit_baselines(pairs), fit_baselines(pairs, seed=5, limit=2, pixels=200)
    assert sampled.images == 2
    assert sampled.linear == pytest.approx(whole.linear, abs=0.2)
    assert np.array_equal(sampled.linear, fit_baselines(pairs, seed=5, limit=2, pixels=200).linear)


def test_a_fit_on_one_colour_still_gives_an_answer(tmp_path: Path) -> None:
    for name in ("he", "ihc"):
        write_png(tmp_path / f"{name}.png", np.full((8, 8, 3), 200 if name == "he" else 90, np.uint8))
    fit = fit_baselines([Pair("one", "train", None, tmp_path / "he.png", tmp_path / "ihc.png")])
    assert apply_linear(np.full((2, 2, 3), 200, np.uint8), fit.linear).tolist() == [[[90] * 3] * 2] * 2


def test_no_pairs_no_fit() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        fit_baselines([])


def test_linear_map_is_clipped() -> None:
    bright = np.vstack([np.eye(3) * 3, np.zeros(3)])
    assert apply_linear(np.full((1, 1, 3), 200, np.uint8), bright).tolist() == [[[255, 255, 255]]]


def test_the_flat_oracle_is_the_rounded_mean() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (255, 7, 100)
    colour = mean_colour(image)
    assert colour.tolist() == [63.75, 1.75, 25.0]
    assert flat(colour, image.shape).tolist() == [[[64, 2, 25]] * 2] * 2


def stained_pair(folder: Path, name: str, seed: int, size: int = 64) -> Pair:
    """DAB density is 0.1 + 0.8 times the H&E's hematoxylin density, IHC's hematoxylin half of it; corners are glass."""
    rng = np.random.default_rng(seed)
    dense = np.kron(rng.random((8, 8)), np.ones((size // 8, size // 8)))
    glass = np.zeros((size, size), bool)
    glass[:8, :8] = True
    he = transmit(mix(np.stack([dense, dense * 0 + 0.2], axis=-1) * ~glass[..., None], (HEMATOXYLIN, EOSIN)), 245)
    stains = np.stack([dense * 0.5, 0.1 + 0.8 * dense], axis=-1) * ~glass[..., None]
    ihc = transmit(mix(stains, (HEMATOXYLIN, DAB)), 240)
    paths = folder / f"{name}_he.png", folder / f"{name}_ihc.png"
    for path, image in zip(paths, (he, ihc), strict=True):
        write_png(path, image.round().astype(np.uint8))
    return Pair(name, "train", None, *paths)


def test_the_hematoxylin_lines_are_found_and_render_as_the_picture_they_were_fitted_on(tmp_path: Path) -> None:
    fit = fit_baselines([stained_pair(tmp_path, str(i), i) for i in range(3)])
    assert fit.hematoxylin_lines == pytest.approx(np.array([[0.5, 0.0], [0.8, 0.1]]), abs=0.06)
    assert fit.white == pytest.approx([240] * 3, abs=2)
    pair = stained_pair(tmp_path, "unseen", 9)
    he, ihc = pair.load()
    reference = read_reference(pair, ihc)
    answer = baseline_answers(he, reference, fit, Prediction(ihc), 0.5)["baseline_hematoxylin"]
    assert answer.dab is not None
    tissue = np.ones(ihc.shape[:2], bool)
    tissue[:8, :8] = False
    assert np.abs(answer.dab - reference.dab)[tissue].mean() < 0.05
    assert np.abs(answer.rgb.astype(int) - ihc)[tissue].mean() < 8
    assert dab_density(answer.rgb, fit.white) == pytest.approx(answer.dab, abs=0.02), "picture and map say the same"


def test_the_line_is_clipped_at_zero(tmp_path: Path) -> None:
    fit = fit_baselines([stained_pair(tmp_path, "a", 1)])
    falling = dataclasses.replace(fit, hematoxylin_lines=np.array([[0.5, 0.0], [-1.0, 0.2]]))
    answer = from_hematoxylin(np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5), falling)
    assert answer.dab is not None
    assert answer.dab.min() == 0
    assert answer.dab.max() == pytest.approx(0.2)


def test_a_blurred_answer_keeps_its_mean_and_loses_its_sharpness() -> None:
    image = np.random.default_rng(0).integers(60, 200, (64, 64, 3), dtype=np.uint8)
    dab = np.random.default_rng(1).random((64, 64), dtype=np.float32)
    soft = blurred(Prediction(image, dab), 0.5)
    assert soft.dab is not None
    assert soft.rgb.mean() == pytest.approx(image.mean(), rel=0.01)
    assert soft.dab.mean() == pytest.approx(dab.mean(), rel=0.02)
    assert soft.dab.std() < 0.2 * dab.std()
    assert ratio(gradient_energy(soft.rgb), gradient_energy(image)) < 0.05


def test_every_answer_is_described_and_comes_in_that_order(tmp_path: Path) -> None:
    pair = stained_pair(tmp_path, "a", 1)
    he, ihc = pair.load()
    reference = read_reference(pair, ihc)
    assert list(baseline_answers(he, reference, fit_baselines([pair]), Prediction(ihc), 0.5)) == list(DESCRIPTIONS)
    unfitted = baseline_answers(he, reference, None, Prediction(ihc), 0.5)
    unfitted_names = {
        "baseline_he",
        "baseline_hematoxylin_smooth",
        "baseline_density_smooth",
        "blurred_model",
        "oracle_flat",
    }
    assert list(unfitted) == [name for name in DESCRIPTIONS if name in unfitted_names]
