from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from restain.cli import main
from restain.errors import Interrupted, RestainError
from restain.evaluation.her2_classifier import load_her2_classifier
from restain.images import write_png
from restain.optics import DAB, HEMATOXYLIN, glass_white, mix, transmit
from restain.training.her2_classifier import train_her2_classifier, vary_ihc

SIZE = 72


def ihc(seed: int, dab: float, white: float = 240.0) -> np.ndarray:
    """Blobs of counterstain and, where ``dab`` is above 0, as many of DAB; some glass."""
    rng = np.random.default_rng(seed)
    blobs = np.kron(rng.random((2, 9, 9)) > 0.6, np.ones((8, 8)))
    light = transmit(mix(np.stack([0.3 * blobs[0], dab * blobs[1]], axis=-1), (HEMATOXYLIN, DAB)), white)
    light[:6] = white
    return np.clip(np.rint(light + rng.normal(0, 1.5, light.shape)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number in range(20):
        level, dab = ("0", 0.0) if number % 2 else ("3+", 0.8)
        for stain in ("HE", "IHC"):
            for split in ("train", "test"):
                (root / stain / split).mkdir(parents=True, exist_ok=True)
            write_png(root / stain / "train" / f"{number:05d}_train_{level}.png", ihc(number, dab, 200 + 2 * number))
            # What is in the test split must not be looked at: these would be refused.
            (root / stain / "test" / f"{number:05d}_test_{level}.png").write_bytes(b"no picture")
    return root


def test_a_reader_learns_what_tells_levels_apart(data: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    facts = train_her2_classifier(
        [data], tmp_path / "classifier", steps=40, tile=64, width=2, progress=lambda *call: calls.append(call)
    )
    assert facts.accuracy == 1.0
    assert facts.images == 3
    assert calls[-1] == (40, 40)
    classifier = load_her2_classifier(tmp_path / "classifier")
    assert classifier.facts == facts
    for dab, level in ((0.0, 0), (0.8, 3)):
        assert classifier.read(ihc(99, dab), np.zeros((SIZE, SIZE), np.float32), 0.46).classifier == level


def test_the_same_seed_gives_the_same_reader_and_another_another(data: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_her2_classifier([data], tmp_path / name, steps=2, seed=seed, tile=64, width=2)
        weights.append((tmp_path / name / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_too_little_is_said_in_a_sentence(data: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    for stain in ("HE", "IHC"):
        (one / stain / "train").mkdir(parents=True)
        for number in range(3):
            write_png(one / stain / "train" / f"{number:05d}_train_3+.png", ihc(number, 0.8))
    with pytest.raises(RestainError, match="a classifier needs training pairs of at least two levels and two slides"):
        train_her2_classifier([one], tmp_path / "classifier")
    with pytest.raises(RestainError, match="smaller than the training crop"):
        train_her2_classifier([data], tmp_path / "classifier", tile=128)
    assert not (tmp_path / "classifier").exists()


def test_ctrl_c_stops_between_two_steps_and_leaves_the_old_reader(data: Path, tmp_path: Path) -> None:
    train_her2_classifier([data], tmp_path / "classifier", steps=1, tile=64, width=2)
    before = (tmp_path / "classifier" / "her2_classifier.json").read_bytes()

    def press(done: int, total: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped at step 2 of 1000; .*classifier was not written"):
        train_her2_classifier([data], tmp_path / "classifier", steps=1000, tile=64, width=2, progress=press)
    assert (tmp_path / "classifier" / "her2_classifier.json").read_bytes() == before


def test_variation_makes_glass_white_and_keeps_staining() -> None:
    for dab in (0.0, 0.8):
        rgb = ihc(1, dab, 200.0)
        varied = vary_ihc(rgb, glass_white(rgb), np.random.default_rng(3))
        assert varied.shape == rgb.shape
        assert varied.min() >= 0
        assert varied[:4].mean() == pytest.approx(255, abs=3)
        dark = (varied[..., 2] < 80).mean()
        assert dark > 0.1 if dab else dark < 0.01
    other = vary_ihc(rgb, glass_white(rgb), np.random.default_rng(4))
    assert np.abs(other - varied).mean() > 1


def test_command(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(data), "-o", str(tmp_path / "r"), "--steps", "1", "--tile", "64", "--describe", "toys."]
    monkeypatch.setattr(sys, "argv", ["restain", "train-her2-classifier", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert "on 3 real validation images" in capsys.readouterr().out
    assert json.loads((tmp_path / "r" / "her2_classifier.json").read_text(encoding="utf-8"))["data"].startswith(
        "toys. Real IHC images: 17 "
    )
