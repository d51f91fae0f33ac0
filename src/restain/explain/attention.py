"""The attention that one point pays to the rest: FAVOR+ weights at every attending skip level and head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
class AttentionMap:
    """What a point attends to at one skip level.

    ``stride`` is px of the image per token along a side; ``heads`` ``(heads, h, w)`` the weights over the tokens, which
    sum to 1 in each head.
    """

    stride: int
    heads: NDArray[np.float32]

    @property
    def mean(self) -> NDArray[np.float32]:
        """``(h, w)``: the mean over heads, which sums to 1."""
        return np.asarray(self.heads.mean(axis=0), dtype=np.float32)

    def on_pixels(self, weights: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """``(h, w)`` weights, each spread evenly over its token's pixels, as ``(H, W)``.

        Tokens of the padding beyond the image's edge are cut off.
        """
        pixels = np.kron(weights, np.full((self.stride, self.stride), self.stride**-2.0, np.float32))
        return pixels[: shape[0], : shape[1]].astype(np.float32)

    def describe(self, point: Point, mpp: float) -> dict[str, float]:
        """How concentrated the attention is, in figures.

        ``tokens``: how many there are. ``attended``: ``exp(entropy)`` of each head's weights, mean over heads: over how
        many tokens attention is spread (``tokens`` when it is uniform). ``near``: share of the weight on tokens whose
        middle lies within ``DISC_UM`` of the point; ``near_uniform``: the same if attention were uniform.
        """
        flat = self.heads.reshape(len(self.heads), -1).astype(np.float64)
        entropy = -(flat * np.log(np.maximum(flat, 1e-30))).sum(axis=1)
        y, x = ((np.arange(n) + 0.5) * self.stride for n in self.heads.shape[1:])
        near = np.hypot(y[:, None] - point.y, x[None] - point.x) * mpp <= DISC_UM
        return {
            "stride": self.stride,
            "heads": len(flat),
            "tokens": flat.shape[1],
            "attended": float(np.exp(entropy).mean()),
            "near": float(self.mean[near].sum()),
            "near_uniform": float(near.mean()),
        }


@contextmanager
def _inputs(network: StainingNetwork) -> Iterator[list[tuple[ResidualAttentionBlock, Tensor]]]:
    """Keep what each attention block is given while the network runs."""
    kept: list[tuple[ResidualAttentionBlock, Tensor]] = []

    def keep(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, ResidualAttentionBlock):
            kept.append((module, args[0]))

    hooks = [m.register_forward_pre_hook(keep) for m in network.modules() if isinstance(m, ResidualAttentionBlock)]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def attention_of_point(network: StainingNetwork, he: NDArray[np.uint8], point: Point) -> list[AttentionMap]:
    """What the pixel at ``point`` attends to, at each attending level, the coarsest first.

    Linear in the pixels: the weights of one query, never an n × n matrix (see
    :meth:`restain.models.attention.FavorAttention.weights`).

    Args:
        network: the model; one without attention gives an empty list.
        he: ``(H, W, 3)`` uint8 RGB.
        point: a pixel of ``he``.
    """
    if not isinstance(network, Generator):
        return []
    padded_height = 0

    def measure(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal padded_height
        padded_height = args[0].shape[2]

    hook = network.stem.register_forward_pre_hook(measure)
    maps = []
    try:
        with torch.no_grad(), _inputs(network) as kept:
            network(batch_of(he))
            for block, x in kept:
                stride = padded_height // x.shape[2]
                weights = block.weights(x, point.y // stride, point.x // stride)
                maps.append(AttentionMap(stride, weights[0].numpy().astype(np.float32)))
    finally:
        hook.remove()
    return maps


def overall_attention(maps: list[AttentionMap], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The mean over levels and heads, on the image's pixels ``(H, W)``."""
    return np.mean([m.on_pixels(m.mean, shape) for m in maps], axis=0).astype(np.float32)
