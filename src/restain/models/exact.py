"""Softmax attention as it is, quadratic in the number of tokens: what FAVOR+ approximates, for comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SoftmaxAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017), ``(N, n, channels)`` to the same shape; O(n²) time.

    Its parameters are those of :class:`restain.models.attention.FavorAttention`, which tends to it with more features.
    Raises ``ValueError`` when ``channels`` cannot be split into ``heads``.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be split into {heads} attention heads")
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend among ``tokens`` ``(N, n, channels)``."""
        q, k, v = (
            project(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        output: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return output

    @torch.no_grad()
    def weights(self, tokens: Tensor, query: Tensor) -> Tensor:
        """How much one query attends to each token: ``(N, n, channels)``, ``(N, channels)`` to ``(N, heads, n)``."""
        k = self.to_k(tokens).unflatten(-1, (self.heads, -1))
        q = self.to_q(query).unflatten(-1, (self.heads, -1))
        return torch.softmax(torch.einsum("nkhd,nhd->nhk", k, q) / q.shape[-1] ** 0.5, dim=-1)
