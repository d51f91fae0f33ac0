"""FAVOR+ attention (Choromanski et al., "Rethinking Attention with Performers", ICLR 2021): its random features and parts.

The mathematics, and the passes over tokens, are in :mod:`restain.models.streamed`.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restain.models.streamed import (
    AttentionState,
    StreamedFavor,
    attend_at_once,
    column_major,
    folded,
    gather,
    key_logits,
    split_heads,
    spread,
)


def draw_features(heads: int, features: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw the Gaussian orthogonal rows ``w_j`` of every head: float32 ``(heads, features, dim)``.

    Rows are orthogonal within blocks of ``dim``. Each is uniform in direction and as long as a Gaussian vector
    (chi with ``dim`` degrees of freedom), so the estimate stays unbiased (Choromanski et al. 2021, sec. 2.4).
    Drawn on the generator's device.
    """
    blocks = -(-features // dim)
    square = torch.randn(heads, blocks, dim, dim, generator=generator, device=generator.device)
    directions, triangle = torch.linalg.qr(square)
    # QR alone is not uniform over rotations: the signs of R's diagonal belong into Q (Mezzadri 2007).
    directions = directions * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    rows = directions.mT.reshape(heads, blocks * dim, dim)[:, :features]
    gaussian = torch.randn(heads, features, dim, generator=generator, device=generator.device)
    return rows * gaussian.norm(dim=-1, keepdim=True)


class Attention(nn.Module):
    """Multi-head self-attention, ``(N, n, channels)`` to the same shape.

    Raises ``ValueError`` when ``channels`` cannot be split into ``heads``.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be split into {heads} attention heads")
        self.channels, self.heads = channels, heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)


class SoftmaxAttention(Attention):
    """Softmax attention (Vaswani et al. 2017), which FAVOR+ approximates; O(n²) time."""

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


class FavorAttention(Attention):
    """FAVOR+ attention, linear in the tokens; computed in float32 at least, also under autocast.

    ``features``: positive orthogonal random features per head; with more it comes nearer to softmax attention.
    ``chunk``: tokens per chunk of the streamed passes; changes speed and memory, not the result.

    The random features are the buffer ``projection`` ``(heads, features, channels / heads)``, so that a bundle freezes
    them. The first draw has a fixed seed; :meth:`redraw` takes the recipe's.
    """

    projection: Tensor

    def __init__(self, channels: int, heads: int, features: int, chunk: int = 4096) -> None:
        super().__init__(channels, heads)
        self.chunk = chunk
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("projection", draw_features(heads, features, channels // heads, generator))

    def redraw(self, generator: torch.Generator) -> None:
        """Replace the random features by a new draw from ``generator``."""
        heads, features, dim = self.projection.shape
        self.projection.copy_(draw_features(heads, features, dim, generator))

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend among ``tokens`` ``(N, n, channels)``. A compiler sees whole products in place of chunks."""
        with torch.autocast(tokens.device.type, enabled=False):
            parts = (
                _at_least_float32(tokens),
                self._tempered(self.to_q),
                self._tempered(self.to_k),
                self._value_map(),
                self.to_out.bias,
                self.projection,
            )
            if torch.compiler.is_compiling():
                return attend_at_once(*parts)
            output: Tensor = StreamedFavor.apply(*parts, self.chunk)  # type: ignore[no-untyped-call]
        return output

    @torch.no_grad()
    def state(self, tokens: Tensor) -> AttentionState:
        """The state of ``tokens`` as keys, for :meth:`read`; states can be added. No gradients."""
        with torch.autocast(tokens.device.type, enabled=False):
            return gather(_at_least_float32(tokens), self._tempered(self.to_k), self.projection, self.chunk)

    @torch.no_grad()
    def read(self, tokens: Tensor, state: AttentionState) -> Tensor:
        """Attend from ``tokens`` to the keys in ``state``; ``read(x, state(x))`` is ``forward(x)``. No gradients."""
        with torch.autocast(tokens.device.type, enabled=False):
            return spread(
                _at_least_float32(tokens),
                state,
                self._tempered(self.to_q),
                self.projection,
                self._value_map(),
                self.to_out.bias,
                self.chunk,
            )

    @torch.no_grad()
    def weights(self, tokens: Tensor, query: Tensor) -> Tensor:
        """How much one query attends to each token: ``(N, n, channels)``, ``(N, channels)`` to ``(N, heads, n)``.

        ``φ(q̃) · φ(k̃)`` over its sum, so that each head's weights sum to 1; in chunks, with no n × n matrix: with
        ``a_j = softmax_j(w_j · q̃ + lse_j)`` a key's weight is ``Σ_j a_j exp(w_j · k̃ - |k̃|² / 2 - lse_j)``. No gradients.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens, to_k = _at_least_float32(tokens), self._tempered(self.to_k)
            log_mass = gather(tokens, to_k, self.projection, self.chunk).log_mass
            queries = query.to(tokens) @ folded(self._tempered(self.to_q), self.projection).t()
            share = torch.softmax(split_heads(queries + log_mass, self.heads), -1)
            per_image = []
            for image, mass, a in zip(tokens, log_mass, share, strict=True):
                columns = []
                for x in torch.split(image, self.chunk):
                    logits = key_logits(x @ to_k.t(), self.projection, out=x.new_empty(len(x), len(mass)))
                    columns.append(torch.einsum("nhf,hf->hn", split_heads(logits.sub_(mass).exp_(), self.heads), a))
                per_image.append(torch.cat(columns, dim=1))
            return torch.stack(per_image)

    def _tempered(self, projection: nn.Linear) -> Tensor:
        """The weight of the query or key projection with its share, ``d^-¼``, of the softmax temperature."""
        return column_major(projection.weight * self.projection.shape[2] ** -0.25)

    def _value_map(self) -> Tensor:
        """Value and output projection of each head in one, a right factor: ``(heads, channels, channels)``."""
        to_value = self.to_v.weight.view(self.heads, -1, self.channels).mT
        to_output = self.to_out.weight.t().reshape(self.heads, -1, self.channels)
        return to_value @ to_output


class ResidualAttentionBlock(nn.Module):
    """``x + scale * attention(norm(x))`` among each image's pixels: ``(N, C, H, W)`` to the same shape and layout.

    The normalisation is over each pixel's channels (Ba et al. 2016) and so needs no statistic of the image; it has no
    affine part, as that would be one with the attention's projections. ``scale`` is per channel and starts small
    (LayerScale, Touvron et al. 2021). A channels_last input is read without a copy.

    ``exact`` puts softmax attention in the place of FAVOR+, for comparison; it has no states.
    """

    attention: FavorAttention

    def __init__(self, channels: int, heads: int, features: int, chunk: int = 4096, *, exact: bool = False) -> None:
        super().__init__()
        self.exact = exact
        attention = SoftmaxAttention(channels, heads) if exact else FavorAttention(channels, heads, features, chunk)
        self.attention = cast(FavorAttention, attention)
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self._add(x, self.attention(self._tokens(x)))

    def state(self, x: Tensor) -> AttentionState:
        """The state of a part's pixels as keys; the states of parts add up to the image's. No gradients."""
        return self.attention.state(self._tokens(x))

    def read(self, x: Tensor, state: AttentionState) -> Tensor:
        """:meth:`forward` with the keys in ``state`` in place of the own ones. No gradients."""
        return self._add(x, self.attention.read(self._tokens(x), state))

    def weights(self, x: Tensor, row: int, column: int) -> Tensor:
        """How much the pixel at ``row``, ``column`` attends to every pixel, per head: ``(N, heads, H, W)``, sums of 1."""
        tokens = self._tokens(x)
        weights = self.attention.weights(tokens, tokens[:, row * x.shape[3] + column])
        return weights.view(*weights.shape[:2], *x.shape[2:])

    def redraw(self, generator: torch.Generator) -> None:
        """Replace the random features by a new draw from ``generator``; nothing to do where attention is exact."""
        if not self.exact:
            self.attention.redraw(generator)

    @staticmethod
    def _tokens(x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1).flatten(1, 2), x.shape[1:2])

    def _add(self, x: Tensor, attended: Tensor) -> Tensor:
        image = attended.to(x.dtype).mT.view(x.shape)
        return torch.addcmul(x, self.scale.to(x.dtype).view(-1, 1, 1), image)


def _at_least_float32(tokens: Tensor) -> Tensor:
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32))
