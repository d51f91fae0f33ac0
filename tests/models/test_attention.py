"""FAVOR+ attention against softmax attention, against its textbook form and against performer-pytorch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from restain.models.attention import FavorAttention, ResidualAttentionBlock, draw_features
from restain.models.streamed import AttentionState, attend_at_once


def split_heads(attention: FavorAttention, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each ``(N, heads, n, dim)``."""
    projections = (attention.to_q, attention.to_k, attention.to_v)
    q, k, v = (p(tokens).unflatten(-1, (attention.heads, -1)).transpose(1, 2) for p in projections)
    return q, k, v


def join_heads(attention: FavorAttention, attended: Tensor) -> Tensor:
    joined: Tensor = attention.to_out(attended.transpose(1, 2).flatten(2))
    return joined


def exact_softmax_attention(attention: FavorAttention, tokens: Tensor) -> Tensor:
    q, k, v = split_heads(attention, tokens)
    return join_heads(attention, torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1) @ v)


def textbook_features(x: Tensor, projection: Tensor) -> Tensor:
    """Positive random features of Choromanski et al. 2021, Lemma 1: ``(…, dim)`` to ``(…, features)``."""
    x = x / x.shape[-1] ** 0.25
    return torch.exp(x @ projection.mT - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(projection.shape[-2])


def textbook_favor(attention: FavorAttention, tokens: Tensor) -> Tensor:
    """FAVOR+ as in the paper's algorithm 1: with every tokens × features matrix, and without stabilisers."""
    q, k, v = split_heads(attention, tokens)
    phi_q, phi_k = textbook_features(q, attention.projection), textbook_features(k, attention.projection)
    attended = phi_q @ (phi_k.mT @ v) / (phi_q @ phi_k.sum(-2).unsqueeze(-1))
    return join_heads(attention, attended)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention_and_tokens(
    *shape: int, heads: int = 2, features: int = 6, chunk: int = 4096, dtype: torch.dtype = torch.float64
) -> tuple[FavorAttention, Tensor]:
    """Strong enough projections that attention is far from uniform."""
    torch.manual_seed(1)
    attention = FavorAttention(shape[-1], heads, features, chunk).to(dtype)
    with torch.no_grad():
        for projection in (attention.to_q, attention.to_k, attention.to_v):
            projection.weight.mul_(1.4)
    return attention, torch.randn(*shape, generator=seeded(2), dtype=dtype)


# --- the random features


def test_features_are_orthogonal_within_blocks_with_gaussian_lengths() -> None:
    rows = draw_features(heads=300, features=10, dim=4, generator=seeded(0)).double()
    assert rows.shape == (300, 10, 4)
    for block in rows.split(4, dim=1):
        gram = block @ block.mT
        assert (gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))).abs().max() < 1e-5
    squared = rows.square().sum(-1).flatten()  # chi-squared with 4 degrees of freedom: mean 4, variance 8
    assert squared.mean().item() == pytest.approx(4, abs=0.2)
    assert squared.var().item() == pytest.approx(8, abs=1.2)
    second_moment = torch.einsum("hfi,hfj->ij", rows, rows) / 3000
    assert (second_moment - torch.eye(4)).abs().max() < 0.1
    assert rows.mean((0, 1)).abs().max() < 0.08


def test_features_come_from_the_generator_alone() -> None:
    first = draw_features(2, 5, 4, seeded(3))
    torch.manual_seed(99)
    assert torch.equal(first, draw_features(2, 5, 4, seeded(3)))
    assert not torch.equal(first, draw_features(2, 5, 4, seeded(4)))
    assert not torch.equal(first[0], first[1])


def test_kernel_estimate_is_unbiased_over_draws() -> None:
    q = 0.5 * torch.randn(5, 8, generator=seeded(0), dtype=torch.float64)
    k = 0.5 * torch.randn(5, 8, generator=seeded(1), dtype=torch.float64)
    draws = draw_features(20_000, 8, 8, seeded(2)).double()
    estimates = textbook_features(q, draws) @ textbook_features(k, draws).mT
    exact = torch.exp(q @ k.mT / math.sqrt(8))
    standard_error = estimates.std(0) / math.sqrt(len(draws))
    assert (estimates.mean(0) - exact).abs().div(standard_error).max() < 4
    assert (standard_error / exact).max() < 0.02  # the test above would notice a bias of this size


def test_more_features_come_nearer_to_softmax_attention() -> None:
    errors = []
    for features in (8, 64, 512, 4096):
        attention, tokens = attention_and_tokens(1, 60, 8, features=features)
        tokens = tokens * 0.6
        exact = exact_softmax_attention(attention, tokens)
        squares = []
        for seed in range(8):
            attention.redraw(seeded(seed))
            squares.append((attention(tokens) - exact).square().mean())
        errors.append((torch.stack(squares).mean().sqrt() / exact.std()).item())
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[0] > 10 * errors[3]  # about √512 = 23 for 512 times the features
    assert errors[3] < 0.05


# --- the streamed form


@pytest.mark.parametrize("chunk", [1, 7, 32, 4096])
def test_streamed_form_is_the_textbook_form(chunk: int) -> None:
    attention, tokens = attention_and_tokens(3, 50, 8, chunk=chunk)
    torch.testing.assert_close(attention(tokens), textbook_favor(attention, tokens), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [9, 4096])
def test_gradients_are_those_of_the_textbook_form(chunk: int) -> None:
    attention, tokens = attention_and_tokens(2, 31, 12, heads=3, features=5, chunk=chunk)
    tokens.requires_grad_()
    inputs = [tokens, *attention.parameters()]
    direction = torch.randn(2, 31, 12, generator=seeded(5), dtype=torch.float64)
    streamed = torch.autograd.grad(attention(tokens), inputs, direction)
    textbook = torch.autograd.grad(textbook_favor(attention, tokens), inputs, direction)
    for ours, theirs in zip(streamed, textbook, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_gradcheck() -> None:
    attention, tokens = attention_and_tokens(2, 4, 4, features=3, chunk=3)
    names, weights = zip(*attention.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(attention, dict(zip(names, values, strict=True)), x)
        return result

    assert torch.autograd.gradcheck(call, (tokens.requires_grad_(), *weights), fast_mode=True)


@pytest.mark.parametrize("train", [False, True])
def test_agrees_with_performer_pytorch(train: bool) -> None:
    performer = pytest.importorskip("performer_pytorch.performer_pytorch")
    attention, tokens = attention_and_tokens(2, 300, 32, heads=4, features=20, chunk=128, dtype=torch.float32)
    attention.projection[:] = attention.projection[:1].clone()  # performer-pytorch has one draw for all heads
    tokens.requires_grad_(train)

    # Its FastAttention adds 1e-4 to the features, which biases the result; its kernel can be had without.
    q, k, v = split_heads(attention, tokens)
    kernel = {"projection_matrix": attention.projection[0], "eps": 0.0}
    phi_q, phi_k = (performer.softmax_kernel(x, is_query=x is q, **kernel) for x in (q, k))
    theirs = join_heads(attention, performer.linear_attention(phi_q, phi_k, v))
    ours = attention(tokens)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    biased = performer.FastAttention(8, nb_features=20)
    biased.projection_matrix.copy_(attention.projection[0])
    torch.testing.assert_close(ours, join_heads(attention, biased(q, k, v)), rtol=0, atol=0.05)

    if train:
        inputs = [tokens, *attention.parameters()]
        for a, b in zip(
            torch.autograd.grad(ours.square().sum(), inputs),
            torch.autograd.grad(theirs.square().sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item())


def test_whole_products_for_compilers_are_the_streamed_form() -> None:
    attention, tokens = attention_and_tokens(2, 60, 8, chunk=16)
    parts = (attention._tempered(attention.to_q), attention._tempered(attention.to_k), attention._value_map())
    whole = attend_at_once(tokens, *parts, attention.to_out.bias, attention.projection)
    torch.testing.assert_close(whole, attention(tokens))


def test_order_of_keys_does_not_matter() -> None:
    attention, tokens = attention_and_tokens(1, 40, 8, chunk=16)
    shuffled = tokens[:, torch.randperm(40, generator=seeded(3))]
    queries = tokens[:, :5]
    torch.testing.assert_close(
        attention.read(queries, attention.state(tokens)), attention.read(queries, attention.state(shuffled))
    )
    assert not torch.allclose(
        attention.read(queries, attention.state(tokens)),
        attention.read(queries, attention.state(tokens[:, :20])),
    )


def test_chunks_do_not_change_the_result() -> None:
    attention, tokens = attention_and_tokens(2, 1000, 16, features=16, dtype=torch.float32)
    whole = attention(tokens)
    attention.chunk = 129
    torch.testing.assert_close(attention(tokens), whole, rtol=1e-4, atol=1e-5)


def test_same_call_gives_the_same_bits() -> None:
    attention, tokens = attention_and_tokens(2, 500, 16, features=16, chunk=100, dtype=torch.float32)
    results = []
    for _ in range(2):
        x = tokens.clone().requires_grad_()
        y = attention(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *attention.parameters()])))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("strength", [1e-3, 1.0, 30.0, 1e3])
def test_stays_finite_and_exact_for_any_strength_of_tokens(strength: float) -> None:
    attention, tokens = attention_and_tokens(1, 200, 8, chunk=64, dtype=torch.float32)
    tokens = (strength * tokens).requires_grad_()
    result = attention(tokens)
    gradients = torch.autograd.grad(result.sum(), [tokens, *attention.parameters()])
    assert all(t.isfinite().all() for t in (result, *gradients))
    # Without output projection each result is a mean of values, whatever the weights: within their range.
    attention.to_out.weight.data, attention.to_out.bias.data = torch.eye(8), torch.zeros(8)
    values = attention.to_v(tokens)
    result = attention(tokens)
    slack = 1e-4 * values.abs().max()
    assert (result >= values.amin(1, keepdim=True) - slack).all()
    assert (result <= values.amax(1, keepdim=True) + slack).all()


def test_a_very_strong_feature_does_not_silence_the_others() -> None:
    """In float32 a maximum shared by all features would let weak ones underflow; float64 tells the truth."""
    attention, tokens = attention_and_tokens(1, 100, 8, dtype=torch.float32)
    attention.projection[:, 0] *= 8
    doubled = FavorAttention(8, 2, 6).double()
    doubled.load_state_dict(attention.state_dict())
    truth = doubled(tokens.double())
    torch.testing.assert_close(attention(tokens).double(), truth, rtol=1e-3, atol=1e-4)


def test_states_of_tiles_add_up() -> None:
    attention, tokens = attention_and_tokens(2, 60, 8, chunk=16)
    tiles = [attention.state(tile) for tile in tokens.split([13, 20, 27], dim=1)]
    joined = tiles[0] + (tiles[1] + tiles[2])
    assert isinstance(joined, AttentionState)
    torch.testing.assert_close(attention.read(tokens, joined), attention(tokens), rtol=1e-9, atol=1e-9)


def test_state_of_distant_tiles_adds_up_without_overflow() -> None:
    attention, tokens = attention_and_tokens(1, 60, 8, dtype=torch.float32)
    tokens[:, 30:] *= 40
    joined = attention.state(tokens[:, :30]) + attention.state(tokens[:, 30:])
    torch.testing.assert_close(attention.read(tokens, joined), attention(tokens), rtol=1e-3, atol=1e-3)


# --- the modules


def test_channels_must_split_into_heads() -> None:
    with pytest.raises(ValueError, match="10 channels cannot be split into 4 attention heads"):
        FavorAttention(10, 4, 8)


def test_features_are_frozen_in_the_state_dict_until_redrawn() -> None:
    attention, tokens = attention_and_tokens(1, 20, 8)
    attention.redraw(seeded(11))
    copy = FavorAttention(8, 2, 6).double()
    copy.load_state_dict(attention.state_dict())
    torch.testing.assert_close(copy(tokens), attention(tokens))
    copy.redraw(seeded(12))
    assert not torch.allclose(copy(tokens), attention(tokens))
    copy.redraw(seeded(11))
    torch.testing.assert_close(copy(tokens), attention(tokens))


def test_autocast_computes_in_float32() -> None:
    attention, tokens = attention_and_tokens(1, 50, 8, dtype=torch.float32)
    expected = attention(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = attention(tokens.requires_grad_())
        result.sum().backward()
    torch.testing.assert_close(result, expected)
    (gradient,) = torch.autograd.grad(attention(tokens).sum(), tokens)
    torch.testing.assert_close(tokens.grad, gradient)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_block_adds_scaled_attention_and_keeps_the_layout(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    block = ResidualAttentionBlock(8, heads=2, features=6, chunk=20)
    x = torch.randn(2, 8, 5, 7).contiguous(memory_format=memory_format)
    y = block(x)
    assert y.shape == x.shape
    assert y.is_contiguous(memory_format=memory_format)
    tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
    normed = (tokens - tokens.mean(-1, keepdim=True)) / tokens.std(-1, keepdim=True, unbiased=False)
    attended = textbook_favor(block.attention, normed).mT.unflatten(-1, (5, 7))
    torch.testing.assert_close(y, x + 0.1 * attended, rtol=1e-4, atol=1e-5)


def test_block_learns_all_its_parameters() -> None:
    block = ResidualAttentionBlock(8, heads=2, features=6)
    block(torch.randn(1, 8, 6, 6, generator=seeded(0))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


def test_block_on_tiles_with_a_shared_state_gives_the_whole_image() -> None:
    block = ResidualAttentionBlock(8, heads=2, features=6)
    image = torch.randn(1, 8, 12, 20, generator=seeded(0))
    tiles = image.split([6, 9, 5], dim=3)
    state = block.state(tiles[0]) + block.state(tiles[1]) + block.state(tiles[2])
    joined = torch.cat([block.read(tile, state) for tile in tiles], dim=3)
    torch.testing.assert_close(joined, block(image), rtol=1e-4, atol=1e-5)
    alone = torch.cat([block(tile) for tile in tiles], dim=3)
    assert (alone - block(image)).abs().max() > 1e-3


@pytest.mark.parametrize("chunk", [3, 4096])
def test_one_querys_weights_are_those_of_the_dense_features(chunk: int) -> None:
    attention, tokens = attention_and_tokens(2, 11, 8, chunk=chunk)
    q, k, v = split_heads(attention, tokens)
    dense = textbook_features(q, attention.projection) @ textbook_features(k, attention.projection).mT
    dense = dense / dense.sum(-1, keepdim=True)
    weights = attention.weights(tokens, tokens[:, 4])
    torch.testing.assert_close(weights, dense[:, :, 4])
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, dtype=weights.dtype))
    mixed = join_heads(attention, weights.unsqueeze(2) @ v)
    torch.testing.assert_close(mixed[:, 0], attention(tokens)[:, 4])


@pytest.mark.parametrize("exact", [False, True])
def test_a_blocks_weights_explain_its_output(exact: bool) -> None:
    torch.manual_seed(0)
    block = ResidualAttentionBlock(8, 2, 6, exact=exact).double()
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64)
    weights = block.weights(x, 2, 1)
    assert weights.shape == (1, 2, 3, 5)
    values = block.attention.to_v(block._tokens(x)).unflatten(-1, (2, -1)).transpose(1, 2)
    mixed = join_heads(block.attention, weights.flatten(2).unsqueeze(2) @ values)[0, 0]
    torch.testing.assert_close(block(x)[0, :, 2, 1], x[0, :, 2, 1] + block.scale * mixed)
