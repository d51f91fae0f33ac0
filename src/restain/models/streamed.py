"""The two passes of FAVOR+ attention (Choromanski et al., "Rethinking Attention with Performers", ICLR 2021).

Softmax attention weighs the value of key ``k`` for query ``q`` by ``exp(q·k / √d)``. With ``q̃ = q / d^¼``,
``k̃ = k / d^¼`` and Gaussian rows ``w_1 … w_m`` that weight is the mean over draws of ``φ(q̃) · φ(k̃)``, where

    φ_j(x) = exp(w_j · x - |x|² / 2) / √m                        (positive features, Lemma 1)

so that attention becomes ``φ(Q) (φ(K)ᵀ V)``, divided by ``φ(Q) (φ(K)ᵀ 1)``: linear in the number of tokens.
That quotient is two softmaxes, and is computed here as such:

    mean_j = Σ_k softmax_k(w_j · k̃ - |k̃|² / 2) x_k              over the keys, once per feature: the state
    y_q    = Σ_j softmax_j(w_j · q̃ + lse_j) value(mean_j)        over the features, once per query

with ``lse_j = log Σ_k exp(w_j · k̃ - |k̃|² / 2)``; the queries' ``|q̃|² / 2`` and ``√m`` cancel. Each softmax
takes off its own maximum, so nothing overflows and no denominator is below one. The constant that others
add to φ against that (``1e-4`` in performer-pytorch) is not needed; it would bias the result.

What is linear is folded. The query projection goes into the random features, and the value and output projections
act on the ``heads * features`` mean tokens, not on every token; keys are needed as such, for ``|k̃|²``. What is left
per token are a few products, nearly all with all heads side by side, over blocks of images and tokens. On a CPU a block
fits the cache, and no pass holds a tokens × features matrix. On a GPU it fills :data:`DEVICE_BYTES`: a training batch
is one block, so that a pass is a few large kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DEVICE_BYTES = 2**30
"""Memory of a GPU for the tokens × features matrices of a block; on a CPU the recipe's ``attention.chunk`` decides."""


@dataclass(frozen=True)
class AttentionState:
    """The state of a set of keys, which queries read; ``a + b`` is the state of both sets together.

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


def split_heads(columns: Tensor, heads: int) -> Tensor:
    """``(n, heads * a)`` as ``(n, heads, a)``."""
    return columns.view(len(columns), heads, -1)


def per_head(columns: Tensor, factors: Tensor, out: Tensor) -> Tensor:
    """Each head's columns times its factor: ``(n, heads * a)`` by ``(heads, a, b)`` into ``(n, heads * b)``."""
    heads = len(factors)
    torch.bmm(split_heads(columns, heads).transpose(0, 1), factors, out=split_heads(out, heads).transpose(0, 1))
    return out


def key_logits(keys: Tensor, projection: Tensor, out: Tensor) -> Tensor:
    """``w_j · k̃ - |k̃|² / 2``: ``(n, heads * dim)`` by ``(heads, features, dim)`` into ``(n, heads * features)``."""
    heads = len(projection)
    half_squares = split_heads(keys.square(), heads).sum(-1, keepdim=True).mul_(0.5)
    split_heads(per_head(keys, projection.mT, out), heads).sub_(half_squares)
    return out


def column_major(matrix: Tensor) -> Tensor:
    """The same matrix in the memory order in which BLAS multiplies it 10 to 15 % faster with tall, narrow ones."""
    return matrix.mT.contiguous().mT


def folded(weight: Tensor, projection: Tensor) -> Tensor:
    """The random features as functions of a token: ``(heads * features, channels)``."""
    by_head = weight.view(len(projection), -1, weight.shape[1])
    return column_major((projection @ by_head).flatten(0, 1))


def value_rows(mean: Tensor, value_map: Tensor, bias: Tensor) -> Tensor:
    """Mean tokens through their head's value and output projection: ``(N, heads * features, channels)``.

    Each head's weights sum to one, so the bias can be shared out among the heads here.
    """
    by_head = mean.view(len(mean), len(value_map), -1, mean.shape[2])
    return column_major((by_head @ value_map + bias / len(value_map)).flatten(1, 2))


def _blocks(tokens: Tensor, rows: int, matrices: int, chunk: int) -> tuple[int, int]:
    """Images and tokens per block for ``tokens`` ``(N, n, channels)``: several whole images, or a part of one."""
    n = tokens.shape[1]
    if tokens.device.type != "cpu":
        chunk = max(chunk, DEVICE_BYTES // (matrices * rows * tokens.element_size()))
    return max(1, min(len(tokens), chunk // n)), min(chunk, n)


def _parts(images: int, length: int, tensor: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """``(N, n, a)`` in blocks: for each group of images its parts ``(images, length, a)``, which are contiguous."""
    for group in torch.split(tensor, images):
        yield torch.split(group, length, dim=1)


def gather(tokens: Tensor, to_k: Tensor, projection: Tensor, chunk: int) -> AttentionState:
    """First pass, over keys: the state of ``tokens`` ``(N, n, channels)``, as in online softmax."""
    channels = tokens.shape[2]
    rows = projection.shape[0] * projection.shape[1]
    images, length = _blocks(tokens, rows, 1, chunk)
    buffers = [tokens.new_empty(images * length, width) for width in (channels, rows)]
    states = []
    for parts in _parts(images, length, tokens):
        total = tokens.new_zeros(len(parts[0]), channels, rows).mT
        top, mass = tokens.new_full((len(total), 1, rows), -torch.inf), tokens.new_zeros(len(total), 1, rows)
        for x in parts:
            flat = x.flatten(0, 1)
            keys = torch.mm(flat, to_k.t(), out=buffers[0][: len(flat)])
            logits = key_logits(keys, projection, out=buffers[1][: len(flat)]).view(*x.shape[:2], rows)
            new_top = torch.maximum(top, logits.amax(1, keepdim=True))
            weights = logits.sub_(new_top).exp_()
            rescale = torch.exp(top - new_top)
            mass.mul_(rescale).add_(weights.sum(1, keepdim=True))
            total.mul_(rescale.mT).baddbmm_(weights.mT, x)
            top = new_top
        states.append(((top + mass.log()).squeeze(1), total.div_(mass.mT)))
    return AttentionState(*(states[0] if len(states) == 1 else map(torch.cat, zip(*states, strict=True))))


def spread(
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
    query_features = folded(to_q, projection)
    rows = len(query_features)
    images, length = _blocks(tokens, rows, 2, chunk)
    output = tokens.new_empty(tokens.shape)
    buffers = tokens.new_empty(2, images * length, rows)
    values, log_mass = value_rows(state.mean, value_map, bias), state.log_mass.unsqueeze(1)
    groups = zip(_parts(images, length, tokens), _parts(images, length, output), strict=True)
    for number, (xs, ys) in enumerate(groups):
        group = slice(number * images, (number + 1) * images)
        for x, y in zip(xs, ys, strict=True):
            flat = x.flatten(0, 1)
            logits, weights = buffers[:, : len(flat)]
            torch.mm(flat, query_features.t(), out=logits).view(*x.shape[:2], rows).add_(log_mass[group])
            torch.softmax(split_heads(logits, heads), -1, out=split_heads(weights, heads))
            torch.bmm(weights.view(*x.shape[:2], rows), values[group], out=y)
    return output


def attend_at_once(
    tokens: Tensor, to_q: Tensor, to_k: Tensor, value_map: Tensor, bias: Tensor, projection: Tensor
) -> Tensor:
    """Both passes as plain operations on whole tensors, for compilers."""
    heads = len(projection)
    keys = (tokens @ to_k.t()).view(*tokens.shape[:2], heads, -1)
    logits = torch.einsum("nkhd,hfd->nkhf", keys, projection) - keys.square().sum(-1, keepdim=True) / 2
    mean = torch.einsum("nkhf,nkc->nhfc", torch.softmax(logits, 1), tokens).flatten(1, 2)
    queries = (tokens @ folded(to_q, projection).t()).view(*tokens.shape[:2], heads, -1)
    weights = torch.softmax(queries + torch.logsumexp(logits, 1, keepdim=True), -1).flatten(2)
    return weights @ value_rows(mean, value_map, bias)


class StreamedFavor(torch.autograd.Function):
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
        state = gather(tokens, to_k, projection, chunk)
        ctx.chunk = chunk
        ctx.save_for_backward(tokens, to_q, to_k, value_map, bias, projection, state.log_mass, state.mean)
        return spread(tokens, state, to_q, projection, value_map, bias, chunk)

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
    channels = tokens.shape[2]
    heads = len(projection)
    query_features = folded(to_q, projection)
    rows = len(query_features)
    images, length = _blocks(tokens, rows, 3, chunk)
    d_tokens = tokens.new_empty(tokens.shape)
    d_to_q, d_to_k, d_value_map, d_bias = (torch.zeros_like(t) for t in (to_q, to_k, value_map, bias))
    wide = tokens.new_empty(3, images * length, rows)
    narrow = tokens.new_empty(2, images * length, channels)
    every_value, every_log_mass = value_rows(mean, value_map, bias), log_mass.unsqueeze(1)

    parts = (_parts(images, length, t) for t in (tokens, d_output, d_tokens))
    for number, (xs, d_ys, d_xs) in enumerate(zip(*parts, strict=True)):
        group = slice(number * images, (number + 1) * images)
        values, masses, means = every_value[group], every_log_mass[group], mean[group]

        d_values, d_log_mass = torch.zeros_like(values), torch.zeros_like(masses)
        for x, d_y, d_x in zip(xs, d_ys, d_xs, strict=True):
            flat, shape = x.flatten(0, 1), (*x.shape[:2], rows)
            logits, weights, d_logits = wide[:, : len(flat)]
            torch.mm(flat, query_features.t(), out=logits).view(shape).add_(masses)
            by_head = torch.softmax(split_heads(logits, heads), -1, out=split_heads(weights, heads))
            torch.bmm(d_y, values.mT, out=d_logits.view(shape)).mul_(weights.view(shape))
            d_by_head = split_heads(d_logits, heads)
            d_by_head.addcmul_(by_head, d_by_head.sum(-1, keepdim=True), value=-1)
            d_values.baddbmm_(weights.view(shape).mT, d_y)
            d_log_mass.add_(d_logits.view(shape).sum(1, keepdim=True))
            d_queries = per_head(d_logits, projection, out=narrow[0, : len(flat)])
            d_to_q.addmm_(d_queries.t(), flat)
            torch.mm(d_queries, to_q, out=d_x.flatten(0, 1))

        d_bias.add_(d_values.sum((0, 1)) / heads)
        d_by_head = d_values.view(len(values), heads, -1, channels)
        d_value_map.add_((means.view(d_by_head.shape).mT @ d_by_head).sum(0))
        d_mean = column_major((d_by_head @ value_map.mT).flatten(1, 2))

        # d_logits = weights * (d_mean · x - d_mean · mean + d_log_mass); only the first term depends on the key.
        shift = d_log_mass - (d_mean * means).sum(2).unsqueeze(1)
        for x, d_x in zip(xs, d_xs, strict=True):
            flat, shape = x.flatten(0, 1), (*x.shape[:2], rows)
            keys, d_keys = narrow[:, : len(flat)]
            weights, d_logits, _ = wide[:, : len(flat)]
            torch.mm(flat, to_k.t(), out=keys)
            key_logits(keys, projection, out=weights).view(shape).sub_(masses).exp_()
            torch.bmm(x, d_mean.mT, out=d_logits.view(shape)).add_(shift).mul_(weights.view(shape))
            per_head(d_logits, projection, out=d_keys)
            d_half_squares = split_heads(d_logits, heads).sum(-1, keepdim=True)
            split_heads(d_keys, heads).addcmul_(split_heads(keys, heads), d_half_squares, value=-1)
            d_to_k.addmm_(d_keys.t(), flat)
            d_x.baddbmm_(weights.view(shape), d_mean)
            d_x.flatten(0, 1).addmm_(d_keys, to_k)
    return d_tokens, d_to_q, d_to_k, d_value_map, d_bias
