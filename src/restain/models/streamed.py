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
per token are a few products, nearly all with all heads side by side, in chunks that fit the cache: no pass holds a
tokens × features matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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


def gather(tokens: Tensor, to_k: Tensor, projection: Tensor, chunk: int) -> AttentionState:
    """First pass, over keys: the state of ``tokens`` ``(N, n, channels)``, as in online softmax."""
    images, n, channels = tokens.shape
    rows = projection.shape[0] * projection.shape[1]
    log_mass, mean = tokens.new_empty(images, rows), tokens.new_zeros(images, channels, rows).mT
    keys_buffer, logits_buffer = (tokens.new_empty(min(chunk, n), width) for width in (channels, rows))
    for i in range(images):
        top, mass, total = tokens.new_full((rows,), -torch.inf), tokens.new_zeros(rows), mean[i]
        for x in torch.split(tokens[i], chunk):
            keys = torch.mm(x, to_k.t(), out=keys_buffer[: len(x)])
            logits = key_logits(keys, projection, out=logits_buffer[: len(x)])
            new_top = torch.maximum(top, logits.amax(0))
            weights = logits.sub_(new_top).exp_()
            rescale = torch.exp(top - new_top)
            mass.mul_(rescale).add_(weights.sum(0))
            total.mul_(rescale.unsqueeze(1)).addmm_(weights.t(), x)
            top = new_top
        total.div_(mass.unsqueeze(1))
        log_mass[i] = top + mass.log()
    return AttentionState(log_mass, mean)


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
    output = torch.empty_like(tokens)
    buffers = tokens.new_empty(2, min(chunk, tokens.shape[1]), len(query_features))
    for i, values in enumerate(value_rows(state.mean, value_map, bias)):
        for x, y in zip(torch.split(tokens[i], chunk), torch.split(output[i], chunk), strict=True):
            logits, weights = buffers[:, : len(x)]
            torch.mm(x, query_features.t(), out=logits).add_(state.log_mass[i])
            torch.softmax(split_heads(logits, heads), -1, out=split_heads(weights, heads))
            torch.mm(weights, values, out=y)
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
    n, channels = tokens.shape[1:]
    heads = len(projection)
    query_features = folded(to_q, projection)
    d_tokens = torch.empty_like(tokens)
    d_to_q, d_to_k, d_value_map, d_bias = (torch.zeros_like(t) for t in (to_q, to_k, value_map, bias))
    wide = tokens.new_empty(3, min(chunk, n), len(query_features))
    narrow = tokens.new_empty(2, min(chunk, n), channels)

    for i, values in enumerate(value_rows(mean, value_map, bias)):
        xs, d_ys, d_xs = (torch.split(t[i], chunk) for t in (tokens, d_output, d_tokens))

        d_values, d_log_mass = torch.zeros_like(values), torch.zeros_like(log_mass[i])
        for x, d_y, d_x in zip(xs, d_ys, d_xs, strict=True):
            logits, weights, d_logits = wide[:, : len(x)]
            torch.mm(x, query_features.t(), out=logits).add_(log_mass[i])
            by_head = torch.softmax(split_heads(logits, heads), -1, out=split_heads(weights, heads))
            torch.mm(d_y, values.t(), out=d_logits).mul_(weights)
            d_by_head = split_heads(d_logits, heads)
            d_by_head.addcmul_(by_head, d_by_head.sum(-1, keepdim=True), value=-1)
            d_values.addmm_(weights.t(), d_y)
            d_log_mass.add_(d_logits.sum(0))
            d_queries = per_head(d_logits, projection, out=narrow[0, : len(x)])
            d_to_q.addmm_(d_queries.t(), x)
            torch.mm(d_queries, to_q, out=d_x)

        d_bias.add_(d_values.sum(0) / heads)
        d_by_head = d_values.view(heads, -1, channels)
        d_value_map.baddbmm_(mean[i].view(heads, -1, channels).mT, d_by_head)
        d_mean = column_major((d_by_head @ value_map.mT).flatten(0, 1))

        # d_logits = weights * (d_mean · x - d_mean · mean + d_log_mass); only the first term depends on the key.
        shift = d_log_mass - (d_mean * mean[i]).sum(1)
        for x, d_x in zip(xs, d_xs, strict=True):
            keys, d_keys = narrow[:, : len(x)]
            weights, d_logits, _ = wide[:, : len(x)]
            torch.mm(x, to_k.t(), out=keys)
            key_logits(keys, projection, out=weights).sub_(log_mass[i]).exp_()
            torch.mm(x, d_mean.t(), out=d_logits).add_(shift).mul_(weights)
            per_head(d_logits, projection, out=d_keys)
            d_half_squares = split_heads(d_logits, heads).sum(-1, keepdim=True)
            split_heads(d_keys, heads).addcmul_(split_heads(keys, heads), d_half_squares, value=-1)
            d_to_k.addmm_(d_keys.t(), x)
            d_x.addmm_(weights, d_mean).addmm_(d_keys, to_k)
    return d_tokens, d_to_q, d_to_k, d_value_map, d_bias
