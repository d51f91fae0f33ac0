from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

import restain.evaluation
from restain.errors import RestainError
from restain.evaluation.agreement import ReadingRow, agreement
from restain.evaluation.her2_classifier import (
    DEFAULT,
    Her2Classifier,
    Her2ClassifierFacts,
    her2_classifier_network,
    level_of_cells,
    level_probabilities,
    load_her2_classifier,
    rule_level,
    save_her2_classifier,
)
from restain.evaluation.membrane import CellMembranes, ihc_hematoxylin
from restain.her2 import Her2Level
from restain.optics import dab_density, glass_white
from restain.phantom.pair import PhantomPair, make_pair
from restain.statistics import json_ready

MPP = 0.46
ZERO, ONE, TWO, THREE = Her2Level


@pytest.fixture(scope="module")
def pairs() -> dict[Her2Level, PhantomPair]:
    """Pairs of a seed that no shipped network was trained on."""
    return {level: make_pair(9000, index, level, size=384, mpp=MPP) for index, level in enumerate(Her2Level)}


def facts(**changes: object) -> Her2ClassifierFacts:
    values = {"name": "x", "data": "none", "mpp": MPP, "tile": 64, "width": 2, "steps": 1, "seed": 0}
    return Her2ClassifierFacts.model_validate(
        values | {"accuracy": 0.5, "images": 2, "created": "2026-01-01T00:00:00+00:00"} | changes
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_her2_classifier(tmp_path / "classifier", facts(), her2_classifier_network(2))
    return tmp_path / "classifier"


def picture(seed: int = 0, size: int = 100) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(100, 250, (size, size + 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("level", Her2Level)
def test_the_rule_reads_the_phantoms_levels(pairs: dict[Her2Level, PhantomPair], level: Her2Level) -> None:
    pair = pairs[level]
    white = glass_white(pair.ihc)
    hematoxylin = ihc_hematoxylin(pair.ihc, white)
    assert rule_level(pair.dab, hematoxylin, MPP) == level
    assert rule_level(dab_density(pair.ihc, white), hematoxylin, MPP) == level


def test_the_rule_follows_density_and_completeness(pairs: dict[Her2Level, PhantomPair]) -> None:
    pair = pairs[THREE]
    hematoxylin = ihc_hematoxylin(pair.ihc, glass_white(pair.ihc))
    assert rule_level(pair.dab * 0.35, hematoxylin, MPP) == TWO
    assert rule_level(pair.dab * 0.12, hematoxylin, MPP) <= ONE
    assert rule_level(pair.dab * 0, hematoxylin, MPP) == ZERO


def cells(completeness: list[float], dab_od: list[float]) -> CellMembranes:
    place = np.zeros(len(dab_od), np.float32)
    return CellMembranes(place, place, np.array(completeness, np.float32), np.array(dab_od, np.float32))


def test_a_spot_is_no_staining_and_a_tenth_of_the_cells_is_not_enough() -> None:
    assert level_of_cells(cells([0.1] * 10, [0.1] * 10)) == ZERO
    assert level_of_cells(cells([0.4] * 10, [0.1] * 10)) == ONE
    assert level_of_cells(cells([0.9] + [0.0] * 9, [0.9] + [0.0] * 9)) == ZERO
    assert level_of_cells(cells([0.9] * 2 + [0.0] * 8, [0.9] * 2 + [0.0] * 8)) == THREE
    assert level_of_cells(cells([], [])) == ZERO


def test_the_shipped_reader_reads_phantoms_and_says_what_it_knows(pairs: dict[Her2Level, PhantomPair]) -> None:
    classifier = load_her2_classifier()
    for level, pair in pairs.items():
        read = classifier.read(pair.ihc, dab_density(pair.ihc, glass_white(pair.ihc)), MPP)
        assert read.classifier == level, level
        assert read.rule == level, level
    assert "phantom only" in classifier.facts.data
    assert classifier.facts.licence == "Apache-2.0"
    assert sum(path.stat().st_size for path in DEFAULT.iterdir()) < 700_000
    assert "/" not in classifier.facts.data, "a path of the machine that it was trained on"


def test_the_tint_of_the_glass_says_nothing(pairs: dict[Her2Level, PhantomPair]) -> None:
    classifier = load_her2_classifier()
    for level in (ZERO, THREE):
        yellow = (pairs[level].ihc * np.array([1.0, 0.98, 0.85])).astype(np.uint8)
        assert classifier.read(yellow, pairs[level].dab, MPP).classifier == level


def test_a_saved_reader_comes_back(saved: Path) -> None:
    classifier = load_her2_classifier(saved)
    assert classifier.label == f"x ({classifier.facts.hash[:12]})"
    again = load_her2_classifier(saved)
    rgb = picture()
    np.testing.assert_array_equal(
        level_probabilities(classifier.network, rgb, 1.0, 64), level_probabilities(again.network, rgb, 1.0, 64)
    )


def test_votes_are_the_mean_over_tiles_that_cover_the_image(saved: Path) -> None:
    network = load_her2_classifier(saved).network
    rgb = picture(size=64)[:, :64]
    wide = np.concatenate([rgb, picture(1, 64)[:, :64]], axis=1)
    wide[0, 0] = wide[0, 64] = 255  # the same glass for the whole and for its halves
    halves = [level_probabilities(network, np.ascontiguousarray(half), 1.0, 64) for half in np.split(wide, 2, axis=1)]
    whole = level_probabilities(network, wide, 1.0, 64)
    assert whole.sum() == pytest.approx(1)
    np.testing.assert_allclose(whole, np.mean(halves, axis=0), atol=0.02)


def test_one_tile_of_a_flat_image_votes_as_all_of_them(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_her2_classifier(saved).network
    rgb = np.full((150, 200, 3), (200, 170, 140), np.uint8)
    one = level_probabilities(network, rgb, 1.0, 64)
    monkeypatch.setattr("restain.evaluation.her2_classifier.is_flat", lambda rgb: False)
    assert one == pytest.approx(level_probabilities(network, rgb, 1.0, 64), abs=1e-6)


def test_an_image_of_another_pixel_size_is_resampled(pairs: dict[Her2Level, PhantomPair]) -> None:
    pair = pairs[THREE]
    half = pair.ihc.reshape(192, 2, 192, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    dab = pair.dab.reshape(192, 2, 192, 2).mean(axis=(1, 3))
    classifier = load_her2_classifier()
    assert classifier.read(half, dab, 2 * MPP).classifier == THREE
    with pytest.raises(ValueError, match="same size"):
        classifier.read(half, pair.dab, MPP)


def test_a_picture_without_anything_in_it_is_read_as_0() -> None:
    flat = np.full((64, 64, 3), 200, np.uint8)
    assert load_her2_classifier().read(flat, np.zeros((64, 64), np.float32), MPP).rule == ZERO


def test_damage_is_told_in_one_sentence(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match=f"{tmp_path}: is not a classifier"):
        load_her2_classifier(tmp_path)
    description = saved / "her2_classifier.json"
    good = description.read_text(encoding="utf-8")
    values = json.loads(good)

    def damaged(text: str, sentence: str) -> None:
        description.write_text(text, encoding="utf-8")
        with pytest.raises(RestainError, match=sentence):
            load_her2_classifier(saved)

    damaged(good[:40], "description of the classifier is damaged")
    damaged(json.dumps(values | {"tile": -1}), "damaged at 'tile'")
    damaged(json.dumps(values | {"accuracy": 1.0}), "changed or damaged, for its hash")
    damaged(json.dumps(values | {"format": 99}), "upgrade it")
    description.write_text(good, encoding="utf-8")
    weights = saved / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(RestainError, match="changed or damaged"):
        load_her2_classifier(saved)
    weights.unlink()
    with pytest.raises(RestainError, match=r"weights\.safetensors: the classifier's weights cannot be read"):
        load_her2_classifier(saved)


def test_what_is_no_reader_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(RestainError, match="is not a classifier; it is left as it is"):
        save_her2_classifier(tmp_path / "letters", facts(), her2_classifier_network(2))
    assert (tmp_path / "letters" / "mine.txt").is_file()


def test_the_reports_part_shows_both_readings_beside_the_ceiling() -> None:
    rows = [
        ReadingRow(f"{name}{i}", slide, level, name, level, ZERO)
        for name in ("model", "baseline_mean", "real")
        for i, (level, slide) in enumerate([(ZERO, "A"), (THREE, "B"), (TWO, "C")])
    ]
    folder = Path(restain.evaluation.__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("reading.html.j2").render(reading=json_ready(agreement(rows)) | {"label": "<x>"})
    assert "&lt;x&gt;" in page
    assert page.count("real IHC (the ceiling)") == 6, (
        "two readings, per patch and per slide, and two confusion matrices"
    )
    assert "By the rule, per slide" in page
    unknown = json_ready(agreement([ReadingRow("a", None, None, "model", ZERO, ZERO)]))
    page = environment.get_template("reading.html.j2").render(reading=unknown | {"label": "x"})
    assert "The level of these pairs is not known" in page


def test_a_reader_is_in_evaluation_mode(saved: Path) -> None:
    classifier = load_her2_classifier(saved)
    assert isinstance(classifier, Her2Classifier)
    assert not classifier.network.training
