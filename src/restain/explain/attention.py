"""Attention of one point: FAVOR+ weights at every attending skip level and head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restain.explain.targets import DISC_UM
from restain.geometry import Point
from restain.models.attention import ResidualAttentionBlock
from restain.models.generator import Generator
from restain.models.network import StainingNetwork
from restain.models.tensors import batch_of


@dataclass(frozen=True)
class AttentionFigures:
    """Concentration of a point's attention at one level.

    ``spread`` is ``exp(entropy)`` of a head's weights, mean over heads: the effective number of tokens, at most
    ``tokens``. ``near`` is the share of the weight within ``DISC_UM`` of the point, ``near_uniform`` that of uniform
    attention.
    """

    stride: int
    heads: int
    tokens: int
    spread: float
    near: float
    near_uniform: float


@dataclass(frozen=True)
class AttentionMap:
    """Attention of a point at one skip level.

    ``stride`` is px of the image per token along a side. ``heads`` ``(heads, h, w)`` are the weights over the tokens, which
    sum to 1 in each head.
    """

    stride: int
    heads: NDArray[np.float32]

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean over heads, ``(h, w)``; sums to 1."""
        return np.asarray(self.heads.mean(axis=0), dtype=np.float32)

    def on_pixels(self, weights: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Weights ``(h, w)``, each spread evenly over its token's pixels, as ``(H, W)``; the padding is cut off."""
        pixels = np.kron(weights, np.full((self.stride, self.stride), self.stride**-2.0, np.float32))
        return pixels[: shape[0], : shape[1]].astype(np.float32)

    def figures(self, point: Point, mpp: float) -> AttentionFigures:
        """How concentrated the attention is around ``point``, a pixel of the image."""
        flat = self.heads.reshape(len(self.heads), -1).astype(np.float64)
        entropy = -(flat * np.log(np.maximum(flat, 1e-30))).sum(axis=1)
        y, x = ((np.arange(n) + 0.5) * self.stride for n in self.heads.shape[1:])
        near = np.hypot(y[:, None] - point.y, x[None] - point.x) * mpp <= DISC_UM
        spread = float(np.exp(entropy).mean())
        inside, uniform = float(self.mean[near].sum()), float(near.mean())
        return AttentionFigures(self.stride, len(flat), flat.shape[1], spread, inside, uniform)


def attention_of_point(network: StainingNetwork, he: NDArray[np.uint8], point: Point) -> list[AttentionMap]:
    """Attention of the pixel ``point`` of ``he`` ``(H, W, 3)`` uint8, the coarsest level first; empty without attention.

    Linear in the pixels: the weights of one query, never an n × n matrix (see
    :meth:`restain.models.attention.FavorAttention.weights`).
    """
    if not isinstance(network, Generator):
        return []
    inputs: list[tuple[ResidualAttentionBlock, Tensor]] = []
    heights: list[int] = []

    def keep(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, ResidualAttentionBlock):
            inputs.append((module, args[0]))
        else:
            heights.append(args[0].shape[2])

    blocks = [module for module in network.modules() if isinstance(module, ResidualAttentionBlock)]
    hooks = [module.register_forward_pre_hook(keep) for module in (network.stem, *blocks)]
    maps = []
    try:
        with torch.no_grad():
            network(batch_of(he))
            for block, x in inputs:
                stride = heights[-1] // x.shape[2]
                weights = block.weights(x, point.y // stride, point.x // stride)
                maps.append(AttentionMap(stride, weights[0].numpy().astype(np.float32)))
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def overall_attention(maps: list[AttentionMap], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The mean over levels and heads, on the image's pixels ``(H, W)``."""
    return np.mean([m.on_pixels(m.mean, shape) for m in maps], axis=0).astype(np.float32)
