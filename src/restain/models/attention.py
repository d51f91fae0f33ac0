"""FAVOR+ attention (Choromanski et al., "Rethinking Attention with Performers", ICLR 2021), streamed.

Softmax attention weighs the value of key ``k`` for query ``q`` by ``exp(q·k / √d)``. With ``q̃ = q / d^¼``,
``k̃ = k / d^¼`` and Gaussian rows ``w_1 … w_m`` that weight is the mean over draws of ``φ(q̃) · φ(k̃)``, where

    φ_j(x) = exp(w_j · x - |x|² / 2) / √m                        (positive features, Lemma 1)

so that attention becomes ``φ(Q) (φ(K)ᵀ V)``, divided by ``φ(Q) (φ(K)ᵀ 1)``: linear in the number of tokens.
That quotient is two softmaxes, and is computed here as such:

    mean_j = Σ_k softmax_k(w_j · k̃ - |k̃|² / 2) x_k              over the keys, once per feature: the state
    y_q    = Σ_j softmax_j(w_j · q̃ + lse_j) value(mean_j)        over the features, once per query

with ``lse_j = log Σ_k exp(w_j · k̃ - |k̃|² / 2)``; the queries' ``|q̃|² / 2`` and ``√m`` cancel. Each softmax
takes off its own maximum, so nothing overflows and no denominator is below one. The constant that others
add to φ against that (``1e-4`` in performer-pytorch) is not needed; it would pull every result towards the
mean of all values, the more so the more tokens there are.

What is linear is folded. The query projection goes into the random features, and the value and output projections
act on the ``heads * features`` mean tokens, not on every token; keys are needed as such, for ``|k̃|²``. What is left
per token are a few products, nearly all with all heads side by side, in chunks that fit the cache: no pass holds a
tokens × features matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from restain.models.exact import SoftmaxAttention


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


@dataclass(frozen=True)
class AttentionState:
    """What queries need to know of a set of keys; ``a + b`` is the state of both sets together.

    ``log_mass``: ``(N, heads * features)``, the ``lse_j`` above.
    ``mean``: ``(N, heads * features, channels)``, the mean of the tokens under each feature's weights.
    """

    log_mass: Tensor
    mean: Tensor

    def __add__(self, other: AttentionState) -> AttentionState:
        log_mass = torch.logaddexp(self.log_mass, other.log_mass)
        share = torch.exp(self.log_mass - log_mass).unsqueeze(-1)
        other_share = torch.exp(other.log_mass - log_mass).unsqueeze(-1)
        return AttentionState(log_mass, share * self.mean + other_share * other.mean)


def _by_head(columns: Tensor, heads: int) -> Tensor:
    return columns.view(len(columns), heads, -1)


def _per_head(columns: Tensor, factors: Tensor, out: Tensor) -> Tensor:
    """Each head's columns times its factor: ``(n, heads * a)`` by ``(heads, a, b)`` into ``(n, heads * b)``."""
    heads = len(factors)
    torch.bmm(_by_head(columns, heads).transpose(0, 1), factors, out=_by_head(out, heads).transpose(0, 1))
    return out


def _key_logits(keys: Tensor, projection: Tensor, out: Tensor) -> Tensor:
    """``w_j · k̃ - |k̃|² / 2``: ``(n, heads * dim)`` by ``(heads, features, dim)`` into ``(n, heads * features)``."""
    heads = len(projection)
    half_squares = _by_head(keys.square(), heads).sum(-1, keepdim=True).mul_(0.5)
    _by_head(_per_head(keys, projection.mT, out), heads).sub_(half_squares)
    return out


def _column_major(matrix: Tensor) -> Tensor:
    """The same matrix in the memory order in which BLAS multiplies it 10 to 15 % faster with tall, narrow ones."""
    return matrix.mT.contiguous().mT


def _folded(weight: Tensor, projection: Tensor) -> Tensor:
    """The random features as functions of a token: ``(heads * features, channels)``."""
    by_head = weight.view(len(projection), -1, weight.shape[1])
    return _column_major((projection @ by_head).flatten(0, 1))


def _value_rows(mean: Tensor, value_map: Tensor, bias: Tensor) -> Tensor:
    """Mean tokens through their head's value and output projection: ``(N, heads * features, channels)``.

    Each head's weights sum to one, so the bias can be shared out among the heads here.
    """
    by_head = mean.view(len(mean), len(value_map), -1, mean.shape[2])
    return _column_major((by_head @ value_map + bias / len(value_map)).flatten(1, 2))


def _gather(tokens: Tensor, to_k: Tensor, projection: Tensor, chunk: int) -> AttentionState:
    """First pass, over keys: the state of ``tokens`` ``(N, n, channels)``, as in online softmax."""
    images, n, channels = tokens.shape
    rows = projection.shape[0] * projection.shape[1]
    log_mass, mean = tokens.new_empty(images, rows), tokens.new_zeros(images, channels, rows).mT
    keys_buffer, logits_buffer = (tokens.new_empty(min(chunk, n), width) for width in (channels, rows))
    for i in range(images):
        top, mass, total = tokens.new_full((rows,), -torch.inf), tokens.new_zeros(rows), mean[i]
        for x in torch.split(tokens[i], chunk):
            keys = torch.mm(x, to_k.t(), out=keys_buffer[: len(x)])
            logits = _key_logits(keys, projection, out=logits_buffer[: len(x)])
            new_top = torch.maximum(top, logits.amax(0))
            weights = logits.sub_(new_top).exp_()
            rescale = torch.exp(top - new_top)
            mass.mul_(rescale).add_(weights.sum(0))
            total.mul_(rescale.unsqueeze(1)).addmm_(weights.t(), x)
            top = new_top
        total.div_(mass.unsqueeze(1))
        log_mass[i] = top + mass.log()
    return AttentionState(log_mass, mean)


def _spread(
    tokens: Tensor,
    state: AttentionState,
    to_q: Tensor,
    projection: Tensor,
    value_map: Tensor,
    bias: Tensor,
    chunk: int,
) -> Tensor:
    """Second pass, over queries: the output for ``tokens``, ``(N, n, channels)`` both, given the keys' state."""
    heads = len(projection)
    query_features = _folded(to_q, projection)
    output = torch.empty_like(tokens)
    buffers = tokens.new_empty(2, min(chunk, tokens.shape[1]), len(query_features))
    for i, values in enumerate(_value_rows(state.mean, value_map, bias)):
        for x, y in zip(torch.split(tokens[i], chunk), torch.split(output[i], chunk), strict=True):
            logits, weights = buffers[:, : len(x)]
            torch.mm(x, query_features.t(), out=logits).add_(state.log_mass[i])
            torch.softmax(_by_head(logits, heads), -1, out=_by_head(weights, heads))
            torch.mm(weights, values, out=y)
    return output


def _spread_at_once(
    tokens: Tensor,
    state: AttentionState,
    to_q: Tensor,
    projection: Tensor,
    value_map: Tensor,
    bias: Tensor,
    chunk: int,
) -> Tensor:
    """:func:`_spread` as plain operations on whole tensors; ``chunk`` is not used."""
    logits = tokens @ _folded(to_q, projection).t() + state.log_mass.unsqueeze(1)
    by_head = logits.view(*logits.shape[:2], len(projection), -1)
    weights = torch.softmax(by_head, -1).flatten(2)
    return weights @ _value_rows(state.mean, value_map, bias)


class _StreamedFavor(torch.autograd.Function):
    """Both passes as one differentiable function; going backward recomputes each chunk, nothing is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        to_q: Tensor,
        to_k: Tensor,
        value_map: Tensor,
        bias: Tensor,
        projection: Tensor,
        chunk: int,
    ) -> Tensor:
        state = _gather(tokens, to_k, projection, chunk)
        ctx.chunk = chunk
        ctx.save_for_backward(tokens, to_q, to_k, value_map, bias, projection, state.log_mass, state.mean)
        return _spread(tokens, state, to_q, projection, value_map, bias, chunk)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(d_output.device.type, enabled=False):
            return (*_backward(ctx.chunk, d_output, *ctx.saved_tensors), None, None)


def _backward(
    chunk: int,
    d_output: Tensor,
    tokens: Tensor,
    to_q: Tensor,
    to_k: Tensor,
    value_map: Tensor,
    bias: Tensor,
    projection: Tensor,
    log_mass: Tensor,
    mean: Tensor,
) -> tuple[Tensor, ...]:
    """The gradients of tokens, ``to_q``, ``to_k``, value map and bias; ``d_x`` is the gradient of ``x``."""
    n, channels = tokens.shape[1:]
    heads = len(projection)
    query_features = _folded(to_q, projection)
    d_tokens = torch.empty_like(tokens)
    d_to_q, d_to_k, d_value_map, d_bias = (torch.zeros_like(t) for t in (to_q, to_k, value_map, bias))
    wide = tokens.new_empty(3, min(chunk, n), len(query_features))
    narrow = tokens.new_empty(2, min(chunk, n), channels)

    for i, values in enumerate(_value_rows(mean, value_map, bias)):
        xs, d_ys, d_xs = (torch.split(t[i], chunk) for t in (tokens, d_output, d_tokens))

        d_values, d_log_mass = torch.zeros_like(values), torch.zeros_like(log_mass[i])
        for x, d_y, d_x in zip(xs, d_ys, d_xs, strict=True):
            logits, weights, d_logits = wide[:, : len(x)]
            torch.mm(x, query_features.t(), out=logits).add_(log_mass[i])
            by_head = torch.softmax(_by_head(logits, heads), -1, out=_by_head(weights, heads))
            torch.mm(d_y, values.t(), out=d_logits).mul_(weights)
            d_by_head = _by_head(d_logits, heads)
            d_by_head.addcmul_(by_head, d_by_head.sum(-1, keepdim=True), value=-1)
            d_values.addmm_(weights.t(), d_y)
            d_log_mass.add_(d_logits.sum(0))
            d_queries = _per_head(d_logits, projection, out=narrow[0, : len(x)])
            d_to_q.addmm_(d_queries.t(), x)
            torch.mm(d_queries, to_q, out=d_x)

        d_bias.add_(d_values.sum(0) / heads)
        d_by_head = d_values.view(heads, -1, channels)
        d_value_map.baddbmm_(mean[i].view(heads, -1, channels).mT, d_by_head)
        d_mean = _column_major((d_by_head @ value_map.mT).flatten(0, 1))

        # d_logits = weights * (d_mean · x - d_mean · mean + d_log_mass); only the first term depends on the key.
        shift = d_log_mass - (d_mean * mean[i]).sum(1)
        for x, d_x in zip(xs, d_xs, strict=True):
            keys, d_keys = narrow[:, : len(x)]
            weights, d_logits, _ = wide[:, : len(x)]
            torch.mm(x, to_k.t(), out=keys)
            _key_logits(keys, projection, out=weights).sub_(log_mass[i]).exp_()
            torch.mm(x, d_mean.t(), out=d_logits).add_(shift).mul_(weights)
            _per_head(d_logits, projection, out=d_keys)
            d_half_squares = _by_head(d_logits, heads).sum(-1, keepdim=True)
            _by_head(d_keys, heads).addcmul_(_by_head(keys, heads), d_half_squares, value=-1)
            d_to_k.addmm_(d_keys.t(), x)
            d_x.addmm_(weights, d_mean).addmm_(d_keys, to_k)
    return d_tokens, d_to_q, d_to_k, d_value_map, d_bias


class FavorAttention(nn.Module):
    """Multi-head FAVOR+ self-attention, ``(N, n, channels)`` to the same shape; linear in the tokens ``n``.

    ``features``: positive orthogonal random features per head; with more it comes nearer to softmax attention.
    ``chunk``: tokens per chunk of the streamed passes; changes speed and memory, not the result.

    The random features are the buffer ``projection`` ``(heads, features, channels / heads)``, part of the state
    dict, so that a bundle freezes them. The first draw has a fixed seed; :meth:`redraw` takes the recipe's.
    Computed in float32 at least, also under autocast.
    Raises ``ValueError`` when ``channels`` cannot be split into ``heads``.
    """

    projection: Tensor

    def __init__(self, channels: int, heads: int, features: int, chunk: int = 4096) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be split into {heads} attention heads")
        self.channels, self.heads, self.chunk = channels, heads, chunk
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("projection", draw_features(heads, features, channels // heads, generator))

    def redraw(self, generator: torch.Generator) -> None:
        """Replace the random features by a new draw from ``generator``."""
        heads, features, dim = self.projection.shape
        self.projection.copy_(draw_features(heads, features, dim, generator))

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend among ``tokens`` ``(N, n, channels)``."""
        with torch.autocast(tokens.device.type, enabled=False):
            output: Tensor = _StreamedFavor.apply(  # type: ignore[no-untyped-call]
                _at_least_float32(tokens),
                self._tempered(self.to_q),
                self._tempered(self.to_k),
                self._value_map(),
                self.to_out.bias,
                self.projection,
                self.chunk,
            )
        return output

    @torch.no_grad()
    def state(self, tokens: Tensor) -> AttentionState:
        """What :meth:`read` needs to know of ``tokens`` as keys; states can be added. No gradients."""
        with torch.autocast(tokens.device.type, enabled=False):
            return _gather(_at_least_float32(tokens), self._tempered(self.to_k), self.projection, self.chunk)

    @torch.no_grad()
    def read(self, tokens: Tensor, state: AttentionState) -> Tensor:
        """Attend from ``tokens`` to the keys in ``state``; ``read(x, state(x))`` is ``forward(x)``. No gradients.

        A compiler is shown whole products in place of chunks, since it has its own ways with memory.
        """
        spread = _spread_at_once if torch.compiler.is_compiling() else _spread
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
            log_mass = _gather(tokens, to_k, self.projection, self.chunk).log_mass
            queries = query.to(tokens) @ _folded(self._tempered(self.to_q), self.projection).t()
            share = torch.softmax(_by_head(queries + log_mass, self.heads), -1)
            per_image = []
            for image, mass, a in zip(tokens, log_mass, share, strict=True):
                columns = []
                for x in torch.split(image, self.chunk):
                    logits = _key_logits(x @ to_k.t(), self.projection, out=x.new_empty(len(x), len(mass)))
                    columns.append(torch.einsum("nhf,hf->hn", _by_head(logits.sub_(mass).exp_(), self.heads), a))
                per_image.append(torch.cat(columns, dim=1))
            return torch.stack(per_image)

    def _tempered(self, projection: nn.Linear) -> Tensor:
        """The weight of the query or key projection with its share, ``d^-¼``, of the softmax temperature."""
        return _column_major(projection.weight * self.projection.shape[2] ** -0.25)

    def _value_map(self) -> Tensor:
        """Value and output projection of each head in one, a right factor: ``(heads, channels, channels)``."""
        to_value = self.to_v.weight.view(self.heads, -1, self.channels).mT
        to_output = self.to_out.weight.t().reshape(self.heads, -1, self.channels)
        return to_value @ to_output


class ResidualAttentionBlock(nn.Module):
    """``x + scale * attention(norm(x))`` among each image's pixels: ``(N, C, H, W)`` to the same shape and layout.

    The normalisation is over each pixel's channels (Ba et al. 2016) and so does not depend on the tile; it has no
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
        """The state of one tile's pixels as keys; tiles' states add up to the image's. No gradients."""
        return self.attention.state(self._tokens(x))

    def read(self, x: Tensor, state: AttentionState) -> Tensor:
        """:meth:`forward` with the keys in ``state`` in place of the tile's own. No gradients."""
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
