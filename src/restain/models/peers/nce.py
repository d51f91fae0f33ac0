"""PatchNCE: the same place in two images must be more similar than any two places (Park et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchProjector(nn.Module):
    """Feature vectors at places of several maps, through a two-layer perceptron each, of unit length.

    Args:
        channels: of each map.
        dim: length of the result.
    """

    def __init__(self, channels: Sequence[int], dim: int = 256) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(c, dim), nn.ReLU(), nn.Linear(dim, dim)) for c in channels)

    def forward(self, maps: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``(N, C, h, w)`` and flat indices ``(P,)`` for each, to vectors ``(N, P, dim)`` for each."""
        return [
            F.normalize(layer(grid.flatten(2)[:, :, chosen].mT), dim=2)
            for layer, grid, chosen in zip(self.layers, maps, places, strict=True)
        ]


def draw_places(maps: Sequence[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
    """Up to ``count`` places of each map, without repeats, as flat indices."""
    return [torch.randperm(m[0, 0].numel(), generator=generator)[:count].to(m.device) for m in maps]


def patch_nce(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each place against all places of its image: ``(N, P, dim)`` twice to ``(N, P)``. No gradient for keys."""
    logits = query @ key.detach().mT / temperature
    truth = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none").view(len(logits), -1)


def adaptive_weights(query: Tensor, key: Tensor, progress: float) -> Tensor:
    """How far each place of a roughly matched pair is trusted: ``(N, P, dim)`` twice to ``(N, P)``, mean 1.

    Li et al., MICCAI 2023, eq. 3 to 5, with linear schedule and linear weight: equal for all places at first
    (``progress`` 0), by the similarity of virtual and real in the end (1). No gradients.
    """
    similarity = (query.detach() * key.detach()).sum(dim=2).clamp(0, 1)
    weights = (1 - progress) + progress * similarity
    return weights / weights.mean().clamp(min=1e-6)
