from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restain.data import Pair, write_png
from restain.evaluate.trivial import apply_linear, fit_trivial, flat, mean_colour


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
    fit = fit_trivial(pairs)
    expected = np.vstack([np.eye(3)[::-1] * 0.5, np.full(3, 40.0)])
    assert fit.linear == pytest.approx(expected, abs=0.1)
    assert fit.mean == pytest.approx(np.mean([pair.load()[1] for pair in pairs], axis=(0, 1, 2)))
    assert (fit.images, fit.of) == (3, 3)
    he, ihc = make_pair(tmp_path, "unseen", 99).load()
    assert np.abs(apply_linear(he, fit.linear).astype(int) - ihc).max() <= 1


def test_a_sampled_fit_is_repeatable_and_close_to_the_whole(tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, str(i), i) for i in range(4)]
    whole, sampled = fit_trivial(pairs), fit_trivial(pairs, seed=5, limit=2, pixels=200)
    assert sampled.images == 2
    assert sampled.linear == pytest.approx(whole.linear, abs=0.2)
    assert np.array_equal(sampled.linear, fit_trivial(pairs, seed=5, limit=2, pixels=200).linear)


def test_a_fit_on_one_colour_still_gives_an_answer(tmp_path: Path) -> None:
    for name in ("he", "ihc"):
        write_png(tmp_path / f"{name}.png", np.full((8, 8, 3), 200 if name == "he" else 90, np.uint8))
    fit = fit_trivial([Pair("one", "train", None, tmp_path / "he.png", tmp_path / "ihc.png")])
    assert apply_linear(np.full((2, 2, 3), 200, np.uint8), fit.linear).tolist() == [[[90] * 3] * 2] * 2


def test_no_pairs_no_fit() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        fit_trivial([])


def test_linear_map_is_clipped() -> None:
    bright = np.vstack([np.eye(3) * 3, np.zeros(3)])
    assert apply_linear(np.full((1, 1, 3), 200, np.uint8), bright).tolist() == [[[255, 255, 255]]]


def test_the_flat_oracle_is_the_rounded_mean() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (255, 7, 100)
    colour = mean_colour(image)
    assert colour.tolist() == [63.75, 1.75, 25.0]
    assert flat(colour, image.shape).tolist() == [[[64, 2, 25]] * 2] * 2
